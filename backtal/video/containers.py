"""Video files as they lie on the disk: opening them, and what a file is that FFmpeg cannot open."""

import errno
import math
import mmap
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from backtal.errors import DataError, install

# What files begin with that are called like a video and are none.
_BEGINNINGS = (
    (rb"\s*<(!doctype html|html|head|body)", "a web page, so the download went wrong; fetch it again"),
    (rb"\s*<\?xml", "an XML file (an error message of the server?); fetch it again"),
    (rb"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` fetches the video"),
    (rb"\x00{4096}", "its beginning is zeros (a download that reserved the space and broke off?); fetch it again"),
)
_FIRST_BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF_FILE, _OGG_PAGE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), 65_307
_FLV = re.compile(rb"FLV\x01[\x00\x01\x04\x05]\x00\x00\x00\x09")


def open_video(path: str | Path, *, threads: int = 0) -> tuple[Any, Any, float]:
    """Open a file: PyAV's container, the stream of its pictures, and the timestamp at which a player starts it.

    Raises:
        DataError: if the file cannot be read or holds no video.
        ImportError: if PyAV is not installed.
    """
    import_av()
    container = _opened(path)
    if container.format.name == "image2" or container.format.name.endswith("_pipe"):
        # Pictures one after the other, as some cameras send them, are a video.
        alone = len(list(islice((packet for packet in container.demux() if packet.size), 2))) < 2
        container.close()
        if alone:
            many = "many become one with: ffmpeg -framerate 25 -i %05d.jpg video.mp4"
            raise DataError(f"{path}: a picture, not a video; {many}")
        container = _opened(path)
    stream = next((s for s in container.streams.video if not _is_cover(s)), None)
    if stream is None and (not container.streams or _unfinished_mp4(Path(path))):
        container.close()
        raise DataError(f"{path}: cannot be opened as a video: {_what_it_is(Path(path))}")
    if stream is None or container.format.name == "tty":
        kinds = sorted({"a cover picture" if s.type == "video" else s.type for s in container.streams})
        container.close()
        raise DataError(f"{path}: holds no video, only {' and '.join(kinds if stream is None else ['text'])}")
    return _ready(container, stream, threads)


def pictures_of(container: Any, name: str) -> tuple[Any, Any, float]:
    """As `open_video`, of a container that is open already and may go on for ever.

    Raises:
        DataError: if it holds no video; the message begins with `name`.
    """
    stream = next((s for s in container.streams.video if not _is_cover(s)), None)
    if stream is None:
        kinds = sorted({s.type for s in container.streams} - {"video"})
        container.close()
        raise DataError(f"{name}: holds no video{', only ' + ' and '.join(kinds) if kinds else ''}")
    return _ready(container, stream, 1)


def _ready(container: Any, stream: Any, threads: int) -> tuple[Any, Any, float]:
    import av

    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    return container, stream, container.start_time / av.time_base if container.start_time is not None else 0.0


def _opened(path: str | Path) -> Any:
    import av
    from av.error import FFmpegError, InvalidDataError

    try:
        return av.open(str(path), mode="r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such video") from None
    except (FFmpegError, UnicodeError, OSError) as failure:
        reason = reason_of(failure)
        if Path(path).is_dir():
            reason = "a folder"
        elif isinstance(failure, InvalidDataError | EOFError) or getattr(failure, "errno", 0) == errno.EIO:
            reason = _what_it_is(Path(path))
        raise DataError(f"{path}: cannot be opened as a video: {reason}") from None


def import_av() -> None:
    """Raise a clear ImportError where PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise ImportError(f"reading video needs PyAV: {install('video')}") from None


def frame_period(stream: Any) -> float:
    """Seconds from one frame to the next, as far as the file says."""
    return 1 / float(stream.guessed_rate or stream.average_rate or 25)


def announced_end(container: Any, stream: Any, start: float) -> float | None:
    """The second at which the file says that its pictures end, where it says so."""
    if stream.duration and stream.time_base:
        begin = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - start
        return max(begin, 0.0) + float(stream.duration * stream.time_base)
    if clock := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, clock.groups())
        return hours * 3600 + minutes * 60 + seconds - max(start, 0.0)
    only_pictures = len(container.streams) == 1 and container.duration
    return container.duration / 1_000_000 if only_pictures and math.isfinite(container.duration) else None


def clock_may_restart(container: Any) -> bool:
    """Whether timestamps of this format may start again in the middle, as MPEG's do."""
    from av.format import Flags

    return bool(container.format.flags & Flags.ts_discont.value)


class Layout(NamedTuple):
    """What the layout of a file tells of its end.

    Attributes:
        last: the byte at which the last recording begins, where several were joined; FFmpeg may not read it.
        cut: whether the file ends in the middle of something.
    """

    last: int | None
    cut: bool


