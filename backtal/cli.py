"""The command line: one short handler per command."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from backtal import __version__
from backtal.errors import BackTALError, DataError


class _Command(click.Command):
    """A command whose errors are one line on stderr: exit code 2 for bad input, 1 for a failure."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BackTALError as failure:
            click.echo(f"backtal {self.name}: {failure}", err=True)
            ctx.exit(2)
        except OSError as failure:
            click.echo(f"backtal {self.name}: {failure}", err=True)
            ctx.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    r"""Temporal action localization from background clicks.

    \b
    backtal demo                                       everything once, on synthetic data
    backtal train DATA --out RUN                       learn from video labels and clicks
    backtal localize DATA --model RUN --out FOUND.json find the actions
    backtal evaluate FOUND.json --data DATA            compare with the ground truth
    backtal dataset check DATA                         what is missing, what does not line up
    """


def _command(function: Callable) -> click.Command:
    return main.command(cls=_Command)(function)


@_command
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write the run to.")
@click.option("--recipe", "recipe_name", default="compact", show_default=True, help="Named settings.")
@click.option("--clicks", multiple=True, help="Click file: a path, or a name in DATA/clicks. Repeatable.")
@click.option("--video-labels-only", is_flag=True, help="Use no clicks: the paper's baseline.")
@click.option("--subset", default="training", show_default=True, help="Subset of DATA to train on.")
@click.option("--seed", type=int, default=None, help="Seed of weights, order and dropout.  [default: 0]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting. Repeatable.")
@click.option("--resume", is_flag=True, help="Continue the run in --out if there is one.")
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
def train(
    data: Path,
    out: Path,
    recipe_name: str,
    clicks: tuple[str, ...],
    video_labels_only: bool,
    subset: str,
    seed: int | None,
    settings: tuple[str, ...],
    resume: bool,
    device: str,
) -> None:
    r"""Train on the dataset folder DATA.

    \b
    Examples:
      backtal train DATA --out RUN --clicks A1.txt
      backtal train DATA --out RUN --recipe thumos14 --seed 1 --set epochs=20
      backtal train DATA --out RUN --resume
    """
    from backtal.datasets import DatasetFolder, TrainingSet
    from backtal.presets import recipe
    from backtal.presets import video_labels_only as without_clicks
    from backtal.train import fit

    chosen = recipe(recipe_name)
    if video_labels_only:
        if clicks:
            raise DataError("--clicks and --video-labels-only exclude each other")
        chosen = without_clicks(chosen)
    chosen = chosen.with_settings([*settings, *([] if seed is None else [f"training.seed={seed}"])])
    folder = DatasetFolder(data)
    tracks = None if video_labels_only else folder.clicks(folder.click_files(clicks))
    training_set = TrainingSet(folder, subset, tracks, chosen.model, allow_unclicked=chosen.training.allow_unclicked)
    fit(training_set, chosen, out, resume=resume, device=None if device == "auto" else device)
    click.echo(f"wrote {out}", err=True)


@_command
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "model_name", required=True, help="A run folder, a name (shrec22) or owner/name on the Hub.")
@click.option("--subset", default="test", show_default=True, help="Subset of a dataset folder.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Predictions file to write (JSON).")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one localization setting.")
def localize(inputs: tuple[Path, ...], model_name: str, subset: str, out: Path, settings: tuple[str, ...]) -> None:
    r"""Find the actions in INPUTS: dataset folders or feature files (.npz).

    \b
    Examples:
      backtal localize DATA --model RUN --out predictions.json
      backtal localize a.npz b.npz --model RUN --out predictions.json --set nms_threshold=0.4
    """
    from backtal.config import Recipe
    from backtal.files import progress
    from backtal.model import BackTALModel
    from backtal.segments import write_predictions

    model = BackTALModel.from_pretrained(model_name)
    changed = Recipe(model=model.config, localization=model.localization).with_settings(settings)
    if changed.model != model.config:
        raise DataError("--set: only localization settings can change here; the network is the checkpoint's")
    model.localization = changed.localization
    videos = [video for path in inputs for video in _videos(path, subset)]
    found = [model.localize(read()) for read in progress(videos, desc="localizing", unit="video")]
    write_predictions(out, found)
    click.echo(f"wrote {out}: {sum(map(len, found))} segments in {len(found)} videos", err=True)


