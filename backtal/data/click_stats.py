"""Statistics of clicks: where they lie in their background stretches (Fig. 7), errors, misses, agreement."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np

from backtal.clicks.clicks import BACKGROUND, Click, ClickTrack, background_stretches
from backtal.data.annotations import Video

BINS = 10
_LENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0)
_MERGED_GAP = 1.0
_GRID = 2.0

Tracks = Mapping[str, ClickTrack]
Videos = Mapping[str, Video]


@dataclass(frozen=True)
class ClickCount:
    """Counts of one click file.

    `judged` are the background clicks of videos of which start and end of the actions are known, `inside` those of them
    within an action, `on_edge` those exactly on an end.
    """

    file: str
    videos: int
    clicks: int
    background: int
    judged: int
    inside: int
    on_edge: int

    @property
    def inside_share(self) -> float:
        """The share of the judged clicks that lie within an action."""
        return self.inside / self.judged if self.judged else 0.0

    def __str__(self) -> str:
        text = f"clicks {self.file}: {self.clicks} in {self.videos} videos"
        if self.background < self.clicks:
            text += f", {self.clicks - self.background} of them on actions"
        if self.judged:
            text += f"; {self.inside} background clicks ({100 * self.inside_share:.1f} %) lie inside an action"
            text += f", {self.on_edge} of these exactly on its start or end" if self.on_edge else ""
        return text


class Inside(NamedTuple):
    """A background click within an action: video, click, the action's label, whether only exactly on an end."""

    video_id: str
    click: Click
    label: str
    on_edge: bool


def clicks_inside_actions(tracks: Tracks, videos: Videos) -> Iterator[Inside]:
    """Background clicks within an annotated action, both its ends included."""
    for name, track in tracks.items():
        for click in track.clicks if name in videos else ():
            hit = [s for s in videos[name].ground_truth if s.start <= click.time <= s.end]
            if click.label == BACKGROUND and hit:
                yield Inside(name, click, hit[0].label, all(click.time in (s.start, s.end) for s in hit))


def count_clicks(file: str, tracks: Tracks, videos: Videos) -> ClickCount:
    """Count the clicks of a file, and those inside actions."""
    clicks = [click for track in tracks.values() for click in track.clicks]
    inside = list(clicks_inside_actions(tracks, videos))
    background = {name: sum(c.label == BACKGROUND for c in track.clicks) for name, track in tracks.items()}
    judged = sum(count for name, count in background.items() if name in videos and videos[name].located)
    edge = sum(hit.on_edge for hit in inside)
    return ClickCount(file, len(tracks), len(clicks), sum(background.values()), judged, len(inside), edge)


class Stretches(NamedTuple):
    """Background stretches of similar length: how many, how many without a click, how many with several."""

    name: str
    number: int
    missed: int
    several: int


@dataclass(frozen=True)
class ClickStats:
    """What one annotator's clicks look like. Shares are of 1.

    Attributes:
        count: clicks, and those inside actions.
        minutes: how long the clicked videos are together; 0 where no annotation says so.
        off_grid: clicks that are not a multiple of half a second, the paper's two frames per second.
        located: clicked videos of which start and end of the actions are known; all that follows is about these.
        positions: where background clicks outside actions lie in their stretches, 0 at the start, 1 at the end; rising.
        stretches: the background stretches by their length in seconds.
        runs_between: between how many pairs of consecutive clicks lie no, one, and more runs of actions. Instances at
            most a second apart are one run, and it lies where its middle is.
    """

    count: ClickCount
    minutes: float
    off_grid: int
    located: int
    positions: np.ndarray
    stretches: tuple[Stretches, ...]
    runs_between: tuple[int, int, int]

    @property
    def per_minute(self) -> float:
        """Clicks in a minute of video."""
        return self.count.clicks / self.minutes if self.minutes else math.nan

    @property
    def histogram(self) -> np.ndarray:
        """The share of the positions in each of `BINS` equal parts of the stretch, as the paper's Fig. 7."""
        return np.histogram(self.positions, BINS, (0, 1))[0] / max(len(self.positions), 1)

    @property
    def total(self) -> Stretches:
        """All background stretches together."""
        return Stretches("all", *(sum(column) for column in zip(*(s[1:] for s in self.stretches), strict=True)))

    @cached_property
    def uniformity(self) -> tuple[float, float]:
        """Kolmogorov-Smirnov's distance of the positions from a uniform distribution, and its p-value.

        A small p-value speaks against a uniform distribution.
        """
        return kolmogorov_smirnov(self.positions)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        distance, p_value = self.uniformity
        return {
            **asdict(self.count),
            "minutes": self.minutes,
            "off_grid": self.off_grid,
            "located": self.located,
            "positions": self.positions.tolist(),
            "position_histogram": self.histogram.tolist(),
            "ks_distance": distance if len(self.positions) else None,
            "ks_p_value": p_value if len(self.positions) else None,
            "stretches": [s._asdict() for s in self.stretches],
            "runs_between": dict(zip(("none", "one", "more"), self.runs_between, strict=True)),
        }