def layout_of(path: Path, form: str) -> Layout:
    """Look at how a file is laid out, without reading what is in it.

    Args:
        path: the file.
        form: FFmpeg's name of its format.
    """
    if form.startswith("mov"):
        indexes = [offset for kind, offset, _ in _boxes(path) if kind == b"moov"]
        return Layout(indexes[-1] if len(indexes) > 1 else None, False)
    if form.startswith("matroska"):
        return _layout_of_matroska(path)
    if form == "mpegts":
        return Layout(None, _ends_within_packet(path))
    if form == "asf":
        with path.open("rb") as file:
            header = file.read(8192)
        place = header.find(_ASF_FILE)
        size = int.from_bytes(header[place + 40 : place + 48], "little") if place >= 0 else 0
        return Layout(None, size > path.stat().st_size)
    if form == "ogg":
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _OGG_PAGE, 0))
            end = file.read()
        page = end.rfind(b"OggS")
        return Layout(None, page < 0 or not end[page + 5 : page + 6] or not end[page + 5] & 4)
    if form == "avi":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8)[4:], "little")
            offset = file.seek(8 + length + length % 2)
            header = file.read(12)
        return Layout(offset if header[:4] == b"RIFF" and header[8:] == b"AVI " else None, offset > path.stat().st_size)
    if form == "flv":
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = [match.start() for match in _FLV.finditer(content, 9)]
        return Layout(found[-1] if found else None, False)
    return Layout(None, False)


def reason_of(failure: Exception) -> str:
    """FFmpeg's words for what went wrong, where these are understood."""
    from av.error import ExitError

    if isinstance(failure, ExitError):
        return "nothing came in time"
    return getattr(failure, "strerror", None) or str(failure)


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of a piece of music."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _what_it_is(path: Path) -> str:
    """What a file is in which FFmpeg finds nothing."""
    with path.open("rb") as file:
        beginning = file.read(4096)
    if not beginning:
        return "an empty file"
    for pattern, what in _BEGINNINGS:
        if re.match(pattern, beginning, re.IGNORECASE):
            return what
    if unfinished := _unfinished_mp4(path):
        return unfinished
    if beginning.startswith(_EBML) or beginning[:4] == b"RIFF":
        return "the file is not complete: it is cut off right after its beginning"
    return "not a video, or its beginning is damaged"


def _unfinished_mp4(path: Path) -> str:
    """What an MP4 lacks, if that is its index or a part of it."""
    boxes = list(_boxes(path))
    if not boxes or boxes[0][0] not in _FIRST_BOXES:
        return ""
    broke_off = "the recording or download broke off; fetch it again"
    index = next((end for kind, _, end in boxes if kind == b"moov"), None)
    if index is None:
        return f"the file is not complete: its end, with the index (moov), is missing; {broke_off}"
    if index > path.stat().st_size:
        return f"the file is not complete: it is cut off within its index (moov); {broke_off}"
    return ""


def index_comes_last(path: Path) -> bool:
    """Whether a file is an MP4 whose pictures come before its index, which is written when they are complete."""
    kinds = [kind for kind, _, _ in _boxes(path)]
    return bool(kinds) and kinds[0] in _FIRST_BOXES and b"moov" not in kinds[: [*kinds, b"mdat"].index(b"mdat")]


def _boxes(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes of an MP4: kind, first byte, and the byte after the last, which may be beyond the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while offset + 8 <= size:
            file.seek(offset)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:], "big")
            elif length == 0:
                length = size - offset
            if length < 8:
                return
            yield kind, offset, offset + length
            offset += length


def _layout_of_matroska(path: Path) -> Layout:
    """Go from element to element; of those whose length is not known, as in live recordings, to what they hold."""
    size, offset, last = path.stat().st_size, 0, None
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            header = file.read(16)
            kind = 9 - header[0].bit_length()
            if kind > 4 or len(header) <= kind:
                break
            width = 9 - header[kind].bit_length()
            length = int.from_bytes(header[kind : kind + width], "big") - (1 << 7 * width)
            if header[:4] == _EBML and offset:
                last = offset
            offset += kind + width
            if header[:4] != _SEGMENT and length != (1 << 7 * width) - 1:
                offset += length
    return Layout(last, offset > size)


def _ends_within_packet(path: Path) -> bool:
    """Whether a transport stream ends in the middle of a packet of 188 bytes (192 and 204 with what cameras add)."""
    with path.open("rb") as file:
        beginning = file.read(4096)
    for length in (188, 192, 204):
        for first in range(length):
            if (syncs := beginning[first::length]) and set(syncs) == {0x47}:
                return (path.stat().st_size - first + (4 if length == 192 else 0)) % length != 0
    return False
