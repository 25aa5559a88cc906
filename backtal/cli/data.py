"""`backtal dataset`: check and convert datasets."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from backtal.cli.command import Command, read_labels
from backtal.errors import DataError


@click.group()
def dataset() -> None:
    """Check a dataset, or convert one from another layout.

    \b
    backtal dataset check DATA                            what is missing, what does not line up
    backtal dataset convert SRC DST --layout actionformer write our dataset folder
    backtal dataset import CODED.boris DATA               start and end from BORIS, ELAN, VIA, CVAT, Label Studio
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


@dataset.command("import", cls=Command)
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--subset", default="training", show_default=True, help="Of the videos that are new in DATA.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one per line.  [default: those of DATA]")
@click.option(
    "--videos", type=click.Path(path_type=Path), help="Folder of the video files, which say how long they are."
)
@click.option("--fps", type=click.FloatRange(0, min_open=True), help="Frames per second, for forms that count frames.")
@click.option("--background", multiple=True, help="Label that means background instead of these. Repeatable.")
@click.option("--round", type=click.IntRange(min=1), help="Which one counts, where several people coded a video.")
def import_program(
    sources: tuple[Path, ...],
    data: Path,
    subset: str,
    labels: Path | None,
    videos: Path | None,
    fps: float | None,
    background: tuple[str, ...],
    round: int | None,
) -> None:
    """Take start and end from files of other programs.

    They go into DATA/annotations.json. SRC is a project or a table of events of BORIS, a document of ELAN or a folder
    of them, a table of video, start, end and label, or a file of VIA, CVAT or Label Studio; its content tells which.
    Videos that DATA does not have become new ones, the annotations of others are replaced; all else that stands there
    stays. What is left out is said.

    \b
    Examples:
      backtal dataset import coded.boris data --subset test
      backtal dataset import coded data --subset test --videos films
      backtal dataset import annotations.xml data --fps 25
    """
    from backtal.clicks.files import BACKGROUND_NAMES
    from backtal.data.annotations import read_annotations
    from backtal.data.coded import import_coded, read_coded
    from backtal.files import spelling
    from backtal.video.decode import videos_in

    path = data / "annotations.json"
    there = read_annotations(path) if path.exists() else None
    files = videos_in([videos]) if videos else {}
    coded = read_coded(
        *_documents(sources),
        frame_rates=fps or (there and there.frame_rates),
        background=background or BACKGROUND_NAMES,
        round=round,
        videos=[*(there.videos if there else ()), *files.values()],
    )
    facts = _video_facts(files, coded.segments)
    annotations = import_coded(path, coded, subset=subset, labels=read_labels(labels), facts=facts)
    names = set(map(spelling(annotations.videos), coded.segments)) & annotations.videos.keys()
    count = sum(len(annotations.videos[name].ground_truth) for name in names)
    click.echo(f"wrote {path}: {count} segments in {len(names)} videos", err=True)


def _documents(sources: Iterable[Path]) -> Iterator[Path]:
    """The files, and the documents of ELAN in the folders."""
    for source in sources:
        inside = sorted(source.rglob("*.eaf")) if source.is_dir() else [source]
        if not inside:
            raise DataError(f"{source}: a folder without a document of ELAN (.eaf)")
        yield from inside


def _video_facts(files: Mapping[Path, str], names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Duration and frame rate of the videos of these names, with or without the folder that they lie in."""
    from backtal.annotate.frames import read_facts
    from backtal.files import spelling

    spell, found = spelling(names), dict[str, Path]()
    for path, name in files.items():
        for called in {spell(name), spell(path.stem)}:
            if called in names and (other := found.setdefault(called, path)) != path:
                raise DataError(f"{other} and {path} are both called {called}: which one is meant cannot be told")
    facts = {name: read_facts(path) for name, path in found.items()}
    return {name: {"duration": fact.duration, "fps": fact.fps} for name, fact in facts.items()}
