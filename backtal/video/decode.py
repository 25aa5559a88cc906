"""Decoding: a video file as frames at even times, whatever its frame rate, rotation or start time."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backtal.data.kinds import VIDEO, kind_of
from backtal.errors import DataError
from backtal.files import VIDEO_SUFFIXES, note
from backtal.video.containers import import_av, open_video
from backtal.video.playback import Playback

_ROUNDING = 1e-6
# Sound and pictures in the containers of videos, which phones and editors leave beside these under the same name.
_BESIDE = {".aac", ".avif", ".heic", ".heif", ".m4a", ".m4b", ".mka", ".oga", ".ogg", ".opus", ".wma"}


def is_video(path: str | Path) -> bool:
    """Whether a path is called like a video, or the file is one by its first bytes unless it is called otherwise."""
    suffix = Path(path).suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix not in _BESIDE and kind_of(path) == VIDEO)


def opens_as_video(path: str | Path) -> bool:
    """Whether a file that somebody names is a video: by its name, or, where that does not tell, by what is in it."""
    if is_video(path) or Path(path).suffix.lower() in (".npz", ".npy") or not Path(path).is_file():
        return is_video(path)
    try:
        open_video(path)[0].close()
    except (DataError, ImportError):
        return False
    return True


def videos_of(folder: str | Path) -> dict[Path, str]:
    """The videos in a folder, in order of name, each with what it is called: ``class/video`` in a folder within it.

    Hidden files and folders are left out, such as macOS's ``._a.mp4`` beside ``a.mp4``.
    """
    found, seen = list[Path](), {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True):
        named = [name for name in folders if Path(name).suffix.lower() in VIDEO_SUFFIXES]  # to be said, as no video
        names += named
        real = {name: os.path.realpath(Path(place, name)) for name in {*folders} - {*named} if name[0] != "."}
        folders[:] = [name for name in sorted(real) if real[name] not in seen]  # links may lead back
        seen.update(real.values())
        found += (path for name in names if not name.startswith(".") and is_video(path := Path(place, name)))
    return {path: path.relative_to(folder).with_suffix("").as_posix() for path in sorted(found)}


def videos_in(places: Iterable[str | Path]) -> dict[Path, str]:
    """The videos in folders, see `videos_of`, and files as they are, whatever they hold; each with what it is called.

    Raises:
        DataError: if a place does not exist or a folder holds no video.
    """
    found: dict[Path, str] = {}
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place}: no such video or folder")
        inside = videos_of(place) if place.is_dir() else {place: place.stem}
        if not inside:
            raise DataError(f"{place}: holds no video; known are {', '.join(sorted(VIDEO_SUFFIXES))}")
        found |= {path: name for path, name in inside.items() if path not in found}
    return found


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
        notes: what was odd and was made the best of: a clock that starts again, pictures that change their size. Logged
            as warnings as well, as damage is.

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
        self._start_anew()

    def __iter__(self) -> Iterator[np.ndarray]:
        import_av()
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()
        self._start_anew()
        picture, given = None, 0
        for time, frame in self._timed_frames():
            if self.fps is None:
                yield self._picture(frame)
                continue
            early = min(self._period, 1 / self.fps) / 2
            # Until the first frame its own picture stands in, as a player's poster does.
            until = math.ceil((time - early) * self.fps - _ROUNDING)
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

    def _start_anew(self) -> None:
        self.duration, self.num_frames, self.damage, self.notes = 0.0, 0, "", list[str]()
        self._period, self._shape, self._changed = 0.0, None, False

    def _timed_frames(self) -> Iterator[tuple[float, Any]]:
        """Every decoded frame with its second, in order."""
        with self._playback() as playback:
            self._period = playback.period
            for time, frame, seconds in playback.frames():
                self.num_frames += 1
                self.duration = time + seconds
                yield max(time, 0.0), frame
            if not self.num_frames:
                self._empty()

    def _empty(self) -> None:
        raise DataError(f"{self.path}: not one frame could be decoded (truncated or damaged?)")

    def _playback(self) -> Playback:
        strict = not self.keep_damaged
        return Playback(self.path, threads=self.threads, strict=strict, damaged=self._damaged, noted=self._noted)

    def _damaged(self, what: str) -> None:
        message = f"damaged after {self.duration:.1f} s: {what}"
        if not self.keep_damaged:
            raise DataError(f"{self.path}: {message}; pass keep_damaged to use what can be decoded")
        if not self.damage:
            self.damage = message
            note(f"{self.path}: {message}; the rest is used")

    def _noted(self, what: str) -> None:
        self.notes.append(what)
        note(f"{self.path}: {what}")

    def _picture(self, frame: Any) -> np.ndarray:
        """``[H, W, 3]``: resized and turned the way a player shows it, all of the first one's shape."""
        shape = shape_of(frame)
        if self._shape is None:
            self._shape = shape
        elif shape != self._shape and not self._changed:
            self._changed = True
            was, now = (f"{width} x {height}" for height, width in (self._shape, shape))
            self._noted(f"after {self.duration:.1f} s pictures change from {was} to {now}; they are fitted into {was}")
        return picture_of(frame, self.size, self._scaler, self._shape)


def shape_of(frame: Any) -> tuple[int, int]:
    """Height and width of PyAV's frame, turned the way a player shows it."""
    return (frame.height, frame.width) if round(frame.rotation / 90) % 2 == 0 else (frame.width, frame.height)


def picture_of(
    frame: Any, size: int | tuple[int, int] | None, scaler: Any, shape: tuple[int, int] | None = None
) -> np.ndarray:
    """``[H, W, 3]`` of PyAV's frame: resized, as for `Video`, and turned the way a player shows it.

    Args:
        frame: the frame.
        size: as for `Video`.
        scaler: PyAV's `VideoReformatter`.
        shape: height and width of the pictures before resizing; one of another shape is fitted in, black around.
    """
    own = shape_of(frame)
    across, down = own if shape is None else shape
    height, width = _resized(across, down, size)
    shown = min(across / own[0], down / own[1])
    inner = max(round(height * own[0] * shown / across), 1), max(round(width * own[1] * shown / down), 1)
    turns = round(frame.rotation / 90) % 4
    scaled = scaler.reformat(frame, *inner[:: 1 if turns % 2 else -1], "rgb24", interpolation="BILINEAR")
    picture = np.rot90(scaled.to_ndarray(), turns)
    if inner == (height, width):
        return np.ascontiguousarray(picture)
    whole = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    whole[top : top + inner[0], left : left + inner[1]] = picture
    return whole


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
