"""Which labels to make: shares of videos with start and end, videos without any label, and what minutes of work buy.

    python benchmarks/mixed.py DATA --out runs/mixed --jobs 2                       # all three tables
    python benchmarks/mixed.py DATA --out runs/mixed --only budgets --budgets 10 30

shares: so many percent of the training videos have start and end, the rest are clicked. unlabelled: a tenth of the
videos is clicked, and the rest teaches the second stage without any label, or is left out. budgets: so many minutes of
work are spent on start and end, clicks, action clicks or video labels, at the paper's cost for a minute of video; what
is not paid for is not used. All with the recipe `detector`. Which videos have what is drawn from the seed, the same
first videos in every row. Seed i goes with the folder's click file of that number; action clicks are simulated. Prints
a line of JSON for each run, then Markdown, and writes ``OUT/DATA-mixed.png``; runs that are there are not made again.
``--report`` makes no run.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from runs import Task, by_row, finished, mean_spread, run_all

from backtal.clicks import simulate_action_clicks, write_clicks
from backtal.data import DatasetFolder
from backtal.plot.style import new_figure, save, style, tidy
from backtal.settings import recipe

# Seconds of work for a minute of video (paper, sections 1 and 4.2; all but clicks are SF-Net's).
SECONDS = {"start and end": 300, "clicks": 48, "action clicks": 50, "video labels": 45}
SHARES = (0, 5, 10, 25, 50, 100)
# Of the minutes of a budget, percent that go into start and end; the rest go into the other kind.
MIXES = [(100, "clicks"), (50, "clicks"), (25, "clicks"), (0, "clicks"), (0, "action clicks"), (0, "video labels")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--budgets", nargs="+", type=float, default=[10, 30, 100], help="minutes of work")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--held-out", type=int, choices=(0, 1), metavar="FOLD", help="judge inside the training subset")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="of the runs that are there")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    planned = [one for seed in arguments.seeds for name in arguments.only for one in TABLES[name](arguments, seed)]
    tasks, minutes = [task for task, _ in planned], {task.row: [] for task, _ in planned}
    for task, cost in planned:
        minutes[task.row].append(cost)
    minutes = {row: float(np.mean(costs)) for row, costs in minutes.items()}
    results = finished(tasks, arguments.out) if arguments.report else run_all(tasks, arguments.out, arguments.jobs)
    if not results:
        raise SystemExit("no run is there")
    (rows,) = by_row(sorted(results, key=lambda result: list(minutes).index(result["row"]))).values()
    print(table(rows, minutes), *best(rows, arguments.budgets), sep="\n")
    save(picture(rows, minutes), arguments.out / f"{arguments.data.resolve().name}-mixed.png")


def drawn(arguments, seed):
    """The training videos in the order of the seed, without those held out."""
    videos = DatasetFolder(arguments.data).annotations.subset("training")
    third = len(videos) // 3
    kept = {None: videos, 0: videos[:-third], 1: videos[third:]}[arguments.held_out]
    return [kept[index] for index in np.random.default_rng(seed).permutation(len(kept))]


def task(arguments, seed, row, *, full=(), other=(), kind="clicks", aside=(), unlabelled=False):
    """A task of this benchmark, and its minutes of work.

    Args:
        arguments: of the command line.
        seed: of the training.
        row: its name.
        full: videos with start and end.
        other: videos with the other kind of label.
        kind: that kind.
        aside: videos without any label.
        unlabelled: whether those aside are learnt from.
    """
    files = DatasetFolder(arguments.data).click_paths()
    clicks = {"clicks": files[seed % len(files)], "video labels": None}.get(kind) or action_clicks(arguments, seed)
    found = Task(
        arguments.data,
        row,
        seed,
        recipe("detector").with_settings([f"training.seed={seed}", *arguments.settings]),
        None if kind == "video labels" else clicks,
        clicked=names(other),
        located=names(full),
        aside=names(aside),
        unlabelled=unlabelled,
        fold=arguments.held_out,
    )
    return found, minutes_of(full, "start and end") + minutes_of(other, kind)


def names(videos):
    """Their names, sorted."""
    return tuple(sorted(video.video_id for video in videos))


def minutes_of(videos, kind):
    """Minutes of work for a kind of label of these videos."""
    return sum(video.duration for video in videos) / 60 * SECONDS[kind] / 60


def action_clicks(arguments, seed):
    """One click in each action of the training videos, simulated where the file is not there yet."""
    folder = DatasetFolder(arguments.data)
    path = arguments.out / arguments.data.resolve().name / f"actions{seed}.txt"
    if not path.exists():
        rng, videos = np.random.default_rng(seed), folder.annotations.subset("training")
        write_clicks(path, [simulate_action_clicks(v.video_id, v.ground_truth, rng) for v in videos], folder.labels)
    return path


def shares(arguments, seed):
    """So many percent of the videos with start and end, the rest clicked."""
    videos = drawn(arguments, seed)
    for percent in SHARES:
        count = round(percent * len(videos) / 100)
        row = f"{percent} % with start and end, the rest clicked"
        yield task(arguments, seed, row, full=videos[:count], other=videos[count:])


def unlabelled(arguments, seed):
    """A tenth of the videos clicked, alone or with all others unlabelled."""
    videos = drawn(arguments, seed)
    count = round(len(videos) / 10)
    known, rest = videos[:count], videos[count:]
    yield task(arguments, seed, "10 % clicked, alone", other=known, aside=rest)
    yield task(arguments, seed, "10 % clicked, the rest unlabelled", other=known, aside=rest, unlabelled=True)


def budgets(arguments, seed):
    """What so many minutes of work buy: start and end first, then the other kind, until the minutes or videos end.

    Where all videos have labels and minutes are left, the mix stops there; its cost says so.
    """
    videos = drawn(arguments, seed)
    for budget in arguments.budgets:
        for percent, kind in MIXES:
            full = affordable(videos, "start and end", budget * percent / 100)
            rest = videos[len(full) :]
            left = budget - minutes_of(full, "start and end")
            other = [] if percent == 100 else affordable(rest, kind, left)
            row = f"{budget:g} min: {percent} % on start and end" + ("" if percent == 100 else f", the rest on {kind}")
            row = row if percent else f"{budget:g} min: all on {kind}"
            aside = rest[len(other) :]
            if full or other:
                yield task(arguments, seed, row, full=full, other=other, kind=kind, aside=aside)


def affordable(videos, kind, minutes):
    """The first videos, as many as the minutes pay for."""
    costs = np.cumsum([minutes_of([video], kind) for video in videos])
    return videos[: int(np.searchsorted(costs, minutes + 1e-9, side="right"))]


TABLES = {"shares": shares, "unlabelled": unlabelled, "budgets": budgets}


def table(rows, minutes):
    """Work, mean and spread of every row."""
    lines = ["| labels | work, minutes | mean mAP | spread | the runs | mAP@0.7 |", "|---|---|---|---|---|---|"]
    for row, runs in rows.items():
        mean, spread = mean_spread(runs)
        each, edges = " ".join(f"{100 * r['average']:.1f}" for r in runs), mean_spread(runs, lambda r: r["mAP"]["0.7"])
        lines.append(f"| {row} | {minutes[row]:.0f} | **{mean:.1f}** | {spread:.1f} | {each} | {edges[0]:.1f} |")
    return "\n".join(lines) + "\n"


def best(rows, sizes):
    """For each budget, a sentence: its best mix, and the others within the spread of it."""
    for budget in sizes:
        found = {row: mean_spread(runs) for row, runs in rows.items() if row.startswith(f"{budget:g} min: ")}
        if not found:
            continue
        first = max(found, key=lambda row: found[row][0])
        mean, spread = found[first]
        near = [row.partition(": ")[2] for row, (other, _) in found.items() if row != first and mean - other <= spread]
        also = f"; within its spread: {'; '.join(near)}" if near else ""
        yield f"{budget:g} minutes of work: best is {first.partition(': ')[2]} ({mean:.1f} ± {spread:.1f}){also}."


def picture(rows, minutes):
    """Mean mAP over minutes of work: the shares as a line, the budgets by kind of mix."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    curves = {}
    for row, runs in rows.items():
        _, separator, mix = row.partition(" min: ")
        name = mix if separator else ("start and end of a share, the rest clicked" if "% with" in row else row)
        curves.setdefault(name, []).append((minutes[row], *mean_spread(runs)))
    for index, (name, points) in enumerate(curves.items()):
        look = style(index)
        x, y, error = zip(*sorted(points), strict=True)
        axes.errorbar(
            x, y, error, color=look.colour, linestyle=look.dash, marker=look.marker, markersize=5, capsize=2,
            linewidth=1, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.grid(axis="y", linewidth=0.4, color="#DDDDDD")
    tidy(axes, "", "minutes of work (paper's cost for a minute of video)", "mean mAP, tIoU 0.1 to 0.7, %")
    figure.legend(fontsize=7.5, frameon=False, loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
