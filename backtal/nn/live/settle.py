"""Suppression while more candidates come: which of them keep their score whatever follows."""

from dataclasses import dataclass, field

import numpy as np

from backtal.segments.segments import temporal_iou


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
        found, left = raw.astype(np.float64), np.ones(len(raw), dtype=bool)
        decay = None if self.sigma is None else np.exp(-(tiou**2) / self.sigma)
        while left.any():
            best = int(np.where(left, found, -np.inf).argmax())
            left[best] = False
            weaker = left & ~taken
            if decay is None:
                found[weaker & (tiou[best] >= self.threshold)] = -np.inf
            else:
                found[weaker] *= decay[best, weaker]
            left &= found >= self.floor
        return found


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
        open_ = ~taken & (intervals[:, 1] > frontier)
        while True:
            reached = (overlapping & open_[None, :] & (raw[None, :] >= scores[:, None])).any(1)
            if not (more := reached & ~taken & ~open_).any():
                break
            open_ |= more
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
