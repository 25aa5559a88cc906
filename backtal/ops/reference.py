"""The specification: unfold, scale every row by its affinity, one matrix product (eq. 14-16)."""

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F


def affinity_conv1d(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, layout: str) -> Tensor:
    """See `backtal.ops.affinity_conv1d`; arguments are already checked and affinity is ``[S, B, K, T]``."""
    channels, taps = weight.shape[1:]
    unfolded = F.unfold(
        x.unsqueeze(2), kernel_size=(1, taps), dilation=(1, dilation), padding=(0, taps // 2 * dilation)
    )
    rows = {"per_tap": "s b k t -> s b (d k) t", "channel_blocks": "s b k t -> s b (k d) t"}[layout]
    scale = repeat(affinity, rows, d=channels)
    return torch.stack([rearrange(weight, "o d k -> o (d k)") @ (unfolded * one) for one in scale])
