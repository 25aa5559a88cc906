"""The specification: unfold, scale every row by its affinity, one matrix product (eq. 14-16)."""

from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F


def affinity_conv1d(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, layout: str) -> Tensor:
    """See `backtal.ops.affinity_conv1d`; arguments are already checked."""
    channels, taps = weight.shape[1:]
    unfolded = F.unfold(
        x.unsqueeze(2), kernel_size=(1, taps), dilation=(1, dilation), padding=(0, taps // 2 * dilation)
    )
    scale = {
        "per_tap": lambda: repeat(affinity, "b k t -> b (d k) t", d=channels),
        "channel_blocks": lambda: repeat(affinity, "b k t -> b (k d) t", d=channels),
    }[layout]()
    return rearrange(weight, "o d k -> o (d k)") @ (unfolded * scale)
