"""Suppression while more candidates come: which of them keep their score whatever follows."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from backtal.data.features import TimeAxis
from backtal.segments.segments import decay, temporal_iou


@dataclass(frozen=True)
class Rule:
    """How candidates of a class suppress each other, as `backtal.segments.nms` and `soft_nms` do it.

    Args:
        floor: candidates below do not count. No candidate below it changes what becomes of one that stays above: it
            would have to be taken first.
        sigma: of the soft suppression; None for dropping.
        threshold: temporal IoU from which on a weaker candidate is dropped, where `sigma` is None.
    """

    floor: float
    sigma: float | None
    threshold: float

    def scores(self, tiou: np.ndarray, raw: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """``[n]``: the score that remains of each, below `floor` where none does.

        Args:
            tiou: ``[n, n]`` temporal IoU of the candidates; of equal scores the first comes first.
            raw: ``[n]`` scores before suppression; the final ones of those that are `taken`.
            taken: ``[n]`` True where the score is final.
        """
        found, left, kept = raw.astype(np.float64), np.ones(len(raw), dtype=bool), self._kept(tiou)
        while left.any():
            best = int(np.where(left, found, -np.inf).argmax())
            left[best] = False
            weaker = left & ~taken
            found[weaker] *= kept[best, weaker]
            left &= found >= self.floor
        return found

    def unsettled(
        self, tiou: np.ndarray, raw: np.ndarray, scores: np.ndarray, taken: np.ndarray, open_: np.ndarray
    ) -> np.ndarray:
        """``[n]``: which candidates may still get another score.

        Args:
            tiou: as for `scores`.
            raw: ``[n]`` scores before suppression, at most.
            scores: ``[n]`` what `scores` gives.
            taken: ``[n]`` True where the score is final.
            open_: ``[n]`` True where others may come that overlap it, or the score may still be less.
        """
        overlapping, dropped = tiou > 0, np.zeros(len(raw), dtype=bool)
        while True:
            found = open_ & ~taken & ~dropped
            while True:
                reached = (overlapping & found[None, :] & (raw[None, :] >= scores[:, None])).any(1)
                if not (more := reached & ~taken & ~found & ~dropped).any():
                    break
                found |= more
            without = found & self._falls(tiou, raw, scores, ~found & ~dropped & (scores >= self.floor))
            if not without.any():
                return found
            dropped |= without

    def _falls(self, tiou: np.ndarray, raw: np.ndarray, scores: np.ndarray, settled: np.ndarray) -> np.ndarray:
        """Which candidates end below the floor because of those that are settled alone."""
        most, kept, places = raw.astype(np.float64), self._kept(tiou), np.flatnonzero(settled)
        for place in places[np.argsort(-scores[places], kind="stable")]:
            later = most < scores[place]  # what has no more than that left is taken after it
            most[later] *= kept[place, later]
        return ~settled & (most < self.floor)

    def _kept(self, tiou: np.ndarray) -> np.ndarray:
        """``[n, n]``: what share of its score one keeps beside another."""
        return (tiou < self.threshold) * 1.0 if self.sigma is None else decay(tiou, self.sigma)


@dataclass
class Suppression:
    """The candidates of one class that are not yet settled, and those settled that still suppress others.

    A candidate is settled once no candidate still to come overlaps it, and none is left that overlaps it, is unsettled
    and might be taken before it: suppression then gives it the score that it has now, whatever follows. For that it
    need not be quiet between two actions; what is better around a candidate must be settled.

    Args:
        rule: how candidates suppress each other.
        patience: a candidate that ended so long before the frontier is settled whatever overlaps it.

    Attributes:
        forced: how many were settled so although something might still have changed them.
    """

    rule: Rule
    patience: float
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))  # start, end, score, 1 where that is final
    forced: int = 0

    def add(self, candidates: np.ndarray) -> None:
        """Take ``[n, 3]`` starts, ends and scores; those below the floor do not count."""
        self.rows = np.vstack([self.rows, self._marked(candidates)])

    def settle(self, frontier: float) -> np.ndarray:
        """``[n, 3]`` candidates that are settled now, with their final scores, best first.

        Args:
            frontier: no candidate still to come begins before it.
        """
        if not len(self.rows):
            return np.empty((0, 3))
        intervals, raw, taken = self.rows[:, :2], self.rows[:, 2], self.rows[:, 3] > 0
        tiou = temporal_iou(intervals, intervals)
        scores, overlapping = self.rule.scores(tiou, raw, taken), tiou > 0
        open_ = self.rule.unsettled(tiou, raw, scores, taken, intervals[:, 1] > frontier)
        old = open_ & (intervals[:, 1] <= frontier - self.patience)
        self.forced += int((old & (scores >= self.rule.floor)).sum())
        now = ~taken & (~open_ | old)
        found = np.column_stack([intervals, scores])[now & (scores >= self.rule.floor)]
        self.rows[now, 2:] = np.column_stack([scores[now], np.ones(now.sum())])
        waiting = ~taken & ~now
        needed = (scores >= self.rule.floor) & ((overlapping & waiting[None, :]).any(1) | (intervals[:, 1] > frontier))
        self.rows = self.rows[waiting | needed]
        return found[np.argsort(-found[:, 2], kind="stable")]

    def expected(self, candidates: np.ndarray) -> np.ndarray:
        """``[n, 3]`` what would be settled beside that if `candidates` were the last ones to come, best first."""
        rows = np.vstack([self.rows, self._marked(candidates)])
        scores = self.rule.scores(temporal_iou(rows[:, :2], rows[:, :2]), rows[:, 2], rows[:, 3] > 0)
        found = np.column_stack([rows[:, :2], scores])[(rows[:, 3] == 0) & (scores >= self.rule.floor)]
        return found[np.argsort(-found[:, 2], kind="stable")]

    def clip(self, low: float, high: float) -> None:
        """Cut the candidates that are not settled to ``[low, high]``, where the video begins and ends."""
        waiting = self.rows[:, 3] == 0
        self.rows[waiting, :2] = self.rows[waiting, :2].clip(low, high)

    def _marked(self, candidates: np.ndarray) -> np.ndarray:
        kept = candidates[candidates[:, 2] >= self.rule.floor]
        return np.column_stack([kept, np.zeros(len(kept))])


class Growing(Protocol):
    """What an architecture's output says of intervals while it grows, in snippets.

    Attributes:
        delay: snippets beyond an interval that have to be known, beside the network's reach.
        wait: snippets from then on until nothing that follows changes it.
        growth: how much longer for each second that its class stays active.
    """

    @property
    def delay(self) -> int: ...  # noqa: D102
    @property
    def wait(self) -> float: ...  # noqa: D102
    @property
    def growth(self) -> float: ...  # noqa: D102

    def tentative(self, output, rest: slice) -> list[np.ndarray]: ...  # noqa: D102


class Candidates(Growing, Protocol):
    """Candidates, before they suppress each other.

    Attributes:
        rule: how they do.
        patience: how long a candidate waits for those that overlap it.
        cut: how many were cut because they were longer than is looked for.
    """

    rule: Rule
    cut: int

    @property
    def patience(self) -> float: ...  # noqa: D102

    def last(self, axis: TimeAxis) -> float: ...  # noqa: D102
    def take(self, output, own: slice, ending: bool) -> tuple[list[np.ndarray], np.ndarray]: ...  # noqa: D102


class Follower(Growing, Protocol):
    """Segments, after that; `Suppressed` makes one of candidates.

    Attributes:
        forced: how many segments were cut, or settled although something might still have changed them.
    """

    @property
    def forced(self) -> int: ...  # noqa: D102

    def take(self, output, own: slice, axis: TimeAxis | None) -> list[np.ndarray]: ...  # noqa: D102


class Suppressed:
    """The segments that remain of candidates.

    Args:
        candidates: of each class.
        count: of classes.

    Attributes:
        frontier: ``[C]``, before which no segment will begin that comes later.
    """

    def __init__(self, candidates: Candidates, count: int) -> None:
        self._candidates, self.frontier = candidates, np.zeros(count)
        self._suppressions = [Suppression(candidates.rule, candidates.patience) for _ in range(count)]

    @property
    def delay(self) -> int:
        """See `Growing`."""
        return self._candidates.delay

    @property
    def wait(self) -> float:
        """See `Growing`."""
        return self._candidates.wait

    @property
    def growth(self) -> float:
        """See `Growing`."""
        return self._candidates.growth

    @property
    def forced(self) -> int:
        """See `Follower`."""
        return self._candidates.cut + sum(one.forced for one in self._suppressions)

    @property
    def held(self) -> int:
        """Candidates in memory."""
        return sum(len(one.rows) for one in self._suppressions)

    def take(self, output, own: slice, axis: TimeAxis | None) -> list[np.ndarray]:
        """Take the next snippets.

        Args:
            output: of the network, for a batch of one.
            own: which of its snippets are the next ones.
            axis: of the whole video, if they are the last ones.

        Returns:
            For each class the segments ``[n, 3]`` that are final now: start, end, score.
        """
        known, self.frontier = self._candidates.take(output, own, axis is not None)
        found = []
        for one, candidates, frontier in zip(self._suppressions, known, self.frontier, strict=True):
            one.add(candidates)
            if axis is not None:
                one.clip(0.0, self._candidates.last(axis))
            found.append(one.settle(frontier if axis is None else np.inf))
        return found

    def tentative(self, output, rest: slice) -> list[np.ndarray]:
        """For each class the segments ``[n, 3]`` that would also be final if the video ended with snippets `rest`."""
        maybe = self._candidates.tentative(output, rest)
        return [one.expected(more) for one, more in zip(self._suppressions, maybe, strict=True)]
