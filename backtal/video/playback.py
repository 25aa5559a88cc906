"""Playing a file: its frames in the order of display, each with its second on one clock that goes on to the end."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from backtal.video.containers import (
    announced_end,
    clock_may_restart,
    frame_period,
    layout_of,
    open_video,
    reason_of,
)

# A picture that stands longer than this is a damaged timestamp, unless the file itself says that it lasts so long.
_LONGEST_GAP, _LONGEST_STILL = 600.0, 86_400.0
# A clock that may start again in the middle, as MPEG's, may also leap: FFmpeg's command line has the same limit.
_LONGEST_STREAM_GAP = 10.0
_LEAST_RETURN = 0.1
_LEAST_MISSING = 0.5
# Formats without an index, in which FFmpeg finds its way again from any byte.
_SOUGHT_BY_BYTE = ("mpeg", "mpegts")


class Shown(NamedTuple):
    """A decoded frame, the second at which it appears, and for how many seconds it stands as far as it says."""

    time: float
    frame: Any
    seconds: float


class Clock:
    """The clock of a file, in ticks of its stream: it goes on where the timestamps of packets start again.

    Attributes:
        shift: what is added to the timestamps of packets now.
        latest: the latest timestamp so far, shifted; None before the first packet.
    """

    def __init__(self, container: Any, stream: Any, start: float) -> None:
        self._start, self._tick = start, float(stream.time_base)
        self._end = announced_end(container, stream, start)
        self._step = round(frame_period(stream) / self._tick)
        self._may_restart = clock_may_restart(container)
        self.shift, self.latest, self._latest_dts, self._until = 0, None, None, round(start / self._tick)

    def seconds(self, stamp: int) -> float:
        """The second of a timestamp, counted from where a player starts the file."""
        return stamp * self._tick - self._start

    @property
    def end(self) -> float:
        """The second at which the latest picture so far ends."""
        return self.seconds(self._until)

    def resume(self, shift: int, stamp: int) -> None:
        """Go on from another place of the file, where the next key frame's timestamp, shifted, is `stamp`."""
        self.shift, self.latest, self._latest_dts, self._until = shift, stamp, None, stamp

    def jumps_at(self, packet: Any) -> bool:
        """Whether the timestamps of the next packet start again or leap."""
        if packet.pts is None or self.latest is None:
            return False
        ahead = (packet.pts + self.shift - self.latest) * self._tick
        return self._starts_again_at(packet) or ahead > _LONGEST_STREAM_GAP

    def follow(self, packet: Any) -> tuple[str, bool]:
        """Correct the timestamps of the next packet; returns what is odd about them, and whether that is damage."""
        told = self._correct(packet) if packet.pts is not None else ("", False)
        if packet.dts is not None:
            packet.dts += self.shift
            self._latest_dts = packet.dts
        if packet.pts is not None and (self.latest is None or packet.pts >= self.latest):
            if self.latest is not None and packet.pts > self.latest:
                self._step = min(self._step, packet.pts - self.latest)
            self.latest = packet.pts
            self._until = packet.pts + self._step
        return told

    def _correct(self, packet: Any) -> tuple[str, bool]:
        before, second = self._until if self.latest is None else self.latest, self.end
        told, damage = "", False
        if self.latest is not None and self._starts_again_at(packet):
            self.shift += self._until - (packet.pts + self.shift)
            told = f"at {second:.1f} s its clock starts again (recordings that were joined?); time goes on"
        packet.pts += self.shift
        ahead, there = (packet.pts - before) * self._tick, self.seconds(packet.pts)
        if self.latest is not None and self._may_restart and ahead > _LONGEST_STREAM_GAP:
            self.shift -= packet.pts - self._until
            packet.pts = self._until
            told = f"at {second:.1f} s its clock leaps {ahead:.1f} s ahead; time goes on without the gap"
        elif ahead > _LONGEST_GAP and (self._end is None or there > self._end or ahead > _LONGEST_STILL):
            packet.pts = self._until
            told, damage = f"timestamps jump from {self.seconds(before):.1f} s to {there:.1f} s", True
        return told, damage

    def _starts_again_at(self, packet: Any) -> bool:
        """Whether recordings were joined before a packet: only there a key frame is shown before what came earlier."""
        back = (self.latest - packet.pts - self.shift) * self._tick
        if packet.is_keyframe or not self._may_restart or None in (packet.dts, self._latest_dts):
            return packet.is_keyframe and back > _LEAST_RETURN
        return (self._latest_dts - packet.dts - self.shift) * self._tick > _LEAST_RETURN


