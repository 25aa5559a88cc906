"""Take models and predictions elsewhere."""

from pathlib import Path

import click

from backtal.cli.command import Command


@click.command(cls=Command)
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write: .onnx or .pt2.")
@click.option("--format", "form", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True)
def export(model: str, out: Path, form: str) -> None:
    """Write the network of MODEL as an ONNX or torch.export graph.

    It runs without backtal, for any batch size and length. The file is run on random videos and compared with PyTorch;
    stderr says how far apart they are. What goes in and comes out: the documentation of `backtal.interop.export`.

    \b
    Examples:
      backtal export RUN --out model.onnx
      backtal export shrec22 --format torch --out model.pt2
    """
    from backtal.interop.export import export as write
    from backtal.nn.pretrained import LocalizationModel

    written = write(LocalizationModel.from_pretrained(model), out, form)
    click.echo(f"wrote {out}; greatest difference from PyTorch {written.difference:.1e}", err=True)


@click.command(cls=Command)
@click.argument("found", metavar="FOUND.json", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["activitynet", "csv", "label-studio", "boris", "elan"]), required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write; for elan a folder.")
@click.option("--least-score", type=float, default=None, help="Leave weaker segments out.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Dataset folder: durations, frame rates, labels.  [label-studio, boris]",
)
@click.option(
    "--url",
    help="Where a video lies, {video} standing for its name.  [default: {video}.mp4; label-studio: "
    "/data/local-files/?d={video}.mp4]",
)
def predictions(
    form: str, found: Path, out: Path, least_score: float | None, data: Path | None, url: str | None
) -> None:
    """Convert predictions for other programs.

    FOUND.json is what `backtal localize` wrote. For Label Studio, OUT holds the tasks, and OUT with the ending .xml the
    labelling configuration of the project. For BORIS, OUT is a project; for ELAN, a folder of one document for each
    video. Both are edited where they lie, so that files that are there are never replaced. What was corrected there
    comes back with `backtal dataset import`.

    \b
    Examples:
      backtal predictions found.json --to csv --out found.csv
      backtal predictions found.json --to activitynet --least-score 0.3 --out strong.json
      backtal predictions found.json --to label-studio --data DATA --least-score 0.3 --out tasks.json
      backtal predictions found.json --to boris --data DATA --url videos/{video}.mp4 --out review.boris
      backtal predictions found.json --to elan --url /films/{video}.mp4 --out review
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.errors import DataError
    from backtal.files import write_json, write_text
    from backtal.segments.predictions import label_studio_config, label_studio_tasks, write_csv
    from backtal.segments.review import boris_project, write_elan
    from backtal.segments.segments import read_predictions, write_predictions

    videos = read_predictions(found)
    total = sum(map(len, videos))
    videos = videos if least_score is None else [video.above(least_score) for video in videos]
    if form in ("label-studio", "boris") and data is None:
        raise DataError(f"--to {form} needs --data: it asks for frame rates, which the dataset knows")
    place = url or ("/data/local-files/?d={video}.mp4" if form == "label-studio" else "{video}.mp4")
    urls = {video.video_id: place.replace("{video}", video.video_id) for video in videos}
    annotations = DatasetFolder(data).annotations if data else None
    if form in ("activitynet", "csv"):
        (write_csv if form == "csv" else write_predictions)(out, videos)
    elif form == "elan":
        write_elan(out, videos, urls)
    elif annotations and form == "boris":
        if out.exists():
            raise DataError(f"{out}: already there, and may have been edited; choose another name")
        durations = {name: video.duration for name, video in annotations.videos.items()}
        write_json(out, boris_project(videos, urls, durations, annotations.frame_rates, annotations.labels))
    elif annotations:
        rates = {name: video.frame_rate or 0.0 for name, video in annotations.videos.items()}
        write_json(out, label_studio_tasks(videos, urls, rates))
        write_text(out.with_suffix(".xml"), label_studio_config(annotations.labels) + "\n")
    weaker = total - (kept := sum(map(len, videos)))
    left = f"; {weaker} weaker ones are left out" if weaker else ""
    click.echo(f"wrote {out}: {kept} segments in {len(videos)} videos{left}", err=True)