@dataclass(frozen=True)
class Agreement:
    """How far two annotators agree on which background stretches to click, on the videos that both clicked.

    Attributes:
        first: an annotator.
        second: another.
        both: stretches that both clicked.
        only_first: stretches that only the first clicked.
        only_second: stretches that only the second clicked.
        neither: stretches that none of them clicked.
    """

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def stretches(self) -> int:
        """All stretches of the videos that both clicked."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def kappa(self) -> float:
        """Cohen's kappa: 1 where they always agree, 0 where not more often than by chance."""
        total = max(self.stretches, 1)
        observed = (self.both + self.neither) / total
        clicked = [(self.both + only) / total for only in (self.only_first, self.only_second)]
        chance = clicked[0] * clicked[1] + (1 - clicked[0]) * (1 - clicked[1])
        return (observed - chance) / (1 - chance) if chance < 1 else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "kappa": self.kappa}

    def __str__(self) -> str:
        both, neither = (_share(part, self.stretches) for part in (self.both, self.neither))
        return (
            f"{self.first} and {self.second}: of {self.stretches} background stretches both clicked {both}, "
            f"neither {neither}; Cohen's kappa {self.kappa:.2f}"
        )


@dataclass(frozen=True)
class ClickReport:
    """Statistics of several annotators and what they have in common; prints as a table."""

    annotators: dict[str, ClickStats]
    agreements: tuple[Agreement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "annotators": {name: stats.to_dict() for name, stats in self.annotators.items()},
            "agreements": [agreement.to_dict() for agreement in self.agreements],
        }

    def __str__(self) -> str:
        columns = [dict(_facts(stats)) for stats in self.annotators.values()]
        rows = max(columns, key=len, default={})
        width = max(map(len, rows), default=0) + 2
        lines = ["".join([" " * width, *(f"{name:>16}" for name in self.annotators)])]
        lines += ["".join([f"{row:<{width}}", *(f"{c.get(row, ''):>16}" for c in columns)]) for row in rows]
        return "\n".join([*lines, *map(str, self.agreements)])


def click_report(tracks: Mapping[str, Tracks], videos: Videos) -> ClickReport:
    """Statistics of the clicks of several annotators, and their agreement.

    Args:
        tracks: by annotator, the clicks by video. Videos that are not among `videos`, or of which only the labels are
            known, count for the clicks alone.
        videos: the annotated videos by name; without any, there is nothing to compare the clicks with.

    Example:
        >>> from backtal import Localization, Segment
        >>> truth = Localization("v", 60.0, (Segment(20, 30, "jump"),))
        >>> video = Video("v", "training", 60.0, None, truth)
        >>> clicks = {"v": ClickTrack("v", (Click(5.0), Click(45.0)))}
        >>> stats = click_report({"me": clicks}, {"v": video}).annotators["me"]
        >>> stats.positions.tolist(), stats.runs_between, stats.per_minute
        ([0.25, 0.5], (0, 1, 0), 2.0)
    """
    clicked = {name: _clicked(found, videos) for name, found in tracks.items()}
    stats = {name: _statistics(name, found, videos, clicked[name]) for name, found in tracks.items()}
    pairs = combinations(tracks, 2) if videos else ()
    return ClickReport(stats, tuple(_agreement(one, two, clicked[one], clicked[two]) for one, two in pairs))


def kolmogorov_smirnov(positions: np.ndarray) -> tuple[float, float]:
    """The greatest distance between the distribution of values and the uniform one on [0, 1], and its p-value.

    Args:
        positions: ``[n]`` values.

    Returns:
        The distance, and the probability that n uniform values lie as far off (Kolmogorov's series with Stephens'
        correction for n); NaN for no values.

    Example:
        >>> distance, p_value = kolmogorov_smirnov(np.array([0.1, 0.3, 0.5, 0.7, 0.9]))
        >>> round(distance, 3), round(p_value, 3)
        (0.1, 1.0)
    """
    values, n = np.sort(positions), len(positions)
    if not n:
        return math.nan, math.nan
    steps = np.arange(n + 1) / n
    distance = float(max((steps[1:] - values).max(), (values - steps[:-1]).max()))
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    if scaled < 0.2:
        return distance, 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return distance, min(1.0, max(0.0, sum(terms)))


# The stretches of each video, each with the positions of its clicks.
_Clicked = dict[str, list[tuple[float, list[float]]]]


