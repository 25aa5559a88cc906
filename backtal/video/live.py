"""Sources that go on: cameras, addresses, pipes, files that are still being written."""

import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from backtal.errors import DataError
from backtal.files import note
from backtal.video.containers import import_av, pictures_of, reason_of
from backtal.video.decode import Video
from backtal.video.extract import Engine, ahead
from backtal.video.extractors import Extractor
from backtal.video.playback import Playback
from backtal.video.windows import windows

_PAUSES = (0.5, 1, 2, 5, 10, 30)  # seconds between two attempts to connect again
_CLOCK_TOLERANCE = 10.0  # seconds that a stream's own clock may be off the wall's and still count
_PROBE = {"analyzeduration": "1000000", "probesize": "1000000"}  # microseconds and bytes looked at before it begins
_DEVICES = {"linux": "video4linux2", "darwin": "avfoundation", "win32": "dshow"}

Taken = Callable[[Any, float | None], None]


class GrowingFile:
    """A file that is still being written, as FFmpeg reads it: its end is where nobody has written for a while.

    Args:
        path: the file.
        patience: seconds without a change after which it is complete.
        stop: ends it at once.
    """

    def __init__(self, path: Path, patience: float, stop: threading.Event) -> None:
        self._path, self._patience, self._stop = path, patience, stop
        self._file = path.open("rb")
        self.name = str(path)

    def read(self, count: int) -> bytes:
        """The next bytes; waits for them, and returns none at the end."""
        while not (found := self._file.read(count)):
            if self._stop.is_set() or time.time() - self._path.stat().st_mtime > self._patience:
                return b""
            self._stop.wait(0.1)
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class LiveVideo(Video):
    """What comes through one connection, as `Video` gives frames; damage is said and gone over.

    Args:
        source: what it is called.
        opened: container, stream and start.
        fps: frames per second to give.
        size: of the frames, as for `Video`.
        taken: called with each packet and its second.
    """

    def __init__(
        self, source: str, opened: tuple[Any, Any, float], fps: float | None, size: Any, taken: Taken | None
    ) -> None:
        super().__init__("-", fps, size=size, keep_damaged=True)
        self._source, self._opened, self._taken = source, opened, taken

    def _playback(self) -> Playback:
        return Playback(self.path, damaged=self._damaged, noted=self._noted, opened=self._opened, taken=self._taken)

    def _damaged(self, what: str) -> None:
        note(f"{self._source}: after {self.duration:.1f} s of this connection: {what}")

    def _noted(self, what: str) -> None:
        note(f"{self._source}: {what}")


class Connection:
    """One stretch of a stream without a gap.

    Args:
        begin: second of the stream at which it begins.
        video: its frames.
        extractor: of the features.
        engine: the extractor's network.
        batch_size: windows that go through the network at once, where so many are there already.
        stop: ends it.

    Attributes:
        duration: seconds, once all features were taken.
        dim: channels D.
    """

    def __init__(
        self, begin: float, video: Video, extractor: Extractor, engine: Engine, batch_size: int, stop: threading.Event
    ) -> None:
        self.begin, self.video = begin, video
        self._extractor, self._engine, self._batch_size, self._stop = extractor, engine, batch_size, stop

    @property
    def duration(self) -> float:
        """Seconds, once all features were taken."""
        return self.video.duration

    def features(self) -> Generator[Tensor, None, None]:
        """``[D, n]`` each, in order, as soon as they are there."""
        found = windows(self.video, self._extractor)
        for batch in ahead(found, 2 * self._batch_size, self._batch_size, self._stop):
            features = self._engine(batch)
            if not features.isfinite().all():
                raise DataError("the extractor's network gave values that are NaN, infinite or beyond float16")
            yield features.T


