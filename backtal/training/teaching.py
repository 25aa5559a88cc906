"""What one stage of training teaches the next (not part of the paper): from activations to distributions and segments.

Positions and lengths are in snippets. A video is described by its activations ``cas [C+1, T]`` before softmax, the
classes ``possible [C+1]`` (bool) that its snippets may show, and ``clicks [T]``: the class of a known snippet, C for
background, -1 where unknown.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backtal.nn.localize import runs_of

SWITCH = math.exp(-2.0)  # probability that a snippet shows something else than the one before
UNIFORM = 0.96  # 12 times the variance of a uniform position among the middles of about five to ten snippets
FEWEST = 20  # clicks that tell something, by their positions or features
BIASES = np.arange(0.5, 6.01, 0.5)
UNSURE = 0.25  # a snippet whose background is this far from certain, both ways, teaches no class
LEAST_WEIGHT = 0.3


class Taught(NamedTuple):
    """What is taught of one video.

    Attributes:
        distribution: ``[C+1, T]`` probabilities of the classes of every snippet.
        segments: ``[M, 4]`` start, end, class and weight.
        ignored: ``[T]`` True on snippets of which too little is known to call them background.
    """

    distribution: Tensor
    segments: Tensor
    ignored: Tensor


class Opinion(NamedTuple):
    """What a network says of one video, and what is known of it; see the module's text."""

    cas: Tensor
    possible: Tensor
    clicks: Tensor

    def evidence(self, bias: float = 0.0) -> Tensor:
        """``[C+1, T]`` log-probabilities: possible classes only, known snippets certain, `bias` added to background."""
        cas = self.cas.clone()
        cas[-1] += bias
        found = cas.masked_fill(~self.possible[:, None], -torch.inf).log_softmax(0)
        known = self.clicks >= 0
        one_hot = torch.zeros_like(found).scatter_(0, self.clicks.clamp(min=0)[None], 1.0)
        return torch.where(known, one_hot.log(), found).clamp(min=-50.0).masked_fill(~self._stays[:, None], -1e4)

    @property
    def _stays(self) -> Tensor:
        return self.possible.scatter(0, self.clicks[self.clicks >= 0], True)


def posterior(evidence: Sequence[Tensor]) -> list[Tensor]:
    """Smoothed probabilities: each snippet in the light of all others, in a chain that seldom switches class.

    The forward-backward recursion of a hidden Markov model whose state stays with probability ``1 - SWITCH`` and else
    jumps anywhere; no length of an action is assumed.

    Args:
        evidence: ``[C+1, T]`` log-probabilities of each video.

    Returns:
        ``[C+1, T]`` of each video.
    """
    batch, lengths = _together(evidence)
    stay, jump = math.log1p(-SWITCH), math.log(SWITCH) - (batch[..., 0] > -1e3).sum(1, keepdim=True).log()
    forward, backward = torch.empty_like(batch), torch.zeros_like(batch)
    forward[..., 0] = batch[..., 0]
    for t in range(1, batch.shape[2]):
        before = forward[..., t - 1]
        forward[..., t] = batch[..., t] + torch.logaddexp(before + stay, before.logsumexp(1, keepdim=True) + jump)
    for t in range(batch.shape[2] - 2, -1, -1):
        after = batch[..., t + 1] + backward[..., t + 1]
        step = torch.logaddexp(after + stay, after.logsumexp(1, keepdim=True) + jump)
        backward[..., t] = torch.where((t + 1 < lengths)[:, None], step, 0.0)
    found = (forward + backward).softmax(1)
    return [one[:, :length] for one, length in zip(found, lengths.tolist(), strict=True)]


