"""Sources that go on, connected to again when they are cut off, and where in the stream each connection lies."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from backtal.errors import DataError
from backtal.files import note
from backtal.video.containers import import_av
from backtal.video.decode import Video
from backtal.video.extract import Engine, ahead
from backtal.video.extractors import Extractor
from backtal.video.playback import Playback
from backtal.video.sources import is_device, is_playlist, open_source
from backtal.video.windows import windows

_PAUSES = (0.5, 1, 2, 5, 10, 30)  # seconds between two attempts to connect again
_LISTENS = 0.1  # where nobody is asked: opening waits for what comes
_CLOCK_TOLERANCE = 10.0  # seconds that a stream's own clock may be off the wall's and still count
_ANEW = 1.0  # a clock that is further than that has not begun again
_PLAYED_AGAIN = 60.0  # seconds that a playlist may reach back
_FLUSHED = 5  # packets at the end of a connection whose arrival says nothing
_MOST_LATE = 10.0  # seconds that reading may be behind
_ROUNDING = 1e-3

Taken = Callable[[Any, float | None], None]


class Opened:
    """A container, from where on it is played, and where in the stream that is.

    Args:
        container: PyAV's.
        stream: of its pictures.
        start: timestamp at which its second 0 is; pictures before it were seen already.
        begin: second of the stream at which that is, by the stream's own clock; None where that does not go on.
        packets: those left of it, where others were played before.
    """

    def __init__(
        self, container: Any, stream: Any, start: float, begin: float | None, packets: Iterator[Any] | None = None
    ) -> None:
        self.container, self.stream, self.start, self.begin, self.packets = container, stream, start, begin, packets


class LiveVideo(Video):
    """What comes through one connection, as `Video` gives frames; damage is said and gone over.

    Args:
        live: the source.
        opened: what is played.
        taken: called with each packet and its second.

    Attributes:
        late: set where packets are read long after they came: an address that is too fast is then left.
        rest: the packets from where another clock begins, once that has happened; the container is then still open.
        rest_start: the timestamp of the first of them.
    """

    def __init__(self, live: "Live", opened: Opened, taken: Taken) -> None:
        super().__init__(live.source, live.extractor.spec.fps, size=live.extractor.size, keep_damaged=True)
        self._source, self._returns, self._opened, self._taken = live.source, live.returns, opened, taken
        self.late, self.rest, self.rest_start = False, None, 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            yield from super().__iter__()
        finally:  # not before: frames of a camera lie in its memory
            if self.rest is None:
                self._opened.container.close()

    def _timed_frames(self) -> Iterator[tuple[float, Any]]:
        for second, frame in super()._timed_frames():
            if self.late and self._returns:
                note(f"{self._source}: this machine is too slow for it; what it is behind with is left out")
                return
            stamp = None if frame.pts is None else float(frame.pts * frame.time_base)
            if second or stamp is None or stamp >= self._opened.start - _ROUNDING or not self._opened.begin:
                yield second, frame

    def _playback(self) -> Playback:
        opened = self._opened
        return Playback(
            self.path,
            damaged=self._damaged,
            noted=self._noted,
            opened=(opened.container, opened.stream, opened.start),
            taken=self._taken,
            packets=opened.packets,
            jumped=self._jumped if self._returns else None,
        )

    def _empty(self) -> None:
        if not self._returns:
            raise DataError(f"{self._source}: not one frame could be decoded (not complete, or damaged?)")

    def _jumped(self, packet: Any, following: Iterator[Any]) -> None:
        self.rest, self.rest_start = chain([packet], following), float(packet.pts * packet.time_base)

    def _damaged(self, what: str) -> None:
        note(f"{self._source}: after {self.duration:.1f} s of this connection: {what}")

    def _noted(self, what: str) -> None:
        note(f"{self._source}: {what}")


class Connection:
    """One stretch of a stream without a gap.

    Args:
        live: the source.
        opened: what is played.
        begins: tells where in the stream it begins, when its first frames are there.

    Attributes:
        started: whether features were taken.
        begin: second of the stream at which it begins, once that is so.
        soonest: wall-clock time at which its second 0 was, by the packet that came with the least delay.
        video: its frames.
    """

    def __init__(self, live: "Live", opened: Opened, begins: Callable[["Connection"], float]) -> None:
        self.begin, self.started = 0.0, False
        self.soonest, self._live, self._begins = math.inf, live, begins
        self.opened, self._recent = opened, deque[float]()
        self._drops = is_playlist(live.source)  # there the server lets go what nobody fetches
        self.video = LiveVideo(live, opened, self._arrived)

    def _arrived(self, packet: Any, second: float | None) -> None:
        if second is not None:
            self._recent.append(time.time() - second)
            if len(self._recent) > _FLUSHED:  # the last packets before a cut come together, ahead of their time
                self.video.late = min(self._recent) - self.soonest > _MOST_LATE and not self._drops
                self.soonest = min(self.soonest, self._recent.popleft())
        if self._live.taken:
            self._live.taken(packet, second)

    @property
    def duration(self) -> float:
        """Seconds, once all features were taken."""
        return self.video.duration

    def features(self) -> Generator[Tensor, None, None]:
        """``[D, n]`` each, in order, as soon as they are there."""
        live = self._live
        found = windows(self.video, live.extractor)
        for batch in ahead(found, 2 * live.batch_size, live.batch_size, live.stop):
            features = live.engine(batch)
            if not features.isfinite().all():
                raise DataError("the extractor's network gave values that are NaN, infinite or beyond float16")
            if not self.started:
                self.begin, self.started = self._begins(self), True
            yield features.T


class Live:
    """A source that goes on, connected to again when it is cut off: iterated over, its connections.

    Args:
        source: a camera (``"0"``, ``"/dev/video0"``), an address (``rtsp://``, ``http://``, ``tcp://``, ``udp://``), a
            pipe (``"-"``, standard input), or a file, which may still be written.
        extractor: of the features.
        engine: its network.
        batch_size: windows that go through it at once, where so many are there already.
        patience: seconds without anything after which an address counts as cut off and a file as complete; three times
            as long for a playlist (HLS).
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
        self._segmented, self._answers = is_playlist(self.source), not self.source.startswith(("udp:", "rtp:"))
        self._end, self._origin = 0.0, 0.0  # where the stream's own clock was at its second 0
        self._epoch = math.inf  # where the wall's was; infinite before the first connection has ended
        self._attempt, self._last = 0, time.monotonic()  # since when nothing has come

    @property
    def returns(self) -> bool:
        """Whether it is worth to connect again: to cameras and addresses."""
        return is_device(self.source) or "://" in self.source

    def __iter__(self) -> Iterator[Connection]:
        found = open_source(self.source, self._patience, self.stop)
        opened = found and Opened(*found, 0.0)
        if opened:
            self._origin = opened.start
        while opened and not self.stop.is_set():
            until = self._until(opened.container)
            connection = Connection(self, opened, self._begins)
            yield connection
            if connection.started:
                self._end = connection.begin + connection.duration
                self._epoch = min(self._epoch, connection.soonest - connection.begin)
                self._attempt, self._last = 0, time.monotonic()
            video = connection.video
            complete = self._end >= until - 0.5 or (math.isfinite(until) and not connection.started)
            if self.stop.is_set() or (video.rest is None and (complete or not self.returns)):
                return
            if video.rest is not None:
                note(f"{self.source}: after {self._end:.1f} s of the stream: its clock jumps")
                opened = self._placed(opened.container, opened.stream, video.rest_start, video.rest)
                continue
            if connection.started:
                note(f"{self.source}: cut off after {self._end:.1f} s; it is tried again")
            opened = self._again()

    def _begins(self, connection: Connection) -> float:
        """The second of the stream at which a connection begins: by its own clock, otherwise by the wall's."""
        begin = connection.opened.begin
        if begin is None:
            self.stop.wait(0.5)  # the first packets waited while the format was looked at; of later ones one is prompt
            begin = max(connection.soonest - self._epoch, self._end)
            if self._segmented and begin < self._end + _CLOCK_TOLERANCE:
                begin = self._end  # segments come one at a time, so that the wall's clock says less
        if math.isfinite(self._epoch):
            gap = f"known from {self._end:.1f} s to {begin:.1f} s" if begin > self._end + 0.05 else "lost"
            note(f"{self.source}: it goes on; nothing is {gap}")
        return begin

    def _placed(self, container: Any, stream: Any, start: float, packets: Iterator[Any] | None = None) -> Opened:
        """Where in the stream lies what begins at a timestamp; pictures that were seen already are left out."""
        if math.isinf(self._epoch):  # nothing came yet
            self._origin = start
            return Opened(container, stream, start, 0.0, packets)
        at, now = start - self._origin, time.time() - self._epoch
        if container.duration:
            goes_on = -_ROUNDING <= at <= self._end + 0.5
        elif self._segmented and packets is None:  # it begins some segments back
            goes_on = max(self._end - _PLAYED_AGAIN, 0) - _ROUNDING <= at <= now + _CLOCK_TOLERANCE
        else:
            goes_on = abs(at - now) <= _CLOCK_TOLERANCE and at >= min(self._end - 0.5, _ANEW)
        begin = max(at, self._end) if goes_on else None
        return Opened(container, stream, start if begin is None else self._origin + begin, begin, packets)

    def _again(self) -> Opened | None:
        """Connect again, after pauses that grow until something comes; None at the end."""
        while not self.stop.is_set():
            if self._attempt:
                if self._give_up is not None and time.monotonic() - self._last > self._give_up:
                    note(f"{self.source}: nothing for {self._give_up:.0f} s; the stream ended at {self._end:.1f} s")
                    return None
                self.stop.wait(_PAUSES[min(self._attempt, len(_PAUSES)) - 1] if self._answers else _LISTENS)
            self._attempt += 1
            try:
                found = open_source(self.source, self._patience, self.stop)
            except DataError as failure:
                if self._attempt == 1:
                    note(str(failure))
                continue
            return found and self._unless_complete(*found)
        return None

    def _until(self, container: Any) -> float:
        """The second of the stream at which a container says that it ends; infinite where it does not."""
        start = (container.start_time or 0) / 1_000_000
        return start - self._origin + container.duration / 1_000_000 if container.duration else math.inf

    def _unless_complete(self, container: Any, stream: Any, start: float) -> Opened | None:
        """What there is; None where it has an end, up to which all was seen."""
        from av.error import FFmpegError

        opened = self._placed(container, stream, start)
        if opened.begin is not None and container.duration:
            if self._until(container) <= self._end + 0.5:
                note(f"{self.source}: complete; the stream ended at {self._end:.1f} s")
                container.close()
                return None
            with suppress(FFmpegError):
                container.seek(int(opened.start * 1_000_000))
        return opened
