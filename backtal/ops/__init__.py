"""The affinity convolution: a convolution whose taps are weighted, frame by frame, by similarity."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from backtal.ops import operator, reference
from backtal.ops.forms import FORMS, form_of

Layout = Literal["per_tap", "channel_blocks"]
Backend = Literal["reference", "blas", "triton"]

# Those that run on any device.
BACKENDS = {"reference": reference.affinity_conv1d, "blas": operator.blas_form}
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# The compute capability from which on GPUs have a form of the kernels.
OLDEST = min(FORMS)
_TRITON = find_spec("triton")
# Before 3.4 it has no descriptors that are made on the host; looked up without loading it.
_HAS_TRITON = (
    _TRITON is not None and Path(str(_TRITON.origin)).with_name("tools").joinpath("tensor_descriptor.py").exists()
)


def local_affinity(embedding: Tensor, kernel_size: int, *, dilation: int = 1) -> Tensor:
    """Cosine similarity between each frame's embedding and its neighbours' (eq. 9).

    Args:
        embedding: ``[B, E, T]``. A frame with a zero embedding has affinity 0 to every frame,
            itself included: that is how padding is kept out.
        kernel_size: number of neighbours K, odd; the frame itself is the middle one.
        dilation: distance between neighbours, in frames.

    Returns:
        ``[B, K, T]``: entry ``[b, i, t]`` compares frames ``t`` and ``t + (i - K // 2) * dilation``;
        0 where the neighbour lies outside the sequence.

    Example:
        >>> local_affinity(torch.ones(1, 4, 3), kernel_size=3)
        tensor([[[0., 1., 1.],
                 [1., 1., 1.],
                 [1., 1., 0.]]])
    """
    if embedding.dim() != 3:
        raise ValueError(f"embedding must be [B, E, T], got shape {tuple(embedding.shape)}")
    unit = unit_vectors(embedding)
    check_kernel(kernel_size, dilation)
    # One neighbour at a time: all of them at once would be K copies of the embedding.
    length, reach = unit.shape[-1], kernel_size // 2 * dilation
    padded = F.pad(unit, (reach, reach))
    taps = [padded[..., i * dilation : i * dilation + length] for i in range(kernel_size)]
    return torch.stack([(unit * tap).sum(dim=1) for tap in taps], dim=1)


def unit_vectors(x: Tensor) -> Tensor:
    """``[B, E, T]`` at length 1 along E; zero stays zero, in half types too, and with finite gradients."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


def affinity_conv1d(
    x: Tensor,
    weight: Tensor,
    affinity: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    layout: Layout = "per_tap",
    backend: Backend | None = None,
) -> Tensor:
    """Affinity convolution (eq. 14-16), with "same" zero padding.

    Equivalent to ``F.conv1d(x, weight, bias, padding="same")`` when every affinity is 1.

    Args:
        x: ``[B, D, T]``.
        weight: ``[O, D, K]``, K odd.
        affinity: ``[B, K, T]``, from `local_affinity`; or ``[S, B, K, T]`` for S convolutions of the same x and
            weight, which share most of the work.
        bias: ``[O]``, added without being weighted.
        dilation: distance between taps, in frames.
        layout: ``"per_tap"`` is the paper's: tap ``i`` at frame ``t`` is scaled by
            ``affinity[:, i, t]``. ``"channel_blocks"`` is what the released BackTAL computes and its
            checkpoints need: row ``c * K + i`` of the unfolded input is scaled by
            ``affinity[:, (c * K + i) // D, t]``.
        backend: ``"reference"`` (the literal unfold form), ``"blas"`` (no unfolded buffer), ``"triton"`` (fused
            kernels for CUDA), or None: Triton on Ampere and newer, else BLAS. ``torch.func`` and second derivatives
            need ``"reference"``.

    Returns:
        ``[B, O, T]``, or ``[S, B, O, T]``; in autocast of its type, as from ``F.conv1d``.

    Raises:
        ValueError: if shapes, types, devices, layout or backend do not fit; the message says what was found.

    Example:
        >>> x, weight = torch.randn(2, 4, 9), torch.randn(5, 4, 3)
        >>> affinity_conv1d(x, weight, local_affinity(x, 3)).shape
        torch.Size([2, 5, 9])
    """
    if x.dim() != 3 or weight.dim() != 3 or affinity.dim() not in (3, 4):
        raise ValueError(
            "x must be [B, D, T], weight [O, D, K] and affinity [B, K, T]; got shapes "
            f"{tuple(x.shape)}, {tuple(weight.shape)} and {tuple(affinity.shape)}"
        )
    check_kernel(weight.shape[2], dilation)
    if weight.shape[1] != x.shape[1]:
        raise ValueError(f"weight expects {weight.shape[1]} input channels, x has {x.shape[1]}")
    expected = (x.shape[0], weight.shape[2], x.shape[2])
    if tuple(affinity.shape[-3:]) != expected:
        raise ValueError(f"affinity must be [B, K, T] = {expected}, got {tuple(affinity.shape)}")
    if 0 in (*x.shape[1:], weight.shape[0], *affinity.shape[:-3]):
        raise ValueError(
            "x needs a channel and a frame, weight a row, affinity a stream; got shapes "
            f"{tuple(x.shape)}, {tuple(weight.shape)} and {tuple(affinity.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"bias must be [O] = {(weight.shape[0],)}, got {tuple(bias.shape)}")
    if layout not in ("per_tap", "channel_blocks"):
        raise ValueError(f"layout must be 'per_tap' or 'channel_blocks', got {layout!r}")
    x, weight, affinity, bias = _autocast(x, weight, affinity, bias)
    for name in ("dtype", "device"):
        found = [getattr(tensor, name) for tensor in (x, weight, affinity, bias) if tensor is not None]
        if any(one != found[0] for one in found):
            raise ValueError(f"x, weight, affinity and bias must have one {name}, got {', '.join(map(str, found))}")
    streams = affinity if affinity.dim() == 4 else affinity[None]
    out = _form(backend, x)(x, weight, streams, dilation, layout)
    out = out if affinity.dim() == 4 else out.squeeze(0)
    return out if bias is None else out + bias[:, None]


def neighbours(x: Tensor, kernel_size: int, *, dilation: int = 1) -> Tensor:
    """The values of each frame's K neighbours.

    Args:
        x: ``[..., T]``.
        kernel_size: number of neighbours K, odd.
        dilation: distance between neighbours, in frames.

    Returns:
        ``[..., K, T]``: entry ``[..., i, t]`` is ``x[..., t + (i - K // 2) * dilation]``, 0 outside the sequence.

    Example:
        >>> neighbours(torch.tensor([1.0, 2.0, 3.0]), 3)
        tensor([[0., 1., 2.],
                [1., 2., 3.],
                [2., 3., 0.]])
    """
    check_kernel(kernel_size, dilation)
    reach = kernel_size // 2 * dilation
    padded = F.pad(x, (reach, reach))
    return torch.stack([padded[..., i * dilation : i * dilation + x.shape[-1]] for i in range(kernel_size)], dim=-2)


def _form(backend: str | None, x: Tensor) -> Callable[[Tensor, Tensor, Tensor, int, str], Tensor]:
    if backend is None:
        return operator.triton_form if _suits_triton(x) else operator.blas_form
    if backend in BACKENDS:
        return BACKENDS[backend]
    if backend != "triton":
        raise ValueError(f"backend must be one of {sorted([*BACKENDS, 'triton'])} or None, got {backend!r}")
    if reason := why_not_triton(x):
        raise ValueError(f"backend 'triton' {reason}")
    return operator.triton_form


def why_not_triton(x: Tensor) -> str | None:
    """Why backend ``"triton"`` cannot take x, as the end of a sentence; None if it can."""
    if not _HAS_TRITON:
        return "needs the package triton, 3.4 or newer, which is not installed"
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"needs CUDA tensors (or TRITON_INTERPRET=1); x is on {x.device}"
    if x.dtype not in TRITON_DTYPES:
        return f"takes float32, float16 and bfloat16; x is {x.dtype}"
    return None


def _suits_triton(x: Tensor) -> bool:
    """Whether x is what the kernels are made for: on NVIDIA's Ampere or newer, of a type its tensor cores multiply."""
    if not x.is_cuda or torch.version.hip is not None or why_not_triton(x):
        return False
    card = torch.cuda.get_device_properties(x.device)
    # What convolutions may do cannot be read in a compiled graph; the kernels read it again.
    return (card.major, card.minor) >= OLDEST and (
        x.dtype != torch.float32 or torch.compiler.is_compiling() or tf32_allowed()
    )


def describe_form(device: torch.device) -> str:
    """Which form of the convolution tensors on a device take, and why, in a sentence.

    Example:
        >>> describe_form(torch.device("cpu"))
        'blas: the kernels are for NVIDIA GPUs of compute capability 8.0 and newer, this is the CPU'
    """
    needed = f"the kernels are for NVIDIA GPUs of compute capability {'.'.join(map(str, OLDEST))} and newer"
    if device.type != "cuda" or torch.version.hip is not None:
        return f"blas: {needed}, this is {'the CPU' if device.type == 'cpu' else device.type}"
    card = torch.cuda.get_device_properties(device)
    has = f"{card.name} has {card.major}.{card.minor}"
    form = form_of((card.major, card.minor))
    if form is None:
        return f"blas: {needed}, {has}"
    if not _HAS_TRITON:
        return f"blas: {has}, but the package triton, 3.4 or newer, is not installed"
    copies = {"bulk": "bulk copies by tensor descriptors", "plain": "asynchronous copies by pointers"}[form.copies]
    exact = "" if tf32_allowed() else "; blas for float32, which convolutions may not round to TF32 here"
    return f"triton, as for {form.name}: {has}; {copies}, {form.instruction}{exact}"


def tf32_allowed() -> bool:
    """Whether convolutions may round float32 to TF32, as `torch.backends.cudnn` says (by default they may)."""
    convolutions: Any = torch.backends.cudnn
    if hasattr(convolutions, "conv"):  # from PyTorch 2.9 on
        return convolutions.conv.fp32_precision == "tf32"
    return convolutions.allow_tf32


def _autocast(x: Tensor, *others: Tensor | None) -> list[Any]:
    """The inputs as autocast hands them to a convolution."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # meta has none, and raises
        return [x, *others]
    dtype = torch.get_autocast_dtype(device)
    return [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (x, *others)]


def check_kernel(kernel_size: int, dilation: int) -> None:
    """Refuse a kernel size that is not odd and positive, and a dilation below 1, by a ValueError."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel size must be odd and positive, got {kernel_size}")
    if dilation < 1:
        raise ValueError(f"dilation must be at least 1, got {dilation}")
