"""The affinity convolution without the unfolded buffer, from plain convolutions.

An affinity is one number per frame and row block, so it can scale the *result* of a convolution over that block instead
of its input: ``out = sum_b affinity[b] * conv1d(x, weight_b)``. For the paper's layout a block is one tap, for the
released one a range of channels. Convolutions that differ only in their affinity share these results; with several of
them, and in the released layout, training keeps the results for the affinity's gradient, ``[K, B, O, T]``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# A 1x1 kernel has no use for a dilation; given one, PyTorch takes oneDNN even on a single thread.
_DILATION = 2
# Elements of a block's product that are held at once: less wastes oneDNN's threads, more the caches.
_PRODUCT = 3 << 19
# Rows or columns of a tap's matrix that are multiplied at once: oneDNN copies them into an order of its own.
_BLOCK = 512


def affinity_conv1d(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, layout: str) -> Tensor:
    """See `backtal.ops.affinity_conv1d`; arguments are already checked and affinity is ``[S, B, K, T]``."""
    if layout == "channel_blocks":
        return _channel_blocks(x, weight, affinity, dilation)
    return _PerTap.apply(x, weight, affinity, dilation)  # type: ignore[no-any-return]


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
        out = out + product * affinity[:, :, block, None]
    return out


def exportable(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int) -> Tensor:
    """The same from plain operators, whose graph fits every batch size and length."""
    taps, length = weight.shape[2], x.shape[-1]
    reach = taps // 2 * dilation
    padded = F.pad(x, (reach, reach))
    parts = [
        (weight[..., tap] @ padded[..., tap * dilation : tap * dilation + length]) * affinity[:, :, tap, None]
        for tap in range(taps)
    ]
    return sum(parts[1:], parts[0])


class _PerTap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, affinity: Tensor, dilation: int) -> Tensor:
        weight = _tap_major(weight)
        # Only the affinity's gradient over several streams reads the products again.
        kept = len(affinity) > 1 and ctx.needs_input_grad[2]
        products = x.new_empty(weight.shape[2], len(x), len(weight), x.shape[2]) if kept else None
        ctx.save_for_backward(x, weight, affinity, products)
        ctx.dilation = dilation
        return forward(x, weight, affinity, dilation, products)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, affinity, products = ctx.saved_tensors
        return *backward(grad, x, weight, affinity, ctx.dilation, ctx.needs_input_grad[:3], products), None


def forward(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, products: Tensor | None = None) -> Tensor:
    """``out[:, t] = sum_i affinity[i, t] * (W_i @ x)[:, t + shift_i]``, ``[S, B, O, T]``.

    The products ``W_i @ x`` are left in `products`, ``[K, B, O, T]``, where it is given.
    """
    weight = _tap_major(weight)
    streams, batch, taps, length = affinity.shape
    out = x.new_empty(streams, batch, weight.shape[0], length)
    for v in _chunks(batch, weight.shape[0], length):
        for tap, here, there in _taps(taps, dilation, length):
            scale = affinity[:, v, tap, None]
            for o in _blocks(weight.shape[0]):
                product = _product(x[v], weight[o], tap)
                if products is not None:
                    products[tap, v, o] = product
                if tap == taps // 2:
                    torch.mul(product, scale, out=out[:, v, o])
                else:
                    out[:, v, o, here].addcmul_(product[..., there], scale[..., here])
    return out


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    affinity: Tensor,
    dilation: int,
    wanted: Sequence[bool],
    products: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and affinity, those that are wanted; `products` are computed anew where not given."""
    needs_x, needs_weight, needs_affinity = wanted
    streams, batch, taps, length = affinity.shape
    grad_x = torch.zeros_like(x) if needs_x else None
    # Added up over the chunks in float32 at least.
    exact = torch.promote_types(weight.dtype, torch.float32)
    grad_taps = weight.new_zeros(taps, *weight.shape[:2], dtype=exact) if needs_weight else None
    grad_affinity = torch.zeros_like(affinity) if needs_affinity else None
    for v in _chunks(batch, max(weight.shape[:2]), length):
        for tap, here, there in _taps(taps, dilation, length):
            scale, outer = affinity[:, v, tap, None], grad[:, v]
            if grad_taps is not None:
                for o in _blocks(weight.shape[0]):
                    scaled = _scaled(outer[:, :, o], scale, here, there)
                    grad_taps[tap, o] += _weight_gradient(scaled, x[v], weight[o], tap)
            if streams > 1:
                if grad_affinity is not None:
                    for o in _blocks(weight.shape[0]):
                        product = _product(x[v], weight[o], tap) if products is None else products[tap, v, o]
                        grad_affinity[:, v, tap, here] += (outer[:, :, o, here] * product[..., there]).sum(2)
                if grad_x is not None:
                    scaled = _scaled(outer, scale, here, there)
                    for d in _blocks(x.shape[1]):
                        grad_x[v, d] += _input_gradient(scaled, x[v, d], weight[:, d], tap)
            elif needs_x or needs_affinity:
                # One stream: the transposed product alone gives both gradients.
                for d in _blocks(x.shape[1]):
                    back = _input_gradient(outer[0], x[v, d], weight[:, d], tap)[..., here]
                    if grad_affinity is not None:
                        grad_affinity[0, v, tap, here] += (back * x[v, d, there]).sum(1)
                    if grad_x is not None:
                        grad_x[v, d, there].addcmul_(back, scale[0, ..., here])
    grad_weight = None if grad_taps is None else grad_taps.permute(1, 2, 0).to(weight.dtype)
    return grad_x, grad_weight, grad_affinity


def _scaled(grad: Tensor, scale: Tensor, here: slice, there: slice) -> Tensor:
    """Every stream's gradient times its affinity, added up, at the frames of the input."""
    total = torch.zeros_like(grad[0])
    for one, factor in zip(grad, scale, strict=True):
        total[..., there].addcmul_(one[..., here], factor[..., here])
    return total


def _tap_major(weight: Tensor) -> Tensor:
    """The same ``[O, D, K]``, each tap's matrix in one piece of memory."""
    return weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def _taps(taps: int, dilation: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """The taps, middle first: tap, the frames it adds to, and the frames it reads for them."""
    for tap in sorted(range(taps), key=lambda tap: abs(tap - taps // 2)):
        shift = (tap - taps // 2) * dilation
        low, high = max(0, -shift), min(length, length - shift)
        if low < high:
            yield tap, slice(low, high), slice(low + shift, high + shift)


def _chunks(batch: int, channels: int, length: int) -> Iterator[slice]:
    size = max(1, _PRODUCT // max(1, min(channels, _BLOCK) * length))
    return (slice(start, start + size) for start in range(0, batch, size))


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _product(x: Tensor, weight: Tensor, tap: int) -> Tensor:
    return F.conv1d(x, weight[:, :, tap, None], dilation=_DILATION)


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, tap: int) -> Tensor:
    return _convolution_backward(grad, x, weight[:, :, tap, None], [True, False, False])[0]


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, tap: int) -> Tensor:
    return _convolution_backward(grad, x, weight[:, :, tap, None], [False, True, False])[1][:, :, 0]


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, ...]:
    return torch.ops.aten.convolution_backward(grad, x, weight, None, [1], [0], [_DILATION], False, [0], 1, wanted)
