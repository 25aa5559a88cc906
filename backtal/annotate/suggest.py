"""Where a click would teach a model most, from what it makes of a video now.

A background click can be made only where the video shows background, and then its loss (eq. 3) is -log p, with p the
model's probability of background there. The model itself holds p to be the chance of that, so the loss to expect of a
click is ``-p log p``: nothing where the model is sure either way, most (1/e) where p is 1/e. Stretches are proposed
around the peaks of this, unless the stretch of background that they belong to has a click already. Beside them stand
the stretches between two detected actions that have no click: they teach the network little, but the protocol asks for
a click in each, and an action between two clicks is what `between-clicks` learns from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtal.segments.segments import Localization

_WINDOW = 5  # frames over which the expected loss is averaged: 2 s
_LEAST = 0.5  # expected loss, in units of the largest possible, below which nothing is proposed
_MOST = 20
_SURE = 0.5


@dataclass(frozen=True)
class Suggestion:
    """A stretch to look at, in frames of the strip, both included.

    `kind` is ``"unsure"`` or ``"between"`` (two detected actions), `value` the expected loss of a click relative to the
    largest possible, in [0, 1].
    """

    first: int
    last: int
    kind: str
    value: float


def expected_loss(background: np.ndarray) -> np.ndarray:
    """Loss to expect of a background click at every frame, relative to the largest possible; averaged over 2 s.

    Args:
        background: ``[n]`` probability of background at every frame of the strip.

    Example:
        >>> expected_loss(np.array([1.0, 1.0, 1.0])).tolist()
        [0.0, 0.0, 0.0]
    """
    p = background.astype(np.float64)
    loss = np.abs(p * np.log(np.where(p > 0, p, 1.0))) * np.e
    kernel = np.ones(min(_WINDOW, len(loss)))
    return np.convolve(loss, kernel, "same") / np.convolve(np.ones_like(loss), kernel, "same")


def suggest(background: np.ndarray, detected: Localization, clicked: Sequence[float], rate: float) -> list[Suggestion]:
    """The stretches of a video to look at, the most valuable first.

    Args:
        background: ``[n]`` probability of background at every frame of the strip.
        detected: the actions that the model finds.
        clicked: seconds of the background clicks that there are.
        rate: frames of the strip per second.
    """
    count = len(background)
    loss = expected_loss(background)
    frames = sorted({min(int(second * rate), count - 1) for second in clicked})
    met = np.zeros(count, bool)
    for frame in frames:
        first, last = _around(background >= _SURE, frame)
        met[first : last + 1] = True
    found = [s for peak, s in _peaks(loss) if not met[peak] and not any(s.first <= frame <= s.last for frame in frames)]
    taken = np.zeros(count, bool)
    for suggestion in found:
        taken[suggestion.first : suggestion.last + 1] = True
    for first, last in _gaps(detected, count, rate):
        if not any(first <= frame <= last for frame in frames) and not taken[first : last + 1].any():
            found.append(Suggestion(first, last, "between", float(loss[first : last + 1].max())))
    return found[:_MOST]


def worth(suggestions: Sequence[Suggestion], duration: float) -> float:
    """What a minute of a video is worth to the annotator: the expected losses of its unsure stretches, per minute."""
    return sum(s.value for s in suggestions if s.kind == "unsure") / max(duration / 60, 0.1)


def _peaks(loss: np.ndarray) -> list[tuple[int, Suggestion]]:
    """Peaks, each with the stretch around it down to half its height; what falls off from there belongs to it too."""
    left = loss.copy()
    found = []
    while len(found) < _MOST and left[peak := int(left.argmax())] >= _LEAST:
        first, last = _around(left >= left[peak] / 2, peak)
        found.append((peak, Suggestion(first, last, "unsure", float(min(left[peak], 1.0)))))
        while first > 0 and 0 < left[first - 1] <= left[first]:
            first -= 1
        while last + 1 < len(left) and 0 < left[last + 1] <= left[last]:
            last += 1
        left[first : last + 1] = 0.0
    return found


def _around(holds: np.ndarray, index: int) -> tuple[int, int]:
    """The run of frames around `index` where something holds; `index` alone where it does not hold there."""
    if not holds[index]:
        return index, index
    before, after = np.flatnonzero(~holds[:index]), np.flatnonzero(~holds[index:])
    return (int(before[-1]) + 1 if before.size else 0), (index + int(after[0]) - 1 if after.size else len(holds) - 1)


def _gaps(detected: Localization, count: int, rate: float) -> list[tuple[int, int]]:
    """The frames between detected actions."""
    gaps, reached = [], None
    for segment in sorted(detected, key=lambda s: s.start):
        if reached is not None and segment.start > reached:
            first, last = int(np.ceil(reached * rate)), int(np.ceil(segment.start * rate)) - 1
            if first <= last < count:
                gaps.append((first, last))
        reached = max(reached or 0.0, segment.end)
    return gaps
