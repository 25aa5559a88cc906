"""One video over time: truth, clicks, what models see and find, frames."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from backtal.clicks.clicks import ClickTrack
from backtal.data.features import TimeAxis
from backtal.errors import DataError
from backtal.plot.style import FOREGROUND, INK, TRUTH, Style, new_figure, styles_of
from backtal.plot.text import finished, legend, width_of
from backtal.segments.segments import Localization, Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Frames = Sequence[tuple[float, ArrayLike]] | Callable[[float], ArrayLike]

_LETTER = 0.0085  # width of a letter on a bar, as a fraction of the row
_NUM_FRAMES, _ROW_WIDTH = 10, 8.6  # pictures in a row, and its width in inches


def timeline(
    truth: Localization | None,
    found: Mapping[str, Localization] | None = None,
    *,
    frame_scores: Mapping[str, ArrayLike] | None = None,
    foreground: Mapping[str, ArrayLike] | None = None,
    labels: Sequence[str] = (),
    axis: TimeAxis | None = None,
    clicks: ClickTrack | None = None,
    frames: Frames | None = None,
    least_score: float = 0.2,
    title: str | None = None,
) -> "Figure":
    """Draw one video: its true segments and, for one model or several, what they saw and found.

    The classes that occur, truly or as found, have a colour, a hatching and a dash of their own. A segment is the more
    opaque the higher its score, which is written on it where there is room. Light bands carry the true segments
    through all rows.

    Args:
        truth: the true segments and the duration; None where they are not known, which needs `axis` or `found`.
        found: segments by the model's name, one row each.
        frame_scores: by the model's name, ``[C, T]`` or ``[C+1, T]`` in [0, 1], for example the softmax of the CAS.
        foreground: by the model's name, ``[T]`` or ``[1, T]`` in [0, 1].
        labels: names of the C classes, in the order of `frame_scores`; they fix the colours as well.
        axis: when each snippet is; evenly over the duration where None.
        clicks: shown under the true segments, or in their place.
        frames: pictures from the video, ``[H, W, 3]`` uint8 or in [0, 1]: pairs of second and picture, of which those
            nearest to ten even moments are drawn, or a function of the second.
        least_score: found segments below are left out.
        title: heading.

    Returns:
        A figure, to be saved with ``figure.savefig("timeline.png", dpi=150)``.

    Raises:
        ImportError: if matplotlib is not installed.
        DataError: if nothing says how long the video is, or `frame_scores` and `labels` do not fit together.

    Example:
        >>> truth = Localization("v", 10.0, (Segment(2, 4, "jump"),))
        >>> found = Localization("v", 10.0, (Segment(2.1, 4.5, "jump", 0.8), Segment(7, 8, "jump", 0.1)))
        >>> figure = timeline(truth, {"BackTAL": found})
        >>> [axes.get_label() for axes in figure.axes]
        ['truth', 'BackTAL: segments']
    """
    found = {name: video.above(least_score) for name, video in (found or {}).items()}
    frame_scores, foreground = frame_scores or {}, foreground or {}
    known = [one.duration for one in (truth, axis, *found.values()) if one is not None]
    if not known:
        raise DataError("how long is the video? Give its truth, its axis, or what was found in it")
    shown = Localization("", known[0], ()) if truth is None else truth
    styles = styles_of(labels, [shown, *found.values()])
    models = list(dict.fromkeys([*found, *frame_scores, *foreground]))

    pictures = _pick(frames, shown.duration) if frames is not None else []
    rows = [("frames", _height(pictures))] if pictures else []
    if truth is not None or clicks:
        rows += [("truth", 0.3 * (1 + max(_lanes(shown), default=0)) + 0.3 * bool(clicks))]
    for name in models:
        if name in frame_scores or name in foreground:
            rows.append((f"{name}: scores", 1.0))
        if name in found:
            rows.append((f"{name}: segments", 0.24 * (1 + max(_lanes(found[name]), default=0))))
    figure = new_figure(9, 1.3 + sum(height + 0.2 for _, height in rows))
    grid = figure.subplots(
        len(rows), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [height for _, height in rows]}
    )
    axes: dict[str, Axes] = {}
    for (name, _), ax in zip(rows, grid[:, 0], strict=True):
        axes[name] = ax
        _prepare(ax, name, shown)

    if pictures:
        _draw_frames(axes["frames"], pictures, shown.duration)
    if "truth" in axes:
        _draw_truth(axes["truth"], shown, clicks, styles, "clicks" if truth is None else "ground truth")
    for name in models:
        if f"{name}: scores" in axes:
            scores, weight = frame_scores.get(name), foreground.get(name)
            _draw_curves(axes[f"{name}: scores"], name, scores, weight, labels, axis, shown.duration, styles)
        if name in found:
            _draw_bars(axes[f"{name}: segments"], found[name], styles, lambda segment: f"{segment.score:.2f}")
        first = axes.get(f"{name}: scores") or axes[f"{name}: segments"]
        first.set_title(name, loc="left", fontsize=9, fontweight="bold", color=INK, pad=4)
    last = grid[-1, 0]
    last.set_xlabel("time (s)", fontsize=9)
    last.tick_params(axis="x", length=3, labelbottom=True, labelsize=8)
    last.spines["bottom"].set_visible(True)
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    legend(
        figure,
        *_legend(styles, bool(foreground), clicks),
        loc="outside lower center",
        ncols=8,
        frameon=False,
        fontsize=8.5,
        handlelength=2.2,
        handleheight=1.1,
    )
    return finished(figure)


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
            ax.axvspan(segment.start, segment.end, color=TRUTH, linewidth=0, zorder=0)


def _draw_bars(
    ax: "Axes", video: Localization, styles: Mapping[str, Style], text: Callable[[Segment], str], opaque: bool = False
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
        if segment.duration > (width_of(text(segment)) + 2) * _LETTER * video.duration:
            middle, box = (segment.start + segment.end) / 2, {"facecolor": "white", "linewidth": 0, "pad": 1.2}
            ax.text(middle, lane, text(segment), fontsize=7, color=INK, ha="center", va="center", bbox=box)
    ax.set_ylim(max(lanes, default=0) + 0.5, -0.5)


def _pick(frames: Frames, duration: float) -> list[tuple[float, np.ndarray]]:
    """The pictures to draw, each with its second."""
    moments = [(i + 0.5) / _NUM_FRAMES * duration for i in range(_NUM_FRAMES)]
    if callable(frames):
        chosen = [(moment, frames(moment)) for moment in moments]
    else:
        seconds = np.array([second for second, _ in frames])
        chosen = [frames[index] for index in sorted({int(np.abs(seconds - moment).argmin()) for moment in moments})]
    pictures = [(float(second), np.asarray(picture)) for second, picture in chosen]
    for second, picture in pictures:
        if picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(f"the frame at {second:g} s must be [H, W, 3], got shape {picture.shape}")
    return pictures


def _height(pictures: Sequence[tuple[float, np.ndarray]]) -> float:
    """Inches that pictures side by side are high."""
    return max(_ROW_WIDTH / _NUM_FRAMES * picture.shape[0] / picture.shape[1] for _, picture in pictures)


def _draw_frames(ax: "Axes", pictures: Sequence[tuple[float, np.ndarray]], duration: float) -> None:
    """Pictures side by side along the time axis, with their seconds above."""
    width = 1 / _NUM_FRAMES
    for second, picture in pictures:
        place = min(max(int(second / duration / width), 0), _NUM_FRAMES - 1)
        inset = ax.inset_axes((place * width, 0, width * 0.96, 1), label=f"frame at {second:g} s")
        inset.imshow(picture, aspect="equal", interpolation="antialiased")
        inset.set_axis_off()
        inset.set_title(f"{second:.1f} s", fontsize=6.5, color=INK, pad=2)


def _draw_truth(
    ax: "Axes", truth: Localization, clicks: ClickTrack | None, styles: Mapping[str, Style], title: str
) -> None:
    _draw_bars(ax, truth, styles, lambda segment: segment.label, opaque=True)
    ax.set_title(title, loc="left", fontsize=9, fontweight="bold", color=INK, pad=4)
    if clicks:
        below = ax.get_ylim()[0] + 0.4
        ax.plot(clicks.times(), [below] * len(clicks.times()), "^", color=INK, markersize=6, clip_on=False)
        ax.set_ylim(below + 0.4, -0.5)


def _draw_curves(
    ax: "Axes",
    name: str,
    scores: ArrayLike | None,
    foreground: ArrayLike | None,
    labels: Sequence[str],
    axis: TimeAxis | None,
    duration: float,
    styles: Mapping[str, Style],
) -> None:
    ax.set_ylim(0, 1.02)
    ax.set_yticks([0, 0.5, 1])
    ax.tick_params(axis="y", left=True, labelleft=True, length=2)
    ax.spines["left"].set_visible(True)
    if foreground is not None:
        weight = np.asarray(foreground, dtype=np.float64).reshape(-1)
        ax.plot(_times(len(weight), axis, duration), weight, ":", color=FOREGROUND, linewidth=1.1)
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
    return (axis or TimeAxis.even(length, duration)).rescaled(length).middles()


def _legend(styles: Mapping[str, Style], foreground: bool, clicks: ClickTrack | None) -> tuple[list[Any], list[str]]:
    """What the legend shows, and the names."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown: dict[str, Any] = {}
    if foreground:
        shown["foreground weight"] = Line2D([], [], linestyle=":", color=FOREGROUND)
    if clicks:
        shown["background click"] = Line2D([], [], linestyle="", marker="^", color=INK)
    patches = [Patch(facecolor=style.colour, hatch=style.hatch, edgecolor="white") for style in styles.values()]
    return [*patches, *shown.values()], [*styles, *shown]
