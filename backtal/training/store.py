"""The features of the training videos: read and checked once, in parallel, and kept as they are stored."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backtal.data.features import TimeAxis, VideoFeatures
from backtal.errors import DataError

READERS = min(8, os.cpu_count() or 1)
# Bytes of memory that are asked for at once to keep features in.
_PIECE = 64 << 20


class Read(NamedTuple):
    """A video that was read.

    Attributes:
        kept: it, rescaled, its features in float16 where that loses nothing, which is how most files hold them.
        axis: its own, before it was rescaled.
        total: ``[D]`` sum over its own snippets, in float64.
        squares: ``[D]`` sum of squares, in float64.
        low: ``[D]`` least value.
        high: ``[D]`` greatest value.
    """

    kept: VideoFeatures
    axis: TimeAxis
    total: Tensor
    squares: Tensor
    low: Tensor
    high: Tensor


def read_all(read: Callable[[int], VideoFeatures], count: int, length: int | None) -> Iterator[Read | DataError]:
    """Read videos in several threads.

    Args:
        read: reads the features of one.
        count: how many there are.
        length: snippets to rescale them to; None keeps their own.

    Yields:
        In their order, each video or why it cannot be read.
    """

    def one(index: int) -> Read | DataError:
        try:
            video = read(index)
        except DataError as failure:
            return failure
        # By NumPy, which neither copies to add in float64 nor starts threads of its own.
        values = video.features.numpy()
        total = np.add.reduce(values, axis=1, dtype=np.float64)
        squares = np.einsum("dt,dt->d", values, values, dtype=np.float64)
        facts = map(torch.from_numpy, (total, squares, values.min(axis=1), values.max(axis=1)))
        return Read(_smallest(video.rescaled(length)), video.axis, *facts)

    # What is kept lies in large pieces: between it, the threads' copies in float32 would leave holes as large again.
    pieces = dict[torch.dtype, Tensor]()
    with ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(one, range(count)):
            if isinstance(found, Read):
                features = found.kept.features
                piece, size = pieces.get(features.dtype, features[:0].flatten()), features.numel()
                if len(piece) < size:
                    piece = features.new_empty(max(size, _PIECE // features.itemsize))
                pieces[features.dtype] = piece[size:]
                kept = piece[:size].view(features.shape).copy_(features)
                found = found._replace(kept=replace(found.kept, features=kept))
            yield found


def _smallest(video: VideoFeatures) -> VideoFeatures:
    half = video.features.half()
    same = np.array_equal(half.float().numpy(), video.features.numpy())  # in a third of the time of torch.equal
    return replace(video, features=half) if same else video
