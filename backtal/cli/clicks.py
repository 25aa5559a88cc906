"""`backtal clicks`: convert, simulate, check and measure clicks."""

import json
from pathlib import Path

import click

from backtal.cli.command import Command, read_labels

FORMS = ("backtal", "table", "sfnet", "lacp", "via", "via-csv", "cvat", "label-studio")
_PATH = click.Path(path_type=Path)
_SHARE = click.FloatRange(0, 1)
_RATE = click.FloatRange(0, min_open=True)


@click.group()
def clicks() -> None:
    """Convert, simulate, check and measure clicks.

    \b
    backtal clicks convert VIA.json CLICKS.txt --to backtal   from and to other programs
    backtal clicks simulate DATA --out CLICKS.txt             from start and end labels
    backtal clicks check DATA                                 what is wrong with the clicks
    backtal clicks stats DATA                                 where they lie, errors, agreement
    """


@clicks.command(cls=Command)
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--to", "form", required=True, type=click.Choice(FORMS))
@click.option("--data", type=_PATH, help="Dataset folder: labels and frame rates.")
@click.option("--labels", type=_PATH, help="Class names, one per line.  [default: those of DATA, or that occur]")
@click.option("--fps", type=_RATE, help="Frames per second, for forms that count frames.")
@click.option("--background", multiple=True, help="Label that means background instead of these. Repeatable.")
def convert(
    sources: tuple[Path, ...],
    out: Path,
    form: str,
    data: Path | None,
    labels: Path | None,
    fps: float | None,
    background: tuple[str, ...],
) -> None:
    """Put the clicks of SRC together and write them as OUT.

    The content of SRC tells its form: BackTAL's CSV, a table of video, second and label, SF-Net's, LACP's and HR-Pro's
    points, projects and CSV exports of VIA 3, CVAT's XML for video or images 1.1, Label Studio's JSON, projects and
    tables of BORIS, documents of ELAN. A segment counts as a click in its middle. LACP, CVAT and Label Studio count
    frames and need --data or --fps. The labels background and background_background mean background.

    \b
    Examples:
      backtal clicks convert via.json clicks/A1.txt --to backtal
      backtal clicks convert annotations.xml clicks/A1.txt --to backtal --fps 25 --background nothing
      backtal clicks convert clicks/A1.txt tasks.json --to label-studio --data DATA
    """
    from collections import Counter

    from backtal.clicks.clicks import BACKGROUND
    from backtal.clicks.files import BACKGROUND_NAMES, read_clicks, write_clicks
    from backtal.data.datasets import DatasetFolder

    annotations = DatasetFolder(data).annotations if data else None
    rates = fps or (annotations and annotations.frame_rates)
    names = annotations.videos if annotations else ()
    tracks = read_clicks(*sources, frame_rates=rates, background=background or BACKGROUND_NAMES, videos=names)
    counts = Counter(one.label for track in tracks.values() for one in track.clicks)
    known = read_labels(labels) or (annotations and annotations.labels) or sorted(counts.keys() - {BACKGROUND})
    write_clicks(out, tracks.values(), known, form=form, frame_rates=rates)
    listed = ", ".join(f"{count} {label}" for label, count in counts.most_common())
    click.echo(f"wrote {out}: {counts.total()} clicks in {len(tracks)} videos ({listed})", err=True)