def _videos(path: Path, subset: str) -> Iterator[Callable]:
    """What to read: each video of a dataset folder's subset, or one feature file."""
    from backtal.datasets import DatasetFolder
    from backtal.features import read_features

    if path.is_dir():
        folder = DatasetFolder(path)
        yield from ((lambda video=video: folder.features(video)) for video in folder.annotations.subset(subset))
    else:
        yield lambda: read_features(path)


@_command
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
    r"""Compare PREDICTIONS with the ground truth: mean average precision and segment F1.

    \b
    Examples:
      backtal evaluate predictions.json --data DATA
      backtal evaluate predictions.json --data DATA --protocol thumos14 --json
    """
    from backtal.datasets import DatasetFolder
    from backtal.evaluate import evaluate as evaluate_detections
    from backtal.presets import protocol, tiou_range
    from backtal.segments import read_predictions

    if protocol_name and tiou:
        raise DataError("--protocol and --tiou exclude each other")
    thresholds = protocol(protocol_name) if protocol_name else tiou_range(tiou or "0.1:0.7:0.1")
    truth = [video.ground_truth for video in DatasetFolder(data).annotations.subset(subset)]
    report = evaluate_detections(read_predictions(predictions), truth, thresholds, f1_score=f1_score)
    if report.unknown_videos:
        click.echo(f"{len(report.unknown_videos)} predicted videos are not in subset {subset!r}", err=True)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else str(report))


@main.group()
def dataset() -> None:
    r"""Check a dataset, or convert one from another project's layout.

    \b
    backtal dataset check DATA                            what is missing, what does not line up
    backtal dataset convert SRC DST --layout actionformer write our dataset folder
    """


@dataset.command(cls=_Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--clicks", multiple=True, help="Click file: a path, or a name in DATA/clicks. Repeatable. [default: all]"
)
@click.option("--features/--no-features", default=True, help="Also read the features.  [default: yes]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every video named.")
@click.pass_context
def check(ctx: click.Context, data: Path, clicks: tuple[str, ...], features: bool, as_json: bool) -> None:
    r"""Report what is missing in DATA, what does not line up, and what to do about it.

    Exit code 2 where something stops training or localization, 0 otherwise, warnings or not.

    \b
    Examples:
      backtal dataset check DATA
      backtal dataset check DATA --clicks A1.txt --clicks A2.txt --no-features --json
    """
    from backtal.check import check_dataset
    from backtal.datasets import DatasetFolder

    report = check_dataset(DatasetFolder(data), clicks, features=features)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else str(report))
    ctx.exit(2 if report.broken else 0)


@dataset.command("convert", cls=_Command)
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("out", metavar="DST", type=click.Path(path_type=Path))
@click.option("--layout", required=True, help="released, basnet, lacp, hrpro, actionformer, opentad, wtalc or sfnet.")
@click.option("--annotations", type=click.Path(path_type=Path), help="Annotation file, where not at its usual place.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one per line, in the order of indices.")
@click.option("--clicks", multiple=True, type=click.Path(path_type=Path), help="Click file to add. Repeatable.")
@click.option("--fps", type=float, help="Frames per second that the extractor saw.")
@click.option("--stride", type=int, help="Frames from one snippet to the next.")
@click.option("--window", type=int, help="Frames that one snippet looks at.")
@click.option("--prefix", default="", help="What file names have before the video's name, or the joint file's name.")
@click.option("--skip-missing", is_flag=True, help="Leave out videos without features.")
@click.option("--half", is_flag=True, help="Store features as float16.")
def convert_layout(
    source: Path,
    out: Path,
    layout: str,
    annotations: Path | None,
    labels: Path | None,
    clicks: tuple[Path, ...],
    skip_missing: bool,
    half: bool,
    **numbers: Any,
) -> None:
    r"""Write the dataset SRC, stored in another project's layout, as our dataset folder DST.

    Stopped, the same command goes on where it was. The result is checked as by `backtal dataset check`.

    \b
    Examples:
      backtal dataset convert THUMOS14 DATA --layout lacp --clicks A1.txt
      backtal dataset convert data/thumos DATA --layout actionformer --stride 4 --window 16
    """
    from backtal.check import check_dataset
    from backtal.datasets import DatasetFolder, write_folder
    from backtal.layouts import LayoutOptions, open_layout

    options = LayoutOptions(annotations, _read_labels(labels), **numbers)
    opened = open_layout(layout, source, options)
    write_folder(opened, out, clicks=clicks, skip_missing=skip_missing, half=half)
    click.echo(f"wrote {out}\n{check_dataset(DatasetFolder(out))}", err=True)


