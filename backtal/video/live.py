"""Sources that go on: cameras, addresses, pipes, files that are still being written."""

import io
import math
import re
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from backtal.errors import DataError
from backtal.files import note
from backtal.video.containers import import_av, index_comes_last, pictures_of, reason_of
from backtal.video.decode import Video
from backtal.video.extract import Engine, ahead
from backtal.video.extractors import Extractor
from backtal.video.playback import Playback
from backtal.video.windows import windows

_PAUSES = (0.5, 1, 2, 5, 10, 30)  # seconds between two attempts to connect again
_CLOCK_TOLERANCE = 10.0  # seconds that a stream's own clock may be off the wall's and still count
_FLUSHED = 5  # packets at the end of a connection whose arrival says nothing
_MOST_LATE = 10.0  # seconds that reading may be behind
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
        weakref.finalize(self, self._file.close)  # FFmpeg does not close what it is given
        self.name = str(path)

    def read(self, count: int) -> bytes:
        """The next bytes; waits for them, and returns none at the end."""
        while not (found := self._file.read(count)):
            if self._stop.is_set() or time.time() - self._path.stat().st_mtime > self._patience:
                return b""
            self._stop.wait(0.1)
        return found


class LiveVideo(Video):
    """What comes through one connection, as `Video` gives frames; damage is said and gone over.

    Args:
        live: the source.
        opened: container, stream and start.
        taken: called with each packet and its second.

    Attributes:
        late: set where packets are read long after they came: an address that is too fast is then left.
    """

    def __init__(self, live: "Live", opened: tuple[Any, Any, float], taken: Taken) -> None:
        super().__init__(live.source, live.extractor.spec.fps, size=live.extractor.size, keep_damaged=True)
        self._source, self._returns, self._opened, self._taken = live.source, live.returns, opened, taken
        self.late = False

    def _timed_frames(self) -> Iterator[tuple[float, Any]]:
        for time_and_frame in super()._timed_frames():
            if self.late and self._returns:
                note(f"{self._source}: this machine is too slow for it; what it is behind with is left out")
                return
            yield time_and_frame

    def _playback(self) -> Playback:
        return Playback(self.path, damaged=self._damaged, noted=self._noted, opened=self._opened, taken=self._taken)

    def _empty(self) -> None:
        if not self._returns:
            raise DataError(f"{self._source}: not one frame could be decoded (not complete, or damaged?)")

    def _damaged(self, what: str) -> None:
        note(f"{self._source}: after {self.duration:.1f} s of this connection: {what}")

    def _noted(self, what: str) -> None:
        note(f"{self._source}: {what}")


