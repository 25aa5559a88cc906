"""Loss terms that go beyond the paper: an action between two clicks, and a network that teaches the next.

Arguments as in `backtal.nn.losses`.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backtal.nn.cas import BackTALOutput, frame_mask, smooth
from backtal.nn.losses import BackTALLoss, add_terms
from backtal.settings.config import LossConfig


def between_clicks_loss(
    cas: Tensor,
    labels: Tensor,
    background: Tensor,
    lengths: Tensor | None = None,
    *,
    ratio: float = 0.15,
    miss: float = 0.05,
) -> Tensor:
    """Somewhere between two consecutive background clicks lies an action of the video.

    Annotators click once in every stretch of background, so that an action separates consecutive clicks. With
    ``q`` the mean probability of all the video's labels together over a stretch's most probable frames, the
    stretch costs ``-log(miss + (1 - miss) q)``: bounded, as a stretch may hold no action where a click was wrong.

    Args:
        cas: ``[B, C+1, T]``.
        labels: ``[B, C]`` multi-hot.
        background: ``[B, T]`` bool.
        lengths: ``[B]``; None where all videos fill T.
        ratio: of n frames, the top ``ceil(ratio * n)`` must look like action; stretches of less than 3
            frames do not count.
        miss: probability that a stretch holds no action.

    Returns:
        The mean over the stretches of the batch; 0 where there is none.

    Example:
        >>> cas = torch.tensor([[[0.0, 0, 9, 0, 0], [9.0, 9, 0, 9, 9]]])
        >>> background = torch.tensor([[True, False, False, False, True]])
        >>> float(between_clicks_loss(cas, torch.ones(1, 1), background)) < 1e-3
        True
    """
    action = (cas.softmax(1)[:, :-1] * (labels > 0)[:, :, None]).sum(1)
    passed = background.cumsum(1)
    between = (passed > 0) & (passed < passed[:, -1:]) & ~background
    if lengths is not None:
        between = between & frame_mask(lengths, cas.shape[-1])
    stretch = torch.where(between, passed, 0)
    # Sorted by stretch, then by falling probability, a frame's rank is its distance from the stretch's first.
    order = action.detach().argsort(1, descending=True)
    order = order.gather(1, stretch.gather(1, order).sort(dim=1, stable=True).indices)
    count = torch.zeros_like(stretch).scatter_add_(1, stretch, torch.ones_like(stretch))
    sorted_stretch = stretch.gather(1, order)
    rank = torch.arange(stretch.shape[1], device=cas.device) - (count.cumsum(1) - count).gather(1, sorted_stretch)
    frames = count.gather(1, sorted_stretch)
    top = (ratio * frames - 1e-4).ceil().clamp(min=1)
    taken = rank < top
    # One entry per stretch: frames that are not taken add nothing.
    share = torch.where(taken, action.gather(1, order) / top, 0)
    mean = torch.zeros_like(share).scatter_add(1, sorted_stretch, share)
    counted = (count >= 3) & (torch.arange(count.shape[1], device=cas.device) > 0)
    cost = -(miss + (1 - miss) * mean).clamp(min=1e-6).log()
    return (cost * counted).sum() / counted.sum().clamp(min=1)


def taught_distribution(output: BackTALOutput, labels: Tensor, clicks: Tensor, *, smoothing: float = 1.0) -> Tensor:
    """What a trained network teaches the next: a class distribution for every frame.

    The mean of both streams' activations, smoothed over time, as a softmax over the video's labels and background; a
    clicked frame is of the class of its click.

    Args:
        output: of the teacher in evaluation mode, with the base stream, for one video.
        labels: ``[1, C]`` multi-hot.
        clicks: ``[1, T]`` class index of a clicked frame, C for background, -1 where not clicked.
        smoothing: deviation of the Gaussian, in snippets.

    Returns:
        ``[C+1, T]``.
    """
    assert output.base_cas is not None
    activations = smooth((output.cas[0] + output.base_cas[0]) / 2, smoothing)
    possible = F.pad(labels[0] > 0, (0, 1), value=True)
    taught = activations.masked_fill(~possible[:, None], -torch.inf).softmax(0)
    known = F.one_hot(clicks[0].clamp(min=0), len(taught)).T.to(taught)
    return torch.where(clicks[0] >= 0, known, taught)


def teacher_loss(cas: Tensor, taught: Tensor, lengths: Tensor) -> Tensor:
    """Cross-entropy of every frame with what the teacher says, mean over streams and the frames of the batch.

    Args:
        cas: ``[S, B, C+1, T]``.
        taught: ``[B, C+1, T]`` distributions, from `taught_distribution`; 0 in padding.
        lengths: ``[B]``.
    """
    return -(taught * cas.log_softmax(2)).sum() / (len(cas) * lengths.sum())


class ExtendedLoss(nn.Module):
    """All of a `LossConfig`: the paper's objective (`BackTALLoss`) and the terms beyond it.

    Args:
        config: weights and forms of the terms.
        topk_ratio: the model's.

    Example:
        >>> from backtal import BackTALModel, ModelConfig
        >>> model = BackTALModel(ModelConfig(feature_dim=8, labels=("jump",), hidden_dim=16)).train()
        >>> clicks = torch.full((2, 24), -1); clicks[:, [3, 9]] = 1
        >>> terms = ExtendedLoss(LossConfig(between=0.5))(model(torch.randn(2, 8, 24)), torch.ones(2, 1), clicks)
        >>> "between" in terms
        True
    """

    def __init__(self, config: LossConfig, topk_ratio: float = 0.125) -> None:
        super().__init__()
        self.config = config
        self.paper = BackTALLoss(replace(config, between=0.0), topk_ratio)

    def forward(
        self, output: BackTALOutput, labels: Tensor, clicks: Tensor, taught: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the terms.

        Args:
            output: of the model, with the base stream.
            labels: ``[B, C]`` multi-hot.
            clicks: ``[B, T]`` class index of a clicked frame, C for background, -1 where not clicked.
            taught: ``[B, C+1, T]`` what the previous stage's network says of each frame; None in the first stage.
        """
        terms, config, lengths = self.paper(output, labels, clicks), self.config, output.lengths
        assert output.base_cas is not None
        added = {}
        if config.between:
            background = self.paper.with_mined(output.base_cas, clicks, lengths) == labels.shape[1]
            settings = {"ratio": config.between_ratio, "miss": config.between_miss}
            base, suppressed = (
                between_clicks_loss(cas, labels, background, lengths, **settings)
                for cas in (output.base_cas, output.cas)
            )
            added["between"] = base + suppressed
        if config.teacher and taught is not None:
            added["teacher"] = teacher_loss(torch.stack([output.base_cas, output.cas]), taught, lengths)
        return add_terms(terms, added, config)
