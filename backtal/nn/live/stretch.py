"""One stretch of a stream without a gap, as one video: the network on a tail of features, and what is known by then."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backtal.data.features import TimeAxis
from backtal.nn.live.settle import Follower
from backtal.nn.stream import Source, pieces

if TYPE_CHECKING:
    from backtal.nn.pretrained import LocalizationModel

_AT_ONCE = 256  # snippets; larger blocks, which differ in size, scatter the memory over a day


class Found(NamedTuple):
    """Rows ``[n, 4]`` of start and end in snippets, class, score: what is final, and what may become so."""

    final: np.ndarray
    expected: np.ndarray


NOTHING = np.empty((0, 4))
RUNNING_FORM = "running form looks at a stream through a window of so many seconds: running=60 (--running 60)"


class Exact:
    """A stretch in which segments are final as soon as nothing that follows can change them.

    Args:
        model: the network, in evaluation mode.
        follower: of its architecture.
        classes: indices of those looked at.
        every: new snippets after which the network runs again.
    """

    def __init__(self, model: "LocalizationModel", follower: Follower, classes: Sequence[int], every: int) -> None:
        self._model, self._follower, self._classes, self._every = model, follower, list(classes), every
        self._held, self._left = torch.empty(0, 0), 0  # features from snippet `_left` on
        self.length, self._sure, self._ran = 0, 0, 0

    @property
    def forced(self) -> int:
        """How many segments were closed at the maximum, so that what `localize` finds may differ."""
        return self._follower.forced

    def push(self, features: Tensor) -> Found | None:
        """Take ``[D, n]``; None where the network waits for more."""
        finals, found = [NOTHING], None
        for piece in pieces(features, _AT_ONCE):
            self._held = torch.cat([self._held, piece], dim=1) if self._held.numel() else piece.clone()
            self.length += piece.shape[1]
            if self.length - self._ran >= self._every and self.length >= self._model.shortest:
                found = self._step()
                finals.append(found.final)
        return found and Found(np.concatenate(finals), found.expected)

    def end(self, axis: TimeAxis) -> Found:
        """The stretch has ended; `axis` says when its snippets were."""
        if self.length < self._model.shortest:
            return Found(NOTHING, NOTHING)
        return self._step(axis)

    @torch.inference_mode()
    def _step(self, axis: TimeAxis | None = None) -> Found:
        model, step, ending = self._model, self._model.multiple, axis is not None
        weight = next(model.parameters())
        output = model(self._held[None].to(weight))
        sure = self.length if ending else max(self._sure, (self.length - model.reach) // step * step)
        begin, split = self._sure - self._left, sure - self._left
        finals, expected = self._follower.take(output, slice(begin, split), axis), []
        if not ending:
            expected = self._follower.tentative(output, slice(split, self.length - self._left))
        self._sure, self._ran = sure, self.length
        left = max(sure - model.reach, 0) // step * step
        self._held, self._left = self._held[:, left - self._left :].clone(), left
        return Found(self._rows(finals), self._rows(expected))

    def _rows(self, of_classes: Sequence[np.ndarray]) -> np.ndarray:
        parts = [np.insert(rows, 2, index, axis=1) for index, rows in zip(self._classes, of_classes, strict=False)]
        return np.concatenate([NOTHING, *parts])


class Running:
    """A stretch looked at through a window, which is a whole video of its own: for settings that need one.

    Windows begin half a window after each other; a segment is taken from that one in whose middle half its middle is.

    Args:
        model: the network, in evaluation mode.
        classes: indices of those looked at.
        floor: segments below this score are left out.
        window: snippets, a multiple of 4.
        step: seconds per snippet.
    """

    forced = 0

    def __init__(
        self, model: "LocalizationModel", classes: Sequence[int], floor: float, window: int, step: float
    ) -> None:
        self._model, self._classes, self._floor, self._window, self._step = model, list(classes), floor, window, step
        self._held, self._left = torch.empty(0, 0), 0
        self.length, self._told = 0, -np.inf

    def push(self, features: Tensor) -> Found | None:
        """Take ``[D, n]``; None where no window is full."""
        finals, window = [], self._window
        for piece in pieces(features, max(window // 2, 1)):
            self._held = torch.cat([self._held, piece], dim=1) if self._held.numel() else piece.clone()
            self.length += piece.shape[1]
            while self._held.shape[1] >= window:
                axis = TimeAxis(0.0, self._step, window, window * self._step)
                finals.append(self._looked_at(self._held[:, :window], axis, self._left + 0.75 * window))
                self._held, self._left = self._held[:, window // 2 :].clone(), self._left + window // 2
        return Found(np.concatenate(finals), NOTHING) if finals else None

    def end(self, axis: TimeAxis) -> Found:
        """The stretch has ended; `axis` says when its snippets were."""
        if self._held.shape[1] < self._model.shortest:
            return Found(NOTHING, NOTHING)
        return Found(self._looked_at(self._held, self._rest(axis), np.inf), NOTHING)

    def _rest(self, axis: TimeAxis) -> TimeAxis:
        """The axis of what is held; where that is the whole stretch, this is `axis` itself."""
        begin = 0.0 if not self._left else axis.start + self._left * axis.step
        start = axis.start if not self._left else 0.0
        frames = axis.num_frames if not self._left else None
        return TimeAxis(start, axis.step, self._held.shape[1], axis.duration - begin, frames)

    def _looked_at(self, features: Tensor, axis: TimeAxis, until: float) -> np.ndarray:
        """``[n, 4]`` rows of the segments whose middle comes before snippet `until`, and after those told before."""
        source = Source("window", features.shape[0], features.shape[1], None, [features], lambda: axis)
        output, looked = self._model.summarize(source)
        labels, rows = list(self._model.config.labels), [NOTHING]
        for found in self._model.localize_output(output, [looked])[0]:
            place = labels.index(found.label)
            edges = [(second - axis.start) / axis.step + self._left for second in (found.start, found.end)]
            if found.score >= self._floor and place in self._classes and self._told <= sum(edges) / 2 < until:
                rows.append(np.array([[*edges, place, found.score]]))
        self._told = until
        return np.concatenate(rows)
