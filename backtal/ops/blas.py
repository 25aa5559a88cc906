"""The affinity convolution without the unfolded buffer.

An affinity is one number per frame and row block, so it can scale the *result* of a plain
convolution over that block instead of its input: ``out = sum_b affinity[b] * conv1d(x, weight_b)``,
where ``weight_b`` holds the rows that ``affinity[b]`` scales. For the paper's layout a block is one
tap; for the released one it is a range of channels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def affinity_conv1d(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, layout: str) -> Tensor:
    """See `backtal.ops.affinity_conv1d`; arguments are already checked."""
    blocks = {"per_tap": _per_tap, "channel_blocks": _channel_blocks}[layout]
    return blocks(x, weight, affinity, dilation)


def _per_tap(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int) -> Tensor:
    taps, length = weight.shape[2], x.shape[2]
    middle = taps // 2
    out = F.conv1d(x, weight[:, :, middle, None]) * affinity[:, middle, None]
    for tap in range(taps):
        shift = (tap - middle) * dilation
        low, high = max(0, -shift), min(length, length - shift)
        if shift == 0 or low >= high:
            continue
        product = F.conv1d(x[..., low + shift : high + shift], weight[:, :, tap, None])
        out[..., low:high].addcmul_(product, affinity[:, tap, None, low:high])
    return out


def _channel_blocks(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int) -> Tensor:
    channels, taps = weight.shape[1:]
    row = torch.arange(channels * taps, device=x.device).view(channels, taps)
    padding = taps // 2 * dilation
    out = x.new_zeros(())
    for block in range(taps):
        first, last = block * channels // taps, ((block + 1) * channels - 1) // taps
        inside = row[first : last + 1] // channels == block
        product = F.conv1d(
            x[:, first : last + 1], weight[:, first : last + 1] * inside, padding=padding, dilation=dilation
        )
        out = out + product * affinity[:, block, None]
    return out
