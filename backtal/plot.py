"""Pictures of what was found in a video. Needs matplotlib: ``pip install "backtal[plot]"``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
_LETTER = 0.0085  # width of a letter on a bar, as a fraction of the row


def timeline(
    truth: Localization,
    found: Mapping[str, Localization] | None = None,
    *,
    frame_scores: Mapping[str, ArrayLike] | None = None,
    foreground: Mapping[str, ArrayLike] | None = None,
    labels: Sequence[str] = (),
    axis: TimeAxis | None = None,
    clicks: ClickTrack | None = None,
    frames: Sequence[np.ndarray] = (),
    least_score: float = 0.2,
    title: str | None = None,
) -> "Figure":
    """Draw one video: its true segments and, for one model or several, what they saw and found.

    The classes that occur, truly or as found, have a colour, a hatching and a dash of their own. A segment is the more
    opaque the higher its score, which is written on it where there is room. Light bands carry the true segments
    through all rows.

    Args:
        truth: the true segments and the duration.
        found: segments by the model's name, one row each.
        frame_scores: by the model's name, ``[C, T]`` or ``[C+1, T]`` in [0, 1], for example the softmax of the CAS.
        foreground: by the model's name, ``[T]`` or ``[1, T]`` in [0, 1].
        labels: names of the C classes, in the order of `frame_scores`; they fix the colours as well.
        axis: when each snippet is; evenly over the duration where None.
        clicks: shown under the true segments.
        frames: pictures ``[H, W, 3]`` (uint8), evenly spaced over the video, shown above everything.
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
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ImportError('pictures need matplotlib: pip install "backtal[plot]"') from None

    found = {name: video.above(least_score) for name, video in (found or {}).items()}
    frame_scores, foreground = frame_scores or {}, foreground or {}
    styles = _styles(labels, [truth, *found.values()])
    models = list(dict.fromkeys([*found, *frame_scores, *foreground]))

    rows = [("frames", 0.9)] if len(frames) else []
    rows += [("truth", 0.3 * (1 + max(_lanes(truth), default=0)) + 0.3 * bool(clicks))]
    for name in models:
        if name in frame_scores or name in foreground:
            rows.append((f"{name}: scores", 1.0))
        if name in found:
            rows.append((f"{name}: segments", 0.24 * (1 + max(_lanes(found[name]), default=0))))
    figure = Figure(
        figsize=(9, 1.3 + sum(height + 0.2 for _, height in rows)),
        layout=ConstrainedLayoutEngine(hspace=0.0, h_pad=0.05),
    )
    grid = figure.subplots(
        len(rows), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [height for _, height in rows]}
    )
    axes: dict[str, Axes] = {}
    for (name, _), ax in zip(rows, grid[:, 0], strict=True):
        axes[name] = ax
        _prepare(ax, name, truth)

    if len(frames):
        step = truth.duration / len(frames)
        for index, frame in enumerate(frames):
            axes["frames"].imshow(frame, extent=(index * step, (index + 0.97) * step, 0, 1), aspect="auto")
        axes["frames"].set(xlim=(0, truth.duration), ylim=(0, 1))
    _draw_truth(axes["truth"], truth, clicks, styles)
    for name in models:
        if f"{name}: scores" in axes:
            scores, weight = frame_scores.get(name), foreground.get(name)
            _draw_curves(axes[f"{name}: scores"], name, scores, weight, labels, axis, truth.duration, styles)
        if name in found:
            _draw_bars(axes[f"{name}: segments"], found[name], styles, lambda segment: f"{segment.score:.2f}")
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


class _Style(NamedTuple):
    """How a class looks."""

    colour: str
    hatch: str
    dash: Any


def _styles(labels: Sequence[str], videos: Iterable[Localization]) -> dict[str, _Style]:
    """A style for every label that occurs; its place among all labels decides which."""
    occurring = {segment.label for video in videos for segment in video}
    order = list(dict.fromkeys([*labels, *sorted(occurring)]))
    looks = [_Style(*look) for look in zip(_COLOURS, _HATCHES, _DASHES, strict=True)]
    return {label: looks[i % len(looks)] for i, label in enumerate(order) if label in occurring}


def _lanes(segments: Iterable[Segment]) -> list[int]:
    """A lane for each segment, the first where it overlaps none before it.

    Example:
        >>> _lanes([Segment(0, 4, "jump"), Segment(3, 6, "jump"), Segment(4, 5, "run")])
        [0, 1, 0]
    """
    lanes: list[list[Segment]] = []
    chosen = []
    for segment in segments:
        free = (i for i, lane in enumerate(lanes) if all(_apart(segment, other) for other in lane))
        index = next(free, len(lanes))
        if index == len(lanes):
            lanes.append([])
        lanes[index].append(segment)
        chosen.append(index)
    return chosen