def _clicked(tracks: Tracks, videos: Videos) -> _Clicked:
    wrong = {(hit.video_id, hit.click) for hit in clicks_inside_actions(tracks, videos)}
    found: _Clicked = {}
    for name, track in tracks.items():
        if name in videos and videos[name].located:
            times = [c.time for c in track.clicks if c.label == BACKGROUND and (name, c) not in wrong]
            stretches = background_stretches(videos[name].ground_truth, videos[name].duration)
            found[name] = [(b - a, [(t - a) / (b - a) for t in times if a <= t <= b]) for a, b in stretches]
    return found


def _statistics(name: str, tracks: Tracks, videos: Videos, clicked: _Clicked) -> ClickStats:
    stretches = [stretch for listed in clicked.values() for stretch in listed]
    clicks = [click for track in tracks.values() for click in track.clicks]
    return ClickStats(
        count_clicks(name, tracks, videos),
        sum(videos[video].duration for video in tracks if video in videos) / 60,
        sum(not (click.time * _GRID).is_integer() for click in clicks),
        len(clicked),
        np.sort(np.array([position for _, positions in stretches for position in positions], dtype=np.float64)),
        _by_length(stretches),
        _runs_between([(tracks[video], videos[video]) for video in clicked]),
    )


def _by_length(stretches: Sequence[tuple[float, list[float]]]) -> tuple[Stretches, ...]:
    names = [
        f"under {_LENGTHS[0]:g} s",
        *(f"{a:g} to {b:g} s" for a, b in pairwise(_LENGTHS)),
        f"{_LENGTHS[-1]:g} s on",
    ]
    counts = np.zeros((len(names), 3), dtype=np.int64)
    for length, positions in stretches:
        group = int(np.searchsorted(_LENGTHS, length, side="right"))
        counts[group] += (1, not positions, len(positions) > 1)
    return tuple(Stretches(name, *row) for name, row in zip(names, counts.tolist(), strict=True))


def _runs_between(clicked: Sequence[tuple[ClickTrack, Video]]) -> tuple[int, int, int]:
    found = [0, 0, 0]
    for track, video in clicked:
        runs: list[tuple[float, float]] = []
        for segment in sorted(video.ground_truth, key=lambda s: s.start):
            if runs and segment.start - runs[-1][1] <= _MERGED_GAP:
                runs[-1] = runs[-1][0], max(runs[-1][1], segment.end)
            else:
                runs.append((segment.start, segment.end))
        middles = [(start + end) / 2 for start, end in runs]
        for first, second in pairwise(track.times()):
            found[min(2, sum(first < middle < second for middle in middles))] += 1
    return found[0], found[1], found[2]


def _agreement(first: str, second: str, one: _Clicked, two: _Clicked) -> Agreement:
    table = np.zeros((2, 2), dtype=np.int64)
    for video in one.keys() & two.keys():
        for (_, mine), (_, yours) in zip(one[video], two[video], strict=True):
            table[int(bool(mine)), int(bool(yours))] += 1
    return Agreement(first, second, int(table[1, 1]), int(table[1, 0]), int(table[0, 1]), int(table[0, 0]))


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / max(whole, 1):.1f} %)"


def _facts(stats: ClickStats) -> Iterator[tuple[str, str]]:
    """The rows of the table, in order."""
    count = stats.count
    yield "videos", str(count.videos)
    yield "background clicks", str(count.background)
    yield "action clicks", str(count.clicks - count.background)
    yield "off the 0.5 s grid", _share(stats.off_grid, count.clicks)
    if not stats.minutes:
        return
    yield "clicks a minute of video", f"{stats.per_minute:.2f}"
    yield "videos with start and end of actions", str(stats.located)
    if not stats.located:
        return
    yield "background clicks inside actions", _share(count.inside, count.judged)
    yield "  exactly on a start or end", str(count.on_edge)
    total = stats.total
    yield "background stretches", str(total.number)
    yield "  without a click", _share(total.missed, total.number)
    for group in stats.stretches:
        yield f"    those of {group.name}", f"{group.missed} of {group.number}"
    yield "  with several clicks", _share(total.several, total.number)
    yield "pairs of clicks with one action run", _share(stats.runs_between[1], sum(stats.runs_between))
    yield "  with none", _share(stats.runs_between[0], sum(stats.runs_between))
    yield "  with more", _share(stats.runs_between[2], sum(stats.runs_between))
    yield "position in the stretch", f"{len(stats.positions)} clicks"
    for index, share in enumerate(stats.histogram):
        yield f"  {index / BINS:.1f} to {(index + 1) / BINS:.1f}", f"{100 * share:.1f} %"
    distance, p_value = stats.uniformity
    yield "  distance from uniform (KS)", f"{distance:.4f}"
    yield "  p-value", f"{p_value:.3f}"