class Connection:
    """One stretch of a stream without a gap.

    Args:
        live: the source.
        opened: container, stream and start.
        begins: tells where in the stream it begins, when its first frames are there.

    Attributes:
        begin: second of the stream at which it begins, once the first features were taken.
        soonest: wall-clock time at which its second 0 was, by the packet that came with the least delay.
    """

    def __init__(self, live: "Live", opened: tuple[Any, Any, float], begins: Callable[["Connection"], float]) -> None:
        self.begin, self.soonest, self._live, self._begins = 0.0, math.inf, live, begins
        self._recent = deque[float]()
        self.video = LiveVideo(live, opened, self._arrived)

    def _arrived(self, packet: Any, second: float | None) -> None:
        if second is not None:
            self._recent.append(time.time() - second)
            self.video.late = self._recent[-1] - self.soonest > _MOST_LATE
            if len(self._recent) > _FLUSHED:  # the last packets before a cut come together, ahead of their time
                self.soonest = min(self.soonest, self._recent.popleft())
        if self._live.taken:
            self._live.taken(packet, second)

    @property
    def duration(self) -> float:
        """Seconds, once all features were taken."""
        return self.video.duration

    def features(self) -> Generator[Tensor, None, None]:
        """``[D, n]`` each, in order, as soon as they are there."""
        live, first = self._live, True
        found = windows(self.video, live.extractor)
        for batch in ahead(found, 2 * live.batch_size, live.batch_size, live.stop):
            features = live.engine(batch)
            if not features.isfinite().all():
                raise DataError("the extractor's network gave values that are NaN, infinite or beyond float16")
            if first:
                self.begin, first = self._begins(self), False
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
        self.source, self.extractor, self.engine, self.batch_size = str(source), extractor, engine, batch_size
        self.taken, self.stop = taken, stop or threading.Event()
        self._patience, self._give_up = patience, give_up

    @property
    def returns(self) -> bool:
        """Whether it is worth to connect again: to cameras and addresses."""
        return _is_device(self.source) or "://" in self.source

    def __iter__(self) -> Iterator[Connection]:
        end, origin, epoch = 0.0, None, math.inf  # where the stream's own clock and the wall's were at its second 0
        while not self.stop.is_set():
            opened = self._opened() if origin is None else self._again(end)
            if opened is None:
                return
            container, _, start = opened
            origin, finite = start if origin is None else origin, bool(container.duration)
            connection = Connection(self, opened, partial(self._begins, at=start - origin, end=end, epoch=epoch))
            yield connection
            end = connection.begin + connection.duration
            epoch = min(epoch, connection.soonest - connection.begin)
            if not self.returns or finite:
                return
            if not self.stop.is_set():
                note(f"{self.source}: cut off after {end:.1f} s; it is tried again")

    def _begins(self, connection: Connection, at: float, end: float, epoch: float) -> float:
        """The second of the stream at which a connection begins.

        By the stream's own clock, where that went on as the wall's did; otherwise by the wall's.

        Args:
            connection: whose first packets have come.
            at: where it begins by the stream's own clock.
            end: second at which the one before ended.
            epoch: wall-clock time of second 0; infinite for the first connection.
        """
        if math.isinf(epoch):
            return 0.0
        goes_on = abs(at - (time.time() - epoch)) <= _CLOCK_TOLERANCE and at >= end - 0.5
        if not goes_on:
            self.stop.wait(0.5)  # the first packets waited while the format was looked at; of later ones one is prompt
        begin = max(at if goes_on else connection.soonest - epoch, end)
        note(f"{self.source}: connected again; nothing is known from {end:.1f} s to {begin:.1f} s")
        return begin

    def _opened(self) -> tuple[Any, Any, float]:
        import av
        from av.error import FFmpegError

        source, options, file = self.source, dict[str, str](), None
        try:
            if source == "-":
                # Not sys.stdin: its lock, held by a thread that still reads, aborts the interpreter's end.
                file = io.FileIO(0, closefd=False)
                container = av.open(_Pipe(file), mode="r", options=_PROBE)
            elif _is_device(source):
                place = f"/dev/video{source}" if source.isdigit() and sys.platform == "linux" else source
                container = av.open(place, mode="r", format=_DEVICES.get(sys.platform))
            elif "://" in source:
                options = _PROBE | ({"rtsp_transport": "tcp"} if source.startswith("rtsp") else {})
                container = av.open(source, mode="r", options=options, timeout=(self._patience, self._patience))
            else:
                container = av.open(self._file(Path(source)), mode="r")
        except FileNotFoundError:
            raise DataError(f"{source}: no such file, camera or address") from None
        except (FFmpegError, OSError, UnicodeError) as failure:
            raise DataError(f"{source}: cannot be opened as a stream of video: {reason_of(failure)}") from None
        return pictures_of(container, source)

    def _file(self, path: Path) -> str | GrowingFile:
        """What to read a file through: one whose index comes last can be read only when it is complete."""
        while not (complete := time.time() - path.stat().st_mtime > self._patience) and index_comes_last(path):
            if self.stop.wait(0.2):
                break
        return str(path) if complete else GrowingFile(path, self._patience, self.stop)

    def _again(self, end: float) -> tuple[Any, Any, float] | None:
        since, attempt = time.monotonic(), 0
        while not self.stop.is_set():
            try:
                return self._opened()
            except DataError as failure:
                if attempt == 0:
                    note(str(failure))
            if self._give_up is not None and time.monotonic() - since > self._give_up:
                note(f"{self.source}: nothing for {self._give_up:.0f} s; the stream ended at {end:.1f} s")
                return None
            self.stop.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1
        return None


class _Pipe:
    """Standard input as FFmpeg reads it: what is there, without waiting until a buffer is full."""

    def __init__(self, file: Any) -> None:
        self._file, self.name = file, "-"

    def read(self, count: int) -> bytes:
        return self._file.read(count)


def _is_device(source: str) -> bool:
    return source.isdigit() or bool(re.fullmatch(r"/dev/video\d+", source))
