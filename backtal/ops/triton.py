"""The affinity convolution in Triton: one kernel forward, three backward, none of which unfolds anything.

Three are tiled matrix products, of operands that lie in memory along the axis that is summed: the tensor cores read
float32 in no other way. From Hopper on tiles are read through tensor descriptors (the copy engine), before through
pointers; both give 0 beyond a video's ends. A tap only moves a tile along time. The affinity is one number per frame
and tap: forward, it scales the accumulator between two taps, so that the tensor cores run undisturbed; in the gradient
of x each tap's product is needed by itself, for the gradient of the affinity; in the gradient of the weight it lies on
the summed axis, and scales (and moves) the gradient before.

No atomics and no autotuning: the same inputs give the same bits.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.tools.tensor_descriptor import TensorDescriptor

from backtal.ops import forms, tf32_allowed
from backtal.ops.forms import Form, Tile

INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))

# An affinity below this counts as 0, so that the quotient of two affinities stays finite.
_TINY = tl.constexpr(2.0**-60)

# NVIDIA's assembler may use all registers that a thread can have: told nothing, it would rather spill some.
COMPILED = {"enable_fp_fusion": True, "maxnreg": 255}

# Of the kernels that only scale, or move, what they read.
_SCALED, _MOVED = Tile(16, 128, 1, 4, 1), Tile(64, 64, 1, 4, 1)
# Elements: at multiples of so many rows begin, as the copy engine and the widest loads need them.
_STEP = 16

# What kernels read: a descriptor, or (tensor, rows, columns, distance of sheets, of rows).
Source = TensorDescriptor | tuple[Tensor, int, int, int, int]


def forward(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int) -> Tensor:
    """``out[:, t] = sum_i affinity[i, t] * (W_i @ x)[:, t + shift_i]``, ``[S, B, O, T]``."""
    streams, batch, taps, length = affinity.shape
    outputs, channels, _ = weight.shape
    if 0 in (*x.shape, *affinity.shape, outputs):
        return x.new_zeros(streams, batch, outputs, length)
    out = x.new_empty(streams, batch, outputs, length)
    tile = _tile(x, length, outputs, streams * batch)
    programs = streams * batch * triton.cdiv(length, tile.height) * triton.cdiv(outputs, tile.width)
    tensors = (
        _source(x.transpose(1, 2), tile.height, tile.depth),
        _source(weight.permute(2, 0, 1), tile.width, tile.depth),
        affinity.float().contiguous(),
        out,
    )
    _launch(_forward_kernel, programs, tile, x, *tensors, batch, channels, outputs, length, dilation, taps)
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and affinity, those that are wanted."""
    needs_x, needs_weight, needs_affinity = wanted
    if 0 in (*grad.shape, *x.shape):
        taps = torch.zeros_like(weight.permute(2, 0, 1), memory_format=torch.contiguous_format)
        zeros = torch.zeros_like(x), taps.permute(1, 2, 0), torch.zeros_like(affinity)
        grad_x, grad_weight, grad_affinity = (
            zero if needed else None for zero, needed in zip(zeros, wanted, strict=True)
        )
        return grad_x, grad_weight, grad_affinity
    scale, frames, grad = affinity.float().contiguous(), _aligned(x), grad.flatten(0, 1)
    grad_taps = None
    if needs_weight:
        grad_taps = torch.empty_like(weight.permute(2, 0, 1), memory_format=torch.contiguous_format)
        _weight_gradient(grad, frames, scale, dilation, grad_taps)
    # After the weight's: what that held in between is free again.
    grad_x = torch.empty_like(x) if needs_x else None
    grad_affinity = torch.empty_like(affinity) if needs_affinity else None
    if needs_x or needs_affinity:
        _input_gradients(grad, frames, weight.permute(2, 0, 1), scale, dilation, grad_x, grad_affinity)
    return grad_x, None if grad_taps is None else grad_taps.permute(1, 2, 0), grad_affinity


