"""The class activation sequence (CAS): what the network returns, and how frames are pooled (eq. 1)."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from backtal.errors import DataError
from backtal.ops.operator import exporting


class Points(NamedTuple):
    """What the detector, which is not part of the paper, says at the N points of its pyramid.

    Attributes:
        classes: ``[B, C, N]`` logits.
        distances: ``[B, 2, N]`` snippets from a point back to the start and on to the end of a segment.
        places: ``[N, 2]`` position and stride of each point, in snippets.
        real: ``[B, N]`` False in padding.
    """

    classes: Tensor
    distances: Tensor
    places: Tensor
    real: Tensor


class BackTALOutput(NamedTuple):
    """What the network returns. Frames beyond a video's length are zero.

    Attributes:
        scores: ``[B, C+1]`` video-level scores of the suppressed stream (eq. 1), before softmax.
        cas: ``[B, C+1, T]`` class activation sequence of the suppressed stream, background last.
        foreground: ``[B, 1, T]`` weights in [0, 1].
        embedding: ``[B, E, T]`` unit vectors.
        first_layer: ``[B, H, T]`` activations after the trunk's first layer, suppressed stream.
        lengths: ``[B]`` frames of each video.
        base_scores: ``[B, C+1]`` of the base stream; None unless asked for.
        base_cas: ``[B, C+1, T]`` of the base stream; None unless asked for.
        points: of the detector; None for the paper's network.
    """

    scores: Tensor
    cas: Tensor
    foreground: Tensor
    embedding: Tensor
    first_layer: Tensor
    lengths: Tensor
    base_scores: Tensor | None = None
    base_cas: Tensor | None = None
    points: Points | None = None


def frame_mask(lengths: Tensor, length: int) -> Tensor:
    """``[B, T]``: True on the real frames of each video."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def topk_count(lengths: Tensor, ratio: float) -> Tensor:
    """``[B]``: how many frames the top-k takes, ``max(1, int(ratio * T))``."""
    return (lengths.double() * ratio + 1e-9).long().clamp(min=1)


def topk_mean(cas: Tensor, lengths: Tensor, ratio: float) -> Tensor:
    """Mean of the top k frames of every class (eq. 1), k from each video's own length.

    Args:
        cas: ``[B, C, T]``.
        lengths: ``[B]``.
        ratio: k = ``max(1, int(ratio * length))``.

    Returns:
        ``[B, C]``.

    Example:
        >>> topk_mean(torch.tensor([[[1.0, 4.0, 2.0, 9.0]]]), torch.tensor([3]), 0.7)
        tensor([[3.]])
    """
    length = cas.shape[-1]
    counts = topk_count(lengths, ratio)
    masked = cas.masked_fill(~frame_mask(lengths, length)[:, None], -torch.inf)
    # An exported graph serves every length, so no number of frames may become a constant in it: it sorts all.
    most = length if exporting() else max(1, int(length * ratio + 1e-9))
    values = masked.topk(most, dim=-1).values
    taken = torch.arange(values.shape[-1], device=cas.device) < counts[:, None, None]
    return values.masked_fill(~taken, 0.0).sum(-1) / counts[:, None]


def join_outputs(blocks: Iterable[tuple[BackTALOutput, slice]], topk_ratio: float) -> BackTALOutput:
    """The output for a whole video from those for consecutive blocks of it, as far as `localize` reads it.

    Args:
        blocks: output for a batch of one, and which of its frames are the block's own, as `run_chunked` yields them.
        topk_ratio: of the video scores.

    Returns:
        Without foreground and embedding; of the first layer there is the magnitude, ``[1, 1, T]``.

    Raises:
        DataError: if there is no frame.
    """
    # One array that doubles: small ones kept between the large ones of the network would scatter the memory.
    kept, used = torch.empty(0, 0), 0
    for output, own in blocks:
        length, classes = own.stop - own.start, output.cas.shape[1]
        if used + length > kept.shape[1]:
            more = kept.new_empty(classes + 1, used + length)
            kept = torch.cat([kept[:, :used], more], dim=1) if used else more
        kept[:classes, used : used + length] = output.cas[0, :, own]
        kept[classes, used : used + length] = output.first_layer[0, :, own].float().norm(dim=0)
        used += length
    if not used:
        raise DataError("features: not one snippet")
    cas, magnitude, lengths = kept[None, :-1, :used], kept[None, -1:, :used], torch.tensor([used])
    nothing = kept.new_empty(1, 0, 0)
    return BackTALOutput(topk_mean(cas, lengths, topk_ratio), cas, nothing, nothing, magnitude, lengths)


def mean_probability(activations: Sequence[Tensor]) -> Tensor:
    """Log of the mean of several softmaxes over the classes, ``[B, C+1, ...]`` each."""
    together = torch.stack([a.float().log_softmax(1) for a in activations]).logsumexp(0)
    return together - torch.tensor(len(activations)).log()


def smooth(x: Tensor, deviation: float) -> Tensor:
    """Gaussian smoothing of ``[C, T]`` over time, edges repeated; `deviation` in snippets, 0 for none."""
    if deviation == 0:
        return x
    reach = math.ceil(3 * deviation)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / deviation) ** 2)
    padded = F.pad(x[:, None], (reach, reach), mode="replicate")
    return F.conv1d(padded, (weight / weight.sum())[None, None])[:, 0]
