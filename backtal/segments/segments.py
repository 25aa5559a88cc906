"""Segments in time: the result types, temporal intersection over union, non-maximum suppression."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtal.errors import DataError
from backtal.files import atomic_path, note, parse_json, read_json, read_lines

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Segment:
    """An action instance: it lasts from `start` to `end` (seconds, half-open).

    Example:
        >>> Segment(1.0, 2.5, "LongJump", score=0.9)
        Segment(start=1.0, end=2.5, label='LongJump', score=0.9)
    """

    start: float
    end: float
    label: str
    score: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end) and self.start <= self.end):
            raise DataError(f"segment [{self.start}, {self.end}] of {self.label!r}: not an interval of seconds")
        if not math.isfinite(self.score):
            raise DataError(f"segment [{self.start}, {self.end}] of {self.label!r}: score {self.score}")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Localization:
    """The segments found in one video, and how long the video is (seconds).

    Example:
        >>> found = Localization("v1", 10.0, (Segment(1, 2, "jump", 0.2), Segment(4, 6, "jump", 0.9)))
        >>> print(found.above(0.5))
        v1 (10.0 s): 1 segment
            4.00 -   6.00 s  0.900  jump
    """

    video_id: str
    duration: float
    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return len(self.segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __str__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        lines = [f"{self.video_id} ({self.duration:.1f} s): {len(self)} segment{plural}"]
        lines += [f"  {s.start:6.2f} - {s.end:6.2f} s  {s.score:.3f}  {s.label}" for s in self]
        return "\n".join(lines)

    def above(self, score: float) -> "Localization":
        """Keep the segments with at least this score."""
        return Localization(self.video_id, self.duration, tuple(s for s in self if s.score >= score))

    def to_arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return intervals ``[n, 2]`` in seconds, scores ``[n]`` and labels ``[n]``."""
        intervals = np.array([(s.start, s.end) for s in self], dtype=np.float64).reshape(-1, 2)
        scores = np.array([s.score for s in self], dtype=np.float64)
        return intervals, scores, np.array([s.label for s in self], dtype=object)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a data frame with columns video, start, end, label, score."""
        import pandas

        rows = [(self.video_id, s.start, s.end, s.label, s.score) for s in self]
        return pandas.DataFrame(rows, columns=["video", "start", "end", "label", "score"])


def to_segments(rows: np.ndarray, labels: Sequence[str]) -> tuple[Segment, ...]:
    """Segments from ``[n, 4]`` start and end in seconds, index of the label, score; by descending score.

    Example:
        >>> to_segments(np.array([[0.0, 2.0, 1.0, 0.5]]), ["run", "jump"])
        (Segment(start=0.0, end=2.0, label='jump', score=0.5),)
    """
    order = np.argsort(-rows[:, 3], kind="stable")
    return tuple(Segment(start, end, labels[int(index)], score) for start, end, index, score in rows[order].tolist())


def write_predictions(path: str | Path, localizations: Iterable[Localization]) -> None:
    """Write segments in ActivityNet's detection form, ``{"version", "results": {video: [...]}}``.

    To a path that ends in ``.jsonl`` as JSON Lines, one video a line: ``{"video", "duration", "segments": [...]}``.
    Videos are written one by one: of an iterator, one is in memory at a time.

    Raises:
        DataError: if a video comes twice.
    """
    lines, names = Path(path).suffix.lower() == ".jsonl", set[str]()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write("" if lines else '{\n "version": "backtal",\n "results": {')
        for found in localizations:
            if found.video_id in names:
                raise DataError(f"{path}: two results of video {found.video_id}; a predictions file holds one")
            if lines:
                file.write(prediction_line(found))
            else:
                text = json.dumps(_entries(found), indent=1).replace("\n", "\n  ")
                file.write(f"{',' if names else ''}\n  {json.dumps(found.video_id)}: {text}")
            names.add(found.video_id)
        if not lines:
            file.write(("\n " if names else "") + '},\n "external_data": {}\n}\n')


def prediction_line(found: Localization) -> str:
    """A video as a line of JSON; its duration is left out where it is not known."""
    duration = {"duration": found.duration} if math.isfinite(found.duration) else {}
    return json.dumps({"video": found.video_id, **duration, "segments": _entries(found)}) + "\n"


def _entries(found: Localization) -> list[dict[str, Any]]:
    return [{"label": s.label, "segment": [s.start, s.end], "score": s.score} for s in found]


def read_predictions(path: str | Path) -> list[Localization]:
    """Read a file in ActivityNet's detection form, or JSON Lines as `write_predictions` writes them.

    Durations are not part of ActivityNet's form and come back as NaN. A segment without a score counts as one of score
    1, which is said.

    Raises:
        DataError: if the file is missing or an entry is malformed; the message names the entry.
    """
    if Path(path).suffix.lower() == ".jsonl":
        found = [parse_prediction(line, f"{path}, line {i}") for i, line in enumerate(read_lines(path), 1)]
        names = [one.video_id for one in found]
        if len(set(names)) < len(names):
            raise DataError(f"{path}: several lines of video {next(n for n in names if names.count(n) > 1)}")
        return found
    content = read_json(path)
    results = content.get("results")
    if not isinstance(results, dict):
        also = "; this is a file of annotations" if "database" in content else ""
        raise DataError(
            f"{path}: no 'results' object; expected ActivityNet's form {{'results': {{video: [...]}}}}{also}"
        )
    found, unscored = [], 0
    for video, entries in results.items():
        found.append(Localization(str(video), math.nan, _segments(entries, video, f"{path}")))
        unscored += sum("score" not in entry for entry in entries)
    if unscored:
        note(f"{path}: {unscored} segment(s) without a score; they count as of score 1")
    return found


def parse_prediction(line: str, where: str) -> Localization:
    """A line of JSON as a video; `where` begins the messages.

    Raises:
        DataError: if it is malformed.
    """
    content = parse_json(line, where)
    if not isinstance(content, dict) or not isinstance(content.get("video"), str):
        raise DataError(f'{where}: expected {{"video": name, "segments": [...]}}')
    duration = content.get("duration", math.nan)
    if not isinstance(duration, int | float):
        raise DataError(f"{where}: duration must be seconds, found {duration!r:.40}")
    return Localization(content["video"], duration, _segments(content.get("segments"), content["video"], where))


def _segments(entries: Any, video: str, where: str) -> tuple[Segment, ...]:
    if not isinstance(entries, list):
        raise DataError(f"{where}: results of video {video}: expected a list, found {type(entries).__name__}")
    return tuple(_segment(entry, f"{where}: video {video}, entry {i}") for i, entry in enumerate(entries))


def _segment(entry: Any, where: str) -> Segment:
    try:
        (start, end), label = entry["segment"], entry["label"]
        if not isinstance(label, str):
            raise DataError(f"a label must be a name, found {label!r:.40}")
        if not isinstance(entry["segment"], list):
            raise DataError(f"'segment' must be a list [start, end], found {entry['segment']!r:.40}")
        return Segment(float(start), float(end), label, float(entry.get("score", 1.0)))
    except DataError as failure:
        raise DataError(f"{where}: {failure}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as failure:
        raise DataError(f"{where}: needs 'label', 'segment': [start, end] and 'score' ({failure!r})") from None


_AT_ONCE = 64  # intervals up to which it costs less to compare every pair than to look at several groups
_BLOCK = 1024  # intervals of which every pair is compared at once


def temporal_iou(a: np.ndarray, b: np.ndarray, length_offset: float = 0.0) -> np.ndarray:
    """Temporal intersection over union of every pair of intervals.

    Args:
        a: ``[n, 2]`` starts and ends, in seconds.
        b: ``[m, 2]``.
        length_offset: added to every length and to every intersection. The released BackTAL adds
            1 second in its suppression, a habit from pixel boxes; otherwise 0.

    Returns:
        ``[n, m]`` in [0, 1]; 0 where both intervals are empty.

    Example:
        >>> temporal_iou(np.array([[0.0, 2.0]]), np.array([[1.0, 3.0], [5.0, 6.0]]))
        array([[0.33333333, 0.        ]])
    """
    a, b = np.asarray(a, dtype=np.float64).reshape(-1, 2), np.asarray(b, dtype=np.float64).reshape(-1, 2)
    # In two arrays, each written over: memory that is new to the process costs more than what is computed.
    shared, other = np.minimum.outer(a[:, 1], b[:, 1]), np.maximum.outer(a[:, 0], b[:, 0])
    shared -= other
    shared += length_offset
    np.maximum(shared, 0.0, out=shared)
    union = np.add.outer(a[:, 1] - a[:, 0] + length_offset, b[:, 1] - b[:, 0] + length_offset, out=other)
    union -= shared
    return np.divide(shared, union, out=shared, where=union > 0)  # where nothing is united, nothing is shared


def nms(intervals: np.ndarray, scores: np.ndarray, threshold: float, length_offset: float = 0.0) -> np.ndarray:
    """Greedy non-maximum suppression: keep the best, drop what overlaps it by `threshold` or more.

    Args:
        intervals: ``[n, 2]`` starts and ends, in seconds.
        scores: ``[n]``.
        threshold: temporal IoU from which on a lower-scored interval is dropped.
        length_offset: see `temporal_iou`.

    Returns:
        Indices of the kept intervals, best first.

    Example:
        >>> nms(np.array([[0, 2], [0, 2.1], [5, 6]]), np.array([0.5, 0.9, 0.1]), 0.5)
        array([1, 2])
    """
    intervals = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
    by_start = np.argsort(intervals[:, 0], kind="stable")
    intervals, scores = intervals[by_start], np.asarray(scores)[by_start]
    starts, lengths = intervals[:, 0], intervals[:, 1] - intervals[:, 0] + length_offset
    # An overlap of t needs lengths within a factor t, and so a start that is near: a day may have 100,000 intervals.
    slack = 1e-6 + 1e-9 * np.abs(starts)
    earlier = lengths * (1 / threshold - 1) if threshold > 0 else np.full(len(lengths), np.inf)
    low = np.searchsorted(starts, starts - earlier - slack, "left")
    high = np.searchsorted(starts, starts + lengths * (1 - threshold) + slack, "right")
    left, kept = np.ones(len(starts), dtype=bool), []
    for best in np.lexsort((by_start, -scores)):
        if left[best]:
            kept.append(by_start[best])
            near = slice(low[best], high[best])
            left[near] &= temporal_iou(intervals[best], intervals[near], length_offset)[0] < threshold
    return np.array(kept, dtype=np.int64)


def soft_nms(
    intervals: np.ndarray, scores: np.ndarray, sigma: float, min_score: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian soft suppression: the best stays, the score of the others falls by ``exp(-tiou**2 / sigma)``.

    Args:
        intervals: ``[n, 2]`` starts and ends, in seconds.
        scores: ``[n]``.
        sigma: the smaller, the harder the suppression.
        min_score: stop once no score is above.

    Returns:
        Indices of the kept intervals, best first, and their new scores.

    Example:
        >>> soft_nms(np.array([[0, 2], [0, 2], [5, 6]]), np.array([0.8, 0.9, 0.5]), sigma=0.5)[0]
        array([1, 2, 0])
    """
    intervals = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
    scores = np.asarray(scores, dtype=np.float64)
    kept: list[int] = []
    final: list[float] = []
    for group in touching(intervals, _AT_ONCE):
        near, left = intervals[group], scores[group]
        decays = decay(temporal_iou(near, near), sigma) if len(near) <= _BLOCK else None
        taken, members = np.where(left > min_score, 0.0, -np.inf), group.tolist()
        while (ahead := left + taken)[best := ahead.argmax()] > min_score:
            kept.append(members[best])
            final.append(ahead[best])
            taken[best] = -np.inf
            left *= decay(temporal_iou(near[best], near)[0], sigma) if decays is None else decays[best]
    indices, new = np.array(kept, dtype=np.int64), np.array(final)
    order = np.lexsort((indices, -new))
    return indices[order], new[order]


