"""`backtal dataset`: check and convert datasets."""

import json
from pathlib import Path
from typing import Any

import click

from backtal.cli.command import Command, read_labels


@click.group()
def dataset() -> None:
    """Check a dataset, or convert one from another layout.

    \b
    backtal dataset check DATA                            what is missing, what does not line up
    backtal dataset convert SRC DST --layout actionformer write our dataset folder
    """


@dataset.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--clicks", multiple=True, help="Click file: a path, or a name in DATA/clicks. Repeatable. [default: all]"
)
@click.option("--features/--no-features", default=True, help="Also read the features.  [default: yes]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every video named.")
@click.pass_context
def check(ctx: click.Context, data: Path, clicks: tuple[str, ...], features: bool, as_json: bool) -> None:
    """Report what is missing in DATA and what does not line up.

    And what to do about it. Exit code 2 where something stops training or localization, 0 otherwise, warnings or not.

    \b
    Examples:
      backtal dataset check DATA
      backtal dataset check DATA --clicks A1.txt --clicks A2.txt --no-features --json
    """
    from backtal.data.check import check_dataset
    from backtal.data.datasets import DatasetFolder

    report = check_dataset(DatasetFolder(data), clicks, features=features)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else str(report))
    ctx.exit(2 if report.broken else 0)


@dataset.command("convert", cls=Command)
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
@click.pass_context
def convert_layout(
    ctx: click.Context,
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
    """Write another project's dataset as a dataset folder.

    SRC is the folder in that project's layout, DST what to write. Stopped, the same command goes on where it was. The
    result is checked as by `backtal dataset check`, with the same exit code.

    \b
    Examples:
      backtal dataset convert THUMOS14 DATA --layout lacp --clicks A1.txt
      backtal dataset convert data/thumos DATA --layout actionformer --stride 4 --window 16
    """
    from backtal.data.check import check_dataset
    from backtal.data.datasets import DatasetFolder, write_folder
    from backtal.data.layouts import LayoutOptions, open_layout

    options = LayoutOptions(annotations, read_labels(labels), **numbers)
    opened = open_layout(layout, source, options)
    write_folder(opened, out, clicks=clicks, skip_missing=skip_missing, half=half)
    report = check_dataset(DatasetFolder(out))
    click.echo(f"wrote {out}\n{report}", err=True)
    ctx.exit(2 if report.broken else 0)
