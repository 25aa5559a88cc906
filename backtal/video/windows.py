"""From frames to the windows that an extractor looks at, with optical flow where it wants that."""

from collections.abc import Iterator, Sequence

import numpy as np

from backtal.video.decode import Video, centre_crop
from backtal.video.extractors import Extractor

# Frames whose flow is computed in one call.
_FLOW_CHUNK = 16

Window = tuple[np.ndarray, ...]


def windows(video: Video, extractor: Extractor) -> Iterator[Window]:
    """The windows of a video: RGB ``[window, H, W, 3]`` (uint8); where wanted, flow ``[window, H, W, 2]`` (float16).

    A last window that adds less than half a stride of new frames is left out; otherwise, and where the whole video is
    shorter than one window, the last frame is repeated to fill it.
    """
    window, stride = int(extractor.spec.window or 1), int(extractor.spec.stride or 1)
    held: list[Window] = []
    skip, fresh, given = 0, 0, 0
    for frame in _frames(video, extractor):
        fresh += 1
        if skip:
            skip -= 1
            continue
        held.append(frame)
        if len(held) == window:
            yield stack(held)
            held, skip, fresh, given = held[stride:], max(0, stride - window), 0, given + 1
    if held and (not given or 2 * fresh >= stride):
        yield stack(held + [held[-1]] * (window - len(held)))


def stack(frames: Sequence[Window]) -> Window:
    """Stack what each frame consists of."""
    return tuple(np.stack(parts) for parts in zip(*frames, strict=True))


def _frames(video: Video, extractor: Extractor) -> Iterator[Window]:
    """The cropped frames of a video, each with the flow to the next; the last with the flow before it."""

    def crop(picture: np.ndarray) -> np.ndarray:
        return picture if extractor.crop is None else centre_crop(picture, extractor.crop)

    if extractor.flow is None:
        yield from ((crop(frame),) for frame in video)
        return
    held: list[np.ndarray] = []
    moved = None
    for frame in video:
        held.append(frame)
        if len(held) > _FLOW_CHUNK:
            moved = extractor.flow(np.stack(held)).astype(np.float16)
            yield from ((crop(a), crop(b)) for a, b in zip(held, moved, strict=False))
            held = held[-1:]
    if len(held) > 1:
        moved = extractor.flow(np.stack(held)).astype(np.float16)
        yield from ((crop(a), crop(b)) for a, b in zip(held, moved, strict=False))
    if held:
        last = np.zeros((*held[-1].shape[:2], 2), np.float16) if moved is None else moved[-1]
        yield crop(held[-1]), crop(last)
