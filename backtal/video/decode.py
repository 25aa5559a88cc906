"""Decoding: a video file as frames at even times, whatever its frame rate, rotation or start time."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backtal.data.kinds import VIDEO, kind_of
from backtal.errors import DataError
from backtal.files import VIDEO_SUFFIXES

# A picture that stands longer than this is a damaged timestamp rather than a recording.
_LONGEST_GAP = 600.0
_LEAST_MISSING = 0.5


def is_video(path: str | Path) -> bool:
    """Whether a path is called like a video, or the file is one by its first bytes."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES or kind_of(path) == VIDEO


def videos_in(places: Iterable[str | Path]) -> list[Path]:
    """The videos in folders, in order of name, and files as they are, whatever they are called.

    Raises:
        DataError: if a place does not exist or a folder holds no video.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place}: no such video or folder")
        inside = sorted(filter(is_video, place.iterdir())) if place.is_dir() else [place]
        if not inside:
            raise DataError(f"{place}: holds no video; known are {', '.join(sorted(VIDEO_SUFFIXES))}")
        found += inside
    return list(dict.fromkeys(found))


class Video:
    """A video file, iterated over as frames ``[H, W, 3]`` (uint8, RGB) at times 0, 1/fps, 2/fps, ...

    Time counts from the moment at which a player starts the file. The frame given for a time is the one on display
    then, by presentation timestamps (one that comes up to half a frame later counts, as containers round): a variable
    frame rate, dropped frames and a stream that starts late all end up in their right second. Only a few frames are in
    memory at a time.

    Args:
        path: the file; anything FFmpeg reads.
        fps: frames per second to give; None gives every frame as it is, without regard to time.
        size: of the frames: the shorter side, or ``(height, width)``, in pixels; None keeps it.
        keep_damaged: go over damaged or missing parts, with the last good frame standing in, instead of raising.
        threads: of the decoder; 0 for as many as there are cores.

    Attributes:
        duration: seconds until the last frame ends; known once the iteration has ended.
        num_frames: frames of the file; known once the iteration has ended.
        damage: what was wrong with the file, with `keep_damaged`.

    Raises:
        DataError: while iterating, if the file cannot be read, holds no video, or is damaged.
        ImportError: if PyAV is not installed.

    Example:
        >>> video = Video("holiday.mp4", fps=25, size=256)
        >>> frames = iter(video)
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        keep_damaged: bool = False,
        threads: int = 0,
    ) -> None:
        self.path, self.fps, self.size = Path(path), fps, size
        self.keep_damaged, self.threads = keep_damaged, threads
        self.duration, self.num_frames, self.damage = 0.0, 0, ""
        self._period = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        import_av()
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()
        self.duration, self.num_frames, self.damage = 0.0, 0, ""
        picture, given = None, 0
        for time, frame in self._timed_frames():
            if self.fps is None:
                yield self._picture(frame)
                continue
            early = min(self._period, 1 / self.fps) / 2
            # Until the first frame its own picture stands in, as a player's poster does.
            until = math.ceil((time - early) * self.fps)
            if until > given:
                shown = self._picture(picture or frame)
                for _ in range(given, until):
                    yield shown
                given = until
            picture = frame
        if self.fps is not None and picture is not None:
            shown = self._picture(picture)
            for _ in range(given, max(round(self.duration * self.fps), given, 1)):
                yield shown

    def _timed_frames(self) -> Iterator[tuple[float, Any]]:
        """Every decoded frame with its second, in order."""
        container, stream, start = open_video(self.path, threads=self.threads)
        with container:
            if not self.keep_damaged:
                stream.codec_context.options = {"err_detect": "explode"}
            expected = announced_end(container, stream, start)
            period = self._period = frame_period(stream)
            # A frame without a timestamp follows the one before it.
            last = -period
            for frame in self._decoded(container, stream):
                time = last + period if frame.time is None else frame.time - start
                if time - max(last, 0.0) > _LONGEST_GAP:
                    self._damaged(f"timestamps jump from {max(last, 0.0):.1f} s to {time:.1f} s")
                    continue
                if time <= last:
                    continue
                self.num_frames += 1
                shown_for = float(frame.duration * frame.time_base) if frame.duration else period
                last, self.duration = time, time + (shown_for if shown_for < _LONGEST_GAP else period)
                yield max(time, 0.0), frame
            if not self.num_frames:
                raise DataError(f"{self.path}: not one frame could be decoded (truncated or damaged?)")
            if expected is not None and expected - self.duration > max(_LEAST_MISSING, 2 * period):
                self._damaged(f"ends after {self.duration:.1f} s of {expected:.1f} s")

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Frames as the decoder gives them; an error is `_damaged`, and where that returns, decoding goes on."""
        from av.error import EOFError, FFmpegError, InvalidDataError

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                if packet.is_corrupt:
                    self._damaged("a packet is cut off")
                yield from packet.decode()
            except StopIteration:
                return
            except EOFError:
                return
            except FFmpegError as failure:
                self._damaged(_reason(failure))
                if not isinstance(failure, InvalidDataError):
                    return

    def _damaged(self, what: str) -> None:
        message = f"damaged after {self.duration:.1f} s: {what}"
        if not self.keep_damaged:
            raise DataError(f"{self.path}: {message}; pass keep_damaged to use what can be decoded")
        self.damage = self.damage or message

    def _picture(self, frame: Any) -> np.ndarray:
        """``[H, W, 3]``: resized and turned the way a player shows it."""
        return picture_of(frame, self.size, self._scaler)


def open_video(path: str | Path, *, threads: int = 0) -> tuple[Any, Any, float]:
    """Open a file: PyAV's container, the stream of its pictures, and the timestamp at which a player starts it.

    Raises:
        DataError: if the file cannot be read or holds no video.
        ImportError: if PyAV is not installed.
    """
    import_av()
    import av
    from av.error import FFmpegError, InvalidDataError

    try:
        container = av.open(str(path), mode="r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such video") from None
    except InvalidDataError:
        what = "not a video, or its beginning is damaged" if Path(path).stat().st_size else "an empty file"
        raise DataError(f"{path}: cannot be opened as a video: {what}") from None
    except FFmpegError as failure:
        raise DataError(f"{path}: cannot be opened as a video: {_reason(failure)}") from None
    except UnicodeError as failure:
        raise DataError(f"{path}: cannot be opened as a video: {failure}") from None
    stream = next((s for s in container.streams.video if not _is_cover(s)), None)
    if stream is None:
        kinds = sorted({s.type for s in container.streams})
        container.close()
        raise DataError(f"{path}: holds no video, only {', '.join(kinds) or 'nothing'}")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    return container, stream, container.start_time / av.time_base if container.start_time is not None else 0.0


def frame_period(stream: Any) -> float:
    """Seconds from one frame to the next, as far as the file says."""
    return 1 / float(stream.guessed_rate or stream.average_rate or 25)


def picture_of(frame: Any, size: int | tuple[int, int] | None, scaler: Any) -> np.ndarray:
    """``[H, W, 3]`` of PyAV's frame: resized, as for `Video`, and turned the way a player shows it."""
    turns = round(frame.rotation / 90) % 4
    height, width = (frame.height, frame.width) if turns % 2 == 0 else (frame.width, frame.height)
    height, width = _resized(height, width, size)
    if turns % 2:
        height, width = width, height
    scaled = scaler.reformat(frame, width, height, "rgb24", interpolation="BILINEAR")
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))


def import_av() -> None:
    """Raise a clear ImportError where PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise ImportError('reading video needs PyAV: pip install "backtal[video]"') from None


def centre_crop(picture: np.ndarray, crop: int) -> np.ndarray:
    """The middle ``[crop, crop, C]`` of ``[H, W, C]``."""
    top, left = ((side - crop) // 2 for side in picture.shape[:2])
    return picture[top : top + crop, left : left + crop]


def _resized(height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    shorter = min(height, width)
    return max(size, round(height * size / shorter)), max(size, round(width * size / shorter))


def announced_end(container: Any, stream: Any, start: float) -> float | None:
    """The second at which the file says that its pictures end, where it says so."""
    if stream.duration and stream.time_base:
        begin = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - start
        return max(begin, 0.0) + float(stream.duration * stream.time_base)
    if clock := stream.metadata.get("DURATION"):
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - max(start, 0.0)
    only_pictures = len(container.streams) == 1 and container.duration
    return container.duration / 1_000_000 if only_pictures and math.isfinite(container.duration) else None


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of a piece of music."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _reason(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or str(failure)
