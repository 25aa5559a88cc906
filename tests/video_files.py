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
    options: dict[str, str] | None = None,
) -> Path:
    """Write `picture(t)` ``[H, W, 3]`` for every time; `sound` seconds of silence from time 0."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=30, options={"bf": str(b_frames)} if "264" in codec else {})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if size[0] % 2 == 0 and size[1] % 2 == 0 else "yuv444p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS if codec != "mpeg4" else 1000)
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


def moving_bar(time: float, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """A bar whose place tells the second, over noise that never repeats."""
    rng = np.random.default_rng(round(time * 1000))
    image = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
    left = int(time * 10) % (size[1] - 8)
    image[:, left : left + 8] = 240
    return image
