"""Train a model, use it, and see how well it does."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backtal.cli.command import Command, read_labels, thresholds
from backtal.errors import ConfigError, DataError, name_some

if TYPE_CHECKING:
    from backtal.nn.many import Entry


@click.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write the run to.")
@click.option(
    "--recipe",
    "recipe_name",
    default="detector",
    show_default=True,
    help="Named settings, see `backtal recipes`.",
)
@click.option("--clicks", multiple=True, help="Click file: a path, or a name in DATA/clicks. Repeatable.")
@click.option("--video-labels-only", is_flag=True, help="Use no clicks: the paper's baseline.")
@click.option("--full-labels", is_flag=True, help="Read start and end of every training video. Recipe detector.")
@click.option(
    "--segments",
    type=click.Path(path_type=Path),
    help="Text file of the training videos, one a line, whose start and end to read. Recipe detector.",
)
@click.option("--unlabelled", metavar="SUBSET", help="Also learn from videos without any label. Recipe detector.")
@click.option("--subset", default="training", show_default=True, help="Subset of DATA to train on.")
@click.option("--seed", type=int, default=None, help="Seed of weights, order and dropout.  [default: 0]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting of those that `backtal recipes NAME` prints. Repeatable.",
)
@click.option("--resume", is_flag=True, help="Continue the run in --out if there is one.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "auto"]),
    default="auto",
    show_default=True,
    help="auto: a GPU where there is one.",
)
def train(
    data: Path,
    out: Path,
    recipe_name: str,
    clicks: tuple[str, ...],
    video_labels_only: bool,
    full_labels: bool,
    segments: Path | None,
    unlabelled: str | None,
    subset: str,
    seed: int | None,
    settings: tuple[str, ...],
    resume: bool,
    device: str,
) -> None:
    """Train on the dataset folder DATA.

    \b
    Examples:
      backtal train DATA --out RUN --clicks A1.txt
      backtal train DATA --out RUN --recipe thumos14 --seed 1 --set epochs=20
      backtal train DATA --out RUN --recipe detector --full-labels
      backtal train DATA --out RUN --resume
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.settings.presets import recipe
    from backtal.settings.presets import video_labels_only as without_clicks
    from backtal.training.examples import TrainingSet
    from backtal.training.train import fit

    chosen = recipe(recipe_name)
    if video_labels_only:
        if clicks:
            raise DataError("--clicks and --video-labels-only exclude each other")
        chosen = without_clicks(chosen)
    chosen = chosen.with_settings([*settings, *([] if seed is None else [f"training.seed={seed}"])])
    if chosen.architecture == "backtal" and (full_labels or segments or unlabelled):
        raise DataError(
            f"recipe {chosen.name!r} learns from clicks and video labels alone; --full-labels, --segments and "
            "--unlabelled need --recipe detector"
        )
    folder = DatasetFolder(data)
    if full_labels and segments:
        raise DataError("--full-labels and --segments exclude each other")
    located = [v.video_id for v in folder.annotations.subset(subset)] if full_labels else read_labels(segments) or ()
    no_clicks = video_labels_only or (full_labels and not clicks)
    training_set = TrainingSet(
        folder,
        subset,
        None if no_clicks else folder.clicks(folder.click_files(clicks)),
        chosen.model,
        allow_unclicked=chosen.training.allow_unclicked,
        located=located,
        unlabelled=unlabelled,
    )
    fit(training_set, chosen, out, resume=resume, device=None if device == "auto" else device)
    click.echo(f"wrote {out}", err=True)


