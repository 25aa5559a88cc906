"""Points of the pyramid and segments (not part of the paper): which point answers for which, losses, segments found.

Positions and lengths are in snippets; a segment is ``[start, end)``.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backtal.data.features import TimeAxis
from backtal.nn.cas import Points
from backtal.segments.segments import suppress
from backtal.settings.detector import DetectionConfig

FOCUS, BALANCE = 2.0, 0.25  # gamma and alpha of the focal loss, as published


def assign(points: Tensor, segments: Tensor, radius: float) -> Tensor:
    """Which segment every point answers for: one that is of its level's size and around whose middle it lies.

    A point of stride s answers for segments it lies in, within ``radius * s`` of their middle, whose farther edge is
    2s to 4s away (lowest level: less is taken too; highest: more). Of several it takes the shortest.

    Args:
        points: ``[N, 2]`` positions and strides.
        segments: ``[B, M, 2]`` starts and ends; those of no length are padding.
        radius: in strides.

    Returns:
        ``[B, N]`` index of the segment, -1 for none.

    Example:
        >>> from backtal.nn.detector.pyramid import points
        >>> assign(points(8, 2), torch.tensor([[[2.0, 4.0]]]), radius=1.5)[0].tolist()
        [-1, -1, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1]
    """
    if segments.shape[1] == 0:
        return torch.full((len(segments), len(points)), -1, device=points.device)
    position, stride = points[:, 0, None], points[:, 1, None]
    start, end = segments[:, None, :, 0], segments[:, None, :, 1]
    before, after = position - start, end - position
    farther = torch.maximum(before, after)
    least = torch.where(stride > stride.min(), 2 * stride, 0)
    most = torch.where(stride < stride.max(), 4 * stride, torch.inf)
    near = (position - (start + end) / 2).abs() <= radius * stride
    fits = (before > 0) & (after > 0) & near & (farther >= least) & (farther <= most)
    length, chosen = torch.where(fits, end - start, torch.inf).min(2)
    return torch.where(length.isfinite(), chosen, -1)


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017), elementwise: what is already right counts little."""
    probability = logits.sigmoid()
    right = probability * targets + (1 - probability) * (1 - targets)
    balance = BALANCE * targets + (1 - BALANCE) * (1 - targets)
    return balance * (1 - right) ** FOCUS * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def distance_iou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """``1 - tIoU + (distance of the middles / length of the hull)**2`` (Zheng et al., 2020), around one point.

    Args:
        found: ``[..., 2]`` distances from the point back to the start and on to the end.
        wanted: the same, of the target.
    """
    shared, hull = torch.minimum(found, wanted).sum(-1), torch.maximum(found, wanted).sum(-1)
    iou = shared / (found.sum(-1) + wanted.sum(-1) - shared).clamp(min=1e-6)
    apart = ((found[..., 1] - found[..., 0]) - (wanted[..., 1] - wanted[..., 0])) / 2
    return 1 - iou + (apart / hull.clamp(min=1e-6)) ** 2


def point_losses(points: Points, segments: Tensor, ignored: Tensor, *, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the points of a batch cost, summed, and how many of them answer for a segment.

    Args:
        points: of the detector.
        segments: ``[B, M, 4]`` start, end, class, weight; those of no length are padding.
        ignored: ``[B, T]`` True on snippets of which nothing is known; points there cost nothing unless they answer.
        radius: as for `assign`.

    Returns:
        Cost of the classes, cost of the edges, weight of the answering points.
    """
    classes, distances, places, real = points
    owner = assign(places, segments[..., :2], radius).masked_fill(~real, -1)
    answering = owner >= 0
    if segments.shape[1]:
        target = segments.gather(1, owner.clamp(min=0)[..., None].expand(-1, -1, 4))
    else:
        target = segments.new_zeros(*owner.shape, 4)
    weight = torch.where(answering, target[..., 3], 1.0)
    snippet = places[:, 0].long().clamp(max=ignored.shape[1] - 1)
    counted = torch.where(answering, weight, (real & ~ignored[:, snippet]).to(weight))
    wanted = F.one_hot(target[..., 2].long(), classes.shape[1]) * answering[..., None]
    cost = (focal_loss(classes.transpose(1, 2), wanted.to(classes)) * counted[..., None]).sum()
    position = places[:, 0]
    edges = torch.stack([position - target[..., 0], target[..., 1] - position], dim=-1)
    edges = torch.where(answering[..., None], edges, 1.0)
    overlap = (distance_iou_loss(distances.transpose(1, 2), edges) * (weight * answering)).sum()
    return cost, overlap, (weight * answering).sum()


def decode(classes: np.ndarray, intervals: np.ndarray, length: int, config: DetectionConfig) -> np.ndarray:
    """Segments of one video from its points.

    Args:
        classes: ``[C, N]`` probabilities.
        intervals: ``[N, 2]`` starts and ends at the points.
        length: snippets T of the video.
        config: settings.

    Returns:
        ``[n, 4]`` start, end, class, score, by descending score.
    """
    intervals, most = intervals.clip(0, length).astype(np.float64), config.most * (1 + length // 100)
    found = [np.empty((0, 4))]
    for index, scores in enumerate(classes.astype(np.float64)):
        chosen = np.flatnonzero(scores >= config.min_score)
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")[:most]]
        kept, final = suppress(
            intervals[chosen],
            scores[chosen],
            sigma=config.soft_nms_sigma,
            threshold=config.nms_threshold,
            min_score=config.min_score,
        )
        found.append(np.column_stack([kept, np.full(len(kept), index), final]))
    together = np.concatenate(found)
    return together[np.argsort(-together[:, 3], kind="stable")]


def intervals(points: Points) -> Tensor:
    """``[B, N, 2]``: start and end of the segment around each point."""
    position = points.places[:, 0]
    return torch.stack([position - points.distances[:, 0], position + points.distances[:, 1]], dim=2)


def detections(points: Points, index: int, length: int, config: DetectionConfig) -> np.ndarray:
    """``[n, 4]`` start, end, class and score of video `index` of a batch, `length` snippets long; see `decode`."""
    # A high level's last point may lie beyond the end, where no part of the video is its own.
    real = points.real[index] & (points.places[:, 0] < length)
    classes, found = points.classes[index][:, real].sigmoid(), exact_intervals(points, index)[real.cpu().numpy()]
    return decode(classes.float().cpu().numpy(), found, length, config)


def exact_intervals(points: Points, index: int = 0) -> np.ndarray:
    """``[N, 2]``: `intervals` of one video in float64; float32 is off by a thousandth of a snippet after hours."""
    places, distances = points.places.cpu().double(), points.distances[index : index + 1].cpu().double()
    return intervals(points._replace(places=places, distances=distances))[0].numpy()


def in_seconds(found: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """What `decode` returns, in seconds; segments that the end of the video leaves no length are left out."""
    seconds = np.column_stack([axis.all_seconds(found[:, :2]), found[:, 2:]])
    return seconds[seconds[:, 1] > seconds[:, 0]]
