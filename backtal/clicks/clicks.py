"""Clicks: single annotated moments; checked against a dataset, and simulated as annotators make them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtal.errors import DataError
from backtal.segments.segments import Segment

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, order=True)
class Click:
    """One click at `time` (seconds): on background, or on an action's frame with its label.

    `round` is the annotation round, the file's column ``Time``.
    """

    time: float
    label: str = BACKGROUND
    round: int = 1


@dataclass(frozen=True, slots=True)
class ClickTrack:
    """The clicks of one video, in order of time.

    Example:
        >>> track = ClickTrack("v1", (Click(7.5), Click(2.0)))
        >>> track.times()
        [2.0, 7.5]
    """

    video_id: str
    clicks: tuple[Click, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "clicks", tuple(sorted(self.clicks)))

    def __len__(self) -> int:
        return len(self.clicks)

    def times(self, label: str = BACKGROUND) -> list[float]:
        """Seconds of the clicks with this label."""
        return [click.time for click in self.clicks if click.label == label]


def check_clicks(tracks: Mapping[str, ClickTrack], durations: Mapping[str, float], labels: Sequence[str]) -> None:
    """Raise DataError where a click cannot belong to the dataset.

    Args:
        tracks: clicks by video.
        durations: seconds of every video of the dataset.
        labels: the dataset's labels.
    """
    known = {*labels, BACKGROUND}
    for video, track in tracks.items():
        if video not in durations:
            raise DataError(f"clicks on video {video}, which is not in the dataset")
        for click in track.clicks:
            if click.label not in known:
                raise DataError(f"video {video}: click at {click.time} s has the unknown label {click.label!r}")
            if not 0 <= click.time <= durations[video]:
                raise DataError(f"video {video}: click at {click.time} s, but the video lasts {durations[video]} s")


def background_stretches(segments: Iterable[Segment], duration: float) -> list[tuple[float, float]]:
    """The stretches of a video that no segment covers, in seconds.

    Example:
        >>> background_stretches([Segment(2, 4, "jump"), Segment(3, 5, "run")], duration=9)
        [(0.0, 2), (5, 9)]
    """
    stretches, reached = [], 0.0
    for segment in sorted(segments, key=lambda s: s.start):
        if segment.start > reached:
            stretches.append((reached, segment.start))
        reached = max(reached, segment.end)
    if reached < duration:
        stretches.append((reached, duration))
    return stretches


def simulate_clicks(
    video_id: str,
    segments: Iterable[Segment],
    duration: float,
    rng: np.random.Generator,
    *,
    frame_rate: float = 2.0,
    shortest_gap: float = 0.0,
    missed: float = 0.0,
    wrong: float = 0.0,
) -> ClickTrack:
    """Click as the paper's annotators did: one uniformly drawn frame in every background stretch.

    Frames are shown `frame_rate` times per second, so clicks lie on that grid; a stretch that holds
    no shown frame is missed.

    Args:
        video_id: the video.
        segments: its actions.
        duration: seconds.
        rng: where chance comes from; one for all videos makes the whole file repeatable.
        frame_rate: frames shown per second.
        shortest_gap: seconds; shorter background stretches go unnoticed.
        missed: the probability that a click is not made.
        wrong: the probability that a click lands on a shown frame of an action of the video.

    Example:
        >>> jumps = [Segment(2, 4, "jump"), Segment(4.6, 6, "jump")]
        >>> clicked = simulate_clicks("v", jumps, 9.0, np.random.default_rng(0), shortest_gap=1.0)
        >>> clicked.times()
        [1.5, 7.5]
    """
    segments, clicks = list(segments), []
    for start, end in background_stretches(segments, duration):
        if end - start >= shortest_gap and (moment := random_frame(start, end, rng, frame_rate)) is not None:
            clicks.append(Click(moment))
    track = ClickTrack(video_id, tuple(clicks))
    if missed or wrong:
        track = damage_clicks(track, segments, rng, drop=missed, wrong=wrong, frame_rate=frame_rate)
    return track


def simulate_action_clicks(
    video_id: str, segments: Iterable[Segment], rng: np.random.Generator, *, frame_rate: float | None = None
) -> ClickTrack:
    """Click as SF-Net's annotators did: one uniformly drawn moment in every action, with its label.

    With a `frame_rate`, the moment is one of the frames shown; an action that holds none is missed.
    """
    clicks = (Click(_moment(s, rng, frame_rate), s.label) for s in _visible(segments, frame_rate))
    return ClickTrack(video_id, tuple(clicks))


def damage_clicks(
    track: ClickTrack,
    segments: Iterable[Segment],
    rng: np.random.Generator,
    *,
    drop: float = 0.0,
    wrong: float = 0.0,
    frame_rate: float | None = None,
) -> ClickTrack:
    """Leave clicks out and move others into an action, each with the given probability.

    Args:
        track: the clicks of a video.
        segments: its actions; without any, no click is moved.
        rng: where chance comes from.
        drop: the probability that a click is left out.
        wrong: the probability that a click that is left moves to a random moment of a random action.
        frame_rate: moves to frames shown at this rate only; None to any moment.

    Example:
        >>> track = ClickTrack("v", (Click(1.0), Click(8.0)))
        >>> damage_clicks(track, [Segment(3, 5, "jump")], np.random.default_rng(0), wrong=1.0, frame_rate=2).times()
        [3.0, 3.0]
    """
    actions = _visible(segments, frame_rate)
    clicks = [click for click in track.clicks if rng.random() >= drop]
    for index, click in enumerate(clicks):
        if rng.random() < wrong and actions:
            moment = _moment(actions[rng.integers(len(actions))], rng, frame_rate)
            clicks[index] = Click(moment, click.label, click.round)
    return ClickTrack(track.video_id, tuple(clicks))


def _shown(start: float, end: float, frame_rate: float) -> range:
    """The frames shown within ``[start, end)``, frame k at ``k / frame_rate`` seconds."""
    return range(math.ceil(start * frame_rate), math.ceil(end * frame_rate))


def _visible(segments: Iterable[Segment], frame_rate: float | None) -> list[Segment]:
    """The segments that hold a shown frame; all of them where any moment will do."""
    return [s for s in segments if frame_rate is None or _shown(s.start, s.end, frame_rate)]


def random_frame(start: float, end: float, rng: np.random.Generator, frame_rate: float) -> float | None:
    """The second of one of the frames shown within ``[start, end)``; None where none is."""
    shown = _shown(start, end, frame_rate)
    return float(rng.integers(shown.start, shown.stop)) / frame_rate if shown else None


def _moment(segment: Segment, rng: np.random.Generator, frame_rate: float | None) -> float:
    """A moment of a segment; with a `frame_rate`, a frame shown, of which it holds one."""
    found = None if frame_rate is None else random_frame(segment.start, segment.end, rng, frame_rate)
    return float(rng.uniform(segment.start, segment.end)) if found is None else found
