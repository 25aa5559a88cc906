"""Ground truth that people code in other programs: when actions start and end, from their files to our annotations."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtal.clicks.clicks import BACKGROUND
from backtal.clicks.files import BACKGROUND_NAMES, parse_marks
from backtal.clicks.forms.form import Rates, Reading
from backtal.data.annotations import Annotations, parse_annotations
from backtal.errors import DataError, name_some
from backtal.files import note, read_json, read_text, spelling, write_json
from backtal.segments.segments import Segment


class Coded(NamedTuple):
    """What was coded: the segments of each video, and its duration in seconds where the program knows it."""

    segments: dict[str, tuple[Segment, ...]]
    durations: dict[str, float]


def read_coded(
    *paths: str | Path,
    frame_rates: Rates = None,
    background: Collection[str] = BACKGROUND_NAMES,
    round: int | None = None,
    videos: Collection[str] = (),
) -> Coded:
    r"""Read when actions start and end from files of BORIS, ELAN and all other forms that `backtal.read_clicks` knows.

    What has no length or is labelled as background is left out, which is logged as a warning of the logger ``backtal``.

    Args:
        paths: the files.
        frame_rates: frames per second, by video or the same for all, for files that count frames.
        background: labels that mean background, in upper or lower case.
        round: which one counts, from 1, where several people coded a video in one file.
        videos: names of the dataset's videos, as for `backtal.read_clicks`.

    Raises:
        DataError: if a file is missing or malformed, or a video was coded more than once.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "coded.csv"
        >>> _ = path.write_text("video,start,end,label\nv1,1.5,4,jump\n")
        >>> read_coded(path).segments["v1"]
        (Segment(start=1.5, end=4.0, label='jump', score=1.0),)
    """
    found: dict[str, list[Segment]] = {}
    durations: dict[str, float] = {}
    source: dict[str, tuple[Path, int]] = {}
    for path in map(Path, paths):
        reading, left = Reading(frame_rates, videos), Counter[str]()
        for mark in parse_marks(read_text(path), str(path), reading, background):
            if round is not None and mark.round != round:
                left[f"mark(s) of other rounds than {round}"] += 1
                continue
            if source.setdefault(mark.video, (path, mark.round)) != (path, mark.round):
                where, first = source[mark.video]
                again = f"in rounds {first} and {mark.round}: choose one with --round"
                raise DataError(
                    f"{path}: video {mark.video} was coded more than once, "
                    + (again if where == path else f"here and in {where}: give one of the files")
                )
            segments = found.setdefault(mark.video, [])
            if mark.label == BACKGROUND:
                left["mark(s) on background"] += 1
            elif mark.end <= mark.start:
                left["moment(s), which have no length"] += 1
            else:
                segments.append(Segment(mark.start, mark.end + mark.frame, mark.label))
        durations |= reading.durations
        for what, count in left.items():
            note(f"{path}: left out: {count} {what}")
    kept = {video: tuple(sorted(segments, key=lambda s: (s.start, s.end))) for video, segments in found.items()}
    if empty := [video for video, segments in kept.items() if not segments]:
        note(f"left out: {len(empty)} video(s) without a segment: {name_some(empty)}")
    return Coded({video: segments for video, segments in kept.items() if segments}, durations)


def import_coded(
    path: str | Path,
    coded: Coded,
    *,
    subset: str,
    labels: Sequence[str] | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
) -> Annotations:
    """Write what was coded into ``annotations.json``, atomically; whatever else stands there stays.

    The labels are those of the file, or `labels`, else those that were coded. Segments of other labels are left out,
    which is logged, as are videos whose annotations are replaced.

    Args:
        path: the file, which need not exist.
        coded: what `read_coded` read.
        subset: of the videos that are new.
        labels: the dataset's.
        facts: by video, what to fill in where the file does not say it: ``duration`` in seconds, ``fps``.

    Raises:
        DataError: if the file is malformed, no segment has a known label, or the duration of a video is not known.
    """
    path, facts = Path(path), facts or {}
    if not coded.segments:
        raise DataError(f"{path}: nothing to write into it: no segment was coded")
    content = read_json(path) if path.exists() else {}
    database = content.setdefault("database", {})
    if not isinstance(database, dict) or not all(isinstance(entry, dict) for entry in database.values()):
        raise DataError(f"{path}: expected an object 'database' of videos")
    occurring = parse_annotations(content, path).labels if database else ()
    stated = content.get("labels")
    if labels and stated and list(labels) != list(stated):
        raise DataError(f"{path}: has other 'labels' already: {name_some(stated)}; leave --labels out")
    said = Counter(segment.label for segments in coded.segments.values() for segment in segments)
    known = list(labels or stated or sorted({*occurring, *said}))
    if others := {label: count for label, count in said.items() if label not in known}:
        listed = name_some(f"{count} {label}" for label, count in others.items())
        if len(others) == len(said):
            raise DataError(f"{path}: no segment has one of its labels ({name_some(known)}); coded are {listed}")
        note(f"{path}: left out: segments of labels that are not its 'labels': {listed}")
    content["labels"] = known
    replaced, unknown = [], []
    spell = spelling(list(database))
    for name, segments in coded.segments.items():
        video = spell(name)
        entry = database.setdefault(video, {"subset": subset})
        told = {"duration": coded.durations.get(name)} | dict(facts.get(name, {}))
        entry |= {key: value for key, value in told.items() if value is not None and key not in entry}
        if "duration" not in entry:
            unknown.append(video)
        items = [{"label": s.label, "segment": [s.start, s.end]} for s in segments if s.label in known]
        if not items:
            note(f"{path}: video {video}: left as it was, as no segment has a known label")
            if len(entry.keys() & {"annotations", "labels"}) == 0:
                del database[video]
            continue
        if entry.get("annotations", items) != items:
            replaced.append(video)
        entry["annotations"] = items
    if unknown:
        raise DataError(
            f"the duration of {len(unknown)} video(s) is not known: {name_some(unknown)}; give the folder of the video "
            "files with --videos, or their 'duration' in annotations.json"
        )
    if replaced:
        note(f"{path}: replaced the annotations of {len(replaced)} video(s): {name_some(replaced)}")
    annotations = parse_annotations(content, path)
    write_json(path, content)
    return annotations