@click.command(cls=Command)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model",
    "names",
    required=True,
    multiple=True,
    help="A run folder, a name (shrec22) or owner/name on the Hub. Repeated: their mean probabilities.",
)
@click.option("--subset", default="test", show_default=True, help="Subset of a dataset folder.")
@click.option("--ignore-spec", multiple=True, metavar="FIELD", help="Field of the feature spec that may differ.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Predictions file to write (JSON).")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one localization setting.")
@click.option("--extractor", "extractor_name", help="For videos.  [default: the one the checkpoint names]")
@click.option(
    "--weights", multiple=True, type=click.Path(path_type=Path), help="The extractor's state dict; i3d: RGB, then flow."
)
@click.option("--keep-damaged", is_flag=True, help="Use what can be decoded of damaged videos.")
@click.option("--bf16", is_flag=True, help="Compute in bfloat16.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that share the work.")
@click.option("--resume", is_flag=True, help="Go on with a run that was cut off.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--actors", type=click.IntRange(min=1), default=1, show_default=True, help="Copies of the network (ray).")
@click.pass_context
def localize(
    ctx: click.Context,
    inputs: tuple[Path, ...],
    names: tuple[str, ...],
    subset: str,
    ignore_spec: tuple[str, ...],
    out: Path,
    settings: tuple[str, ...],
    extractor_name: str | None,
    weights: tuple[Path, ...],
    keep_damaged: bool,
    bf16: bool,
    jobs: int,
    resume: bool,
    engine: str,
    actors: int,
) -> None:
    """Find the actions in datasets, feature files or videos.

    INPUTS are dataset folders, feature files (.npz), videos, or folders of either; no two videos of one name. A file
    that cannot be read is reported and skipped, and the exit code is 2 then. Results lie in OUT.part, one line of JSON
    each, until all are found; if OUT ends in .jsonl, it has such lines too.

    \b
    Examples:
      backtal localize DATA --model RUN --out predictions.json
      backtal localize DATA --model RUN1 --model RUN2 --out predictions.json
      backtal localize video.mp4 --model RUN --out predictions.json
      backtal localize a.npz b.npz --model RUN --out predictions.json --set min_score=0.1
      backtal localize FEATURES --model RUN --out predictions.jsonl --jobs 8 --resume
    """
    from backtal.files import progress
    from backtal.nn.many import Entry, Localizer, groups_of, localize_groups, localize_on_ray
    from backtal.segments.growing import GrowingPredictions
    from backtal.segments.segments import Localization
    from backtal.video import opens_as_video

    if out.is_dir():
        raise DataError(f"{out}: is a folder; --out names the predictions file to write")
    videos: dict[str, tuple[Path, Entry]] = {}
    failed = list[Exception]()
    for given in inputs:
        try:
            listed = list(_videos(given, subset))
        except (DataError, OSError) as failure:
            failed.append(failure)
            continue
        for place, entry in listed:
            if entry.name in videos:
                other = videos[entry.name][0]
                raise DataError(f"{other} and {place} both hold video {entry.name}; localize them one by one")
            videos[entry.name] = place, entry
    if not videos:
        raise DataError("; ".join(map(str, failed)))
    job = Localizer(names, settings, ignore_spec, bf16, (extractor_name, weights), keep_damaged)
    loaded = job.load()
    films = [name for name, (_, entry) in videos.items() if opens_as_video(entry.path)]
    if films:
        try:
            loaded.extractor()
        except ConfigError as failure:
            if len(films) == len(videos):
                raise
            failed.append(DataError(f"{name_some(films)}: {failure}"))
            videos = {name: video for name, video in videos.items() if name not in set(films)}
    made = {"weights": loaded.digest(), "settings": settings, "bf16": bf16, "extractor": extractor_name}
    growing = GrowingPredictions(
        out, made | {"videos": hashlib.sha256("\n".join(videos).encode()).hexdigest()}, resume=resume
    )
    groups = [
        group for group in groups_of([entry for _, entry in videos.values()]) if not growing.has(e.name for e in group)
    ]
    if engine == "ray":
        found = localize_on_ray(loaded, groups, actors=actors)
    else:
        found = localize_groups(loaded, groups, min(jobs, max(1, len(groups))))

    def kept() -> Iterator[Localization | Exception]:
        for group in found:
            growing.add([result for _, result in group if isinstance(result, Localization)])
            yield from (result for _, result in group)

    for result in progress(kept(), total=sum(map(len, groups)), desc="localizing", unit="video"):
        if isinstance(result, Exception):
            failed.append(result)
    for failure in failed:
        click.echo(f"backtal localize: {failure}", err=True)
    if growing.done:
        count = growing.finish()
        click.echo(f"wrote {out}: {count} segments in {len(growing.done)} videos", err=True)
    else:
        growing.part.unlink()
    ctx.exit(2 if failed else 0)


