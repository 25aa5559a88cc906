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


def unclicked_loss(log_probability: Tensor, labels: Tensor, clicks: Tensor, real: Tensor) -> Tensor:
    """A snippet that was not clicked shows an action: the push that keeps background from spreading.

    Clicks alone say what is background and nothing says what is not. Where clicks are a sample of the background, the
    odds that this term and the clicks settle at fall with the odds of background itself (learning from positive and
    unlabelled examples, Elkan and Noto, 2008); what they are worth is calibrated afterwards.

    Args:
        log_probability: ``[B, C+1, T]``.
        labels: ``[B, C]``.
        clicks: ``[B, T]``; only videos with a background click count.
        real: ``[B, T]``.
    """
    action = log_probability[:, :-1].masked_fill(~(labels > 0)[:, :, None], -torch.inf).logsumexp(1)
    background = clicks == labels.shape[1]
    free = real & (clicks < 0) & (background.any(1) & (labels > 0).any(1))[:, None]
    return -torch.where(free, action, 0.0).sum() / free.sum().clamp(min=1)


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
