"""Clips of a stream without encoding anew: the last packets are kept, and those of a clip are written as they came."""

import io
import threading
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from backtal.errors import DataError
from backtal.files import atomic_path

_MOST_BYTES = 256 << 20


class Kept(NamedTuple):
    """A packet as it came: its second, whether a decoder can begin with it, its timestamps and its bytes."""

    second: float
    is_key: bool
    pts: int | None
    dts: int | None
    duration: int | None
    content: bytes


class Ring:
    """The packets of the last seconds of a connection, as long as `seconds`, in at most 256 MB.

    A thread may add while another one reads.

    Args:
        seconds: to keep.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._groups, self._bytes, self._template, self._latest = deque[list[Kept]](), 0, None, 0.0

    def clear(self) -> None:
        """Forget all: another connection begins."""
        with self._lock:
            self._forget()

    def take(self, packet: Any, second: float | None) -> None:
        """Keep a packet; `second` in the connection, None where it does not say."""
        with self._lock:
            if self._template is None:
                self._template = _described(packet.stream)
            second = self._latest if second is None else second
            self._latest = max(self._latest, second)
            kept = Kept(second, packet.is_keyframe, packet.pts, packet.dts, packet.duration, bytes(packet))
            if kept.is_key:
                self._groups.append([])
            if self._groups:  # without a key frame before it, nothing can be decoded
                self._groups[-1].append(kept)
                self._bytes += len(kept.content)
            while self._groups and self._first_goes():
                self._bytes -= sum(len(one.content) for one in self._groups.popleft())

    def _first_goes(self) -> bool:
        old = len(self._groups) > 1 and self._groups[1][0].second <= self._latest - self.seconds
        return old or self._bytes > _MOST_BYTES

    def write(self, path: str | Path, start: float, end: float) -> float | None:
        """Write the packets from a key frame at `start` or before to `end`, as Matroska; the file appears whole or not.

        Returns:
            The second at which the clip begins; None where there was nothing to write.

        Raises:
            OSError: if the disk is full or the folder cannot be written.
            DataError: if the codec does not fit into Matroska.
        """
        with self._lock:
            groups, template = [list(group) for group in self._groups], self._template
        later = [group[0].second > start for group in groups]
        first = max(later.index(True) - 1 if True in later else len(groups) - 1, 0)
        chosen = [one for group in groups[first:] for one in group if one.second < end]
        if not chosen or template is None:
            return None
        content = _muxed(template, chosen)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        return chosen[0].second


def _described(stream: Any) -> Any:
    """The container that holds it, a stream of the same codec, which outlives its own container, and the timebase."""
    import av

    holder = av.open(io.BytesIO(), "w", format="matroska")
    return holder, _alike(holder, stream), stream.time_base


def _alike(container: Any, stream: Any) -> Any:
    """A stream of the same codec in a container to write."""
    made = container.add_stream_from_template(stream)
    if stream.codec_context.name == "rawvideo":  # of a camera: the tag alone says what its bytes are
        made.codec_context.codec_tag = stream.codec_context.codec_tag
    return made


def _muxed(template: Any, packets: list[Kept]) -> bytes:
    import av
    from av.error import FFmpegError

    target = io.BytesIO()
    _, stream, base = template
    first = min(stamp for one in packets for stamp in (one.pts, one.dts) if stamp is not None)
    try:
        with av.open(target, "w", format="matroska") as container:
            out = _alike(container, stream)
            for one in packets:
                packet = av.Packet(one.content)
                packet.stream, packet.time_base, packet.is_keyframe = out, base, one.is_key
                packet.pts = None if one.pts is None else one.pts - first
                packet.dts = None if one.dts is None else one.dts - first
                if one.duration:
                    packet.duration = one.duration
                container.mux(packet)
    except (FFmpegError, ValueError) as failure:
        raise DataError(f"the stream cannot be kept as Matroska: {failure}") from None
    return target.getvalue()