def _read_labels(path: Path | None) -> tuple[str, ...] | None:
    from backtal.files import read_lines

    return tuple(read_lines(path)) if path else None


@_command
@click.argument("checkpoint", metavar="FILE.pth", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--recipe", "recipe_name", required=True, help="The released recipe, for example thumos14-released.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one per line, in the order of indices.")
def convert(checkpoint: Path, out: Path, recipe_name: str, labels: Path | None) -> None:
    r"""Convert a released BackTAL checkpoint FILE.pth to a checkpoint folder OUT.

    Every name and shape is checked; only tensors are read, so a file cannot run code.

    \b
    Example:
      backtal convert THUMOS14.pth MODEL --recipe thumos14-released --labels labels.txt
    """
    from backtal.convert import convert_released
    from backtal.presets import recipe

    model = convert_released(checkpoint, recipe(recipe_name), _read_labels(labels))
    model.save_pretrained(out)
    click.echo(f"wrote {out}: {len(model.config.labels)} classes, {model.config.feature_dim} channels", err=True)


@_command
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipes(name: str | None, as_json: bool) -> None:
    r"""List the recipes, or print the recipe NAME: each value, and where it comes from.

    \b
    Examples:
      backtal recipes
      backtal recipes thumos14-released --json
    """
    from backtal.presets import RECIPES, sources

    if name is None:
        click.echo(json.dumps(list(RECIPES), indent=1) if as_json else "\n".join(RECIPES))
        return
    rows = sources(name)
    if as_json:
        click.echo(json.dumps({field: {"value": value, "source": source} for field, value, source in rows}, indent=1))
        return
    for field, value, source in rows:
        click.echo(f"{field:34}{value!s:24}{source}")


@_command
@click.argument("model", metavar="MODEL_OR_RECIPE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(model: str, as_json: bool) -> None:
    r"""Count parameters and operations of a checkpoint folder or recipe, beside the paper's Table 10.

    \b
    Examples:
      backtal info RUN
      backtal info thumos14-released --json
    """
    from backtal.info import measure

    found = measure(model)
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))


@_command
@click.argument("table")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of all runs; finished ones are kept."
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs per row: seeds 0, 1, ...")
@click.option("--clicks", multiple=True, help="Click file: one per seed in turn.  [default: all of DATA]")
@click.option("--recipe", "recipe_name", default="compact", show_default=True, help="Recipe that the rows change.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting. Repeatable.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
def ablate(
    table: str,
    data: Path,
    out: Path,
    seeds: int,
    clicks: tuple[str, ...],
    recipe_name: str,
    settings: tuple[str, ...],
    jobs: int,
) -> None:
    r"""Run TABLE of the paper (6, 7, 8, 9, 11, 12, 13, or layout) on a dataset.

    Action clicks are simulated from the ground truth. Prints Markdown.

    \b
    Examples:
      backtal ablate 7 --data DATA --out runs/ablations --seeds 3 --jobs 2
      backtal ablate 9 --data DATA --out runs/ablations --clicks A1.txt --set epochs=20
    """
    from backtal.datasets import DatasetFolder
    from backtal.experiment import Protocol
    from backtal.experiment import ablate as run_table
    from backtal.presets import recipe

    files = list(clicks) or [path.name for path in DatasetFolder(data).click_paths()]
    base = recipe(recipe_name).with_settings(settings)
    click.echo(run_table(table, Protocol(data), base, out, clicks=files, seeds=range(seeds), jobs=jobs))


@_command
@click.option("--out", default="backtal-demo", show_default=True, type=click.Path(path_type=Path))
def demo(out: Path) -> None:
    """Run everything once, offline, on a synthetic dataset made on the spot.

    Trains from video labels, with clicks as a plain baseline, and as BackTAL; prints the mAP of each.
    """
    from backtal.demo import run

    click.echo(run(out))


if __name__ == "__main__":
    main()
