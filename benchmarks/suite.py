"""The same rows on any number of dataset folders: what clicks give, and what the same network has from full labels.

    python benchmarks/suite.py FOLDER... --out runs/suite --jobs 2

Seed i goes with the folder's click file of that number (round and round), or with clicks like a human's, simulated
from seed i. Recipes run as they are, the plain network (`plain.py`) as it is; nothing is chosen on what is measured.
Prints a line of JSON for each run, then Markdown, and writes the picture ``OUT/suite.png``. Runs that are there are not
made again, a recipe's that was killed goes on; other settings, clicks or annotations are other runs. ``--report`` makes
no run. ``--held-out 0`` judges inside the training subset: on its last third, trained on the rest (1 to 3: other parts,
as `folds.py` says).
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np
from plain import Plain
from runs import TIOU, Task, by_row, finished, mean_spread, run_all

from backtal.clicks import simulate_human_clicks, write_clicks
from backtal.data import DatasetFolder
from backtal.errors import DataError
from backtal.plot.style import INK, new_figure, save, style, tidy
from backtal.settings import recipe, video_labels_only


class Row(NamedTuple):
    """A row: its method, what it learns from, and the row of the same network with full labels."""

    method: str | Plain
    labels: str
    ceiling: str | None = None


ROWS = {
    "video labels": Row("compact", "video"),
    "compact, clicks": Row("compact", "clicks", "compact, full labels"),
    "between-clicks, clicks": Row("between-clicks", "clicks", "compact, full labels"),
    "detector, clicks": Row("detector", "clicks", "detector, full labels"),
    "detector, human-like clicks": Row("detector", "human", "detector, full labels"),
    "plain k5, clicks": Row(Plain(5), "clicks", "plain k5, full labels"),
    "plain k9, clicks": Row(Plain(9), "clicks", "plain k9, full labels"),
    "compact, full labels": Row("compact", "full"),
    "detector, full labels": Row("detector", "full"),
    "plain k5, full labels": Row(Plain(5), "full"),
    "plain k9, full labels": Row(Plain(9), "full"),
}
MARKS = {
    "detector, clicks": ["detector, clicks"],
    "detector, full labels": ["detector, full labels"],
    "best plain network, clicks": ["plain k5, clicks", "plain k9, clicks"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=f"of {list(ROWS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--held-out", type=int, choices=(0, 1, 2, 3), metavar="FOLD")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="in recipes")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="of the runs that are there")
    parser.add_argument("--picture", type=Path, help="[default: OUT/suite.png]")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if len({path.resolve().name for path in arguments.data}) < len(arguments.data):
        raise DataError("two dataset folders of the same name would share a column; rename one")
    tasks = [
        make_task(data, name, seed, arguments)
        for seed in arguments.seeds
        for data in arguments.data
        for name in arguments.rows
    ]
    results = finished(tasks, arguments.out) if arguments.report else run_all(tasks, arguments.out, arguments.jobs)
    table = by_row(sorted(results, key=lambda result: arguments.rows.index(result["row"])))
    if not table:
        raise SystemExit("no run is there")
    print(overview(table), *(details(name, rows) for name, rows in table.items()), sep="\n\n")
    save(picture(table), arguments.picture or arguments.out / "suite.png")


def make_task(data, name, seed, arguments):
    """The task of a row."""
    row = ROWS[name]
    method = row.method
    if isinstance(method, str):
        method = recipe(method).with_settings([f"training.seed={seed}", *arguments.settings])
        method = video_labels_only(method) if row.labels == "video" else method
    clicks = None if row.labels == "video" else click_file(data, row.labels, seed, arguments.out)
    located = None if row.labels == "full" else ()
    return Task(data, name, seed, method, clicks, located=located, fold=arguments.held_out)


def click_file(data, labels, seed, out):
    """The click file of a seed; for a human-like one, simulated where it is not there yet."""
    folder = DatasetFolder(data)
    if labels != "human":
        # With full labels too: `compact` takes its kernel size from the distance between clicks.
        files = folder.click_paths() or folder.click_files()
        return files[seed % len(files)]
    path = out / data.resolve().name / f"human{seed}.txt"
    if not path.exists():
        rng, videos = np.random.default_rng(seed), folder.annotations.subset("training")
        tracks = [simulate_human_clicks(v.video_id, v.ground_truth, v.duration, rng) for v in videos]
        write_clicks(path, tracks, folder.labels)
    return path


def share_of_ceiling(rows, name):
    """Mean of a row as a share of that of the same network with full labels; None where there is none."""
    ceiling = ROWS[name].ceiling
    return mean_spread(rows[name])[0] / mean_spread(rows[ceiling])[0] if ceiling in rows else None


def overview(table):
    """Mean mAP over the thresholds, spread, and clicks / full labels of every row and dataset."""
    names = [name for name in ROWS if any(name in rows for rows in table.values())]
    lines = [
        f"Mean mAP over tIoU {TIOU[0]:g} to {TIOU[-1]:g} in percent, mean and deviation over seeds and click files; in "
        "brackets: clicks / full labels, same network.",
        "",
        f"| | {' | '.join(table)} |\n|---{'|---' * len(table)}|",
    ]
    for name in names:
        cells = []
        for rows in table.values():
            mean, spread = mean_spread(rows[name]) if name in rows else (None, None)
            share = share_of_ceiling(rows, name) if name in rows else None
            cell = "" if mean is None else f"{mean:.1f} ± {spread:.1f}"
            cells.append(cell + ("" if share is None else f" ({share:.2f})"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def details(name, rows):
    """Everything about one dataset."""
    columns = [f"{t:g}" for t in TIOU]
    lines = [
        f"**{name}**, {next(iter(rows.values()))[0]['videos']} videos judged. F1 at tIoU 0.5 is that of the best least "
        "score, chosen for each run afterwards; seconds are the processor's, one thread.",
        "",
        f"| | {' | '.join(columns)} | mean | spread | the runs | clicks / full labels, same network | F1 | "
        "training, s | inference, ms a video |",
        "|---" * (len(columns) + 8) + "|",
    ]
    for row, runs in rows.items():
        cells = [f"{mean_spread(runs, lambda r, c=c: r['mAP'][c])[0]:.1f}" for c in columns]
        mean, spread = mean_spread(runs)
        cells += [f"**{mean:.1f}**", f"{spread:.1f}", " ".join(f"{100 * r['average']:.1f}" for r in runs)]
        share = share_of_ceiling(rows, row)
        cells += ["" if share is None else f"{share:.2f}", f"{mean_spread(runs, lambda r: r['f1'])[0]:.1f}"]
        whole = [r["training_seconds"] for r in runs if not r["resumed"]]
        cells += [f"{statistics.mean(whole):.0f}" if whole else ""]
        cells += [f"{1000 * statistics.mean(r['inference_seconds'] / r['videos'] for r in runs):.0f}"]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(table):
    """A row of datasets with three marks each, bars for the deviation over the runs."""
    figure = new_figure(1.6 + 1.1 * len(table), 3.2)
    axes = figure.add_subplot()
    for index, (label, names) in enumerate(MARKS.items()):
        look, points = style(index), []
        for place, rows in enumerate(table.values()):
            there = [mean_spread(rows[name]) for name in names if name in rows]
            points += [(place + 0.16 * (index - 1), *max(there))] if there else []
        if points:
            x, y, error = zip(*points, strict=True)
            axes.errorbar(
                x, y, error, fmt=look.marker, color=look.colour, markersize=6, capsize=2, linewidth=1, label=label
            )
    axes.set_xticks(range(len(table)), list(table))
    axes.set_xlim(-0.5, len(table) - 0.5)
    axes.grid(axis="y", linewidth=0.4, color="#DDDDDD")
    axes.set_axisbelow(True)
    tidy(axes, "", "", f"mean mAP, tIoU {TIOU[0]:g} to {TIOU[-1]:g}, %")
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


if __name__ == "__main__":
    main()
