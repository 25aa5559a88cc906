"""What is known of the videos of a dataset: their labels and ground truth, in ActivityNet's form."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backtal.clicks.files import BACKGROUND_NAMES
from backtal.data.truth import Truth
from backtal.errors import DataError, name_some
from backtal.files import composed, is_text, name_fault, read_json, spelling, write_json
from backtal.segments.segments import Localization, Segment

_AMBIGUOUS = "Ambiguous"
MAX_FPS = 10_000


@dataclass(frozen=True)
class Video:
    """What the annotations say about a video. Times in seconds.

    `video_labels` are labels known to occur without saying when, beside those of the ground truth. `annotated` is
    false where nothing was said of when actions occur, not even that none does. What to measure by is in
    `Annotations.truth`: an empty `ground_truth` may also mean that nobody knows.
    """

    video_id: str
    subset: str
    duration: float
    num_frames: int | None
    ground_truth: Localization
    fps: float | None = None
    video_labels: frozenset[str] = frozenset()
    annotated: bool = True

    @property
    def labels(self) -> set[str]:
        """The video-level labels: all that training may know of the ground truth."""
        return {segment.label for segment in self.ground_truth} | self.video_labels

    @property
    def unlocated(self) -> frozenset[str]:
        """Labels that are known to occur, but not when."""
        return self.video_labels - {segment.label for segment in self.ground_truth}

    @property
    def located(self) -> bool:
        """Whether it is known when all of its actions occur, and not only which."""
        return self.annotated and not self.unlocated

    @property
    def frame_rate(self) -> float | None:
        """Frames per second, where known or derivable."""
        return self.fps or (self.num_frames / self.duration if self.num_frames else None)


@dataclass(frozen=True)
class Annotations:
    """The labels of a dataset, in their order, and its videos by name."""

    labels: tuple[str, ...]
    videos: dict[str, Video]

    @property
    def frame_rates(self) -> dict[str, float]:
        """Frames per second of the videos where they are known."""
        return {name: video.frame_rate for name, video in self.videos.items() if video.frame_rate}

    def subset(self, name: str) -> list[Video]:
        """The videos of a subset, in the file's order.

        Raises:
            DataError: if there is none; the message lists the subsets.
        """
        found = [video for video in self.videos.values() if video.subset == name]
        if not found:
            known = sorted({video.subset for video in self.videos.values()})
            raise DataError(f"no video in subset {name!r}; the dataset has {', '.join(known) or 'no videos'}")
        return found

    def truth(self, subset: str) -> Truth:
        """The true segments of a subset, for `backtal.evaluation`: all that measures takes them from here.

        A video of which start and end of the actions are not known is left out, which is said.

        Raises:
            DataError: if there is no such subset, or start and end of the actions are known of none of its videos.
        """
        videos = self.subset(subset)
        known = [video for video in videos if video.located or video.ground_truth.segments]
        if not known:
            raise DataError(
                f"none of the {len(videos)} videos of subset {subset!r} has start and end of its actions: measuring "
                "needs 'annotations' of them"
            )
        truth = Truth(
            tuple(video.ground_truth for video in known),
            self.labels,
            subset,
            left_out=tuple(video.video_id for video in videos if not (video.located or video.ground_truth.segments)),
            unlocated={video.video_id: video.unlocated for video in known if video.unlocated},
            elsewhere=frozenset(name for name, video in self.videos.items() if video.subset != subset),
        )
        truth.say_what_is_not_known()
        return truth

    def video(self, name: str) -> Video:
        """The video of this name.

        Raises:
            DataError: if there is none; the message names similar ones.
        """
        name = spelling(self.videos)(name)
        if name not in self.videos:
            near = difflib.get_close_matches(name, self.videos, n=3) or self.videos
            raise DataError(f"no video {name!r} in the dataset; it has {name_some(near)}")
        return self.videos[name]


def read_annotations(path: str | Path) -> Annotations:
    """Read annotations in ActivityNet's form.

    ``{"labels": [...], "database": {video: {"subset", "duration", "fps", "num_frames", "annotations":
    [{"label", "segment": [start, end]}]}}}``. Without ``labels``, they are those that occur, sorted. A video of which
    only the labels are known has ``"labels": [...]`` in the place of ``annotations``, or beside it. Empty
    ``annotations`` say that no action occurs; empty ``labels`` alone, that nobody has labelled the video yet. A video
    of which nothing is known need not be here: to be localized it needs features only.

    A video's name is that of its feature file; a slash in it stands for a folder. Names that differ only in their form
    of Unicode are the same name.

    Raises:
        DataError: if the file is missing or malformed, a label is not listed, or no file can be called as a video; the
            message names the video.
    """
    return parse_annotations(read_json(path), path)


def parse_annotations(content: Mapping[str, Any], where: str | Path) -> Annotations:
    """Make annotations of the content of such a file; `where` begins the messages. See `read_annotations`."""
    database = content.get("database")
    if not isinstance(database, dict) or not database:
        also = "; this is a file of predictions" if isinstance(content.get("results"), dict) else ""
        raise DataError(f"{where}: no videos: expected a non-empty object 'database'{also}")
    for name in database:
        if fault := name_fault(name):
            raise DataError(f"{where}: no video can be called {name!r}: {fault}; rename it")
    if twice := _one_name(database):
        raise DataError(f"{where}: videos {twice} differ in nothing but their form of Unicode; rename one")
    videos = {name: _video(name, entry, f"{where}: video {name}") for name, entry in database.items()}
    labels = content.get("labels")
    if labels is None:
        labels = sorted({composed(label): label for video in videos.values() for label in video.labels}.values())
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) and label for label in labels):
        raise DataError(f"{where}: 'labels' must be a list of names")
    _check_labels(labels, where)
    spell = spelling(labels)
    videos = {name: _respelled(video, spell) for name, video in videos.items()}
    for video in videos.values():
        if unknown := sorted(video.labels - set(labels)):
            raise DataError(
                f"{where}: video {video.video_id}: unknown label {unknown[0]!r}; known are {name_some(labels, 30)}"
            )
    return Annotations(tuple(labels), videos)


def _check_labels(labels: Sequence[str], where: str | Path) -> None:
    if len(set(labels)) < len(labels):
        raise DataError(f"{where}: 'labels' must be different from each other")
    if twice := _one_name(labels):
        raise DataError(f"{where}: labels {twice} differ in nothing but their form of Unicode")
    for label in labels:
        if label.casefold() in BACKGROUND_NAMES:
            raise DataError(f"{where}: no label can be called {label!r}, which means background in click files")
        if not is_text(label):
            raise DataError(f"{where}: label {label!r} has line breaks or other characters that are no text")


def _one_name(names: Iterable[str]) -> str | None:
    """Two names that are one but for their form of Unicode, as they look in code."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(composed(name), name)) != name:
            return f"{other!a} and {name!a}"
    return None


