"""Pictures of what was found in a video. Needs matplotlib: ``pip install "backtal[plot]"``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from backtal.clicks import ClickTrack
from backtal.errors import DataError
from backtal.features import TimeAxis
from backtal.segments import Localization, Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; hatching and dashes repeat it for grey print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C7A00")
_HATCHES = ("", "////", "....", r"\\\\", "xxxx", "||||", "oo")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.2)), (0, (1.5, 1)), (0, (6, 1, 1.5, 1)), (0, (3, 1)), (0, (8, 2)), "-.")
_TRUTH, _FOREGROUND, _INK = "#E4E4E4", "#777777", "#222222"


def timeline(
    truth: Localization,
    found: Mapping[str, Localization] | None = None,
    *,
    frame_scores: Mapping[str, ArrayLike] | None = None,
    foreground: Mapping[str, ArrayLike] | None = None,
    labels: Sequence[str] = (),
    axis: TimeAxis | None = None,
    clicks: ClickTrack | None = None,
    least_score: float = 0.2,
    title: str | None = None,
) -> "Figure":
    """Draw one video: its true segments and, for one model or several, what they saw and found.

    The classes that occur, truly or as found, have a colour, a hatching and a dash of their own. A
    segment is the more opaque the higher its score. Light bands carry the true segments through all rows.

    Args:
        truth: the true segments and the duration.
        found: segments by the model's name, one row each.
        frame_scores: by the model's name, ``[C, T]`` or ``[C+1, T]`` in [0, 1], for example the softmax of the CAS.
        foreground: by the model's name, ``[T]`` or ``[1, T]`` in [0, 1].
        labels: names of the C classes, in the order of `frame_scores`; they fix the colours as well.
        axis: when each snippet is; evenly over the duration where None.
        clicks: shown under the true segments.
        least_score: found segments below are left out.
        title: heading.

    Returns:
        A figure, to be saved with ``figure.savefig("timeline.png", dpi=150)``.

    Raises:
        ImportError: if matplotlib is not installed.
        DataError: if `frame_scores` and `labels` do not fit together.

    Example:
        >>> truth = Localization("v", 10.0, (Segment(2, 4, "jump"),))
        >>> found = Localization("v", 10.0, (Segment(2.1, 4.5, "jump", 0.8), Segment(7, 8, "jump", 0.1)))
        >>> figure = timeline(truth, {"BackTAL": found})
        >>> [axes.get_label() for axes in figure.axes]
        ['truth', 'BackTAL: segments']
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('pictures need matplotlib: pip install "backtal[plot]"') from None

    found = {name: video.above(least_score) for name, video in (found or {}).items()}
    frame_scores, foreground = frame_scores or {}, foreground or {}
    styles = _styles(labels, [truth, *found.values()])
    models = list(dict.fromkeys([*found, *frame_scores, *foreground]))

    rows = [("truth", 0.3 * (1 + max(_lanes(truth), default=0)) + 0.3 * bool(clicks))]
    for name in models:
        if name in frame_scores or name in foreground:
            rows.append((f"{name}: scores", 1.0))
        if name in found:
            rows.append((f"{name}: segments", 0.24 * (1 + max(_lanes(found[name]), default=0))))
    figure = Figure(figsize=(9, 1.3 + sum(height + 0.2 for _, height in rows)), layout="constrained")
    grid = figure.subplots(
        len(rows), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [height for _, height in rows]}
    )
    axes: dict[str, Axes] = {}
    for (name, _), ax in zip(rows, grid[:, 0], strict=True):
        axes[name] = ax
        _prepare(ax, name, truth)

    _draw_truth(axes["truth"], truth, clicks, styles)
    for name in models:
        if f"{name}: scores" in axes:
            scores, weight = frame_scores.get(name), foreground.get(name)
            _draw_curves(axes[f"{name}: scores"], name, scores, weight, labels, axis, truth.duration, styles)
        if name in found:
            _draw_bars(axes[f"{name}: segments"], found[name], styles)
        first = axes.get(f"{name}: scores") or axes[f"{name}: segments"]
        first.set_title(name, loc="left", fontsize=9, fontweight="bold", color=_INK, pad=4)
    last = grid[-1, 0]
    last.set_xlabel("time (s)", fontsize=9)
    last.tick_params(axis="x", length=3, labelbottom=True, labelsize=8)
    last.spines["bottom"].set_visible(True)
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.legend(
        handles=_legend(styles, bool(foreground), clicks),
        loc="outside lower center",
        ncols=8,
        frameon=False,
        fontsize=8.5,
        handlelength=2.2,
        handleheight=1.1,
    )
    return figure