@clicks.command(cls=Command)
@click.argument("data", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Click file to write.")
@click.option("--subset", default="training", show_default=True, help="The videos to click.")
@click.option("--kind", type=click.Choice(["background", "action", "both"]), default="background", show_default=True)
@click.option(
    "--like",
    type=click.Choice(["protocol", "human"]),
    default="protocol",
    show_default=True,
    help="human: with the slips of people, at measured rates.",
)
@click.option(
    "--frame-rate",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Frames shown a second.",
)
@click.option(
    "--shortest-gap", type=click.FloatRange(0), default=0.0, help="Seconds; shorter background is not noticed."
)
@click.option("--missed", type=_SHARE, default=0.0, help="Probability that a background click is not made.")
@click.option("--wrong", type=_SHARE, default=0.0, help="Probability that a background click lands in an action.")
@click.option("--seed", type=int, default=0, show_default=True)
def simulate(
    data: Path,
    out: Path,
    subset: str,
    kind: str,
    like: str,
    frame_rate: float,
    shortest_gap: float,
    missed: float,
    wrong: float,
    seed: int,
) -> None:
    """Click videos as annotators would, by their true segments.

    By the paper's protocol: frames are shown twice a second, one random frame of each background stretch is clicked.
    With --kind action, one random frame of each action, with its label. With --like human, stretches are missed or
    clicked twice, and clicks lie inside actions, as often as in the human clicks of THUMOS14.

    \b
    Examples:
      backtal clicks simulate DATA --out DATA/clicks/simulated.txt
      backtal clicks simulate DATA --out DATA/clicks/human.txt --like human
      backtal clicks simulate DATA --out hasty.txt --shortest-gap 2 --missed 0.1 --wrong 0.05 --seed 3
    """
    import numpy as np

    from backtal.clicks.clicks import simulate_action_clicks, simulate_clicks
    from backtal.clicks.files import write_clicks
    from backtal.clicks.human import simulate_human_clicks
    from backtal.data.datasets import DatasetFolder
    from backtal.errors import DataError, name_some

    if like == "human" and (kind == "action" or shortest_gap or missed or wrong):
        raise DataError(
            "--like human has its own rates, of background clicks; leave out --kind action, --shortest-gap, "
            "--missed and --wrong"
        )
    annotations = DatasetFolder(data).annotations
    videos = annotations.subset(subset)
    if unknown := [v.video_id for v in videos if not v.located]:
        raise DataError(f"{data}: {len(unknown)} video(s) without start and end of actions: {name_some(unknown)}")
    rng, tracks = np.random.default_rng(seed), []
    for video in videos:
        name, truth = video.video_id, video.ground_truth
        if like == "human":
            tracks.append(simulate_human_clicks(name, truth, video.duration, rng, frame_rate=frame_rate))
        elif kind != "action":
            options = {"shortest_gap": shortest_gap, "missed": missed, "wrong": wrong}
            tracks.append(simulate_clicks(name, truth, video.duration, rng, frame_rate=frame_rate, **options))
        if kind != "background":
            tracks.append(simulate_action_clicks(name, truth, rng, frame_rate=frame_rate))
    write_clicks(out, tracks, annotations.labels)
    click.echo(f"wrote {out}: {sum(map(len, tracks))} simulated clicks in {len(videos)} videos", err=True)


@clicks.command(cls=Command)
@click.argument("data", type=_PATH)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every click named.")
@click.pass_context
def check(ctx: click.Context, data: Path, files: tuple[str, ...], as_json: bool) -> None:
    """Report what is wrong with clicks.

    Clicks on unknown videos, after a video's end, inside actions, given twice; and videos without clicks. FILE is a
    path or a name in DATA/clicks; all of them by default. Exit code 2 where a click stops training.

    \b
    Examples:
      backtal clicks check DATA
      backtal clicks check DATA A1.txt --json
    """
    from backtal.data.check import check_dataset
    from backtal.data.datasets import DatasetFolder

    report = check_dataset(DatasetFolder(data), files, features=False, annotations=False)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else str(report))
    ctx.exit(2 if report.broken else 0)


@clicks.command(cls=Command)
@click.argument("sources", metavar="[DATA] [FILE]...", nargs=-1, required=True, type=_PATH)
@click.option("--figure", type=_PATH, help="Picture to write (.png, .svg, .pdf): the paper's Fig. 7.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the position of every click.")
def stats(sources: tuple[Path, ...], figure: Path | None, as_json: bool) -> None:
    """Measure how good clicks are, and whether annotators agree.

    Errors, misses, agreement, where clicks lie in their stretches; each file is an annotator's. FILE is a path or a
    name in DATA/clicks; all of them by default. Without the dataset folder DATA, clicks are only counted, as there is
    nothing to compare them with.

    \b
    Examples:
      backtal clicks stats DATA --figure positions.png
      backtal clicks stats DATA A1.txt A2.txt --json
      backtal clicks stats A1.txt
    """
    from backtal.clicks.files import read_clicks
    from backtal.data.click_stats import click_report
    from backtal.data.datasets import DatasetFolder
    from backtal.errors import DataError
    from backtal.plot import click_positions, save

    dataset = DatasetFolder(sources[0]) if sources[0].is_dir() else None
    files = list(sources)
    if dataset:
        files = dataset.click_files(sources[1:]) if sources[1:] else dataset.click_paths()
    if not files:
        raise DataError(f"{sources[0]}: no click file in its folder clicks; name one")
    short = len({path.stem for path in files}) == len(files)
    read = dataset.read_clicks if dataset else read_clicks
    tracks = {path.stem if short else str(path): read(path) for path in files}
    report = click_report(tracks, dataset.annotations.videos if dataset else {})
    if figure:
        save(click_positions(report), figure)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else str(report))