class Live:
    """A source that goes on, connected to again when it is cut off: iterated over, its connections.

    Args:
        source: a camera (``"0"``, ``"/dev/video0"``), an address (``rtsp://``, ``http://``, ``tcp://``, ``udp://``), a
            pipe (``"-"``, standard input), or a file, which may still be written.
        extractor: of the features.
        engine: its network.
        batch_size: windows that go through it at once, where so many are there already.
        patience: seconds without anything after which an address counts as cut off and a file as complete.
        give_up: seconds without a connection after which the stream has ended.
        stop: ends it.
        taken: called with each packet and its second in the connection.

    Raises:
        DataError: while iterating, if the source cannot be opened at first, or a file holds no video.
    """

    def __init__(
        self,
        source: str | Path,
        extractor: Extractor,
        engine: Engine,
        *,
        batch_size: int = 8,
        patience: float = 10.0,
        give_up: float | None = None,
        stop: threading.Event | None = None,
        taken: Taken | None = None,
    ) -> None:
        import_av()
        self._source, self._extractor, self._engine, self._batch_size = str(source), extractor, engine, batch_size
        self._patience, self._give_up, self._taken = patience, give_up, taken
        self._stop = stop or threading.Event()

    @property
    def returns(self) -> bool:
        """Whether it is worth to connect again: to cameras and addresses."""
        return _is_device(self._source) or "://" in self._source

    def __iter__(self) -> Iterator[Connection]:
        first, end = None, 0.0
        while not self._stop.is_set():
            found = (time.time(), self._opened()) if first is None else self._again(end)
            if found is None:
                return
            asked, opened = found
            container, _, start = opened
            first = first or (asked, start)
            begin = _begins(first, asked, start, end)
            if end:
                note(f"{self._source}: connected again; nothing is known from {end:.1f} s to {begin:.1f} s")
            spec = self._extractor.spec
            video = LiveVideo(self._source, opened, spec.fps, self._extractor.size, self._taken)
            finite = bool(container.duration)
            connection = Connection(begin, video, self._extractor, self._engine, self._batch_size, self._stop)
            yield connection
            end = begin + connection.duration
            if not self.returns or finite:
                return
            if not self._stop.is_set():
                note(f"{self._source}: cut off after {end:.1f} s; it is tried again")

    def _opened(self) -> tuple[Any, Any, float]:
        import av
        from av.error import FFmpegError

        source, options, file = self._source, dict[str, str](), None
        try:
            if source == "-":
                file = sys.stdin.buffer
                container = av.open(_Pipe(file), mode="r", options=_PROBE)
            elif _is_device(source):
                place = f"/dev/video{source}" if source.isdigit() and sys.platform == "linux" else source
                container = av.open(place, mode="r", format=_DEVICES.get(sys.platform))
            elif "://" in source:
                options = _PROBE | ({"rtsp_transport": "tcp"} if source.startswith("rtsp") else {})
                container = av.open(source, mode="r", options=options, timeout=(self._patience, self._patience))
            else:
                container = av.open(GrowingFile(Path(source), self._patience, self._stop), mode="r")
        except FileNotFoundError:
            raise DataError(f"{source}: no such file, camera or address") from None
        except (FFmpegError, OSError, UnicodeError) as failure:
            raise DataError(f"{source}: cannot be opened as a stream of video: {reason_of(failure)}") from None
        return pictures_of(container, source)

    def _again(self, end: float) -> tuple[float, tuple[Any, Any, float]] | None:
        since, attempt = time.monotonic(), 0
        while not self._stop.is_set():
            if self._give_up is not None and time.monotonic() - since > self._give_up:
                note(f"{self._source}: nothing for {self._give_up:.0f} s; the stream ended at {end:.1f} s")
                return None
            asked = time.time()
            try:
                return asked, self._opened()
            except DataError as failure:
                if attempt == 0:
                    note(str(failure))
            self._stop.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1
        return None


class _Pipe:
    """Standard input as FFmpeg reads it: what is there, without waiting until a buffer is full."""

    def __init__(self, file: Any) -> None:
        self._file, self.name = file, "-"

    def read(self, count: int) -> bytes:
        return self._file.read1(count)


def _is_device(source: str) -> bool:
    return source.isdigit() or bool(re.fullmatch(r"/dev/video\d+", source))


def _begins(first: tuple[float, float], asked: float, start: float, end: float) -> float:
    """The second of the stream at which a connection begins.

    By the stream's own clock, where that went on as the wall's did; otherwise by the wall's, as of when the connection
    was asked for.

    Args:
        first: wall-clock time and the stream's own time at which the first connection began.
        asked: wall-clock time of this one.
        start: the stream's own time at its beginning.
        end: second of the stream at which the last one ended.
    """
    by_wall, by_clock = asked - first[0], start - first[1]
    goes_on = abs(by_clock - by_wall) <= _CLOCK_TOLERANCE and by_clock >= end - 0.5
    return max(by_clock if goes_on else by_wall, end)