def _respelled(video: Video, spell: Callable[[str], str]) -> Video:
    """The same video, its labels in the form of Unicode in which the dataset lists them."""
    if all(spell(label) == label for label in video.labels):
        return video
    segments = tuple(replace(segment, label=spell(segment.label)) for segment in video.ground_truth)
    truth = replace(video.ground_truth, segments=segments)
    return replace(video, ground_truth=truth, video_labels=frozenset(map(spell, video.video_labels)))


def _video(name: str, entry: Any, where: str) -> Video:
    try:
        if "annotations" not in entry and "labels" not in entry:
            raise DataError(
                "'annotations' (empty where no action occurs) or 'labels' are missing; a new video, of which neither "
                "is known, stays out of this file: to be localized it needs features only"
            )
        duration = float(entry["duration"])
        fps = float(entry["fps"]) if entry.get("fps") else None
        frames = entry.get("num_frames")
        if frames is None and fps:
            frames = round(duration * fps)
        items = _listed(entry, "annotations")
        rows = [(*map(float, _listed(item, "segment")), _label(item["label"])) for item in items]
        segments = tuple(Segment(start, end, label) for start, end, label in rows)
        video = Video(
            name,
            _subset(entry["subset"]),
            duration,
            frames and int(frames),
            Localization(name, duration, segments),
            fps,
            frozenset(map(_label, _listed(entry, "labels"))),
            "annotations" in entry,
        )
    except DataError as failure:
        raise DataError(f"{where}: {failure}") from None
    except KeyError as failure:
        raise DataError(f"{where}: {failure} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as failure:
        raise DataError(
            f"{where}: needs 'subset', 'duration' in seconds, and 'annotations' of 'label' and 'segment' ({failure})"
        ) from None
    if not 0 < duration < float("inf"):
        raise DataError(f"{where}: duration must be a positive number of seconds, got {duration}")
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise DataError(f"{where}: fps must be positive and at most {MAX_FPS:,}, got {fps}")
    if not 0 <= (video.num_frames or 0) <= MAX_FPS * duration + 1:
        raise DataError(f"{where}: num_frames must be at most {MAX_FPS:,} a second, got {video.num_frames}")
    return video


def _listed(entry: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = entry.get(key, [])
    if not isinstance(found, list | tuple):
        raise DataError(f"{key!r} must be a list, found {found!r:.40}")
    return found


def _label(label: Any) -> str:
    if not isinstance(label, str):
        raise DataError(f"a label must be a name, found {label!r:.40}")
    return label


def _subset(subset: Any) -> str:
    if not isinstance(subset, str):
        raise DataError(f"'subset' must be a name, found {subset!r:.40}")
    return subset


def read_dialect(
    path: Path,
    labels: tuple[str, ...] | None,
    complete: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda name, entry: entry,
    keep: Iterable[str] | None = None,
) -> Annotations:
    """Read annotations in one of the dialects of ActivityNet's form that other projects write.

    Frames may be called ``frame``, ``frames`` or ``num_frames``, ``annotations`` may be missing, those labelled
    ``Ambiguous`` are left out, and ``activity_list`` or ``label_id`` orders the labels.

    Args:
        path: the file.
        labels: names of the classes; None for the file's.
        complete: fills in what the entry of a video lacks.
        keep: the videos to read; None for all.

    Raises:
        DataError: as `read_annotations`, and where a video of `keep` is not in the file.
    """
    content = read_json(path)
    database = content.get("database")
    if not isinstance(database, dict) or not all(isinstance(entry, dict) for entry in database.values()):
        raise DataError(f"{path}: expected an object 'database' of videos")
    kept = list(database) if keep is None else list(keep)
    if unknown := [name for name in kept if name not in database]:
        raise DataError(f"{path}: no annotations of {len(unknown)} videos that the split names: {name_some(unknown)}")
    entries, order = {}, {}
    for name in kept:
        entry = dict(database[name])
        listed = entry.pop("annotations", None)
        if not isinstance(listed or [], list) or not all(isinstance(i, dict) and "label" in i for i in listed or ()):
            raise DataError(f"{path}: video {name}: 'annotations' must be a list of objects with 'label' and 'segment'")
        entry = complete(name, entry)
        items = [item for item in listed or () if item["label"] != _AMBIGUOUS]
        order |= {item["label"]: item["label_id"] for item in items if "label_id" in item}
        frames = next((entry[key] for key in ("num_frames", "frames", "frame") if entry.get(key)), None)
        said = {"labels": entry.get("labels", [])} if listed is None else {"annotations": items}
        entries[name] = entry | said | {"num_frames": frames}
    ordered = sorted(order, key=order.__getitem__) or None
    known = labels or content.get("labels") or content.get("activity_list") or ordered
    return parse_annotations({"labels": known, "database": entries}, path)


def write_annotations(path: str | Path, annotations: Annotations) -> None:
    """Write annotations that `read_annotations` reads, atomically."""
    write_json(
        path,
        {
            "labels": list(annotations.labels),
            "database": {name: _entry(video) for name, video in annotations.videos.items()},
        },
    )


def _entry(video: Video) -> dict[str, Any]:
    entry: dict[str, Any] = {"subset": video.subset, "duration": video.duration}
    if video.fps is not None:
        entry["fps"] = video.fps
    if video.num_frames is not None:
        entry["num_frames"] = video.num_frames
    if video.video_labels or not video.annotated:
        entry["labels"] = sorted(video.video_labels)
    if video.annotated:
        entry["annotations"] = [{"label": s.label, "segment": [s.start, s.end]} for s in video.ground_truth]
    return entry