def most_likely(evidence: Sequence[Tensor]) -> list[np.ndarray]:
    """The most likely class of every snippet ``[T]`` in the chain of `posterior`, jointly (Viterbi)."""
    batch, lengths = _together(evidence)
    stay, jump = math.log1p(-SWITCH), math.log(SWITCH) - (batch[..., 0] > -1e3).sum(1, keepdim=True).log()
    score, origin = batch[..., 0], torch.zeros_like(batch, dtype=torch.long)
    own = torch.arange(batch.shape[1]).expand_as(score)
    for t in range(1, batch.shape[2]):
        best, index = (score + jump).max(1, keepdim=True)
        moved = best > score + stay
        origin[..., t] = torch.where(moved, index, own)
        score = torch.where((t < lengths)[:, None], batch[..., t] + torch.where(moved, best, score + stay), score)
    paths = []
    for video, length in enumerate(lengths.tolist()):
        path = np.empty(length, np.int64)
        path[-1] = score[video].argmax()
        for t in range(length - 1, 0, -1):
            path[t - 1] = origin[video, path[t], t]
        paths.append(path)
    return paths


def _together(evidence: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([one.shape[1] for one in evidence])
    padded = [torch.nn.functional.pad(one, (0, int(lengths.max()) - one.shape[1])) for one in evidence]
    return torch.stack(padded), lengths


def click_positions(path: np.ndarray, clicks: np.ndarray, background: int) -> list[float]:
    """Where in its stretch of background each click lies, 0 at its start and 1 at its end.

    Only stretches of at least three snippets between two actions count that hold exactly one click.

    Example:
        >>> click_positions(np.array([0, 1, 1, 1, 1, 0]), np.array([-1, -1, 1, -1, -1, -1]), background=1)
        [0.375]
    """
    clicked, found = np.flatnonzero(clicks == background), list[float]()
    for start, end in runs_of(path == background):
        inside = clicked[(clicked >= start) & (clicked < end)]
        if start > 0 and end < len(path) and end - start >= 3 and len(inside) == 1:
            found.append(float((inside[0] - start + 0.5) / (end - start)))
    return found


def calibrate(opinions: Sequence[Opinion]) -> float:
    """How much to add to the activation of background so that actions end where they should, from the clicks alone.

    An annotator clicks a random frame of each stretch of background. Where the actions found are too short, no click
    comes near their edges and the positions of the clicks in the stretches crowd in the middle; where they are too
    long, the positions crowd at both ends. Where the edges are right, positions are uniform, and 12 times their mean
    squared distance from the middle is 1 (for the human clicks of THUMOS14: 0.91, 0.99, 0.97).

    Returns:
        The smallest bias, of either sign, that makes positions uniform within their standard error, or else the one
        that comes closest before a third of the stretches is gone; 0 where fewer than 20 clicks tell.
    """

    def positions(bias: float) -> np.ndarray:
        found = list[float]()
        for part in _parts(opinions):
            for path, opinion in zip(most_likely([o.evidence(bias) for o in part]), part, strict=True):
                found += click_positions(path, opinion.clicks.numpy(), len(opinion.possible) - 1)
        return np.array(found)

    def crowding(places: np.ndarray) -> tuple[float, float]:
        values = 12 * (places - 0.5) ** 2
        return float(values.mean()) - UNIFORM, float(values.std()) / len(values) ** 0.5

    unbiased = positions(0.0)
    if len(unbiased) < FEWEST:
        return 0.0
    least, error = crowding(unbiased)
    sign, found = math.copysign(1.0, least), 0.0
    for size in BIASES:
        if sign * least <= error:
            break
        places = positions(sign * size)
        if len(places) < max(FEWEST, len(unbiased) * 2 / 3):
            break
        here, error = crowding(places)
        if abs(here) < abs(least):
            least, found = here, float(sign * size)
    return found


def _parts(opinions: Sequence[Opinion], size: int = 64) -> list[Sequence[Opinion]]:
    return [opinions[start : start + size] for start in range(0, len(opinions), size)]


def teach(opinions: Sequence[Opinion], detections: Sequence[np.ndarray] | None = None) -> list[Taught]:
    """What a stage teaches the next.

    Args:
        opinions: of its network, one for each video.
        detections: ``[n, 4]`` start, end, class and score of each video, as `backtal.nn.detector.points.decode` gives
            them; without them the segments are the runs of the most likely classes, after `calibrate`.
    """
    bias = calibrate(opinions) if detections is None else 0.0
    taught = []
    for part in _parts(opinions):
        evidence = [opinion.evidence(bias) for opinion in part]
        for opinion, smoothed, path in zip(part, posterior(evidence), most_likely(evidence), strict=True):
            if detections is None:
                segments = runs_of_classes(path, smoothed.numpy())
            else:
                segments = select(detections[len(taught)], opinion)
            segments[:, 3] = segments[:, 3].clip(LEAST_WEIGHT, 1.0)
            ignored = (smoothed[-1] > UNSURE) & (smoothed[-1] < 1 - UNSURE)
            taught.append(Taught(smoothed, torch.from_numpy(segments).float(), ignored))
    return taught


def runs_of_classes(path: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """``[n, 4]`` start, end, class and mean probability of each run of an action in ``[T]``."""
    found = [np.empty((0, 4))]
    for index in np.unique(path[path < len(probability) - 1]):
        for start, end in runs_of(path == index):
            found.append(np.array([[start, end, index, probability[index, start:end].mean()]]))
    return np.concatenate(found)


def select(found: np.ndarray, opinion: Opinion, *, cost: float = 0.3, overlap: float = 0.5) -> np.ndarray:
    """Of the segments found in a training video, those that agree with each other and with what is known of it.

    The segments of possible classes that hold no background click and do not overlap by more than `overlap` snippets,
    chosen so that the sum of their scores less `cost` each is greatest (weighted interval scheduling); then, for
    each stretch between two clicks and each label that is still without any, its best.

    Args:
        found: ``[n, 4]`` start, end, class and score.
        opinion: what is known of the video.
        cost: score from which on a segment is worth having.
        overlap: snippets by which two segments may overlap.
    """
    background = len(opinion.possible) - 1
    clicked = np.flatnonzero(opinion.clicks.numpy() == background) + 0.5
    allowed = opinion.possible.numpy()[found[:, 2].astype(int)] & (found[:, 3] > cost / 10)
    crossed = ((clicked > found[:, :1] + 0.25) & (clicked < found[:, 1:2] - 0.25)).any(1)
    found = found[allowed & ~crossed]
    found = found[np.argsort(found[:, 1], kind="stable")]
    chosen = _schedule(found, cost, overlap)

    def add_best(fits: np.ndarray) -> None:
        if len(candidates := np.flatnonzero(fits)):
            chosen.append(int(candidates[found[candidates, 3].argmax()]))

    def free() -> np.ndarray:
        taken = found[chosen]
        shared = np.minimum(found[:, None, 1], taken[:, 1]) - np.maximum(found[:, None, 0], taken[:, 0])
        return np.all(shared <= overlap, axis=1)

    for start, end in pairwise(clicked):
        inside = (found[:, 0] >= start - 0.5) & (found[:, 1] <= end + 0.5)
        if end - start > 2.5 and not inside[chosen].any():
            add_best(inside & free())
    if not opinion.possible.all():
        for index in np.flatnonzero(opinion.possible.numpy()[:-1]):
            if not (found[chosen, 2] == index).any():
                add_best((found[:, 2] == index) & free())
    return found[chosen]


def _schedule(found: np.ndarray, cost: float, overlap: float) -> list[int]:
    """Indices of the compatible segments, sorted by their ends, with the greatest sum of scores less `cost` each."""
    count = len(found)
    earlier = np.minimum(np.searchsorted(found[:, 1], found[:, 0] + overlap, "right"), np.arange(count))
    best, taken = np.zeros(count + 1), np.zeros(count, dtype=bool)
    for index in range(count):
        worth = found[index, 3] - cost + best[earlier[index]]
        taken[index] = worth > best[index]
        best[index + 1] = max(worth, best[index])
    chosen, index = list[int](), count
    while index > 0:
        if taken[index - 1]:
            chosen.append(index - 1)
            index = int(earlier[index - 1])
        else:
            index -= 1
    return chosen
