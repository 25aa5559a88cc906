"""The per-tap form as one PyTorch operator, ``torch.ops.backtal.affinity_conv1d``.

`torch.compile` sees one node, not loops over taps or kernels that it cannot read; `torch.export` is given plain
operators, which any runtime has.
"""

import importlib
from typing import Any

import torch
from torch import Tensor

from backtal.ops import blas


def _exporting() -> bool:
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


# Whether `torch.export` reads the graph: PyTorch 2.7 can be asked, before it only `strict=False` can be told.
exporting = getattr(torch.compiler, "is_exporting", _exporting)


def blas_form(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, layout: str) -> Tensor:
    """See `backtal.ops.affinity_conv1d`; arguments are already checked and affinity is ``[S, B, K, T]``."""
    if layout == "per_tap" and exporting():
        return blas.exportable(x, weight, affinity, dilation)
    # In eager mode the products stay visible to profilers and operation counters.
    if layout == "per_tap" and torch.compiler.is_compiling():
        return per_tap(x, weight, affinity, dilation, "blas")
    return blas.affinity_conv1d(x, weight, affinity, dilation, layout)


def triton_form(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, layout: str) -> Tensor:
    """See `backtal.ops.affinity_conv1d`; arguments are already checked and affinity is ``[S, B, K, T]``."""
    if layout == "per_tap":
        return per_tap(x, weight, affinity, dilation, "triton")
    # One per-tap convolution for each row of the affinity, over the channels that it scales.
    channels, taps = weight.shape[1:]
    row = torch.arange(channels * taps, device=x.device).view(channels, taps) // channels
    parts = []
    for block in range(taps):
        # From a multiple of 8 channels, to keep 16-byte loads aligned.
        first, last = block * channels // taps // 8 * 8, ((block + 1) * channels - 1) // taps + 1
        inside = (row[first:last] == block).to(weight.dtype)
        scale = affinity[:, :, block : block + 1].expand_as(affinity)
        parts.append(per_tap(x[:, first:last], weight[:, first:last] * inside, scale, dilation, "triton"))
    return sum(parts[1:], parts[0])


@torch.library.custom_op("backtal::affinity_conv1d", mutates_args=())
def per_tap(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, backend: str) -> Tensor:
    """``x [B, D, T]``, ``weight [O, D, K]``, ``affinity [S, B, K, T]`` -> ``[S, B, O, T]``."""
    return _implementation(backend).forward(x, weight, affinity, dilation)


_BACKWARD = (
    "(Tensor grad, Tensor x, Tensor weight, Tensor affinity, int dilation, str backend, bool[] wanted) -> Tensor[]"
)


# With its schema: PyTorch 2.6 cannot read `list` in annotations.
@torch.library.custom_op("backtal::affinity_conv1d_backward", mutates_args=(), schema=_BACKWARD)
def per_tap_backward(
    grad: Tensor, x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, backend: str, wanted: list[bool]
) -> list[Tensor]:
    """Those gradients of x, weight and affinity that are wanted."""
    found = _implementation(backend).backward(grad, x, weight, affinity, dilation, wanted)
    return [tensor for tensor in found if tensor is not None]


@per_tap.register_fake
def _per_tap_fake(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, backend: str) -> Tensor:
    streams, batch, _, length = affinity.shape
    return x.new_empty(streams, batch, weight.shape[0], length)


@per_tap_backward.register_fake
def _per_tap_backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, backend: str, wanted: list[bool]
) -> list[Tensor]:
    tap_major = weight.new_empty(weight.permute(2, 0, 1).shape).permute(1, 2, 0)
    found = (torch.empty_like(x), tap_major, torch.empty_like(affinity))
    return [tensor for tensor, needed in zip(found, wanted, strict=True) if needed]


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, str], output: Tensor) -> None:
    *tensors, ctx.dilation, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    found = iter(per_tap_backward(grad, *ctx.saved_tensors, ctx.dilation, ctx.backend, wanted))
    return *(next(found) if needed else None for needed in wanted), None, None


per_tap.register_autograd(_gradients, setup_context=_setup)


def _implementation(backend: str) -> Any:
    """The module, imported at its first use: importing backtal stays free of Triton."""
    return importlib.import_module(f"backtal.ops.{backend}")
