"""The affinity convolution in Triton: one kernel forward, two backward, none of which unfolds anything.

All three are tiled matrix products over time-major features (``[B, T, D]`` in memory), where a tap only moves a tile
along time. Tiles are read through tensor descriptors (Hopper's copy engine), which give 0 beyond a video's ends. The
affinity is one number per frame and tap: forward, it scales the accumulator between two taps, so that the tensor cores
run undisturbed; in the gradient of x each tap's product is needed by itself, for the gradient of the affinity; in the
gradient of the weight it lies on the summed axis and scales an operand.

No atomics and no autotuning: the same inputs give the same bits.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.tools.tensor_descriptor import TensorDescriptor

from backtal.ops import tf32_allowed

INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))

# An affinity below this counts as 0, so that the quotient of two affinities stays finite.
_TINY = tl.constexpr(2.0**-60)


class Tile(NamedTuple):
    """What one program computes, ``height x width`` of the result, and how: `depth` terms of the sum at a time."""

    height: int
    width: int
    depth: int
    warps: int
    stages: int


def forward(x: Tensor, weight: Tensor, affinity: Tensor, dilation: int) -> Tensor:
    """``out[:, t] = sum_i affinity[i, t] * (W_i @ x)[:, t + shift_i]``, ``[S, B, O, T]``."""
    streams, batch, taps, length = affinity.shape
    outputs, channels, _ = weight.shape
    if 0 in (*x.shape, *affinity.shape, outputs):
        return x.new_zeros(streams, batch, outputs, length)
    out = x.new_empty(streams, batch, outputs, length)
    tile = choose_tile(x, length, outputs, streams * batch)
    programs = streams * batch * triton.cdiv(length, tile.height) * triton.cdiv(outputs, tile.width)
    tensors = (
        _tiles(_time_major(x), tile.height, tile.depth),
        _tiles(weight.permute(2, 0, 1), tile.width, tile.depth),
        affinity.float().contiguous(),
        out,
    )
    _launch(_forward_kernel, programs, tile, *tensors, batch, channels, outputs, length, dilation, taps)
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, affinity: Tensor, dilation: int, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and affinity, those that are wanted."""
    needs_x, needs_weight, needs_affinity = wanted
    empty = 0 in (*grad.shape, *x.shape)
    make = torch.zeros_like if empty else torch.empty_like
    grad_x = make(x) if needs_x else None
    grad_affinity = make(affinity) if needs_affinity else None
    grad_taps = make(weight.permute(2, 0, 1), memory_format=torch.contiguous_format) if needs_weight else None
    if not empty:
        scale = affinity.float().contiguous()
        frames, grad = _time_major(x), _time_major(grad.flatten(0, 1))
        if needs_x or needs_affinity:
            _input_gradients(grad, frames, weight.permute(2, 0, 1), scale, dilation, grad_x, grad_affinity)
        if grad_taps is not None:
            _weight_gradient(grad, frames, scale, dilation, grad_taps)
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
    tile = choose_tile(x, length, channels, batch, accumulators=2)
    blocks = triton.cdiv(channels, tile.width)
    # Each block of channels adds a part; a frame whose neighbour lies outside the sequence gets none.
    parts = affinity if grad_affinity is None else affinity.new_zeros(blocks, *affinity.shape)
    into = x.transpose(1, 2) if grad_x is None else grad_x
    tensors = (
        _tiles(grad, tile.height, tile.depth),
        _tiles(weight, tile.depth, tile.width),
        _tiles(x, tile.height, tile.width),
        *(affinity, into, parts),
    )
    sizes = (streams, batch, channels, outputs, length, dilation, *into.stride(), taps)
    programs = batch * triton.cdiv(length, tile.height) * blocks
    _launch(_input_kernel, programs, tile, *tensors, *sizes, grad_x is not None, grad_affinity is not None)
    if grad_affinity is not None:
        grad_affinity.copy_(parts.sum(0))


