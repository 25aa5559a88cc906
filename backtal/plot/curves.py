"""Curves: training, precision over recall, mean average precision over tIoU."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backtal.data.truth import Truth
from backtal.errors import DataError
from backtal.evaluation.evaluate import DetectionReport, match, tables
from backtal.files import read_lines
from backtal.plot.style import INK, new_figure, style, tidy
from backtal.plot.text import finished, legend
from backtal.segments.segments import Localization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    "video_base": "video, base (eq. 2)",
    "video_suppressed": "video, suppressed (eq. 2)",
    "frame": "frames (eq. 3)",
    "separation": "separation (eq. 8)",
    "affinity": "affinity (eq. 13)",
    "norm": "foreground norm",
    "between": "between clicks",
}


def training_curves(log: str | Path | Sequence[Mapping[str, float]], *, title: str | None = None) -> "Figure":
    """The loss and each of its terms over the epochs, before weighting: one panel each, as their scales differ.

    Args:
        log: ``log.jsonl`` of a run folder, or its rows.
        title: heading.

    Raises:
        DataError: if the log is missing, malformed or empty.

    Example:
        >>> log = [{"epoch": 1, "total": 2.0, "frame": 1.0}, {"epoch": 2, "total": 1.5, "frame": 0.4}]
        >>> figure = training_curves(log)
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['total', 'frames (eq. 3)']
    """
    rows = read_log(log) if isinstance(log, str | Path) else list(log)
    if not rows:
        raise DataError("the training log is empty")
    terms = ["total", *(name for name in rows[0] if name not in ("epoch", "seconds", "total", "held_out"))]
    columns = min(4, len(terms))
    lines = -(-len(terms) // columns)
    figure = new_figure(9, 2.0 * lines + 0.4)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    epochs = [row["epoch"] for row in rows]
    for index, (ax, term) in enumerate(zip(grid, terms, strict=False)):
        look = style(0)
        ax.plot(epochs, [row[term] for row in rows], color=look.colour, linewidth=1.5)
        if term == "total" and "held_out" in rows[0]:
            held = style(1)
            ax.plot(epochs, [row["held_out"] for row in rows], color=held.colour, linestyle=held.dash)
            legend(ax, ax.lines, ["training", "held out"], frameon=False, fontsize=7)
        tidy(ax, _NAMES.get(term, term), x="epoch" if index >= len(terms) - columns else "")
        ax.title.set_fontsize(8)
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        if index >= len(terms) - columns:
            ax.tick_params(labelbottom=True)
    for ax in grid[len(terms) :]:
        ax.remove()
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return finished(figure)


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The rows of a run's ``log.jsonl``.

    Raises:
        DataError: if it is missing or a line is not a row with an epoch.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
            rows.append({name: float(value) for name, value in row.items()})
            if not {"epoch", "total"} <= row.keys():
                raise ValueError("no epoch or total")
        except (ValueError, TypeError, AttributeError) as failure:
            raise DataError(f"{path}, line {number}: not a row of a training log: {failure}") from None
    return rows


def map_over_tiou(reports: Mapping[str, DetectionReport], *, title: str | None = None) -> "Figure":
    """Mean average precision at each threshold, for one model or several.

    Args:
        reports: by the model's name.
        title: heading.

    Example:
        >>> from backtal import Segment
        >>> from backtal.evaluation import evaluate
        >>> video = Localization("v", 9.0, (Segment(1, 3, "jump"),))
        >>> figure = map_over_tiou({"perfect": evaluate([video], [video], [0.3, 0.5, 0.7])})
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [100.0, 100.0, 100.0]
    """
    figure = new_figure(4.8, 3.4)
    ax = figure.subplots()
    for index, report in enumerate(reports.values()):
        _line(ax, report.tiou, 100 * report.mean_ap, index, style(index).marker)
    ax.set_ylim(0, 103)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    names = [f"{name} (mean {100 * report.average:.1f})" for name, report in reports.items()]
    legend(ax, ax.lines, names, frameon=False, fontsize=8, loc="lower left")
    tidy(ax, title or "", x="temporal IoU", y="mAP (%)")
    return finished(figure)


def precision_recall(
    predictions: Mapping[str, Sequence[Localization]],
    ground_truth: Truth | Sequence[Localization],
    *,
    tiou: float = 0.5,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Precision over recall as the score falls: all classes together, and each class where `labels` names some.

    Found segments of labels without an instance are among all classes, and wrong.

    Args:
        predictions: found segments by the model's name.
        ground_truth: as for `backtal.evaluation.evaluate`.
        tiou: threshold from which a prediction is right.
        labels: classes to draw in a panel of their own.
        title: heading.

    Raises:
        DataError: if a label does not occur in the ground truth.

    Example:
        >>> from backtal import Segment
        >>> truth = [Localization("v", 9.0, (Segment(1, 3, "jump"), Segment(5, 7, "jump")))]
        >>> found = [Localization("v", 9.0, (Segment(1, 3, "jump", 0.9),))]
        >>> line = precision_recall({"half": found}, truth).axes[0].lines[0]
        >>> line.get_xdata().tolist(), line.get_ydata().tolist()
        ([0.0, 50.0], [100.0, 100.0])
    """
    panels: list[str | None] = [None, *(labels or ())]
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(max(4.8, 2.3 * columns), 3.4 if lines == 1 else 2.3 * lines + 0.6)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for index, found in enumerate(predictions.values()):
        both = tables(found, ground_truth)
        right = match(both.predicted, both.truth, np.array([tiou]))[0] >= 0
        for ax, label in zip(grid, panels, strict=False):
            if label is not None and label not in both.labels:
                raise DataError(f"no instance of {label!r} in the ground truth; it has {', '.join(both.labels)}")
            of = slice(None) if label is None else both.predicted.classes == both.labels.index(label)
            among = slice(None) if label is None else both.truth.classes == both.labels.index(label)
            hits = np.cumsum(right[of])
            recall, precision = hits / len(both.truth.classes[among]), hits / np.arange(1, len(hits) + 1)
            start = precision[:1] if len(hits) else [0.0]
            _line(ax, 100 * np.array([0, *recall]), 100 * np.array([*start, *precision]), index, None)
    for index, (ax, label) in enumerate(zip(grid, panels, strict=False)):
        ax.set(xlim=(0, 101), ylim=(0, 103))
        ax.grid(color="#DDDDDD", linewidth=0.6)
        last = index >= len(panels) - columns
        heading = (title or f"all classes, tIoU {tiou:g}") if label is None else label
        tidy(ax, heading, x="recall (%)" if last else "", y="precision (%)" if index % columns == 0 else "")
        ax.tick_params(labelbottom=last)
    for ax in grid[len(panels) :]:
        ax.remove()
    if len(predictions) > 1:
        legend(grid[0], grid[0].lines, predictions, frameon=False, fontsize=8, loc="lower left")
    return finished(figure)


def _line(ax: "Axes", x: Sequence[float] | np.ndarray, y: np.ndarray, index: int, marker: str | None) -> None:
    look = style(index)
    ax.plot(x, y, color=look.colour, linestyle=look.dash, marker=marker, markersize=4.5, linewidth=1.6)
    ax.tick_params(colors=INK)