@click.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", "run", required=True, type=click.Path(path_type=Path), help="A folder that `train` wrote.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the tuned copy of the model.")
@click.option("--clicks", multiple=True, help="Click file: a path, or a name in DATA/clicks. Repeatable.")
@click.option("--subset", default="training", show_default=True, help="Subset that the model was trained on.")
@click.option("--folds", type=click.IntRange(min=2), default=2, show_default=True, help="Parts left out in turn.")
@click.option("--trials", type=click.IntRange(min=1), default=100, show_default=True, help="Settings to try.")
@click.option(
    "--kernel-size",
    "kernel_sizes",
    type=int,
    multiple=True,
    help="Try networks in which a frame looks at so many snippets. Repeatable.  [default: half and twice the model's]",
)
def tune(
    data: Path,
    run: Path,
    out: Path,
    clicks: tuple[str, ...],
    subset: str,
    folds: int,
    trials: int,
    kernel_sizes: tuple[int, ...],
) -> None:
    """Choose settings for a model by clicks and video labels.

    Trains the same recipe again without each part of the training videos, and judges settings by what these networks
    say of the part: first how many snippets a frame looks at, then how segments are made. Start and end of actions are
    not read. Takes about three times as long as the training; stopped, the same command goes on.

    \b
    Examples:
      backtal tune DATA --model RUN --out TUNED --clicks A1.txt
      backtal tune DATA --model RUN --out TUNED --kernel-size 5 --kernel-size 17 --kernel-size 33
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.files import read_json
    from backtal.nn.pretrained import LocalizationModel
    from backtal.settings.architectures import read_recipe
    from backtal.training.examples import TrainingSet
    from backtal.training.folder import RECIPE_FILE
    from backtal.training.train import fit
    from backtal.training.tune import tune as find_settings

    settings = read_json(run / RECIPE_FILE, ConfigError)
    settings.pop("data", None)
    recipe = read_recipe(settings, str(run / RECIPE_FILE))
    model = LocalizationModel.from_pretrained(run)
    folder = DatasetFolder(data)
    tracks = folder.clicks(folder.click_files(clicks))
    found = find_settings(
        folder, subset, tracks, recipe, out / "folds", folds=folds, trials=trials, kernel_sizes=kernel_sizes or None
    )
    chosen = found.recipe
    if chosen.model != recipe.model:
        allow = recipe.training.allow_unclicked
        model = fit(TrainingSet(folder, subset, tracks, chosen.model, allow_unclicked=allow), chosen, out, resume=True)
    else:
        model.localization = chosen.localization
        model.save_pretrained(out)
    changed = {
        field.name: getattr(after, field.name)
        for before, after in ((recipe.model, chosen.model), (recipe.localization, chosen.localization))
        for field in fields(after)
        if getattr(after, field.name) != getattr(before, field.name)
    }
    result = {"agreement": found.agreement, "before": found.before, "trials": found.trials, "changed": changed}
    if found.kernel_sizes:
        result["kernel_sizes"] = found.kernel_sizes
    click.echo(json.dumps(result, indent=1))


def _videos(path: Path, subset: str) -> Iterator[tuple[Path, "Entry"]]:
    """What to localize: each video of a dataset folder's subset, the videos or features of another folder, or one file.

    Of each the file or dataset folder, and what is known of it.
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.files import npz_files
    from backtal.nn.many import Entry
    from backtal.video import videos_of

    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        yield path, Entry(path.stem, path)
    elif (path / "annotations.json").exists():
        folder = DatasetFolder(path)
        for video in folder.annotations.subset(subset):
            yield path, Entry(video.video_id, folder.feature_path(video), video.duration, video.num_frames)
    else:
        films = videos_of(path)
        if (path / "features").is_dir():
            films = {film: name for film, name in films.items() if film.parent == path}
        features = npz_files(path / "features" if (path / "features").is_dir() else path)
        if bool(films) == bool(features):
            held = "videos and feature files: name those that are meant" if films else "neither video nor feature file"
            raise DataError(f"{path}: is no dataset folder, as it has no annotations.json, and holds {held}")
        yield from ((film, Entry(name, film)) for film, name in films.items())
        yield from ((file, Entry(name, file)) for name, file in features.items())


@click.command(cls=Command)
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder.")
@click.option("--subset", default="test", show_default=True, help="Subset to compare with.")
@click.option("--protocol", "protocol_name", help="Thresholds of a benchmark: thumos14, activitynet, hacs, beoid.")
@click.option("--tiou", help="Thresholds as FIRST:LAST:STEP, last included.  [default: 0.1:0.7:0.1]")
@click.option("--f1-score", type=float, default=0.45, show_default=True, help="Least score that counts for F1.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    predictions: Path,
    data: Path,
    subset: str,
    protocol_name: str | None,
    tiou: str | None,
    f1_score: float,
    as_json: bool,
) -> None:
    """Compare predictions with the ground truth: mAP and F1.

    \b
    Examples:
      backtal evaluate predictions.json --data DATA
      backtal evaluate predictions.json --data DATA --protocol thumos14 --json
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.evaluation.evaluate import evaluate as evaluate_detections
    from backtal.segments.segments import read_predictions

    tious = thresholds(protocol_name, tiou, "0.1:0.7:0.1")
    truth = DatasetFolder(data).annotations.truth(subset)
    report = evaluate_detections(read_predictions(predictions), truth, tious, f1_score=f1_score)
    settings = {"protocol": protocol_name, "subset": subset}
    by_protocol = f", thresholds of the protocol {protocol_name}" if protocol_name else ""
    text = f"{report}\nsubset {subset}{by_protocol}"
    found = settings | report.to_dict() | {"remarks": truth.remarks}
    click.echo(json.dumps(found, indent=1) if as_json else text)