def _weight_gradient(grad: Tensor, x: Tensor, affinity: Tensor, dilation: int, grad_taps: Tensor) -> None:
    streams, batch, taps, length = affinity.shape
    _, outputs, channels = grad_taps.shape
    group = 2 if streams % 2 == 0 else 1
    tile = choose_tile(x, outputs, channels, taps, operands=group)
    tiles = taps * triton.cdiv(outputs, tile.height) * triton.cdiv(channels, tile.width)
    # Small matrices do not fill the device: several programs share the sum.
    steps = streams // group * batch * triton.cdiv(length, tile.depth)
    per_split = triton.cdiv(steps, max(1, _processors(x) // tiles))
    splits = triton.cdiv(steps, per_split)
    parts = grad_taps[None] if splits == 1 else affinity.new_empty(splits, *grad_taps.shape)
    tensors = (_tiles(grad, tile.depth, tile.height), _tiles(x, tile.depth, tile.width), affinity, parts)
    sizes = (batch, channels, outputs, length, dilation, steps, per_split, taps, group)
    _launch(_weight_kernel, splits * tiles, tile, *tensors, *sizes)
    if splits > 1:
        grad_taps.copy_(parts.sum(0))


def choose_tile(x: Tensor, rows: int, columns: int, count: int, *, operands: int = 1, accumulators: int = 1) -> Tile:
    """The largest tile that the device holds and of which there is still one for every processor.

    Args:
        x: of the type and on the device that the tile is for.
        rows: of a result.
        columns: of a result.
        count: how many results there are.
        operands: how many tiles of rows make up a left operand.
        accumulators: how many results a program holds at a time.
    """
    if INTERPRETED.value:
        return Tile(16, 16, 16, 1, 1)
    depth, largest = 64, 128 * 256
    if x.dtype == torch.float32:
        depth, largest = (16, 64 * 64) if _precision(x) == "ieee" else (32, 128 * 256)
    # Some shared memory is left for the epilogue.
    shared = torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin - (34 << 10)

    def stages(height: int, width: int) -> int:
        return min(4, shared // ((operands * height + width) * depth * x.element_size()))

    def fits(height: int, width: int) -> bool:
        enough = count * triton.cdiv(rows, height) * triton.cdiv(columns, width) >= _processors(x)
        return enough and stages(height, width) >= 2 and accumulators * height * width <= largest

    shapes = {(128, 256): 8, (128, 128): 8, (64, 128): 4, (64, 64): 4}
    shape = next((shape for shape in shapes if fits(*shape)), (32, 32))
    return Tile(*shape, depth, shapes.get(shape, 4), max(1, stages(*shape)))


def _time_major(x: Tensor) -> Tensor:
    return _aligned(x.transpose(-1, -2))


def _aligned(rows: Tensor) -> Tensor:
    """The same values; rows in one piece each, at multiples of 16 bytes in memory, as the copy engine needs them."""
    step = 16 // rows.element_size()
    if rows.stride(-1) == 1 and all(s % step == 0 for s in rows.stride()[:-1]) and rows.data_ptr() % 16 == 0:
        return rows
    *shape, width = rows.shape
    return rows.new_empty(*shape, triton.cdiv(width, step) * step)[..., :width].copy_(rows)


def _tiles(tensor: Tensor, height: int, width: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(_aligned(tensor), [1, height, width])


def _precision(x: Tensor) -> str:
    """How float32 is multiplied: as in any other convolution."""
    return "tf32" if x.dtype == torch.float32 and tf32_allowed() else "ieee"


def _processors(x: Tensor) -> int:
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4


def _launch(kernel: Any, programs: int, tile: Tile, first: TensorDescriptor, *arguments: Any) -> None:
    x = first.base
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[(programs,)](
            *(first, *arguments, _precision(x), tile.height, tile.width, tile.depth),
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=True,
        )


@triton.jit
def _position(columns, width: tl.constexpr, rows, height: tl.constexpr):
    """This program's first column and row, and which of the results it works on; columns vary fastest."""
    program, across, down = tl.program_id(0), tl.cdiv(columns, width), tl.cdiv(rows, height)
    return program % across * width, program // across % down * height, program // across // down


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
    the tensor cores add to one accumulator, kept in units of the current tap's affinity. One loop over taps and
    channels keeps the copies of the next tiles going while a tap ends.
    """
    first_o, first_t, index = _position(outputs, width, length, height)
    rows, columns, video = tl.arange(0, height), tl.arange(0, width), index % batch
    t = first_t + rows
    affinity += tl.cast(index, tl.int64) * taps * length
    total = tl.zeros([height, width], tl.float32)
    largest = tl.zeros([height], tl.float32)
    blocks = tl.cdiv(channels, depth)
    for step in range(taps * blocks):
        tap, c = step // blocks, step % blocks * depth
        frames = x.load([video, first_t + (tap - taps // 2) * dilation, c]).reshape(height, depth)
        matrix = weight.load([tap, first_o, c]).reshape(width, depth)
        total = _dot(frames, matrix.T, total, precision)
        if c + depth >= channels:
            entry = tap * length + t
            scale = tl.load(affinity + entry, mask=t < length, other=0.0)
            after = tl.load(affinity + entry + length, mask=(t < length) & (entry + length < taps * length), other=1.0)
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
    product = tl.zeros([height, width], tl.float32)
    blocks = tl.cdiv(outputs, depth)
    for step in range(streams * taps * blocks):
        index, tap, o = step // blocks // taps * batch + video, step // blocks % taps, step % blocks * depth
        shift = (tap - taps // 2) * dilation
        frames = grad.load([index, first_u - shift, o]).reshape(height, depth)
        matrix = weight.load([tap, o, first_d]).reshape(depth, width)
        product = _dot(frames, matrix, product, precision)
        if o + depth >= outputs:
            t = u - shift
            inside = (u < length) & (t >= 0) & (t < length)
            entry = (tl.cast(index, tl.int64) * taps + tap) * length + t
            if needs_affinity:
                here = x.load([video, first_u, first_d]).reshape(height, width)
                tl.store(parts + entry, tl.sum(product * here, axis=1), mask=inside)
            if needs_x:
                total += product * tl.load(affinity + entry, mask=inside, other=0.0)[:, None]
            product = tl.zeros([height, width], tl.float32)
    if needs_x:
        tl.store(
            grad_x + tl.cast(video, tl.int64) * gx_video + tl.cast(d, tl.int64)[None, :] * gx_channel
            + tl.cast(u, tl.int64)[:, None] * gx_time,
            total.to(grad_x.dtype.element_ty), mask=(u < length)[:, None] & (d < channels)[None, :],
        )


@triton.jit
def _weight_kernel(
    grad, x, affinity, parts, batch, channels, outputs, length, dilation, steps, per_split,
    taps: tl.constexpr, group: tl.constexpr,
    precision: tl.constexpr, height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):
    """Outputs x channels of one tap, summed over a share of the streams, videos and time.

    The streams of a group share a product: their gradients, scaled, are added before it.
    """
    first_d, first_o, index = _position(channels, width, outputs, height)
    o, d = first_o + tl.arange(0, height), first_d + tl.arange(0, width)
    tap, split = index % taps, index // taps
    blocks = tl.cdiv(length, depth)
    total = tl.zeros([height, width], tl.float32)
    for step in range(split * per_split, tl.minimum((split + 1) * per_split, steps)):
        pair, video, first_t = step // blocks // batch, step // blocks % batch, step % blocks * depth
        t = first_t + tl.arange(0, depth)
        scaled = tl.zeros([depth, height], tl.float32)
        for member in tl.static_range(group):  # type: ignore[reportGeneralTypeIssues]
            row = (pair * group + member) * batch + video
            entry = (tl.cast(row, tl.int64) * taps + tap) * length + t
            scale = tl.load(affinity + entry, mask=t < length, other=0.0)
            scaled += grad.load([row, first_t, first_o]).reshape(depth, height) * scale[:, None]
        there = x.load([video, first_t + (tap - taps // 2) * dilation, first_d]).reshape(depth, width)
        total = _dot(scaled.to(there.dtype).T, there, total, precision)
    tl.store(
        parts + (tl.cast(index, tl.int64) * outputs + o[:, None]) * channels + d[None, :],
        total.to(parts.dtype.element_ty), mask=(o < outputs)[:, None] & (d < channels)[None, :],
    )
