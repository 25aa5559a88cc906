"""See how a model does: the diagnosis, pictures, the report."""

import json
from pathlib import Path

import click

from backtal.cli.command import Command, thresholds
from backtal.errors import DataError


@click.command(cls=Command)
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder.")
@click.option("--subset", default="test", show_default=True, help="Subset to compare with.")
@click.option("--protocol", help="Thresholds of a benchmark: thumos14, activitynet, hacs, beoid.")
@click.option("--tiou", help="Thresholds as FIRST:LAST:STEP, or one.  [default: 0.5]")
@click.option("--bins", help="DETAD's groups of instances: thumos14 or activitynet.  [default: fifths of DATA]")
@click.option("--model", help="Also measure its top-k frames; DATA needs features.")
@click.option("--figure", type=click.Path(path_type=Path), help="Picture to write (.png, .svg, .pdf).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def diagnose(
    ctx: click.Context,
    predictions: Path,
    data: Path,
    subset: str,
    protocol: str | None,
    tiou: str | None,
    bins: str | None,
    model: str | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Sort errors by kind, and say what each kind costs.

    Also which instances of the ground truth PREDICTIONS miss, by length, share of the video, and number of instances.

    \b
    Examples:
      backtal diagnose predictions.json --data DATA --figure errors.png
      backtal diagnose predictions.json --data DATA --model RUN --json
    """
    from dataclasses import replace

    from backtal.data.datasets import DatasetFolder
    from backtal.evaluation.diagnose import diagnose as diagnose_detections
    from backtal.evaluation.topk import measure_top_frames
    from backtal.nn.pretrained import LocalizationModel
    from backtal.plot import diagnosis_figure, save
    from backtal.segments.segments import read_predictions

    dataset = DatasetFolder(data)
    truth = dataset.annotations.truth(subset)
    found = diagnose_detections(read_predictions(predictions), truth, thresholds(protocol, tiou, "0.5"), bins=bins)
    unread = None
    if model:
        try:
            top_frames = measure_top_frames(LocalizationModel.from_pretrained(model), dataset, truth)
            found = replace(found, top_frames=top_frames)
        except DataError as failure:
            unread = failure
            click.echo(f"backtal diagnose: no top-k frames: {failure}", err=True)
    if figure:
        save(diagnosis_figure(found, title=predictions.name), figure)
    click.echo(json.dumps(found.to_dict() | {"remarks": truth.remarks}, indent=1) if as_json else str(found))
    ctx.exit(2 if unread else 0)


@click.command(cls=Command)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HTML file to write.")
@click.option("--predictions", type=click.Path(path_type=Path), help="What RUN found.  [default: localize now]")
@click.option("--subset", default="test", show_default=True, help="Subset to measure on.")
@click.option("--protocol", help="Thresholds of a benchmark: thumos14, activitynet, hacs, beoid.")
@click.option("--tiou", help="Thresholds as FIRST:LAST:STEP, last included.  [default: 0.1:0.7:0.1]")
@click.option("--f1-score", type=float, default=0.45, show_default=True, help="Least score that counts for F1.")
@click.option("--videos", type=click.Path(path_type=Path), help="Folder of the video files, to link to.")
@click.option("--show", type=click.IntRange(min=0), default=3, show_default=True, help="Worst and best videos to show.")
@click.pass_context
def report(
    ctx: click.Context,
    runs: tuple[str, ...],
    data: Path,
    out: Path,
    predictions: Path | None,
    subset: str,
    protocol: str | None,
    tiou: str | None,
    f1_score: float,
    videos: Path | None,
    show: int,
) -> None:
    """Write one HTML file on a run: numbers, errors, pictures.

    Several runs, of different seeds say, are put side by side; what is shown in detail is the first. A RUN is a run
    folder or a name that `backtal localize --model` takes. A video whose features cannot be read is reported and counts
    as one in which nothing was found, and the exit code is 2 then.

    \b
    Examples:
      backtal report RUN --data DATA --out report.html
      backtal report runs/seed0 runs/seed1 runs/seed2 --data DATA --videos clips --out report.html
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.report import measure, write_report

    tious = thresholds(protocol, tiou, "0.1:0.7:0.1")
    measured = measure(runs, DatasetFolder(data), subset=subset, predictions=predictions, tiou=tious, f1_score=f1_score)
    write_report(measured, out, videos=videos, show=show)
    for reason in measured.failed.values():
        click.echo(f"backtal report: {reason}", err=True)
    click.echo(f"wrote {out}", err=True)
    ctx.exit(2 if measured.failed else 0)


@click.group()
def plot() -> None:
    """Draw pictures.

    The ending of the file, .png, .svg or .pdf, says what is written.

    \b
    backtal plot timeline DATA --model RUN --video NAME --out video.png   one video, over time
    backtal plot affinity DATA --model RUN --video NAME --out alike.png   which frames look alike to the network
    backtal plot training RUN --out loss.png                              the loss over the epochs
    backtal plot curves FOUND.json --data DATA --out curves.png           precision over recall
    """


_MODEL = click.option("--model", "names", multiple=True, required=True, help="Run folder or name. Repeatable.")
_OUT = click.option("--out", required=True, type=click.Path(path_type=Path), help="Picture to write.")
_DATA = click.argument("data", type=click.Path(path_type=Path))


@plot.command("timeline", cls=Command)
@_DATA
@_MODEL
@click.option("--video", help="Name of the video, where DATA is a folder.")
@click.option("--clicks", multiple=True, help="Click file to show. Repeatable.")
@click.option("--frames", "film", type=click.Path(path_type=Path), help="The video's file, to show pictures of it.")
@click.option("--least-score", type=float, default=0.2, show_default=True, help="Leave weaker segments out.")
@_OUT
def timeline(
    data: Path,
    names: tuple[str, ...],
    video: str | None,
    clicks: tuple[str, ...],
    film: Path | None,
    least_score: float,
    out: Path,
) -> None:
    """Draw a video: truth, clicks, and what each model finds.

    DATA is a dataset folder, or the feature file of a video that is in none.

    \b
    Examples:
      backtal plot timeline DATA --model RUN --video day39 --clicks me.txt --out day39.png
      backtal plot timeline new/day40.npz --model RUN --frames day40.mp4 --out day40.png
    """
    from functools import partial

    from backtal.data.datasets import DatasetFolder
    from backtal.data.features import read_features
    from backtal.nn.pretrained import LocalizationModel
    from backtal.plot import save, timeline_of_features, timeline_of_video
    from backtal.video import Video, opens_as_video

    if data.is_file():
        if video or clicks:
            raise click.UsageError(f"{data} is one video: --video and --clicks need a dataset folder")
        if opens_as_video(data):
            raise DataError(f"{data}: a video; draw its features (`backtal extract`), with --frames {data}")
        features = read_features(data)
        duration, draw = features.axis.duration, partial(timeline_of_features, features)
    else:
        dataset = DatasetFolder(data)
        if video is None:
            raise click.UsageError("--video is missing: which video of the folder?")
        shown = dataset.annotations.video(video)
        track = dataset.clicks(dataset.click_files(clicks)).get(video) if clicks else None
        duration, draw = shown.duration, partial(timeline_of_video, shown, dataset, clicks=track)
    models = {name: LocalizationModel.from_pretrained(name) for name in names}
    frames = None
    if film:
        fps = 20 / duration
        frames = [(index / fps, picture) for index, picture in enumerate(Video(film, fps, size=120, keep_damaged=True))]
    save(draw(models, frames=frames, least_score=least_score), out)


@plot.command("affinity", cls=Command)
@_DATA
@click.option("--model", "name", required=True, help="Run folder or name.")
@click.option("--video", required=True, help="Name of the video.")
@click.option(
    "--second", "seconds", type=float, multiple=True, help="Frame to compare with its neighbours. Repeatable."
)
@click.option("--neighbours", type=int, default=31, show_default=True, help="How many frames to compare with, odd.")
@_OUT
def affinity(data: Path, name: str, video: str, seconds: tuple[float, ...], neighbours: int, out: Path) -> None:
    """Draw how alike the network finds a frame and its neighbours."""
    from backtal.data.datasets import DatasetFolder
    from backtal.nn.pretrained import LocalizationModel
    from backtal.plot import affinity_of_video, save

    dataset = DatasetFolder(data)
    model, shown = LocalizationModel.from_pretrained(name), dataset.annotations.video(video)
    save(affinity_of_video(shown, dataset, model, seconds or None, neighbours=neighbours), out)


@plot.command("training", cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@_OUT
def training(run: Path, out: Path) -> None:
    """Draw the loss of RUN and its terms over the epochs."""
    from backtal.plot import save, training_curves
    from backtal.training.folder import LOG_FILE

    save(training_curves(run / LOG_FILE, title=run.name), out)


@plot.command("curves", cls=Command)
@click.argument("predictions", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder.")
@click.option("--subset", default="test", show_default=True, help="Subset to compare with.")
@click.option("--tiou", type=float, help="Precision over recall at this threshold.  [default: mAP over all thresholds]")
@click.option("--label", "labels", multiple=True, help="Also draw this class alone. Repeatable.")
@_OUT
@click.pass_context
def curves(
    ctx: click.Context,
    predictions: tuple[Path, ...],
    data: Path,
    subset: str,
    tiou: float | None,
    labels: tuple[str, ...],
    out: Path,
) -> None:
    """Draw mAP over tIoU, or with --tiou precision over recall.

    PREDICTIONS are one file or several, each a curve. A file that cannot be read or does not fit is reported and left
    out, and the exit code is 2 then.
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.evaluation.evaluate import evaluate
    from backtal.files import spelling
    from backtal.plot import map_over_tiou, precision_recall, save
    from backtal.segments.segments import read_predictions

    truth = DatasetFolder(data).annotations.truth(subset)
    found, failed = {}, list[DataError]()
    for path in predictions:
        try:
            found[path.stem if path.stem not in found else str(path)] = truth.judged(read_predictions(path))
        except DataError as failure:
            failed.append(failure if str(failure).startswith(str(path)) else DataError(f"{path}: {failure}"))
    if not found:
        raise DataError("; ".join(map(str, failed)))
    for failure in failed:
        click.echo(f"backtal plot curves: {failure}", err=True)
    if tiou is None:
        tious = thresholds(None, None, "0.1:0.9:0.1")
        save(map_over_tiou({name: evaluate(videos, truth, tious) for name, videos in found.items()}), out)
    else:
        chosen = list(map(spelling(truth.labels), labels))
        save(precision_recall(found, truth, tiou=tiou, labels=chosen), out)
    ctx.exit(2 if failed else 0)
