"""Videos made on the spot: each picture carries its own second, so that a test knows what it must see when."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICKS = 90_000


def times_at(fps: float, seconds: float) -> list[float]:
    """Presentation times of a constant frame rate."""
    return [index / fps for index in range(round(seconds * fps))]


def write_video(
    path: Path,
    times: list[float],
    picture,
    *,
    size: tuple[int, int] = (64, 96),
    codec: str = "libx264",
    b_frames: int = 0,
    rotation: int = 0,
    sound: float = 0.0,
    rate: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write `picture(t)` ``[H, W, 3]`` for every time; `sound` seconds of silence from time 0.

    Times are kept to 1/90000 s; with `rate`, for codecs and containers that know no others, to frames at that rate.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        bf = {"bf": str(b_frames)} if codec in ("libx264", "mpeg4", "mpeg2video") else {}
        stream = container.add_stream(codec, rate=rate or 30, options=bf)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if size[0] % 2 == 0 and size[1] % 2 == 0 else "yuv444p"
        if codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        base = Fraction(1, rate or (1000 if codec == "mpeg4" else TICKS))
        stream.time_base = stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        voice = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        if voice:
            for index in range(round(sound * 8000 / 1024)):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 8000, index * 1024, Fraction(1, 8000)
                container.mux(voice.encode(frame))
        gaps = [*np.diff(times), 1 / 30 if len(times) < 2 else times[-1] - times[-2]]
        for time, gap in zip(times, gaps, strict=True):
            frame = av.VideoFrame.from_ndarray(picture(time), format="rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            frame.duration = round(gap * TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice:
            container.mux(voice.encode())
    return path


def write_changing(path: Path, sizes: tuple[tuple[int, int], ...], *, flash: tuple[float, float]) -> Path:
    """Write 5 s of grey pictures of each size in one stream on one clock at 25 a second, white in the `flash`."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = sizes[0]
        stream.pix_fmt = "yuv420p"
        for place, (height, width) in enumerate(sizes):
            encoder = stream.codec_context
            if place:
                encoder = av.CodecContext.create("libx264", "w")
                encoder.height, encoder.width, encoder.pix_fmt = height, width, "yuv420p"
                encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
            packets = []
            for index in range(125 * place, 125 * (place + 1)):
                value = 235 if flash[0] <= index / 25 < flash[1] else 60
                frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), value, np.uint8), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                packets += encoder.encode(frame)
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream = stream
                container.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """Write two seconds of silence and no picture."""
    with av.open(str(path), "w") as container:
        voice = container.add_stream("aac", rate=8000, layout="mono")
        for index in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, index * 1024
            container.mux(voice.encode(frame))
        container.mux(voice.encode())
    return path


def flash(at: float, length: float = 0.2, size: tuple[int, int] = (64, 96)):
    """A dark picture that is white from second `at` on, for `length` seconds."""

    def picture(time: float) -> np.ndarray:
        return np.full((*size, 3), 250 if at <= time + 1e-6 < at + length else 20, np.uint8)

    return picture


def noisy_flash(at: float, length: float = 0.2, size: tuple[int, int] = (64, 96)):
    """As `flash`, over noise that never repeats, so that a file holds about as many bytes in every second."""

    def picture(time: float) -> np.ndarray:
        noise = np.random.default_rng(round(time * 1000)).integers(0, 90, (*size, 3), dtype=np.uint8)
        return noise + np.uint8(160 if at <= time + 1e-6 < at + length else 0)

    return picture


def moving_bar(time: float, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """A bar whose place tells the second, over noise that never repeats."""
    rng = np.random.default_rng(round(time * 1000))
    image = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
    left = int(time * 10) % (size[1] - 8)
    image[:, left : left + 8] = 240
    return image