def _apart(a: Segment, b: Segment) -> bool:
    return a.end <= b.start or b.end <= a.start


def _prepare(ax: "Axes", name: str, truth: Localization) -> None:
    """An empty row: no frame, the time axis hidden, light bands where the truth is."""
    ax.set_label(name)
    ax.set_xlim(0, truth.duration)
    ax.spines[:].set_visible(False)
    ax.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False, labelsize=8)
    if name not in ("truth", "frames"):
        for segment in truth:
            ax.axvspan(segment.start, segment.end, color=_TRUTH, linewidth=0, zorder=0)


def _draw_bars(
    ax: "Axes", video: Localization, styles: Mapping[str, _Style], text: Callable[[Segment], str], opaque: bool = False
) -> None:
    """Segments as bars, in as many lanes as it takes that none covers another; a text where it fits."""
    lanes = _lanes(video)
    for segment, lane in zip(video, lanes, strict=True):
        style = styles[segment.label]
        ax.barh(
            lane,
            segment.duration,
            left=segment.start,
            height=0.8,
            color=style.colour,
            alpha=1.0 if opaque else 0.25 + 0.75 * min(max(segment.score, 0.0), 1.0),
            hatch=style.hatch,
            edgecolor="white",
            linewidth=0.8,
        )
        if segment.duration > (len(text(segment)) + 2) * _LETTER * video.duration:
            middle, box = (segment.start + segment.end) / 2, {"facecolor": "white", "linewidth": 0, "pad": 1.2}
            ax.text(middle, lane, text(segment), fontsize=7, color=_INK, ha="center", va="center", bbox=box)
    ax.set_ylim(max(lanes, default=0) + 0.5, -0.5)


def _draw_truth(ax: "Axes", truth: Localization, clicks: ClickTrack | None, styles: Mapping[str, _Style]) -> None:
    _draw_bars(ax, truth, styles, lambda segment: segment.label, opaque=True)
    ax.set_title("ground truth", loc="left", fontsize=9, fontweight="bold", color=_INK, pad=4)
    if clicks:
        below = ax.get_ylim()[0] + 0.4
        ax.plot(clicks.times(), [below] * len(clicks.times()), "^", color=_INK, markersize=6, clip_on=False)
        ax.set_ylim(below + 0.4, -0.5)


def _draw_curves(
    ax: "Axes",
    name: str,
    scores: ArrayLike | None,
    foreground: ArrayLike | None,
    labels: Sequence[str],
    axis: TimeAxis | None,
    duration: float,
    styles: Mapping[str, _Style],
) -> None:
    ax.set_ylim(0, 1.02)
    ax.set_yticks([0, 0.5, 1])
    ax.tick_params(axis="y", left=True, labelleft=True, length=2)
    ax.spines["left"].set_visible(True)
    if foreground is not None:
        weight = np.asarray(foreground, dtype=np.float64).reshape(-1)
        ax.plot(_times(len(weight), axis, duration), weight, ":", color=_FOREGROUND, linewidth=1.1)
    if scores is None:
        return
    rows = np.asarray(scores, dtype=np.float64)
    if rows.ndim != 2 or len(rows) - len(labels) not in (0, 1):
        raise DataError(
            f"frame scores of {name}: shape {rows.shape} does not fit {len(labels)} labels; expected [C, T] or [C+1, T]"
        )
    times = _times(rows.shape[1], axis, duration)
    for label, row in zip(labels, rows, strict=False):
        if label in styles:
            ax.plot(times, row, color=styles[label].colour, linestyle=styles[label].dash, linewidth=1.6)
            ax.fill_between(times, row, color=styles[label].colour, alpha=0.12, linewidth=0)


def _times(length: int, axis: TimeAxis | None, duration: float) -> np.ndarray:
    """The second in the middle of each snippet."""
    axis = (axis or TimeAxis.even(length, duration)).rescaled(length)
    return np.array([axis.seconds(index + 0.5) for index in range(length)])


def _legend(styles: Mapping[str, _Style], foreground: bool, clicks: ClickTrack | None) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=style.colour, hatch=style.hatch, edgecolor="white", label=label)
        for label, style in styles.items()
    ]
    if foreground:
        handles.append(Line2D([], [], linestyle=":", color=_FOREGROUND, label="foreground weight"))
    if clicks:
        handles.append(Line2D([], [], linestyle="", marker="^", color=_INK, label="background click"))
    return handles
