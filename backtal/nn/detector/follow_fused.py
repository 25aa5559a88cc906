"""A detector's segments while a video goes on: those of `backtal.nn.detector.fusion`, as soon as nothing changes them.

Nearly every point has a weak segment of every class, and each of them waits for better ones nearby: nothing would ever
be settled. But what is weak rarely matters. So only what may reach the least score is looked at, and of weak points
only how much they might score: where even that is suppressed, they change nothing. Where it is not, weaker points are
looked at too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from backtal.data.features import TimeAxis
from backtal.nn.cas import BackTALOutput
from backtal.nn.detector.follow import at_points, left_out
from backtal.nn.detector.fusion import by_activations
from backtal.nn.live.curves import CurveFollower
from backtal.nn.live.settle import Rule, Suppressed
from backtal.segments.segments import temporal_iou, touching
from backtal.settings.detector import DetectionConfig

LOOKED_AT = (0.05, 0.01, 0.0)  # of weaker points only bounds are known; where these matter, the next one is tried
_CLOSE = 1e-7  # bounds of a score so near each other are one


class Seen(NamedTuple):
    """What was seen of a class, in snippets.

    Args:
        points: ``[n, 3]`` start, end, score of the segments at points, before suppression.
        runs: ``[m, 3]`` of the runs, after it.
        told: ``[k, 3]`` of the segments that are final.
        done: ``[n + m]`` which of the points and runs are done with.
    """

    points: np.ndarray
    runs: np.ndarray
    told: np.ndarray
    done: np.ndarray


class Limits(NamedTuple):
    """What is known of the rest of the video, in snippets.

    Args:
        point: no segment at a point to come begins before it.
        run: no run to come begins before it.
        past: segments at points that are forgotten ended before it.
        patience: what ended before it is settled whatever may still change it.
        begin: of the video.
        end: of the video.
    """

    point: float = np.inf
    run: float = np.inf
    past: float = -np.inf
    patience: float = -np.inf
    begin: float = 0.0
    end: float = np.inf

    @property
    def first(self) -> float:
        """Nothing to come begins before it."""
        return min(self.point, self.run)


class Settled(NamedTuple):
    """What is settled of a class.

    Args:
        final: ``[k, 3]`` start, end, score of new final segments.
        done: ``[n + m]`` which of the points and runs are done with.
        forced: how many were closed although they might have become something else.
        level: which of the scores in `LOOKED_AT` it took.
    """

    final: np.ndarray
    done: np.ndarray
    forced: int
    level: int


class Fusion:
    """Settles the segments of a class.

    Args:
        config: settings, with thresholds.
        floor: segments below this score do not count.
    """

    def __init__(self, config: DetectionConfig, floor: float) -> None:
        self.floor, self.least, self._weight = max(floor, config.min_score), config.min_score, config.point_weight
        self._rule = Rule(self.floor, config.soft_nms_sigma, config.nms_threshold)
        self._point_rule = Rule(config.min_score, config.soft_nms_sigma, config.nms_threshold)

    def settle(self, seen: Seen, limits: Limits, looked_at: Sequence[float] = LOOKED_AT) -> Settled:
        """What is final with what was seen so far."""
        if not len(seen.runs) and self._weight * seen.points[:, 2].max(initial=0) < self.floor:
            return Settled(np.empty((0, 3)), seen.done, 0, 0)
        rows = np.concatenate([seen.points, seen.runs])
        rows[:, :2] = rows[:, :2].clip(limits.begin, limits.end)
        open_, read = self._open(rows, np.arange(len(rows)) >= len(seen.points), seen.done, limits)
        settled = Settled(np.empty((0, 3)), ~open_, 0, 0)
        if not (open_ & (rows[:, 1] <= limits.first)).any():
            return settled
        for level, least in enumerate(looked_at):
            low, high, weak = self._bounds(seen.points, rows, read, least, limits)
            settled, chosen = self._among(rows, open_, seen.told, low, high, limits)
            settled = settled._replace(level=level)
            if not weak[chosen].any():
                break
        return settled

    def _among(
        self,
        rows: np.ndarray,
        open_: np.ndarray,
        told: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        limits: Limits,
    ) -> tuple[Settled, np.ndarray]:
        """What is settled of the `open_` rows where their fused scores are between `low` and `high`; the final rows."""
        open_ = open_ & (high >= self.floor)
        places, done = np.flatnonzero(open_), ~open_
        low, high, late = low[places], high[places], rows[places, 1] <= limits.patience
        moves = (high > low + _CLOSE) | (rows[places, 1] > limits.first)
        count, edges = len(places), np.concatenate([rows[places, :2], told[:, :2]])
        taken, tiou = np.arange(len(edges)) >= count, temporal_iou(edges, edges)

        def outcome(moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            raw = np.concatenate([np.where(moves, high, low), told[:, 2]])
            scores = self._rule.scores(tiou, raw, taken)
            waits = self._rule.unsettled(tiou, raw, scores, taken, np.concatenate([moves, ~taken[count:]]))
            return scores[:count], waits[:count]

        scores, waits = outcome(moves)
        forced = waits & late
        if forced.any():
            scores, waits = outcome(moves & ~late)
        now = ~waits | late
        final = now & (scores >= self.floor)
        done[places[now]] = True
        found = np.column_stack([rows[places[final], :2], scores[final]])
        return Settled(found, done, int(forced.sum()), 0), places[final]

    def _open(
        self, rows: np.ndarray, is_run: np.ndarray, done: np.ndarray, limits: Limits
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which rows may become a segment, and which ones decide about those."""
        points, runs, weight = rows[~is_run], rows[is_run], self._weight
        tiou = temporal_iou(points[:, :2], runs[:, :2])
        agreed = np.maximum((tiou**2 * runs[:, 2]).max(1, initial=0), to_come(points, limits.run))
        most = np.concatenate([weight * points[:, 2] + (1 - weight) * agreed, (1 - weight) * runs[:, 2] + weight])
        open_ = (most >= self.floor) & ~done & (rows[:, 1] > rows[:, 0])
        read = open_ | is_run
        read[~is_run] |= (tiou[:, open_[is_run]] > 0).any(1)
        return open_, read

    def _bounds(
        self, points: np.ndarray, rows: np.ndarray, read: np.ndarray, least: float, limits: Limits
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each row the fused score as far as known, at most, and whether both may be less by points below `least`.

        Only for those `read`; 0 for the others.
        """
        own, most = rows[:, 2].copy(), rows[:, 2].copy()
        own[: len(points)], most[: len(points)] = self._at_their_points(points, read[: len(points)], least, limits)
        places = np.flatnonzero(read)
        is_run, edges = places >= len(points), rows[read, :2]
        # What suppression leaves below `least` could be suppressed further by what is below it.
        own, most, weak = own[read], most[read], ~is_run & (own[read] < least)
        alike = np.where(is_run[:, None] != is_run[None, :], temporal_iou(edges, edges) ** 2, 0)
        weight = np.where(is_run, 1 - self._weight, self._weight)
        agreed, without = ((alike * scores).max(1, initial=0) for scores in (own, np.where(weak, 0, own)))
        coming = np.where(is_run, to_come(edges, limits.point), to_come(edges, limits.run))
        found = np.zeros((3, len(rows)))
        found[0, read] = np.where(own > 0, weight * own + (1 - weight) * agreed, 0)
        at_most = np.maximum((alike * most).max(1, initial=0), coming)
        found[1, read] = np.where(most > 0, weight * most + (1 - weight) * at_most, 0)
        found[2, read] = weak | (agreed > without + _CLOSE)
        return found[0], found[1], found[2] > 0

    def _at_their_points(
        self, points: np.ndarray, needed: np.ndarray, least: float, limits: Limits
    ) -> tuple[np.ndarray, np.ndarray]:
        """``[n]`` what suppression leaves of the scores at points, as far as known and at most; 0 where it drops one.

        Of points below `least`, and of those not needed, the score before suppression.
        """
        # Those that fall below `least` suppress no others: in which order they would is not known.
        rule = replace(self._point_rule, floor=max(self.least, least))
        own = np.where(points[:, 2] >= self.least, points[:, 2], 0)
        most, looked_at = own.copy(), np.flatnonzero(own >= rule.floor)
        for group in touching(points[looked_at, :2]):
            chosen = looked_at[group]
            if not needed[chosen].any():
                continue
            start, end, raw = points[chosen].T
            tiou, none = temporal_iou(points[chosen, :2], points[chosen, :2]), np.zeros(len(chosen), dtype=bool)
            scores = rule.scores(tiou, raw, none)
            waits = rule.unsettled(tiou, raw, scores, none, (end > limits.point) | (start < limits.past))
            own[chosen] = np.where(scores >= self.least, scores, 0)
            most[chosen] = np.where(waits, raw, own[chosen])
        return own, most


def to_come(edges: np.ndarray, first: float) -> np.ndarray:
    """``[n]``: how much ``tiou**2`` an interval may have with one that begins at `first` or later.

    Example:
        >>> to_come(np.array([[0.0, 4.0], [2.0, 6.0], [9.0, 10.0]]), 5.0).tolist()
        [0.0, 0.0625, 1.0]
    """
    length = np.maximum(edges[:, 1] - edges[:, 0], 1e-9)
    return ((edges[:, 1] - first) / length).clip(0, 1) ** 2


class FusedFollower:
    """Segments at the points and of the activations, scored by both; in snippets from the beginning of the video.

    Args:
        config: settings, with thresholds.
        classes: indices of those looked at.
        floor: segments below this score do not count.
        longest: snippets of the longest segment of either kind.
        first: where the video begins, in snippets.
    """

    growth = 0.0

    def __init__(
        self, config: DetectionConfig, classes: Sequence[int], floor: float, longest: int, first: float = 0.0
    ) -> None:
        self._fusion, self._classes, self._longest, self._first = Fusion(config, floor), list(classes), longest, first
        weight = config.point_weight
        # A weaker run makes no segment of that score, neither itself nor a point that agrees with it.
        least = max((self._fusion.floor - weight) / (1 - weight), 0.0) if weight < 1 else 0.0
        self._curves = CurveFollower(by_activations(config), classes, least, longest, first)
        self._runs = Suppressed(self._curves, len(self._classes))
        self._cut = np.empty(0, dtype=bool)
        nothing = Seen(np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 3)), np.empty(0, dtype=bool))
        self._seen = [nothing for _ in self._classes]
        self._length, self._past, self._forced, self._most = 0, -np.inf, 0, config.most
        self._levels = np.zeros(len(self._classes), dtype=np.int64)
        self._counts = np.zeros((len(self._classes), len(LOOKED_AT)), dtype=np.int64)  # of points at each level

    @property
    def delay(self) -> int:
        """Snippets beyond a segment that have to be known, beside the network's reach: those smoothing reads."""
        return self._runs.delay

    @property
    def wait(self) -> float:
        """Snippets from then on until a segment is final.

        It takes three of the longest segments until all are known that may suppress a point that may agree with a run
        that may suppress it. Of the runs the outer area has to be known too.
        """
        return max(3.0, 1 + self._runs.growth) * self._longest

    @property
    def forced(self) -> int:
        """See `backtal.nn.live.settle.Follower`."""
        return self._forced + self._runs.forced

    @property
    def held(self) -> int:
        """Segments in memory."""
        return sum(len(seen.done) + len(seen.told) for seen in self._seen)

    def take(self, output: BackTALOutput, own: slice, axis: TimeAxis | None) -> list[np.ndarray]:
        """Take the next snippets; see `backtal.nn.live.settle.Suppressed.take`."""
        points, cut = self._at_points(output, own)
        self._counts += [
            [(rows[:, 2] >= max(least, self._fusion.least)).sum() for least in LOOKED_AT] for rows in points
        ]
        runs = self._runs.take(output, own, axis)
        self._length += own.stop - own.start
        self._cut = np.concatenate([self._cut, cut])
        self._seen = [_more(*of_class) for of_class in zip(self._seen, points, runs, strict=True)]
        found = []
        for place, seen in enumerate(self._seen):
            limits = self._limits(place)
            if axis is not None:
                seen = seen._replace(points=_within(seen.points, axis.length))
                limits = Limits(past=self._past, begin=self._first, end=self._curves.last(axis))
            settled = self._fusion.settle(seen, limits)
            found.append(settled.final)
            self._levels[place] = max(self._levels[place], settled.level)
            self._forced += settled.forced + self._near_cut(seen, settled.final)
            told = np.concatenate([seen.told, settled.final])
            self._seen[place] = seen._replace(told=told, done=settled.done)
        if axis is not None:
            counts = self._counts[np.arange(len(found)), self._levels]
            self._forced += left_out(counts, self._length, self._most)
        self._forget()
        return found

    def tentative(self, output: BackTALOutput, rest: slice) -> list[np.ndarray]:
        """For each class the segments ``[n, 3]`` that would also be final if the video ended with snippets `rest`."""
        points, _ = self._at_points(output, rest)
        end = self._length + rest.stop - rest.start
        limits, found = Limits(past=self._past, begin=self._first, end=end), []
        for of_class in zip(self._seen, points, self._runs.tentative(output, rest), strict=True):
            seen = _more(*of_class)
            seen = seen._replace(points=_within(seen.points, end))
            found.append(self._fusion.settle(seen, limits, LOOKED_AT[:1]).final)
        return found

    def _limits(self, place: int) -> Limits:
        patience = self._length - self.delay - self.wait
        return Limits(self._length - self._longest, self._runs.frontier[place], self._past, patience, self._first)

    def _at_points(self, output: BackTALOutput, own: slice) -> tuple[list[np.ndarray], np.ndarray]:
        found = at_points(output, own, self._length - own.start, self._longest)
        return [np.column_stack([found.edges, row]) for row in found.scores[self._classes]], found.cut

    def _near_cut(self, seen: Seen, final: np.ndarray) -> int:
        """How many segments a point that was cut might have changed."""
        if not len(final) or not self._cut.any():
            return 0
        cut = seen.points[self._cut & (seen.points[:, 2] >= LOOKED_AT[0])]
        return int((temporal_iou(final[:, :2], cut[:, :2]) > 0).any(1).sum())

    def _forget(self) -> None:
        """Leave what nothing waits for any more."""
        self._past = self._length - self.delay - self.wait - 3 * self._longest
        kept = np.ones(0, dtype=bool)
        for place, seen in enumerate(self._seen):
            kept, runs, told = (rows[:, 1] > self._past for rows in seen[:3])
            done = seen.done[np.concatenate([kept, runs])]
            self._seen[place] = Seen(seen.points[kept], seen.runs[runs], seen.told[told], done)
        self._cut = self._cut[kept] if len(self._seen) else self._cut


def _more(seen: Seen, points: np.ndarray, runs: np.ndarray) -> Seen:
    count = len(seen.points)
    done = [seen.done[:count], np.zeros(len(points), dtype=bool), seen.done[count:], np.zeros(len(runs), dtype=bool)]
    points, runs = np.concatenate([seen.points, points]), np.concatenate([seen.runs, runs])
    return Seen(points, runs, seen.told, np.concatenate(done))


def _within(rows: np.ndarray, end: float) -> np.ndarray:
    return rows.clip([-np.inf, -np.inf, 0], [end, end, 1])
