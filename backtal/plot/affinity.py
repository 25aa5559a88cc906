"""The local affinity of chosen frames: how alike a frame is to its neighbours (Fig. 5 and 9)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from backtal.data.features import TimeAxis
from backtal.errors import DataError
from backtal.plot.style import COLOURS, INK, TRUTH, new_figure, tidy
from backtal.plot.text import finished
from backtal.segments.segments import Localization, Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACTION, _BACKGROUND = COLOURS[1], COLOURS[0]


def affinity_mask(
    affinity: ArrayLike,
    seconds: Sequence[float] | None = None,
    *,
    truth: Localization | None,
    axis: TimeAxis | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw how alike chosen frames are to each of their neighbours, a row for each.

    Light bands carry the true segments. A frame of an action is drawn orange, one of background blue, and one of which
    it is not known grey.

    Args:
        affinity: ``[K, T]`` in [-1, 1], from ``local_affinity(output.embedding, K)[0]``; K may be wider than the
            network's own.
        seconds: the frames to draw; where None, the middle of the first action and of the background after it; or of
            the video.
        truth: the true segments and the duration; None where they are not known, which needs the `axis`.
        axis: when each snippet is; evenly over the duration where None.
        title: heading.

    Raises:
        DataError: if `affinity` is not ``[K, T]`` with K odd.

    Example:
        >>> from backtal import Segment
        >>> truth = Localization("v", 10.0, (Segment(2, 4, "jump"),))
        >>> [row.get_label() for row in affinity_mask(np.ones((5, 20)), truth=truth).axes]
        ['3.0 s', '7.0 s']
    """
    values = np.asarray(affinity, dtype=np.float64)
    if values.ndim != 2 or len(values) % 2 == 0:
        raise DataError(f"affinity must be [K, T] with K odd, got shape {values.shape}")
    reach, length = len(values) // 2, values.shape[1]
    if truth is not None:
        axis = axis or TimeAxis.even(length, truth.duration)
    elif axis is None:
        raise DataError("affinity needs the true segments or the time axis, to know how long the video is")
    duration, segments = axis.duration if truth is None else truth.duration, tuple(truth or ())
    middles = axis.rescaled(length).middles()
    chosen = list(seconds) if seconds is not None else _two_frames(segments, duration)
    figure = new_figure(8, 1.35 * len(chosen) + 0.7)
    rows = figure.subplots(len(chosen), squeeze=False)[:, 0]
    for ax, second in zip(rows, chosen, strict=True):
        frame = axis.rescaled(length).index(second)
        near = np.arange(max(frame - reach, 0), min(frame + reach, length - 1) + 1)
        label = next((s.label for s in segments if s.start <= middles[frame] < s.end), None)
        colour = _ACTION if label else INK if truth is None else _BACKGROUND
        width = 0.9 * (middles[1] - middles[0] if length > 1 else duration)
        others = near[near != frame]
        ax.bar(middles[others], values[others - frame + reach, frame], width, color=INK, alpha=0.75)
        ax.bar(
            middles[frame], values[reach, frame], width, color=colour, hatch="" if label else "////", edgecolor="white"
        )
        left, right = middles[near[0]] - width, middles[near[-1]] + width
        for segment in segments:
            if segment.end > left and segment.start < right:
                ax.axvspan(max(segment.start, left), min(segment.end, right), color=TRUTH, linewidth=0, zorder=0)
        ax.axhline(0, color=INK, linewidth=0.6)
        ax.set(xlim=(left, right), ylim=(min(-0.05, values[:, near].min()), 1.05))
        ax.set_label(f"{second:.1f} s")
        kind = f"a frame of {label}" if label else "a frame" if truth is None else "a frame of background"
        tidy(
            ax,
            f"{kind}, {middles[frame]:.1f} s",
            y="affinity",
            x="" if ax is not rows[-1] else "time (s)" if truth is None else "time (s); grey: true segments",
        )
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return finished(figure)


def _two_frames(truth: Sequence[Segment], duration: float) -> list[float]:
    """The middle of the first action, and of the background after it."""
    if not truth:
        return [duration / 2]
    segments = sorted(truth, key=lambda s: s.start)
    first = segments[0]
    following = next((s.start for s in segments[1:] if s.start > first.end), duration)
    return [(first.start + first.end) / 2, (first.end + following) / 2]
