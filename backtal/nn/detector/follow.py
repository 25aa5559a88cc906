"""Candidates at the detector's points while a video goes on: those of `backtal.nn.detector.points`, as they come."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backtal.data.features import TimeAxis
from backtal.files import note
from backtal.nn.cas import BackTALOutput
from backtal.nn.detector.points import exact_intervals
from backtal.nn.live.settle import Rule
from backtal.settings.detector import DetectionConfig


class PointFollower:
    """Candidates of the detector, in snippets from the beginning of the video.

    Nothing in the network bounds how far from its point a segment begins. So that a candidate can be settled before the
    end of the video, one is cut to `longest`, to either side of its point and in all.

    Args:
        detection: settings.
        classes: indices of those looked at.
        floor: candidates below this score do not count.
        longest: snippets of the longest segment.
    """

    delay, growth = 0, 0.0

    def __init__(self, detection: DetectionConfig, classes: Sequence[int], floor: float, longest: int) -> None:
        self._settings, self._classes, self._longest = detection, list(classes), longest
        self.rule = Rule(max(floor, detection.min_score), detection.soft_nms_sigma, detection.nms_threshold)
        self._length, self._counts = 0, np.zeros(len(self._classes), dtype=np.int64)
        self.cut = 0

    @property
    def wait(self) -> float:
        """Snippets from the end of a candidate until none that overlaps it can come, and until those are settled."""
        return 2 * self._longest

    @property
    def patience(self) -> float:
        """Of these, how long a candidate waits for overlapping ones to be settled."""
        return self._longest

    def last(self, axis: TimeAxis) -> float:
        """Where a video that is over ends, in snippets."""
        return float(axis.length)

    def take(self, output: BackTALOutput, own: slice, ending: bool) -> tuple[list[np.ndarray], np.ndarray]:
        """Take the next snippets; see `backtal.nn.live.curves.CurveFollower.take`."""
        found, cut = self._at(output, own, self._length - own.start)
        self._length += own.stop - own.start
        self.cut += cut
        self._counts += [len(rows) for rows in found]
        if ending:
            self.cut += left_out(self._counts, self._length, self._settings.most)
        return found, np.full(len(self._classes), float(self._length - self._longest))

    def tentative(self, output: BackTALOutput, rest: slice) -> list[np.ndarray]:
        """For each class the candidates ``[n, 3]`` that would also be known if the video ended with snippets `rest`."""
        found, _ = self._at(output, rest, self._length - rest.start)
        return [rows.clip([-np.inf, -np.inf, 0], [self._length + rest.stop - rest.start] * 2 + [1]) for rows in found]

    def _at(self, output: BackTALOutput, own: slice, shift: int) -> tuple[list[np.ndarray], int]:
        found = at_points(output, own, shift, self._longest)
        scores = found.scores[self._classes]
        counted = scores >= self.rule.floor
        cut = int(found.cut[counted.any(0)].sum()) if counted.size else 0
        return [np.column_stack([found.edges, row])[kept] for row, kept in zip(scores, counted, strict=True)], cut


def left_out(counts: np.ndarray, length: int, most: int) -> int:
    """How many of so many candidates of a class `localize` leaves out of a video of that length; said if any."""
    excess = max(int((counts - most * (1 + length // 100)).max(initial=0)), 0)
    if excess:
        note(
            f"localization.most = {most}: more candidates than that for every 100 snippets; of the recorded video, "
            "localize leaves out the weakest"
        )
    return excess


class AtPoints(NamedTuple):
    """Segments at points: ``[n, 2]`` edges in snippets, ``[C, n]`` scores, ``[n]`` whether an edge was cut."""

    edges: np.ndarray
    scores: np.ndarray
    cut: np.ndarray


def at_points(output: BackTALOutput, own: slice, shift: int, longest: float) -> AtPoints:
    """The segments at the points of snippets `own`, moved by `shift` snippets.

    None begins more than `longest` before its point, or is longer, or begins before the video.
    """
    points = output.points
    assert points is not None
    place = points.places[:, 0]
    mine = points.real[0] & (place >= own.start) & (place < own.stop)
    edges = exact_intervals(points)[mine.cpu().numpy()] + shift
    scores = points.classes[0][:, mine].float().sigmoid().double().cpu().numpy()
    middle = place[mine].double().cpu().numpy() + shift
    start = np.maximum(edges[:, 0], 0)
    short = np.maximum(start, middle - longest)
    end = np.minimum(edges[:, 1], short + longest)
    return AtPoints(np.column_stack([short, end]), scores, (short > start) | (end < edges[:, 1]))
