"""Reproduce and compare: recipes, released checkpoints, sizes, tables of the paper, the demo."""

import json
from pathlib import Path

import click

from backtal.cli.command import Command, read_labels, thresholds

_RELEASED = "what the authors' released system computes there, as its checkpoints need"
_USE = {
    "compact": "the paper's method with a narrow network, for any features",
    "between-clicks": "compact, and more learnt from the same clicks",
    "detector": "the default: segments of any length, taught by clicks or any other labels; not the paper's",
    "thumos14": "the paper's settings for THUMOS14, I3D features",
    "thumos14-released": _RELEASED,
    "activitynet1.2": "the paper's settings for ActivityNet v1.2",
    "activitynet1.2-released": _RELEASED,
    "hacs": "the paper's settings for HACS",
    "hacs-released": _RELEASED,
    "beoid": "the paper's settings for BEOID, those of THUMOS14 where it gives none",
}


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes, or print one: each value and its source.

    \b
    Examples:
      backtal recipes
      backtal recipes thumos14-released --json
    """
    from backtal.settings.presets import RECIPES, sources

    if name is None:
        rows = [f"{recipe:26}{_USE.get(recipe, '')}" for recipe in RECIPES]
        click.echo(json.dumps(list(RECIPES), indent=1) if as_json else "\n".join(rows))
        return
    rows = sources(name)
    if as_json:
        click.echo(json.dumps({field: {"value": value, "source": source} for field, value, source in rows}, indent=1))
        return
    for field, value, source in rows:
        click.echo(f"{field:34}{value!s:24}{source}")


@click.command(cls=Command)
@click.argument("model", metavar="MODEL_OR_RECIPE", required=False)
@click.option("--environment", "of_environment", is_flag=True, help="Versions, device and backends instead.")
@click.option("--device", "of_device", is_flag=True, help="The form of the convolution here, and why, instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(model: str | None, of_environment: bool, of_device: bool, as_json: bool) -> None:
    """Say what a checkpoint is, how large, or what backtal runs on.

    Labels, features, data and measured accuracy of a checkpoint; parameters and operations, counted, beside the paper's
    Table 10. With --environment, what a report of a problem needs: versions, device, backends; no path, no name. With
    --device, which form of the affinity convolution this machine takes, and why.

    \b
    Examples:
      backtal info RUN
      backtal info shrec22
      backtal info thumos14-released --json
      backtal info --environment
      backtal info --device
    """
    import torch

    from backtal.environment import environment, environment_text
    from backtal.interop.info import measure
    from backtal.ops import describe_form

    if (model is not None) + of_environment + of_device != 1:
        raise click.UsageError("name a checkpoint or a recipe, or ask for --environment or --device")
    if of_environment:
        click.echo(json.dumps(environment(), indent=1) if as_json else environment_text())
        return
    if model is None:
        said = describe_form(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        click.echo(json.dumps({"affinity convolution": said}) if as_json else f"affinity convolution: {said}")
        return
    found = measure(model)
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))


@click.command(cls=Command)
@click.argument("checkpoint", metavar="FILE.pth", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--recipe", "recipe_name", required=True, help="The released recipe, for example thumos14-released.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one per line, in the order of indices.")
def convert(checkpoint: Path, out: Path, recipe_name: str, labels: Path | None) -> None:
    """Convert a released BackTAL checkpoint to a folder.

    FILE.pth is what the paper's authors released, OUT the folder that `--model` takes afterwards. Every name and shape
    is checked; only tensors are read, so a file cannot run code.

    \b
    Example:
      backtal convert THUMOS14.pth MODEL --recipe thumos14-released --labels labels.txt
    """
    from backtal.errors import CheckpointError
    from backtal.files import is_taken
    from backtal.interop.convert import convert_released
    from backtal.settings.presets import recipe

    if is_taken(out):
        raise CheckpointError(f"{out}: already there and not empty; choose another folder")
    model = convert_released(checkpoint, recipe(recipe_name), read_labels(labels))
    model.save_pretrained(out)
    click.echo(f"wrote {out}: {len(model.config.labels)} classes, {model.config.feature_dim} channels", err=True)


@click.command(cls=Command)
@click.argument("table")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of all runs; finished ones are kept."
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs per row: seeds 0, 1, ...")
@click.option("--clicks", multiple=True, help="Click file: one per seed in turn.  [default: all of DATA]")
@click.option("--recipe", "recipe_name", default="compact", show_default=True, help="Recipe that the rows change.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one setting. Repeatable.")
@click.option("--training-subset", default="training", show_default=True, help="Subset to train on.")
@click.option("--subset", default="test", show_default=True, help="Subset to measure on.")
@click.option("--tiou", help="Thresholds as FIRST:LAST:STEP, last included.  [default: 0.1:0.7:0.1]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
def ablate(
    table: str,
    data: Path,
    out: Path,
    seeds: int,
    clicks: tuple[str, ...],
    recipe_name: str,
    settings: tuple[str, ...],
    training_subset: str,
    subset: str,
    tiou: str | None,
    jobs: int,
) -> None:
    """Run one of the paper's tables on a dataset.

    TABLE is 6, 7, 8, 9, 11, 12, 13 (as the paper numbers them) or layout. Finished runs in --out are kept. Action
    clicks are simulated from the ground truth. Prints Markdown.

    \b
    Examples:
      backtal ablate 7 --data DATA --out runs/ablations --seeds 3 --jobs 2
      backtal ablate 9 --data DATA --out runs/ablations --clicks A1.txt --set epochs=20
      backtal ablate 7 --data THUMOS14 --out runs/thumos14 --training-subset val --tiou 0.3:0.7:0.1
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.settings.presets import recipe
    from backtal.training.experiment import Protocol
    from backtal.training.experiment import ablate as run_table

    files = list(clicks) or [path.name for path in DatasetFolder(data).click_paths()]
    base = recipe(recipe_name).with_settings(settings)
    protocol = Protocol(data, training_subset, subset, thresholds(None, tiou, "0.1:0.7:0.1"))
    click.echo(run_table(table, protocol, base, out, clicks=files, seeds=range(seeds), jobs=jobs))


@click.command(cls=Command)
@click.option("--out", default="backtal-demo", show_default=True, type=click.Path(path_type=Path))
def demo(out: Path) -> None:
    """Run everything once, offline, on a synthetic dataset.

    Trains from video labels, with clicks as a plain baseline, and as BackTAL; prints the mAP of each.
    """
    from backtal.demo import run

    click.echo(run(out))
