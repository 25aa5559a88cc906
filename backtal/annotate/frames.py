"""The frames that the page shows: two a second, decoded when asked for, several on one JPEG."""

import io
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtal.errors import DataError
from backtal.video.decode import picture_of, shape_of
from backtal.video.playback import Playback, survey

RATE = 2  # frames per second that an annotator sees (section 4.2)
SHEET = 16
HEIGHTS = (96, 192)
_STEPS_BACK = (0.0, 2.0, 15.0, 120.0)
_READ_ON = 10.0
_WIDEST = 4.0
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Facts:
    """What a video file says of itself: seconds, frames a second, number of frames, width over height as shown."""

    duration: float
    fps: float | None
    num_frames: int | None
    aspect: float

    @property
    def count(self) -> int:
        """Frames on the strip: those at k/2 s that lie within the video."""
        return count_of(self.duration)


def count_of(duration: float) -> int:
    """How many of the moments k/2 s lie within a video of this duration.

    Example:
        >>> count_of(10.0), count_of(10.2)
        (20, 21)
    """
    return max(math.ceil(round(duration * RATE, 6)), 1)


def read_facts(path: str | Path) -> Facts:
    """Read what a file says of itself; where it does not say how long it is, its packets are gone through.

    Raises:
        DataError: if the file cannot be read or holds no video.
    """
    way = survey(path)
    with Playback(path) as playback:
        duration = playback.announced if way is None else way.end
        if not duration or not 0 < duration < math.inf:
            raise DataError(f"{path}: does not say how long it is (truncated or damaged?)")
        first = next(playback.frames(), None)
        if first is None:
            raise DataError(f"{path}: not one frame could be decoded (truncated or damaged?)")
        height, width = shape_of(first.frame)
        stream = playback.stream
        rate = stream.average_rate or stream.guessed_rate
        return Facts(duration, float(rate) if rate else None, stream.frames or None, width / height)


class Reader:
    """A video file that is kept open and gives the picture on display at any moment.

    The moments are those of `backtal.video.Video`: time counts from when a player starts the file, and a frame that
    comes up to half a frame later counts. Going on from where it was costs no seeking. All pictures have the shape of
    the file's first.

    Args:
        path: the file.

    Raises:
        DataError: if the file cannot be read or holds no video.
    """

    def __init__(self, path: str | Path) -> None:
        from av.video.reformatter import VideoReformatter

        self.path = Path(path)
        self._playback = Playback(path, threads=2)
        self._early = min(self._playback.period, 1 / RATE) / 2
        self._scaler = VideoReformatter()
        self._coming = self._playback.frames()
        self._shown, self._next = None, next(self._coming, None)
        self._shape = shape_of(self._next.frame) if self._next else (1, 1)

    def close(self) -> None:
        """Close the file."""
        self._playback.close()

    def pictures(self, times: list[float], height: int) -> list[np.ndarray]:
        """The pictures ``[height, W, 3]`` on display at `times`, which rise.

        Raises:
            DataError: if nothing can be decoded there.
        """
        if self._shown is None or not -self._early - _ROUNDING <= times[0] - self._shown.time < _READ_ON:
            self._seek(times[0])
        found, made = [], (None, np.empty(0))
        for time in times:
            while self._next is not None and self._next.time - self._early <= time + _ROUNDING:
                self._shown, self._next = self._next, next(self._coming, None)
            shown = self._shown or self._next
            if shown is None:
                raise DataError(f"{self.path}: nothing could be decoded at {time:.1f} s (truncated or damaged?)")
            if made[0] is not shown:
                size = height, width_of(self._shape[1] / self._shape[0], height)
                made = (shown, picture_of(shown.frame, size, self._scaler, self._shape))
            found.append(made[1])
        return found

    def _seek(self, time: float) -> None:
        """Go to the last key frame that is not after `time`; indexes that are wrong cost further attempts."""
        for back in (*_STEPS_BACK, None):
            if back is None:
                self._playback.rewind()
            else:
                self._playback.seek(time - back)
            self._coming = self._playback.frames()
            self._shown, self._next = None, next(self._coming, None)
            if self._next is not None and self._next.time - self._early <= time + _ROUNDING:
                return


def width_of(aspect: float, height: int) -> int:
    """Pixels across of a frame on the strip; very wide pictures are squeezed."""
    return max(round(height * min(max(aspect, 1 / _WIDEST), _WIDEST)), 1)


class Sheets:
    """Sheets of `SHEET` frames side by side as JPEG, made when asked for, the last used kept in memory.

    Args:
        cache_bytes: of JPEG to keep.
        open_files: videos to keep open.
    """

    def __init__(self, cache_bytes: int = 64 << 20, open_files: int = 2) -> None:
        self._cache_bytes, self._open_files = cache_bytes, open_files
        self._cache: OrderedDict[tuple, bytes] = OrderedDict()
        self._readers: OrderedDict[tuple, tuple[threading.Lock, list[Reader]]] = OrderedDict()
        self._lock = threading.Lock()
        self._size = 0

    def sheet(self, path: Path, index: int, count: int, height: int) -> bytes:
        """The JPEG of frames ``index * SHEET`` and on of a video that has `count` of them.

        Raises:
            DataError: if there is no such sheet, or nothing can be decoded there.
        """
        first = index * SHEET
        if height not in HEIGHTS or not 0 <= first < count:
            raise DataError(f"no sheet {index} of height {height}")
        status = path.stat()
        file = (path, status.st_mtime_ns, status.st_size)
        key = (*file, index, height)
        lock, opened = self._reader(file)
        if (found := self._cached(key)) is not None:
            return found
        with lock:
            if (found := self._cached(key)) is not None:
                return found
            if not opened:
                opened.append(Reader(path))
            times = [frame / RATE for frame in range(first, min(first + SHEET, count))]
            jpeg = _jpeg(np.concatenate(opened[0].pictures(times, height), axis=1))
        self._keep(key, jpeg)
        return jpeg

    def _reader(self, file: tuple) -> tuple[threading.Lock, list[Reader]]:
        """The lock and the open reader (or none yet) of a file; the files used least recently are closed."""
        with self._lock:
            entry = self._readers.setdefault(file, (threading.Lock(), []))
            self._readers.move_to_end(file)
            while len(self._readers) > self._open_files:
                # A thread that still decodes from it holds it; it is closed when that thread lets go.
                self._readers.popitem(last=False)
            return entry

    def _cached(self, key: tuple) -> bytes | None:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _keep(self, key: tuple, jpeg: bytes) -> None:
        with self._lock:
            self._size += len(jpeg) - len(self._cache.pop(key, b""))
            self._cache[key] = jpeg
            while self._size > self._cache_bytes and len(self._cache) > 1:
                self._size -= len(self._cache.popitem(last=False)[1])


def _jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()