def decay(tiou: np.ndarray, sigma: float) -> np.ndarray:
    """What share of its score the weaker of two that overlap so much keeps, in `soft_nms`."""
    kept = np.square(tiou)
    kept /= -sigma
    return np.exp(kept, out=kept)


def suppress(
    intervals: np.ndarray,
    scores: np.ndarray,
    *,
    sigma: float | None,
    threshold: float,
    min_score: float | None = None,
    length_offset: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What remains of overlapping intervals: by `soft_nms` where there is a `sigma`, else by `nms`.

    Args:
        intervals: ``[n, 2]`` starts and ends, in seconds.
        scores: ``[n]``.
        sigma: of `soft_nms`; None for `nms`.
        threshold: of `nms`.
        min_score: intervals below are left out first.
        length_offset: of `nms`.

    Returns:
        Intervals ``[m, 2]`` and their scores ``[m]``, best first.

    Example:
        >>> suppress(np.array([[0, 2], [0, 2], [5, 6]]), np.array([0.8, 0.9, 0.5]), sigma=None, threshold=0.5)[1]
        array([0.9, 0.5])
    """
    if min_score is not None:
        intervals, scores = intervals[scores >= min_score], scores[scores >= min_score]
    if sigma is None:
        kept = nms(intervals, scores, threshold, length_offset)
        return intervals[kept], scores[kept]
    kept, scores = soft_nms(intervals, scores, sigma, min_score or 0.0)
    return intervals[kept], scores


def touching(intervals: np.ndarray, least: int = 1) -> list[np.ndarray]:
    """The indices of intervals ``[n, 2]`` in groups, none of which overlaps another; in each in ascending order.

    Args:
        intervals: starts and ends.
        least: groups that follow each other are one until it has so many.

    Example:
        >>> [group.tolist() for group in touching(np.array([[4, 6], [0, 2], [1, 3]]))]
        [[1, 2], [0]]
    """
    if not len(intervals):
        return []
    by_start = np.argsort(intervals[:, 0], kind="stable")
    ends = np.maximum.accumulate(intervals[by_start, 1])
    found, first = [], 0
    for stop in (*(1 + np.flatnonzero(intervals[by_start[1:], 0] >= ends[:-1])).tolist(), len(by_start)):
        if stop - first >= least or stop == len(by_start):
            found.append(np.sort(by_start[first:stop]))
            first = stop
    return found
