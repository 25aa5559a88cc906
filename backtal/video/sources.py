"""Opening what goes on: cameras, addresses, pipes, files that are still being written."""

import io
import queue
import re
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backtal.errors import DataError
from backtal.video.containers import index_comes_last, pictures_of, reason_of

_PROBE = {"analyzeduration": "1000000", "probesize": "1000000"}  # microseconds and bytes looked at before it begins
_DEVICES = {"linux": "video4linux2", "darwin": "avfoundation", "win32": "dshow"}
_SEGMENTS = 3  # times the patience: a playlist has a new segment only so often


def is_device(source: str) -> bool:
    """Whether a source is a camera."""
    return source.isdigit() or bool(re.fullmatch(r"/dev/video\d+", source))


def is_playlist(source: str) -> bool:
    """Whether a source is the address of an HLS playlist."""
    return "://" in source and urlsplit(source).path.lower().endswith((".m3u8", ".m3u"))


def open_source(source: str, patience: float, stop: threading.Event) -> tuple[Any, Any, float] | None:
    """PyAV's container, the stream of its pictures, and its first timestamp; None where `stop` was set before.

    Raises:
        DataError: if it cannot be opened or holds no video.
    """
    found: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        try:
            found.put(_opened(source, patience, stop))
        except BaseException as failure:
            found.put(failure)

    # In a thread of its own: a camera or a pipe that sends nothing would hold up Ctrl-C.
    threading.Thread(target=work, daemon=True).start()
    while not stop.is_set():
        try:
            opened = found.get(timeout=0.1)
        except queue.Empty:
            continue
        if isinstance(opened, BaseException):
            raise opened
        return opened
    return None


def _opened(source: str, patience: float, stop: threading.Event) -> tuple[Any, Any, float]:
    import av
    from av.error import FFmpegError

    try:
        if source == "-":
            container = av.open(_Pipe(), mode="r", options=_PROBE)
        elif is_device(source):
            place = f"/dev/video{source}" if source.isdigit() and sys.platform == "linux" else source
            container = av.open(place, mode="r", format=_DEVICES.get(sys.platform))
        elif "://" in source:
            options = _PROBE | ({"rtsp_transport": "tcp"} if source.startswith("rtsp") else {})
            patience *= _SEGMENTS if is_playlist(source) else 1
            container = av.open(source, mode="r", options=options, timeout=(patience, patience))
        else:
            container = av.open(_file(Path(source), patience, stop), mode="r")
    except FileNotFoundError:
        raise DataError(f"{source}: no such {_cameras() if is_device(source) else 'file or address'}") from None
    except (FFmpegError, OSError, UnicodeError, ValueError) as failure:
        raise DataError(f"{source}: cannot be opened as a stream of video: {reason_of(failure)}") from None
    return pictures_of(container, source)


def _cameras() -> str:
    there = ", ".join(sorted(map(str, Path("/dev").glob("video*"))))
    return f"camera; there {'are ' + there if there else 'is none'}"


def _file(path: Path, patience: float, stop: threading.Event) -> "str | GrowingFile":
    """What to read a file through: one whose index comes last can be read only when it is complete."""
    while not (complete := time.time() - path.stat().st_mtime > patience) and index_comes_last(path):
        if stop.wait(0.2):
            break
    return str(path) if complete else GrowingFile(path, patience, stop)


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


class _Pipe:
    """Standard input as FFmpeg reads it: what is there, without waiting until a buffer is full."""

    name = "-"

    def __init__(self) -> None:
        # Not sys.stdin: its lock, held by a thread that still reads, aborts the interpreter's end.
        self._file = io.FileIO(0, closefd=False)

    def read(self, count: int) -> bytes:
        return self._file.read(count)
