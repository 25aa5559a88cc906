"""The loss terms of the paper (eq. 2-13) and their sum (eq. 4), as functions and as modules.

Everywhere, ``cas`` is ``[B, C+1, T]`` with background last, ``labels`` is multi-hot ``[B, C]``, ``background`` is
``[B, T]``: True on clicked background frames, and ``lengths`` is ``[B]``. A term whose clicks or labels are missing
from a whole batch is 0, with its graph intact.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backtal.errors import ConfigError
from backtal.nn.cas import BackTALOutput, frame_mask, topk_count, topk_mean
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
    """The paper's objective (eq. 4): every term by name, and their weighted sum as ``"total"``.

    Args:
        config: weights and forms of the terms.
        topk_ratio: the model's.

    Raises:
        ConfigError: if `config` gives a weight to a term that is not the paper's; `backtal.nn.ExtendedLoss` takes it.

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
        if config.between:
            raise ConfigError(f"LossConfig.between={config.between} is not of the paper's objective: use ExtendedLoss")
        self.config = config
        self.separation = ScoreSeparationLoss(config.separation_topk_ratio or topk_ratio)
        self.affinity = AffinityLoss(topk_ratio, config.tau_same, config.tau_diff, config.affinity_pairs)

    def forward(self, output: BackTALOutput, labels: Tensor, clicks: Tensor) -> dict[str, Tensor]:
        """Compute the terms.

        Args:
            output: of the model, with the base stream.
            labels: ``[B, C]`` multi-hot.
            clicks: ``[B, T]`` class index of a clicked frame, C for background, -1 where not clicked.
        """
        if output.base_cas is None or output.base_scores is None:
            raise ValueError("the losses need the base stream: run the model in training mode or with base_stream=True")
        config, lengths = self.config, output.lengths
        clicks = self.with_mined(output.base_cas, clicks, lengths)
        background = clicks == labels.shape[1]
        terms = {
            "video_base": video_loss(output.base_scores, labels, background=True),
            "video_suppressed": video_loss(output.scores, labels, background=False),
        }
        terms["total"] = terms["video_base"] + terms["video_suppressed"]
        weighted = {}
        if config.norm:
            weighted["norm"] = norm_loss(output.foreground)
        if config.frame:
            weighted["frame"] = self._frame(output.base_cas, output.foreground, clicks)
        if config.separation:
            weighted["separation"] = self.separation(output.base_cas, labels, background, lengths)
        if config.affinity:
            weighted["affinity"] = self.affinity(output.embedding, output.cas, labels, background, lengths)
        return add_terms(terms, weighted, config)

    def with_mined(self, cas: Tensor, clicks: Tensor, lengths: Tensor) -> Tensor:
        """The clicks ``[B, T]``, with as much mined background as the config asks for; see `mine_background`."""
        wanted = self.config.mined_background
        return mine_background(cas, clicks, lengths, wanted) if wanted else clicks

    def _frame(self, cas: Tensor, foreground: Tensor, clicks: Tensor) -> Tensor:
        config = self.config
        loss = cas.new_zeros(())
        if config.frame_on in ("cas", "both"):
            loss = loss + frame_loss(cas, clicks, mean=config.frame_mean)
        if config.frame_on in ("foreground", "both"):
            loss = loss + foreground_loss(foreground, clicks, cas.shape[1] - 1, mean=config.frame_mean)
        return loss


def add_terms(terms: Mapping[str, Tensor], added: Mapping[str, Tensor], config: LossConfig) -> dict[str, Tensor]:
    """All terms, and as ``"total"`` that of `terms` plus each of `added` times its weight in `config`."""
    total = terms["total"]
    for name, term in added.items():
        total = total + getattr(config, name) * term
    return {name: term for name, term in terms.items() if name != "total"} | {**added, "total": total}
