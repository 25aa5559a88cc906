"""Candidates from a class activation sequence that grows: those of `backtal.nn.localize`, as soon as they are known.

A run above any threshold lies within one above the lowest. Once such a stretch has ended and the outer area behind it
is known, all candidates in it are known.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from backtal.data.features import TimeAxis
from backtal.nn.cas import BackTALOutput, smooth
from backtal.nn.live.settle import Rule
from backtal.nn.localize import activities, outer_inner_contrast, resize_part, runs_of
from backtal.settings.config import LocalizationConfig, ModelConfig


def needs_whole(config: ModelConfig, localization: LocalizationConfig) -> list[str]:
    """Which settings can be told only from the whole video; none for recipes such as `compact`.

    Example:
        >>> from backtal.settings import recipe
        >>> needs_whole(recipe("compact").model, recipe("compact").localization)
        []
    """
    wanted = {
        "model.temporal_length": config.temporal_length is None,
        "frame_scores": localization.frame_scores == "softmax",
        "class_threshold": localization.class_threshold == 0,
        "gamma": localization.gamma == 0,
        "thresholds": localization.thresholds[0] > 0,
        "feature_thresholds": localization.feature_thresholds is None,
        "upsample": localization.upsample is not None,
        "whole_video_score": localization.whole_video_score is None,
        "skip_first_frame": not localization.skip_first_frame,
        "nms_length_offset": localization.nms_length_offset == 0,
    }
    return [f"{name} = {_value(config, localization, name)}" for name, local in wanted.items() if not local]


def _value(config: ModelConfig, localization: LocalizationConfig, name: str) -> object:
    return config.temporal_length if name == "model.temporal_length" else getattr(localization, name)


class CurveFollower:
    """Candidates of the paper's network, in snippets from the beginning of the video.

    Args:
        localization: settings; none of them may need the whole video.
        classes: indices of those looked at.
        floor: candidates below this score do not count.
        longest: snippets after which a stretch above the lowest threshold is cut.
        first: where the video begins, in snippets: later than 0 where windows are shorter than their stride.
    """

    def __init__(
        self, localization: LocalizationConfig, classes: Sequence[int], floor: float, longest: int, first: float = 0.0
    ) -> None:
        assert localization.upsample is not None
        self._settings, self._classes = localization, list(classes)
        self._fine = localization.upsample
        self._longest, self._first = longest * self._fine, first
        self.rule = Rule(
            max(floor, localization.min_score or 0.0), localization.soft_nms_sigma, localization.nms_threshold
        )
        self._radius = math.ceil(3 * localization.smoothing)
        self._low = localization.thresholds[0]
        self._cas = torch.empty(0, 0)  # what smoothing still reads, from snippet `_cas_from` on
        self._cas_from, self._smoothed = 0, 0
        self._scores, self._scores_from = np.empty((len(self._classes), 0)), 0
        self._done = np.zeros(len(self._classes), dtype=np.int64)  # positions that are finished with
        self.cut = 0

    @property
    def delay(self) -> int:
        """Snippets that have to be known beyond the end of a stretch, beside its outer area."""
        return self._radius + 2

    wait = 0
    patience = math.inf  # candidates of one stretch become known together

    @property
    def growth(self) -> float:
        """How much longer a segment is awaited for each second of its stretch: what is left of that, the outer area."""
        return 1 + self._settings.outer

    def last(self, axis: TimeAxis) -> float:
        """Where a video that is over ends, in snippets."""
        return (axis.duration - axis.start) / axis.step

    def take(self, output: BackTALOutput, own: slice, ending: bool) -> tuple[list[np.ndarray], np.ndarray]:
        """Take the next snippets.

        Args:
            output: of the network, for a batch of one.
            own: which of its snippets are the next ones.
            ending: whether they are the last ones.

        Returns:
            For each class the candidates ``[n, 3]`` that are known now: start, end, score. And ``[C]``, before which
            none will begin that comes later.
        """
        cas = output.cas[0, :, own].detach().float().cpu()
        self._cas = torch.cat([self._cas, cas], dim=1) if self._cas.numel() else cas
        until = self._cas_from + self._cas.shape[1]
        upto = until if ending else max(until - self._radius, self._smoothed)
        self._scores = np.concatenate([self._scores, self._new_scores(self._cas, upto)], axis=1)
        self._smoothed = upto
        keep = max(self._smoothed - self._radius, self._cas_from)
        self._cas, self._cas_from = self._cas[:, keep - self._cas_from :].clone(), keep
        found, done, cut = self._known(self._scores, ending)
        self._done, self.cut = done, self.cut + cut
        self._forget()
        return found, done / self._fine

    def tentative(self, output: BackTALOutput, rest: slice) -> list[np.ndarray]:
        """For each class the candidates ``[n, 3]`` that would also be known if the video ended with snippets `rest`."""
        cas = output.cas[0, :, rest].detach().float().cpu()
        cas = torch.cat([self._cas, cas], dim=1) if self._cas.numel() else cas
        scores = np.concatenate([self._scores, self._new_scores(cas, self._cas_from + cas.shape[1])], axis=1)
        return self._known(scores, True)[0]

    def _new_scores(self, cas: Tensor, upto: int) -> np.ndarray:
        """``[C, n]`` smoothed scores of the snippets from `_smoothed` to `upto`."""
        if upto == self._smoothed:
            return np.empty((len(self._classes), 0))
        first, last = self._smoothed - self._cas_from, upto - self._cas_from
        return smooth(cas, self._settings.smoothing)[:, first:last].softmax(0)[self._classes].numpy().astype(np.float64)

    def _known(self, scores: np.ndarray, ending: bool) -> tuple[list[np.ndarray], np.ndarray, int]:
        """The candidates of each class in stretches that have ended, up to which position that is, stretches cut."""
        total = self._scores_from + scores.shape[1]
        known = self._fine * total if ending else max(self._fine * total - self._fine // 2 - 1, 0)
        found, done, cuts = [], np.maximum(self._done, known), 0
        for index, row in enumerate(scores):
            begin = int(self._done[index])
            first = max(begin // self._fine - 1 - self._scores_from, 0)
            if begin >= known or not (row[first:] >= self._low).any():
                found.append(np.empty((0, 3)))
                continue
            rows, done[index], cut = self._class_known(row, begin, known, total, ending)
            found.append(rows)
            cuts += cut
        return found, done, cuts

    def _class_known(
        self, row: np.ndarray, begin: int, known: int, total: int, ending: bool
    ) -> tuple[np.ndarray, int, int]:
        origin = max(begin - math.ceil(self._settings.outer * self._longest) - 1, self._scores_from * self._fine)
        sequence = resize_part(row, self._scores_from, total, self._fine, origin, known)
        stretches = runs_of((sequence >= self._low) & (np.arange(origin, known) >= begin)) + origin
        rows, cuts = [np.empty((0, 3))], 0
        for start, end in _cut(stretches, self._longest):
            cut = end - start == self._longest and end < known
            area = self._settings.outer * (end - start)
            unknown = (end == known and end - start < self._longest) or end - 1 + area > known
            if unknown and not ending:
                return np.concatenate(rows), start, cuts
            rows.append(self._candidates(sequence, start - origin, end - origin, origin))
            cuts += cut and sequence[end - origin] >= self._low
        return np.concatenate(rows), known, cuts

    def _candidates(self, sequence: np.ndarray, start: int, end: int, origin: int) -> np.ndarray:
        """``[n, 3]`` the runs at all thresholds within a stretch, in snippets, with their contrast."""
        area = math.ceil(self._settings.outer * (end - start)) + 1
        low, high = max(start - area, 0), min(end + area, len(sequence))
        part, rows = sequence[low:high], [np.empty((0, 3))]
        inside = np.zeros(len(part), dtype=bool)
        inside[start - low : end - low] = True
        for active, scored in activities(part, [], self._settings):
            runs = runs_of(active & inside)
            score = outer_inner_contrast(scored, runs, self._settings.outer)
            edges = (runs + origin + low) / self._fine
            edges += (edges[:, 1:] - edges[:, :1]) * [self._settings.shrink, -self._settings.shrink]
            rows.append(np.column_stack([np.maximum(edges, self._first), score]))
        return np.concatenate(rows)

    def _forget(self) -> None:
        """Leave what no stretch reads any more."""
        needed = int(self._done.min(initial=self._fine * self._smoothed)) if len(self._done) else 0
        needed -= math.ceil(self._settings.outer * self._longest) + 1
        keep = max(needed // self._fine - 1, self._scores_from)
        self._scores, self._scores_from = self._scores[:, keep - self._scores_from :].copy(), keep


def _cut(stretches: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """The stretches, in pieces of at most so many positions."""
    return [
        (first, min(first + longest, int(end)))
        for start, end in stretches
        for first in range(int(start), int(end), longest)
    ]
