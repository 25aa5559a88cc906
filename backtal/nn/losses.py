"""The loss terms of BackTAL (eq. 2-13), each as a function and as a module.

Everywhere, ``cas`` is ``[B, C+1, T]`` with background last, ``labels`` is multi-hot ``[B, C]``, ``background`` is
``[B, T]``: True on clicked background frames, and ``lengths`` is ``[B]``. A term whose clicks or labels are missing
from a whole batch is 0, with its graph intact.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backtal.nn.cas import BackTALOutput, frame_mask, smooth, topk_count, topk_mean
from backtal.ops import unit_vectors
from backtal.settings.config import LossConfig


def video_loss(scores: Tensor, labels: Tensor, *, background: bool) -> Tensor:
    """Video-level classification (eq. 2): cross-entropy with the labels, scaled to sum 1.

    Args:
        scores: ``[B, C+1]`` video-level scores before softmax.
        labels: ``[B, C]`` multi-hot.
        background: whether the video counts as holding background (base stream: yes, suppressed: no).

    Returns:
        The mean over the batch.

    Example:
        >>> video_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0, 0]]), background=True)
        tensor(1.3863)
    """
    target = F.pad(labels.to(scores.dtype), (0, 1), value=float(background))
    target = target / target.sum(1, keepdim=True).clamp(min=1)
    return -(target * scores.log_softmax(1)).sum(1).mean()


def frame_loss(cas: Tensor, clicks: Tensor, *, mean: str = "video") -> Tensor:
    """Frame-level classification (eq. 3): a clicked frame is of the class of its click.

    Args:
        cas: ``[B, C+1, T]``.
        clicks: ``[B, T]`` class index of a clicked frame, C for background, -1 where not clicked; or bool, True
            where background was clicked.
        mean: ``"video"`` averages over each video's clicks, then over the videos that have one
            (paper); ``"batch"`` over all clicks of the batch (released).
    """
    if clicks.dtype == torch.bool:
        clicks = torch.where(clicks, cas.shape[1] - 1, -1)
    chosen = cas.log_softmax(1).gather(1, clicks.clamp(min=0)[:, None])[:, 0]
    return _mean_over_clicks(-chosen, clicks >= 0, mean)


def foreground_loss(foreground: Tensor, clicks: Tensor, num_classes: int, *, mean: str = "video") -> Tensor:
    """Binary classification of clicked frames by the foreground weights (Table 8).

    Args:
        foreground: ``[B, 1, T]`` in [0, 1].
        clicks: ``[B, T]`` class index of a clicked frame, C for background, -1 where not clicked.
        num_classes: C.
        mean: as in `frame_loss`.
    """
    weight = foreground[:, 0].float()
    right = torch.where(clicks == num_classes, 1 - weight, weight)
    return _mean_over_clicks(-right.clamp(min=1e-6).log(), clicks >= 0, mean)


def mine_background(cas: Tensor, clicks: Tensor, lengths: Tensor, per_click: int) -> Tensor:
    """Add background frames to action clicks, as SF-Net does: the frames that look most like background.

    Args:
        cas: ``[B, C+1, T]``.
        clicks: ``[B, T]`` class index of a clicked frame, C for background, -1 where not clicked.
        lengths: ``[B]``.
        per_click: frames to mine for each action click of a video.

    Returns:
        Clicks with the mined frames set to C. Clicked frames stay as they are.
    """
    length, background = cas.shape[-1], cas.shape[1] - 1
    wanted = per_click * ((clicks >= 0) & (clicks < background)).sum(1, keepdim=True)
    free = (clicks < 0) & frame_mask(lengths, length)
    likeness = cas.detach().softmax(1)[:, -1].masked_fill(~free, -1)
    rank = likeness.argsort(1, descending=True).argsort(1)
    return torch.where((rank < wanted) & free, background, clicks)


def _mean_over_clicks(loss: Tensor, clicked: Tensor, mean: str) -> Tensor:
    loss = loss * clicked
    if mean == "batch":
        return loss.sum() / clicked.sum().clamp(min=1)
    return _mean_over(loss.sum(1) / clicked.sum(1).clamp(min=1), clicked.any(1))


def score_separation_loss(
    cas: Tensor, labels: Tensor, background: Tensor, lengths: Tensor | None = None, *, topk_ratio: float = 0.125
) -> Tensor:
    """Score separation (eq. 5-8): for each of a video's classes, its top frames against its clicks.

    ``-log p_act - log(1 - p_bg)``, which is ``2 * softplus(s_bg - s_act)``: the mean over a video's classes,
    then over the videos that have a click.

    Args:
        cas: ``[B, C+1, T]``.
        labels: ``[B, C]`` multi-hot.
        background: ``[B, T]`` bool.
        lengths: ``[B]``; None where all videos fill T.
        topk_ratio: the top ``max(1, int(topk_ratio * length))`` frames count as action.

    Example:
        >>> cas = torch.tensor([[[5.0, 5.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
        >>> background = torch.tensor([[False, False, True, False]])
        >>> score_separation_loss(cas, torch.ones(1, 1), background, topk_ratio=0.5)
        tensor(0.0363)
    """
    lengths = torch.full((len(cas),), cas.shape[-1], device=cas.device) if lengths is None else lengths
    actions = cas[:, :-1]
    action_score = topk_mean(actions, lengths, topk_ratio)
    click_score = (actions * background[:, None]).sum(-1) / background.sum(1, keepdim=True).clamp(min=1)
    positive = labels > 0
    per_class = 2 * F.softplus(click_score - action_score) * positive
    per_video = per_class.sum(1) / positive.sum(1).clamp(min=1)
    return _mean_over(per_video, background.any(1) & positive.any(1))


def affinity_loss(
    embedding: Tensor,
    cas: Tensor,
    labels: Tensor,
    background: Tensor,
    lengths: Tensor | None = None,
    *,
    topk_ratio: float = 0.125,
    tau_same: float = 0.5,
    tau_diff: float = 0.1,
    pairs: str = "hardest",
) -> Tensor:
    """Affinity loss (eq. 9-13): alike within action and within background, unlike across.

    Action frames are the top-k of every class of the video, background frames its clicks.

    Args:
        embedding: ``[B, E, T]``.
        cas: ``[B, C+1, T]``, the sequence whose top-k chooses the action frames.
        labels: ``[B, C]`` multi-hot.
        background: ``[B, T]`` bool.
        lengths: ``[B]``; None where all videos fill T.
        topk_ratio: as in `score_separation_loss`.
        tau_same: least similarity within a kind.
        tau_diff: greatest similarity across.
        pairs: ``"hardest"``: one pair of different frames for each of three kinds (paper).
            ``"each_frame"``: every frame with its hardest partner, averaged, action-background counted
            from both sides; a frame chosen by two classes counts twice (released).

    Returns:
        The mean over the videos that have a click.
    """
    lengths = torch.full((len(cas),), cas.shape[-1], device=cas.device) if lengths is None else lengths
    weight = _action_weight(cas.detach(), labels, lengths, topk_ratio)
    action, usable = weight > 0, background.any(1) & (labels > 0).any(1)
    unit = unit_vectors(embedding)
    similarity = unit.transpose(1, 2) @ unit
    same_action = action[:, :, None] & action[:, None, :]
    same_background = background[:, :, None] & background[:, None, :]
    across = action[:, :, None] & background[:, None, :]
    if pairs == "hardest":
        other = ~torch.eye(cas.shape[-1], dtype=torch.bool, device=cas.device)
        loss = _hinge(tau_same - _least(similarity, same_action & other).amin(1))
        loss = loss + _hinge(tau_same - _least(similarity, same_background & other).amin(1))
        loss = loss + _hinge(_greatest(similarity, across).amax(1) - tau_diff)
        return _mean_over(loss, usable)
    loss = _weighted(_hinge(tau_same - _least(similarity, same_action)), weight)
    loss = loss + _weighted(_hinge(tau_same - _least(similarity, same_background)), background)
    loss = loss + _weighted(_hinge(_greatest(similarity, across) - tau_diff), weight)
    loss = loss + _weighted(_hinge(_greatest(similarity, across.transpose(1, 2)) - tau_diff), background)
    return _mean_over(loss, usable)


def _action_weight(cas: Tensor, labels: Tensor, lengths: Tensor, ratio: float) -> Tensor:
    """``[B, T]``: for how many of the video's classes a frame is among the top k."""
    length = cas.shape[-1]
    masked = cas[:, :-1].masked_fill(~frame_mask(lengths, length)[:, None], -torch.inf)
    chosen = masked.topk(max(1, int(length * ratio + 1e-9)), dim=-1).indices
    rank = torch.arange(chosen.shape[-1], device=cas.device)
    taken = (rank < topk_count(lengths, ratio)[:, None, None]) & (labels > 0)[:, :, None]
    return cas.new_zeros(len(cas), length).scatter_add_(1, chosen.flatten(1), taken.to(cas.dtype).flatten(1))


def _least(similarity: Tensor, allowed: Tensor) -> Tensor:
    return similarity.masked_fill(~allowed, torch.inf).amin(2)


def _greatest(similarity: Tensor, allowed: Tensor) -> Tensor:
    return similarity.masked_fill(~allowed, -torch.inf).amax(2)


def _hinge(margin: Tensor) -> Tensor:
    """Positive part; a frame without any partner has an infinite negative margin and counts 0."""
    return margin.clamp(min=0)


def _weighted(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen videos; 0 where there is none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def between_clicks_loss(
    cas: Tensor,
    labels: Tensor,
    background: Tensor,
    lengths: Tensor | None = None,
    *,
    ratio: float = 0.15,
    miss: float = 0.05,
) -> Tensor:
    """Somewhere between two consecutive background clicks lies an action of the video (ours, not the paper's).

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
    """What a trained network teaches the next (ours, not the paper's): a class distribution for every frame.

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


def norm_loss(foreground: Tensor) -> Tensor:
    """L1 norm of the foreground weights ``[B, 1, T]`` over time, mean over the batch."""
    return foreground.abs().sum((1, 2)).mean()


class ScoreSeparationLoss(nn.Module):
    """Module form of `score_separation_loss`."""

    def __init__(self, topk_ratio: float = 0.125) -> None:
        super().__init__()
        self.topk_ratio = topk_ratio

    def forward(self, cas: Tensor, labels: Tensor, background: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See `score_separation_loss`."""
        return score_separation_loss(cas, labels, background, lengths, topk_ratio=self.topk_ratio)


class FrameLoss(nn.Module):
    """Module form of `frame_loss`."""

    def __init__(self, mean: str = "video") -> None:
        super().__init__()
        self.mean = mean

    def forward(self, cas: Tensor, clicks: Tensor) -> Tensor:
        """See `frame_loss`."""
        return frame_loss(cas, clicks, mean=self.mean)


class AffinityLoss(nn.Module):
    """Module form of `affinity_loss`."""

    def __init__(
        self, topk_ratio: float = 0.125, tau_same: float = 0.5, tau_diff: float = 0.1, pairs: str = "hardest"
    ) -> None:
        super().__init__()
        self.settings = {"topk_ratio": topk_ratio, "tau_same": tau_same, "tau_diff": tau_diff, "pairs": pairs}

    def forward(
        self, embedding: Tensor, cas: Tensor, labels: Tensor, background: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """See `affinity_loss`."""
        return affinity_loss(embedding, cas, labels, background, lengths, **self.settings)


class BackTALLoss(nn.Module):
    """The complete objective (eq. 4): every term by name, and their weighted sum as ``"total"``.

    Args:
        config: weights and forms of the terms.
        topk_ratio: the model's.

    Example:
        >>> from backtal import BackTALModel, ModelConfig
        >>> model = BackTALModel(ModelConfig(feature_dim=8, labels=("jump",), hidden_dim=16)).train()
        >>> clicks = torch.full((2, 24), -1); clicks[:, 3] = 1
        >>> terms = BackTALLoss(LossConfig())(model(torch.randn(2, 8, 24)), torch.ones(2, 1), clicks)
        >>> sorted(terms)
        ['affinity', 'frame', 'norm', 'separation', 'total', 'video_base', 'video_suppressed']
    """

    def __init__(self, config: LossConfig, topk_ratio: float = 0.125) -> None:
        super().__init__()
        self.config, self.topk_ratio = config, topk_ratio

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
        base_cas, base_scores = output.base_cas, output.base_scores
        if base_cas is None or base_scores is None:
            raise ValueError("the losses need the base stream: run the model in training mode or with base_stream=True")
        config, lengths = self.config, output.lengths
        if config.mined_background:
            clicks = mine_background(base_cas, clicks, lengths, config.mined_background)
        background = clicks == labels.shape[1]
        terms = {
            "video_base": video_loss(base_scores, labels, background=True),
            "video_suppressed": video_loss(output.scores, labels, background=False),
        }
        weighted = {
            "norm": (config.norm, lambda: norm_loss(output.foreground)),
            "frame": (config.frame, lambda: self._frame(base_cas, output.foreground, clicks)),
            "separation": (
                config.separation,
                lambda: score_separation_loss(
                    base_cas,
                    labels,
                    background,
                    lengths,
                    topk_ratio=config.separation_topk_ratio or self.topk_ratio,
                ),
            ),
            "affinity": (
                config.affinity,
                lambda: affinity_loss(
                    output.embedding,
                    output.cas,
                    labels,
                    background,
                    lengths,
                    topk_ratio=self.topk_ratio,
                    tau_same=config.tau_same,
                    tau_diff=config.tau_diff,
                    pairs=config.affinity_pairs,
                ),
            ),
            "between": (
                config.between,
                lambda: self._between((base_cas, output.cas), labels, background, lengths),
            ),
        }
        if taught is not None:
            streams = torch.stack([base_cas, output.cas])
            weighted["teacher"] = (config.teacher, partial(teacher_loss, streams, taught, lengths))
        total = terms["video_base"] + terms["video_suppressed"]
        for name, (weight, term) in weighted.items():
            if weight:
                terms[name] = term()
                total = total + weight * terms[name]
        return terms | {"total": total}

    def _between(self, streams: tuple[Tensor, Tensor], labels: Tensor, background: Tensor, lengths: Tensor) -> Tensor:
        settings = {"ratio": self.config.between_ratio, "miss": self.config.between_miss}
        base, suppressed = (between_clicks_loss(cas, labels, background, lengths, **settings) for cas in streams)
        return base + suppressed

    def _frame(self, cas: Tensor, foreground: Tensor, clicks: Tensor) -> Tensor:
        config = self.config
        loss = cas.new_zeros(())
        if config.frame_on in ("cas", "both"):
            loss = loss + frame_loss(cas, clicks, mean=config.frame_mean)
        if config.frame_on in ("foreground", "both"):
            loss = loss + foreground_loss(foreground, clicks, cas.shape[1] - 1, mean=config.frame_mean)
        return loss