class Playback:
    """A file that is opened to be played.

    Args:
        path: the file.
        threads: of the decoder; 0 for as many as there are cores.
        strict: have the decoder report the smallest damage.
        damaged: called with what is damaged; where it returns, playing goes on.
        noted: called with what is odd and was made the best of.
        opened: the container, stream and start of `open_video`, where opening and closing are not for this class to do:
            a source that is still being written, of which nothing is said at its end.
        taken: called with each packet and its second, before it is decoded.
        packets: those of `opened` that are to be played, where others were read before.
        jumped: called where the clock starts again or leaps, with the first packet after that and those that follow:
            playing ends before it.

    Attributes:
        period: seconds from one frame to the next, as far as the file says.

    Raises:
        DataError: if the file cannot be read or holds no video.
        ImportError: if PyAV is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        strict: bool = False,
        damaged: Callable[[str], None] = lambda what: None,
        noted: Callable[[str], None] = lambda what: None,
        opened: tuple[Any, Any, float] | None = None,
        taken: Callable[[Any, float | None], None] | None = None,
        packets: Iterator[Any] | None = None,
        jumped: Callable[[Any, Iterator[Any]], None] | None = None,
    ) -> None:
        self.path, self._threads, self._damaged, self._noted = Path(path), threads, damaged, noted
        self.container, self.stream, self.start = opened or open_video(path, threads=threads)
        self._lives, self._taken, self._packets, self._jumped = opened is not None, taken, packets, jumped
        if strict:
            self.stream.codec_context.options = {"err_detect": "explode"}
        self.period, self.form = frame_period(self.stream), self.container.format.name
        self._announced = announced_end(self.container, self.stream, self.start)
        self._restart()

    def __enter__(self) -> "Playback":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._lives:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def _restart(self) -> None:
        self.clock = Clock(self.container, self.stream, self.start)
        self._last, self._until, self._first_dts, self._delay = -self.period, 0.0, None, None
        self._doubt, self._read_to, self._skip = 0, 0, False

    @property
    def announced(self) -> float | None:
        """The second at which the pictures end, as far as the file says and its clock can be trusted."""
        return None if self.clock.shift else self._announced

    def frames(self) -> Iterator[Shown]:
        """The frames from here on, in the order of display; seconds never fall."""
        from av.error import EOFError, FFmpegError, InvalidDataError

        packets = self._packets or self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
                if self._jumped and self.clock.jumps_at(packet):
                    self._jumped(packet, packets)
                    yield from map(self._shown, self.stream.codec_context.decode(None))
                    self.stream.codec_context.flush_buffers()
                    break
                wanted = self._is_wanted(packet)
                if self._taken and packet.size:
                    self._taken(packet, None if packet.pts is None else self.clock.seconds(packet.pts))
                if wanted:
                    for frame in packet.decode():
                        yield self._shown(frame)
            except (StopIteration, EOFError):
                break
            except FFmpegError as failure:
                self._damaged(reason_of(failure))
                if not isinstance(failure, InvalidDataError):
                    break
        if self._until and not self._lives:
            self._look_at_the_end()

    def _look_at_the_end(self) -> None:
        layout = layout_of(self.path, self.form)
        if self._doubt:
            self._damaged("a packet is cut off")
        elif layout.last and (self.form.startswith("mov") or layout.last > self._read_to):
            self._damaged("another recording was put behind this one byte by byte; join them with ffmpeg's concat")
        elif self.announced and self.announced - self._until > max(_LEAST_MISSING, 2 * self.period):
            self._damaged(f"ends after {self._until:.1f} s of {self.announced:.1f} s")
        elif layout.cut:
            self._damaged("the file ends in the middle of something (its end was cut off?)")

    def _is_wanted(self, packet: Any) -> bool:
        """Follow the clock, and look for losses; after a jump in the file packets are of use from a key frame on."""
        odd, damage = self.clock.follow(packet)
        if odd:
            self._doubt = 0
            (self._damaged if damage else self._noted)(odd)
        if self._doubt and packet.pts is not None:
            # The count of packets does not fit where parts were joined, either; these begin with a key frame.
            if packet.is_keyframe:
                self._noted(
                    f"at {self.clock.seconds(packet.pts):.1f} s packets may be missing (parts that were joined?)"
                )
            elif self._doubt == 1:
                self._damaged("a packet is cut off")
            self._doubt = 0 if packet.is_keyframe else self._doubt - 1
        if packet.is_corrupt:
            self._doubt = 2
        if packet.pos is not None:
            self._read_to = max(self._read_to, packet.pos)
        if self._first_dts is None:
            self._first_dts = packet.dts
        self._skip = self._skip and not packet.is_keyframe
        return not self._skip

    def _shown(self, frame: Any) -> Shown:
        stamp = frame.pts
        if self.form == "avi":
            # An AVI numbers its packets, which is the order of decoding; those of display come out of the decoder late.
            if self._delay is None and None not in (frame.dts, self._first_dts):
                self._delay = frame.dts - self._first_dts
            stamp = None if None in (frame.dts, self._delay) else frame.dts - self._delay
        time = self._last + self.period if stamp is None else self.clock.seconds(stamp)
        before = max(self._last, 0.0)
        if time - before > _LONGEST_GAP:
            self._noted(f"one picture stands from {before:.1f} s to {time:.1f} s")
        self._last = max(time, self._last)
        seconds = float(frame.duration * frame.time_base) if frame.duration else self.period
        if seconds > _LONGEST_GAP and (
            self.announced is None or self._last + seconds > self.announced + _LEAST_MISSING
        ):
            seconds = self.period
        self._until = self._last + seconds
        return Shown(self._last, frame, seconds)

    def seek(self, time: float) -> None:
        """Go to a key frame at `time` or before; a file whose timestamps lead elsewhere is opened again.

        Raises:
            DataError: if the file cannot be opened again.
        """
        from av.error import FFmpegError

        way = survey(self.path)
        near = [place for place in way.places if place.time <= time] if way else []
        try:
            if way is None or not way.jumps:
                target = int((max(time, 0.0) + self.start) / self.stream.time_base)
                self.container.seek(target, stream=self.stream, backward=True)
                self._restart()
                return
            if near and self.form in _SOUGHT_BY_BYTE:
                self.container.seek(near[-1].byte, unsupported_byte_offset=True)
                self._restart()
                self.clock.resume(near[-1].shift, near[-1].stamp)
                self._skip = True
                return
        except FFmpegError:
            pass
        self.rewind()

    def rewind(self) -> None:
        """Open the file again.

        Raises:
            DataError: if it cannot be opened any more.
        """
        self.close()
        self.container, self.stream, self.start = open_video(self.path, threads=self._threads)
        self._restart()


class Place(NamedTuple):
    """Where a key frame is: its second, the byte to read from, and the clock's state there."""

    time: float
    byte: int
    shift: int
    stamp: int


