"""What labels of any kind say of snippets (not part of the paper): one loss term for each kind of knowledge.

Classes are ``[B, C+1, T]`` with background last, ``labels`` is multi-hot ``[B, C]``, ``clicks`` is ``[B, T]``: the
class of a known snippet, C for background, -1 where unknown; ``real`` is ``[B, T]``: False in padding. A term of which
a batch knows nothing is 0, with its graph intact.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def share(probability: Tensor, real: Tensor) -> Tensor:
    """Linear softmax pooling over the last axis, ``sum p**2 / sum p``: a mean in which p itself is the weight.

    A snippet above half of the result is pushed up and one below it down, whatever the length of an action: no share of
    the video is fixed beforehand.

    Args:
        probability: ``[..., T]``.
        real: False where a snippet does not count; of the same shape or broadcastable.

    Example:
        >>> share(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.ones(4, dtype=torch.bool))
        tensor(1.)
    """
    probability = probability * real
    return probability.square().sum(-1) / probability.sum(-1).clamp(min=1e-6)


def known_loss(log_probability: Tensor, clicks: Tensor) -> Tensor:
    """Cross-entropy of the known snippets: the mean over each video's, then over the videos that have one.

    Args:
        log_probability: ``[B, C+1, T]``.
        clicks: ``[B, T]``.
    """
    known = clicks >= 0
    chosen = -log_probability.gather(1, clicks.clamp(min=0)[:, None])[:, 0] * known
    per_video = chosen.sum(1) / known.sum(1).clamp(min=1)
    return per_video.sum() / known.any(1).sum().clamp(min=1)


def possible_loss(log_probability: Tensor, possible: Tensor, real: Tensor) -> Tensor:
    """``-log`` of the probability of all classes that a snippet of the video may show, mean over the batch's snippets.

    Args:
        log_probability: ``[B, C+1, T]``.
        possible: ``[B, C+1]`` True for the labels of the video and background; all True where nothing is known.
        real: ``[B, T]``.
    """
    allowed = log_probability.masked_fill(~possible[:, :, None], -torch.inf).logsumexp(1)
    return -(allowed * real).sum() / real.sum().clamp(min=1)


def somewhere_loss(probability: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """Every label of a video occurs in it: ``-log share``, mean over the labels of the batch.

    Args:
        probability: ``[B, C+1, T]``.
        labels: ``[B, C]``.
        real: ``[B, T]``.
    """
    present = labels > 0
    cost = -share(probability[:, :-1], real[:, None]).clamp(min=1e-6).log() * present
    return cost.sum() / present.sum().clamp(min=1)


def between_loss(probability: Tensor, labels: Tensor, clicks: Tensor, *, miss: float) -> Tensor:
    """Something occurs between two consecutive background clicks: ``-log(miss + (1 - miss) share)``.

    Only stretches of at least two snippets without any other known snippet count; the share is of all labels of the
    video together.

    Args:
        probability: ``[B, C+1, T]``.
        labels: ``[B, C]``.
        clicks: ``[B, T]``.
        miss: probability that nothing does, as after a wrong click or where a click is double.
    """
    background = clicks == labels.shape[1]
    action = (probability[:, :-1] * (labels > 0)[:, :, None]).sum(1)
    passed = background.cumsum(1)
    inside = (passed > 0) & (passed < passed[:, -1:]) & ~background
    stretch = torch.where(inside, passed, 0)

    def total(values: Tensor) -> Tensor:
        return torch.zeros_like(values).scatter_add(1, stretch, values)

    pooled = total(action.square()) / total(action).clamp(min=1e-6)
    free = total(inside.to(action)) - total((inside & (clicks >= 0)).to(action)) * action.shape[1]
    counted = (free >= 2) & (torch.arange(action.shape[1], device=action.device) > 0)
    cost = -(miss + (1 - miss) * pooled).clamp(min=1e-6).log()
    return (cost * counted).sum() / counted.sum().clamp(min=1)


def place_loss(log_probability: Tensor, labels: Tensor, clicks: Tensor, real: Tensor) -> Tensor:
    """What the place of a snippet between two background clicks suggests; mean over the snippets that are not known.

    At x of the way from one click to the next, ``-2 x (1 - x) log p(action) - (1 - 2 x)**2 log p(background)``. The
    first factor is the probability that a snippet there lies in an action whose two ends are anywhere between the
    clicks; the second falls from 1 at a click to 0 half way. Nothing else says what is *not* background, and no
    length of an action is assumed. Before the first click, x goes from 0 at the start of the video to 1, and the
    factors are ``(1 - x) / 2`` and ``x**2``; after the last the same, mirrored.

    Args:
        log_probability: ``[B, C+1, T]``.
        labels: ``[B, C]``.
        clicks: ``[B, T]``; only videos with a background click count.
        real: ``[B, T]``.
    """
    background, lengths = clicks == labels.shape[1], real.sum(1, keepdim=True)
    action_weight, background_weight = between_weights(background & real, lengths)
    free, action = _unclicked(log_probability, labels, clicks, real)
    cost = action_weight * action + background_weight * log_probability[:, -1]
    return -(cost * free).sum() / free.sum().clamp(min=1)


def covered_loss(log_probability: Tensor, labels: Tensor, clicks: Tensor, real: Tensor, *, least: float) -> Tensor:
    """At least so much of what nobody clicked is an action: ``KL(least || m)`` where the mean m of p(action) is less.

    The mean is over all unknown snippets of the batch's videos that have a background click and a label; see
    `backtal.training.prior` for how much that is.

    Args:
        log_probability: ``[B, C+1, T]``.
        labels: ``[B, C]``.
        clicks: ``[B, T]``.
        real: ``[B, T]``.
        least: share of the snippets, above 0 and below 1.
    """
    free, action = _unclicked(log_probability, labels, clicks, real)
    mean = (action.exp() * free).sum() / free.sum().clamp(min=1)
    mean = torch.where(free.any(), mean, least).clamp(min=1e-6, max=least)
    return least * (least / mean).log() + (1 - least) * ((1 - least) / (1 - mean)).log()


def _unclicked(log_probability: Tensor, labels: Tensor, clicks: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """``[B, T]`` each: the unknown snippets of videos with a background click and a label, and there log p(action)."""
    free = real & (clicks < 0) & ((clicks == labels.shape[1]).any(1) & (labels > 0).any(1))[:, None]
    action = log_probability[:, :-1].masked_fill(~(labels > 0)[:, :, None], -torch.inf).logsumexp(1)
    return free, torch.where(free, action, 0.0)


def between_weights(background: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of `place_loss`, ``[B, T]`` each.

    Args:
        background: ``[B, T]`` True where background is clicked.
        lengths: ``[B, 1]`` snippets of each video.

    Example:
        >>> clicked = torch.tensor([[True, False, False, False, True]])
        >>> between_weights(clicked, torch.tensor([[5]]))[0]
        tensor([[0.0000, 0.3750, 0.5000, 0.3750, 0.0000]])
    """
    position = torch.arange(background.shape[1], device=background.device).expand_as(background)
    before = torch.where(background, position, -1).cummax(1).values
    after = torch.where(background, position, lengths).flip(1).cummin(1).values.flip(1)
    x = (position - before) / (after - before).clamp(min=1)
    first, last = before < 0, after >= lengths
    action = torch.where(first, (1 - x) / 2, torch.where(last, x / 2, 2 * x * (1 - x)))
    return action, torch.where(first, x, torch.where(last, 1 - x, 1 - 2 * x)).square()


def taught_loss(log_probability: Tensor, taught: Tensor) -> Tensor:
    """Cross-entropy with what the stage before says of every snippet; 0 in padding.

    Args:
        log_probability: ``[B, C+1, T]``.
        taught: ``[B, C+1, T]`` distributions; all 0 where nothing is taught.
    """
    told = taught.sum(1)
    return -(taught * log_probability).sum() / told.sum().clamp(min=1)


def pad_labels(labels: Tensor) -> Tensor:
    """``[B, C+1]``: which classes a snippet of each video may show; all of them where the video has no label."""
    possible = F.pad(labels > 0, (0, 1), value=True)
    return possible | ~(labels > 0).any(1, keepdim=True)
