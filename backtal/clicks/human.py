"""Clicks with the slips of people, at the rates of the paper's annotators."""

import bisect
from collections.abc import Iterable

import numpy as np

from backtal.clicks.clicks import Click, ClickTrack, background_stretches, random_frame
from backtal.segments.segments import Segment

# Counted in the three click files of THUMOS14 together (6,931 clicks, 8,638 stretches of background) by
# `python benchmarks/human_clicks.py THUMOS14`. The annotators differ: 7.7, 2.2 and 7.5 % of their clicks lie inside
# actions, and 23.4, 13.2 and 15.8 % of their pairs of consecutive clicks have no action between them.
LENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds; a stretch is in the group of those it is not shorter than
MISSED = (945 / 1000, 617 / 927, 380 / 1143, 334 / 1758, 145 / 1497, 123 / 2313)
SEVERAL = (0.0, 0.0, 0.0, 2 / 1758, 27 / 1497, 245 / 2313)
ONE_MORE = 161 / 435  # after a second click in a stretch; the most were 26
INSIDE = 297 / 6931  # another 105 lie exactly on a start or end
INSIDE_TENTHS = np.array([15, 15, 18, 8, 9, 9, 12, 14, 55, 142]) / 297  # of the action, its start first


def simulate_human_clicks(
    video_id: str,
    segments: Iterable[Segment],
    duration: float,
    rng: np.random.Generator,
    *,
    frame_rate: float = 2.0,
) -> ClickTrack:
    """Click as the three annotators of THUMOS14 did: with stretches missed, clicked twice, and clicks inside actions.

    Short stretches are missed more often (`MISSED`), long ones clicked twice or more (`SEVERAL`), by `LENGTHS`. A click
    inside an action (`INSIDE` of all) is mostly in its last tenth: the annotator took it for over.

    Args:
        video_id: the video.
        segments: its actions.
        duration: seconds.
        rng: where chance comes from; one for all videos makes the whole file repeatable.
        frame_rate: frames shown per second, on which clicks outside actions lie where a stretch holds one.

    Example:
        >>> jumps = [Segment(10 * k, 10 * k + 5, "jump") for k in range(100)]
        >>> len(simulate_human_clicks("v", jumps, 1000.0, np.random.default_rng(0)))
        92
    """
    segments = sorted(segments, key=lambda s: s.start)
    clicks: list[Click] = []
    for start, end in background_stretches(segments, duration):
        group = bisect.bisect_right(LENGTHS, end - start)
        # A click that goes astray leaves its stretch without one, and is among those counted as missed.
        if rng.random() >= (1 - MISSED[group]) / (1 - INSIDE):
            continue
        several = rng.random() < SEVERAL[group]
        for _ in range(1 + (rng.geometric(1 - ONE_MORE) if several else 0)):
            astray = rng.random() < INSIDE
            moment = _inside(segments, start, end, rng) if astray else None
            clicks.append(Click(_outside(start, end, rng, frame_rate) if moment is None else moment))
    return ClickTrack(video_id, tuple(clicks))


def _outside(start: float, end: float, rng: np.random.Generator, frame_rate: float) -> float:
    moment = random_frame(start, end, rng, frame_rate)
    return float(rng.uniform(start, end)) if moment is None else moment


def _inside(segments: list[Segment], start: float, end: float, rng: np.random.Generator) -> float | None:
    """A moment of the action before a stretch, by its end, or of the one after it, by its start; None without any."""
    share = (rng.choice(10, p=INSIDE_TENTHS) + rng.random()) / 10
    touching = [s for s in segments if (s.end == start if share >= 0.5 else s.start == end)]
    if not touching:
        return None
    action = touching[0]
    return action.start + share * (action.end - action.start)