class Survey(NamedTuple):
    """What going through all packets of a file shows: when it ends, whether its clock jumps, where key frames are."""

    end: float
    jumps: bool
    places: list[Place]


def survey(path: str | Path) -> Survey | None:
    """Go through the packets of a file, once; None for a file that itself says how long it is, on one clock.

    Raises:
        DataError: if the file cannot be read or holds no video.
    """
    status = Path(path).stat()
    return _survey(Path(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _survey(path: Path, changed: int, size: int) -> Survey | None:
    from av.error import FFmpegError

    with Playback(path) as playback:
        whole = playback.announced and not clock_may_restart(playback.container)
        if whole and layout_of(path, playback.form).last is None:
            return None
        clock, places, byte, jumps, count = playback.clock, [], None, False, 0
        packets = playback.container.demux(playback.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, FFmpegError):
                break
            shift = clock.shift
            clock.follow(packet)
            jumped = clock.shift != shift
            jumps, count = jumps or jumped, count + bool(packet.size)
            byte = packet.pos if packet.pos is not None else None if jumped else byte
            if packet.is_keyframe and packet.pts is not None and byte is not None:
                places.append(Place(clock.seconds(packet.pts), byte, clock.shift, packet.pts))
                byte = None  # reading from there meets this key frame first
        end = clock.end if clock.latest is not None else count * playback.period
    return Survey(end, jumps, places if jumps and playback.form in _SOUGHT_BY_BYTE else [])
