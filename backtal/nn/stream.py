"""Videos of any length: the network on chunks with a halo, which gives what it gives on the whole (section 3.2).

At native length the network is convolutional, and top-k pooling and min-max need only the class activation sequence:
``[C+1, T]`` is kept whole (11 MB for 20 classes and a day of video at 25 fps and stride 16), features and hidden layers
exist for one chunk at a time.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from torch import Tensor

from backtal.data.features import (
    FeatureSpec,
    TimeAxis,
    VideoFeatures,
    check_finite,
    read_axis,
    read_features,
)

CHUNK = 4096

Output = TypeVar("Output")


def run_chunked(
    network: Callable[[Tensor], Output],
    reach: int,
    chunks: Iterable[Tensor | np.ndarray],
    *,
    chunk: int = CHUNK,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Output, slice]]:
    """Run the network over features that come piece by piece.

    Args:
        network: in evaluation mode, at native length.
        reach: snippets on either side that its output depends on.
        chunks: ``[D, n]`` each, of any n, any real type.
        chunk: snippets that go through the network at once, beside the halo of `reach` snippets on either side.
        device: of the network.
        dtype: of the network.

    Yields:
        The output of each block, and which of its snippets are the block's own, the others being its halo. A block's
        own snippets follow those of the block before. Blocks begin `reach` before a multiple of `chunk`, the first at
        0, so that strides that divide both fall on the same snippets in every block.
    """
    for block, left, length in _blocks(chunks, chunk, reach):
        yield network(block[None].to(device, dtype)), slice(left, left + length)


def _blocks(chunks: Iterable[Tensor | np.ndarray], chunk: int, reach: int) -> Iterator[tuple[Tensor, int, int]]:
    """Blocks ``[D, n]`` with a halo, each with where its own part begins and how long that is."""
    held: list[Tensor] = []
    count, left = 0, 0  # snippets held, and how many of them are the halo before the next block
    for piece in (part for whole in chunks for part in pieces(whole, chunk)):
        held.append(piece)
        count += piece.shape[1]
        while count >= left + chunk + reach:
            whole = torch.cat(held, dim=1)
            yield whole[:, : left + chunk + reach], left, chunk
            start = max(left + chunk - reach, 0)
            held, left = [whole[:, start:].clone()], left + chunk - start
            count = held[0].shape[1]
    if count > left:
        yield torch.cat(held, dim=1), left, count - left


def pieces(features: Tensor | np.ndarray, size: int = CHUNK) -> Iterator[Tensor]:
    """``[D, n]`` pieces of features ``[D, T]``, which may be memory-mapped.

    Example:
        >>> [piece.shape[1] for piece in pieces(np.zeros((8, 10), dtype=np.float16), 4)]
        [4, 4, 2]
    """
    for start in range(0, features.shape[1], size):
        piece = features[:, start : start + size]
        yield piece if isinstance(piece, Tensor) else torch.from_numpy(np.ascontiguousarray(piece))


@dataclass(frozen=True)
class Source:
    """Features that come piece by piece.

    Args:
        video_id: name of the video.
        dim: channels D.
        length: snippets T; None where only the end tells.
        spec: how they were made.
        pieces: ``[D, n]`` each.
        axis: gives the time axis, once the pieces have been taken.
    """

    video_id: str
    dim: int
    length: int | None
    spec: FeatureSpec | None
    pieces: Iterable[Tensor | np.ndarray]
    axis: Callable[[], TimeAxis]

    @classmethod
    def of(cls, video: VideoFeatures) -> "Source":
        """Features that are in memory."""
        dim, length = video.features.shape
        return cls(video.video_id, dim, length, video.spec, pieces(video.features), lambda: video.axis)

    def rescaled(self, length: int) -> Tensor:
        """``[D, length]``: linear interpolation over time, as `VideoFeatures.rescaled` does it."""
        taken = iter(self.pieces)
        total = self.length
        if total is None:
            taken = list(taken)
            total = sum(piece.shape[1] for piece in taken)
        # In float32, as F.interpolate computes it.
        position = ((torch.arange(length) + 0.5) * (total / length) - 0.5).clamp(0, total - 1)
        low = position.floor().long()
        high = (low + 1).clamp(max=total - 1)
        right = position - low
        found = torch.zeros(self.dim, length)
        start = 0
        for piece in taken:
            piece = torch.as_tensor(piece)
            for index, weight in ((low, 1 - right), (high, right)):
                here = (index >= start) & (index < start + piece.shape[1])
                found[:, here] += piece[:, index[here] - start].float() * weight[here]
            start += piece.shape[1]
        return found


def open_features(path: str | Path, size: int = CHUNK) -> Source:
    """A feature file as a source: as `read_features`, but never more than `size` snippets in memory.

    Compressed files are read whole.

    Raises:
        DataError: as `read_features` does; for NaN or infinite values while the pieces are taken.
    """
    path = Path(path)
    found = _index(path)
    if found is None:
        return Source.of(read_features(path))
    rows, arrays = found
    dim, length = sum(row.shape[0] for row in rows), rows[0].shape[1]
    axis, spec = read_axis(arrays, path, dim, length)

    def read() -> Iterator[np.ndarray]:
        for start in range(0, length, size):
            piece = np.concatenate([row.read(path, start, min(start + size, length)) for row in rows])
            check_finite(piece, path, start)
            yield piece

    return Source(path.stem, dim, length, spec, read(), lambda: axis)


@dataclass(frozen=True)
class _Stored:
    """Where an array ``[D, T]`` lies in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool
    offset: int

    def read(self, path: Path, start: int, end: int) -> np.ndarray:
        """``[D, end - start]`` (float32)."""
        rows, columns = self.shape
        item = self.dtype.itemsize
        with path.open("rb") as file:
            if self.by_column:
                file.seek(self.offset + start * rows * item)
                flat = np.frombuffer(file.read((end - start) * rows * item), self.dtype)
                return flat.reshape(end - start, rows).T.astype(np.float32)
            piece = np.empty((rows, end - start), np.float32)
            for row in range(rows):
                file.seek(self.offset + (row * columns + start) * item)
                piece[row] = np.frombuffer(file.read((end - start) * item), self.dtype)
            return piece


def _locate(file: IO[bytes], info: zipfile.ZipInfo) -> _Stored:
    """Find an uncompressed member: behind its header, whose last two numbers are the lengths of its name and extra."""
    file.seek(info.header_offset + 26)
    begin = file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = header(file)
    if file.tell() - begin + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError("the member is not as long as its header says")
    return _Stored(shape, dtype, by_column, file.tell())


def _index(path: Path) -> tuple[list[_Stored], dict[str, np.ndarray]] | None:
    """Where the features of an ``.npz`` lie, and its small arrays; None where the file has to be read whole."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = [name for name in ("features",) if name in members] or ["rgb", "flow"]
            if len(members) < len(archive.infolist()) or len({*names, "rgb", "flow"} & members.keys()) > len(names):
                return None
            if not set(names) <= set(members) or any(members[n].compress_type != zipfile.ZIP_STORED for n in names):
                return None
            if archive.testzip() is not None:
                return None
            arrays = {}
            for name in set(members) - set(names):
                arrays[name] = np.load(io.BytesIO(archive.read(members[name])), allow_pickle=False)
            stored = [_locate(file, members[name]) for name in names]
    except Exception:  # a damaged archive raises anything; reading it whole says what is wrong
        return None
    kinds = [row.dtype.kind in "fiu" and len(row.shape) == 2 and 0 not in row.shape for row in stored]
    return (stored, arrays) if all(kinds) and len({row.shape[1:] for row in stored}) == 1 else None
