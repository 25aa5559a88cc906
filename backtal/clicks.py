"""Clicks: single annotated moments, in the CSV form of the BackTAL annotation (section 4.2) or of its peers."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtal.errors import DataError
from backtal.files import atomic_path
from backtal.segments import Segment

BACKGROUND = "background"
_FIELDS = ["URLID", "URL", "TagID", "Tag", "Start", "End", "Time", "State"]
_BACKGROUND_TAG = "background_background"


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


def read_clicks(*paths: str | Path, frame_rates: Mapping[str, float] | None = None) -> dict[str, ClickTrack]:
    r"""Read click files and put together the clicks of each video.

    The first line tells the form of a file: BackTAL's CSV (a row whose ``Start`` and ``End`` differ counts as one
    click in their middle), SF-Net's action clicks (``video,second,label`` without a header), or the action clicks of
    LACP and HR-Pro (columns ``class``, ``video_id`` and ``point``, a frame number).

    Args:
        paths: the files.
        frame_rates: frames per second by video, which only the last form needs.

    Raises:
        DataError: if a file is missing or a row is malformed; the message names file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "points.csv"
        >>> _ = path.write_text("class,video_id,point\njump,v1,45\n")
        >>> read_clicks(path, frame_rates={"v1": 30.0})["v1"].times("jump")
        [1.5]
    """
    clicks: dict[str, list[Click]] = {}
    for path in paths:
        for video, click in _rows(Path(path), frame_rates or {}):
            clicks.setdefault(video, []).append(click)
    return {video: ClickTrack(video, tuple(found)) for video, found in clicks.items()}


def _rows(path: Path, frame_rates: Mapping[str, float]) -> Iterable[tuple[str, Click]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as failure:
        raise DataError(f"{path}: click file cannot be read: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise DataError(f"{path}: not a text file: {failure}") from failure
    lines = text.splitlines()
    columns = next(csv.reader(lines), [])
    if {"class", "video_id", "point"} <= set(columns):
        return _point_rows(path, lines, frame_rates)
    if len(columns) == 3 and _is_number(columns[1]):
        return _single_frame_rows(path, lines)
    return _background_rows(path, lines)


def _background_rows(path: Path, lines: list[str]) -> Iterable[tuple[str, Click]]:
    reader = csv.DictReader(lines)
    missing = {"URLID", "Tag", "Start", "End"} - set(reader.fieldnames or [])
    if missing:
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}; expected the header {','.join(_FIELDS)}")
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        try:
            start, end = float(row["Start"]), float(row["End"])
            round_ = int(row.get("Time") or 1)
        except (TypeError, ValueError):
            raise DataError(f"{where}: Start, End and Time must be numbers: {row}") from None
        if not (row["URLID"] and row["Tag"]):
            raise DataError(f"{where}: URLID or Tag is empty")
        if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end):
            raise DataError(f"{where}: not a click: Start {start}, End {end}")
        label = BACKGROUND if row["Tag"] == _BACKGROUND_TAG else row["Tag"]
        yield row["URLID"], Click((start + end) / 2, label, round_)


def _single_frame_rows(path: Path, lines: list[str]) -> Iterable[tuple[str, Click]]:
    for number, row in enumerate(csv.reader(lines), 1):
        if not row:
            continue
        if len(row) != 3 or not _is_number(row[1]):
            raise DataError(f"{path}, line {number}: expected video,second,label, found {','.join(row)!r}")
        video, second, label = (field.strip() for field in row)
        yield video, Click(float(second), label)


def _point_rows(path: Path, lines: list[str], frame_rates: Mapping[str, float]) -> Iterable[tuple[str, Click]]:
    for number, row in enumerate(csv.DictReader(lines), 2):
        video, label, frame = row["video_id"], row["class"], row["point"]
        if not (video and label and _is_number(frame)):
            raise DataError(f"{path}, line {number}: needs class, video_id and a frame number as point: {row}")
        if video not in frame_rates:
            raise DataError(f"{path}, line {number}: the frame rate of video {video} is not known")
        yield video, Click(float(frame) / frame_rates[video], label)


def _is_number(text: str | None) -> bool:
    try:
        return 0 <= float(text or "") < math.inf
    except ValueError:
        return False


def write_clicks(path: str | Path, tracks: Iterable[ClickTrack], labels: Sequence[str]) -> None:
    """Write a click file, atomically. A background click has the index ``C = len(labels)`` as TagID."""
    tag_ids = {label: index for index, label in enumerate(labels)} | {BACKGROUND: len(labels)}
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_FIELDS)
        for track in tracks:
            for click in track.clicks:
                if click.label not in tag_ids:
                    raise DataError(f"video {track.video_id}: click with unknown label {click.label!r}")
                tag = _BACKGROUND_TAG if click.label == BACKGROUND else click.label
                row = [track.video_id, f"{track.video_id}.mp4", tag_ids[click.label], tag]
                writer.writerow([*row, *2 * [repr(float(click.time))], click.round, 1])


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
) -> ClickTrack:
    """Click as the paper's annotators did: one uniformly drawn frame in every background stretch.

    Frames are shown `frame_rate` times per second, so clicks lie on that grid; a stretch that holds
    no shown frame is missed.
    """
    clicks = []
    for start, end in background_stretches(segments, duration):
        first, last = math.ceil(start * frame_rate), math.ceil(end * frame_rate)
        if first < last:
            clicks.append(Click(float(rng.integers(first, last)) / frame_rate))
    return ClickTrack(video_id, tuple(clicks))


def simulate_action_clicks(video_id: str, segments: Iterable[Segment], rng: np.random.Generator) -> ClickTrack:
    """Click as SF-Net's annotators did: one uniformly drawn moment in every action, with its label."""
    return ClickTrack(video_id, tuple(Click(float(rng.uniform(s.start, s.end)), s.label) for s in segments))