def _input_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    affinity: Tensor,
    dilation: int,
    grad_x: Tensor | None,
    grad_affinity: Tensor | None,
) -> None:
    streams, batch, taps, length = affinity.shape
    _, outputs, channels = weight.shape
    tile = _tile(x, length, channels, batch, accumulators=2)
    blocks = triton.cdiv(channels, tile.width)
    # Each block of channels adds a part; a frame whose neighbour lies outside the sequence gets none.
    parts = affinity if grad_affinity is None else affinity.new_zeros(blocks, *affinity.shape)
    into = x if grad_x is None else grad_x
    tensors = (
        _source(grad.transpose(1, 2), tile.height, tile.depth),
        _source(weight.transpose(1, 2), tile.width, tile.depth),
        _source(x, tile.width, tile.height),
        *(affinity, into, parts),
    )
    sizes = (streams, batch, channels, outputs, length, dilation, *into.stride(), taps)
    programs = batch * triton.cdiv(length, tile.height) * blocks
    _launch(_input_kernel, programs, tile, x, *tensors, *sizes, grad_x is not None, grad_affinity is not None)
    if grad_affinity is not None:
        grad_affinity.copy_(parts.sum(0))


def _weight_gradient(grad: Tensor, x: Tensor, affinity: Tensor, dilation: int, grad_taps: Tensor) -> None:
    streams, batch, taps, length = affinity.shape
    _, outputs, channels = grad_taps.shape
    tile = _tile(x, outputs, channels, 1)
    tiles = triton.cdiv(outputs, tile.height) * triton.cdiv(channels, tile.width)
    # Small matrices do not fill the device: several programs share the videos.
    per_split = triton.cdiv(batch, max(1, _card(x)[1] // tiles))
    splits = triton.cdiv(batch, per_split)
    parts = None if splits == 1 else affinity.new_empty(splits, outputs, channels)
    scaled = grad.new_empty(batch, outputs, triton.cdiv(length, _STEP) * _STEP)
    sizes = streams, batch, outputs, length, scaled.shape[2], *grad.stride(), dilation
    programs = batch * triton.cdiv(outputs, _SCALED.height) * triton.cdiv(scaled.shape[2], _SCALED.width)
    tensors = _source(scaled, tile.height, tile.depth), _source(x, tile.width, tile.depth)
    for tap in range(taps):
        _launch(_scale_kernel, programs, _SCALED, x, grad, affinity, scaled, *sizes, tap, taps)
        into = grad_taps[tap] if parts is None else parts
        _launch(_weight_kernel, splits * tiles, tile, x, *tensors, into, batch, channels, outputs, length, per_split)
        if parts is not None:
            grad_taps[tap].copy_(parts.sum(0))


def _tile(x: Tensor, rows: int, columns: int, count: int, accumulators: int = 1) -> Tile:
    """For results from tensors like x; see `backtal.ops.forms.choose_tile`."""
    if INTERPRETED.value:
        return Tile(16, 16, 16, 1, 1)
    return forms.choose_tile(
        *(*_card(x), rows, columns, count),
        itemsize=x.element_size(),
        accumulators=accumulators,
        exact=x.dtype == torch.float32 and _precision(x) == "ieee",
    )


def _card(x: Tensor) -> tuple[Form, int]:
    """The form for the card that x is on, and its processors; the interpreter is a small card with bulk copies."""
    if not x.is_cuda:
        return forms.FORMS[9, 0], 4
    card = torch.cuda.get_device_properties(x.device)
    form = forms.form_of((card.major, card.minor))
    assert form is not None
    return form, card.multi_processor_count


def _source(tensor: Tensor, height: int, width: int) -> Source:
    """``[sheets, rows, columns]``, of which a kernel reads tiles of one sheet."""
    tensor = _aligned(tensor)
    if _card(tensor)[0].copies == "bulk":
        return TensorDescriptor.from_tensor(tensor, [1, height, width])
    _, rows, columns = tensor.shape
    return tensor, rows, columns, tensor.stride(0), tensor.stride(1)


def _aligned(tensor: Tensor) -> Tensor:
    """The same values and, up to a multiple of 16 columns, zeros; rows lie in one piece each. Copied if need be."""
    sheets, rows, columns = tensor.shape
    places = *tensor.stride()[:2], columns
    if tensor.stride(2) == 1 and all(n % _STEP == 0 for n in places) and tensor.data_ptr() % 16 == 0:
        return tensor
    moved = tensor.new_empty(sheets, rows, triton.cdiv(columns, _STEP) * _STEP)
    programs = sheets * triton.cdiv(rows, _MOVED.height) * triton.cdiv(moved.shape[2], _MOVED.width)
    _launch(_move_kernel, programs, _MOVED, tensor, tensor, moved, rows, columns, moved.shape[2], *tensor.stride())
    return moved


def _precision(x: Tensor) -> str:
    """How float32 is multiplied: as in any other convolution."""
    return "tf32" if x.dtype == torch.float32 and tf32_allowed() else "ieee"


def _launch(kernel: Any, programs: int, tile: Tile, x: Tensor, *arguments: Any) -> None:
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[(programs,)](
            *(*arguments, _precision(x), tile.height, tile.width, tile.depth),
            num_warps=tile.warps,
            num_stages=tile.stages,
            **COMPILED,
        )


@triton.jit
def _position(columns, width: tl.constexpr, rows, height: tl.constexpr):
    """This program's first column and row, and which of the results it works on; columns vary fastest."""
    program, across, down = tl.program_id(0), tl.cdiv(columns, width), tl.cdiv(rows, height)
    return program % across * width, program // across % down * height, program // across // down


@triton.jit
def _read(source, sheet, row, column, height: tl.constexpr, width: tl.constexpr):
    """``[height, width]`` of one sheet of a source (see `_source`), 0 beyond its ends."""
    if isinstance(source, tl.tensor_descriptor):
        tile = source.load([sheet, row, column]).reshape(height, width)
    else:
        pointer, rows, columns, to_sheet, to_row = source
        r, c = tl.arange(0, height), tl.arange(0, width)
        pointer += tl.cast(sheet, tl.int64) * to_sheet + tl.cast(row, tl.int64) * to_row + column
        inside = ((row + r >= 0) & (row + r < rows))[:, None] & (column + c < columns)[None, :]
        tile = tl.load(pointer + (r[:, None] * to_row + c[None, :]), mask=inside, other=0.0)
    return tile


@triton.jit
def _dot(left, right, total, precision: tl.constexpr):
    if INTERPRETED:  # which holds bfloat16 as integers, and would multiply those
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=precision)


# fmt: off
@triton.jit
def _forward_kernel(
    x, weight, affinity, out, batch, channels, outputs, length, dilation,
    taps: tl.constexpr,
    precision: tl.constexpr, height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):
    """Frames x outputs of one video, summed over taps and channels.

    With ``P_i`` the product of tap i, ``a_0 P_0 + a_1 P_1 + a_2 P_2 = a_2 (a_1 / a_2 (a_0 / a_1 P_0 + P_1) + P_2)``:
    the tensor cores add to one accumulator, kept in units of the current tap's affinity. It is scaled between two inner
    loops: inside one, NVIDIA's assembler would make every product wait for the one before (its warning C7514).
    """
    first_o, first_t, index = _position(outputs, width, length, height)
    rows, columns, video = tl.arange(0, height), tl.arange(0, width), index % batch
    t = first_t + rows
    affinity += tl.cast(index, tl.int64) * taps * length
    total = tl.zeros([height, width], tl.float32)
    largest = tl.zeros([height], tl.float32)
    for tap in range(taps):
        for c in range(0, channels, depth):
            frames = _read(x, video, first_t + (tap - taps // 2) * dilation, c, height, depth)
            matrix = _read(weight, tap, first_o, c, width, depth)
            total = _dot(frames, matrix.T, total, precision)
        entry = tap * length + t
        scale = tl.load(affinity + entry, mask=t < length, other=0.0)
        after = tl.load(affinity + entry + length, mask=(t < length) & (tap + 1 < taps), other=1.0)
        largest = tl.maximum(largest, tl.abs(scale), propagate_nan=tl.PropagateNan.ALL)
        scale = tl.where(tl.abs(scale) < _TINY, _TINY, scale)
        after = tl.where(tl.abs(after) < _TINY, _TINY, after)
        total *= (scale / after)[:, None]
    total = tl.where((largest < _TINY)[:, None], 0.0, total)
    out += (tl.cast(index, tl.int64) * outputs + first_o) * length + first_t
    tl.store(
        out + (columns[None, :] * length + rows[:, None]), total.to(out.dtype.element_ty),
        mask=(t < length)[:, None] & (first_o + columns < outputs)[None, :],
    )


@triton.jit
def _input_kernel(
    grad, weight, x, affinity, grad_x, parts, streams, batch, channels, outputs, length, dilation,
    gx_video, gx_channel, gx_time,
    taps: tl.constexpr, needs_x: tl.constexpr, needs_affinity: tl.constexpr,
    precision: tl.constexpr, height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):
    """Frames x channels of one video: each tap's ``W_i^T g``; times a it adds to grad_x, times x to grad_a."""
    first_d, first_u, video = _position(channels, width, length, height)
    u, d = first_u + tl.arange(0, height), first_d + tl.arange(0, width)
    parts += tl.cast(first_d // width * streams, tl.int64) * batch * taps * length
    total = tl.zeros([height, width], tl.float32)
    for part in range(streams * taps):
        index, tap = part // taps * batch + video, part % taps  # type: ignore[reportOperatorIssue]
        shift = (tap - taps // 2) * dilation
        product = tl.zeros([height, width], tl.float32)
        for o in range(0, outputs, depth):
            frames = _read(grad, index, first_u - shift, o, height, depth)
            product = _dot(frames, _read(weight, tap, first_d, o, width, depth).T, product, precision)
        t = u - shift
        inside = (u < length) & (t >= 0) & (t < length)
        entry = (tl.cast(index, tl.int64) * taps + tap) * length + t
        if needs_affinity:
            here = _read(x, video, first_d, first_u, width, height)
            tl.store(parts + entry, tl.sum(product * here.T, axis=1), mask=inside)
        if needs_x:
            total += product * tl.load(affinity + entry, mask=inside, other=0.0)[:, None]
    if needs_x:
        tl.store(
            grad_x + tl.cast(video, tl.int64) * gx_video + tl.cast(d, tl.int64)[None, :] * gx_channel
            + tl.cast(u, tl.int64)[:, None] * gx_time,
            total.to(grad_x.dtype.element_ty), mask=(u < length)[:, None] & (d < channels)[None, :],
        )


@triton.jit
def _move_kernel(
    x, moved, rows, columns, padded, from_sheet, from_row, from_column,
    precision: tl.constexpr, height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):
    """A tile of one sheet, from wherever it lies into rows of `padded` columns; several times as fast as `copy_`."""
    column, row, sheet = _position(padded, width, rows, height)
    r, c = row + tl.arange(0, height)[:, None], column + tl.arange(0, width)[None, :]
    x += tl.cast(sheet, tl.int64) * from_sheet + tl.cast(r, tl.int64) * from_row + tl.cast(c, tl.int64) * from_column
    moved += (tl.cast(sheet, tl.int64) * rows + r) * padded + c
    tl.store(moved, tl.load(x, mask=(r < rows) & (c < columns), other=0.0), mask=(r < rows) & (c < padded))


@triton.jit(do_not_specialize=["tap"])
def _scale_kernel(
    grad, affinity, scaled, streams, batch, outputs, length, padded, from_sheet, from_row, from_column, dilation, tap,
    taps: tl.constexpr,
    precision: tl.constexpr, height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):
    """Outputs x frames of one video: the gradients of all streams, each times its affinity of one tap, added up.

    They lie at the frame that the tap reads, 0 where no frame reads it.
    """
    first_t, first_o, video = _position(padded, width, outputs, height)
    o, column = first_o + tl.arange(0, height)[:, None], first_t + tl.arange(0, width)
    t = column - (tap - taps // 2) * dilation
    inside = (t >= 0) & (t < length) & (column < length)
    total = tl.zeros([height, width], tl.float32)
    for stream in range(streams):
        index = tl.cast(stream * batch + video, tl.int64)
        scale = tl.load(affinity + (index * taps + tap) * length + t, mask=inside, other=0.0)
        place = index * from_sheet + tl.cast(o, tl.int64) * from_row + tl.cast(t, tl.int64)[None, :] * from_column
        total += tl.load(grad + place, mask=inside[None, :] & (o < outputs), other=0.0) * scale[None, :]
    place = (tl.cast(video, tl.int64) * outputs + o) * padded + column[None, :]
    tl.store(scaled + place, total.to(scaled.dtype.element_ty), mask=(o < outputs) & (column < padded)[None, :])


@triton.jit(do_not_specialize=["per_split"])
def _weight_kernel(
    grad, x, parts, batch, channels, outputs, length, per_split,
    precision: tl.constexpr, height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):
    """Outputs x channels of one tap, summed over a share of the videos; see `_scale_kernel`."""
    first_d, first_o, split = _position(channels, width, outputs, height)
    o, d = first_o + tl.arange(0, height), first_d + tl.arange(0, width)
    total = tl.zeros([height, width], tl.float32)
    for video in range(split * per_split, tl.minimum((split + 1) * per_split, batch)):
        for t in range(0, length, depth):
            here = _read(grad, video, first_o, t, height, depth)
            total = _dot(here, _read(x, video, first_d, t, width, depth).T, total, precision)
    tl.store(
        parts + (tl.cast(split, tl.int64) * outputs + o[:, None]) * channels + d[None, :],
        total.to(parts.dtype.element_ty), mask=(o < outputs)[:, None] & (d < channels)[None, :],
    )
