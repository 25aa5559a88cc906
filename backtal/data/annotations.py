"""What is known of the videos of a dataset: their labels and ground truth, in ActivityNet's form."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtal.clicks.clicks import BACKGROUND
from backtal.errors import DataError, name_some
from backtal.files import read_json, write_json
from backtal.segments.segments import Localization, Segment

_AMBIGUOUS = "Ambiguous"
MAX_FPS = 10_000


@dataclass(frozen=True)
class Video:
    """What the annotations say about a video. Times in seconds.

    `video_labels` are labels known to occur without saying when, beside those of the ground truth. `annotated` is
    false where nothing was said of when actions occur, not even that none does.
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
    def located(self) -> bool:
        """Whether it is known when actions occur, and not only which."""
        return bool(self.ground_truth.segments) or (self.annotated and not self.video_labels)

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

    def video(self, name: str) -> Video:
        """The video of this name.

        Raises:
            DataError: if there is none; the message names similar ones.
        """
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

    Raises:
        DataError: if the file is missing or malformed, or a label is not listed; the message names the video.
    """
    return parse_annotations(read_json(path), path)


def parse_annotations(content: Mapping[str, Any], where: str | Path) -> Annotations:
    """Make annotations of the content of such a file; `where` begins the messages. See `read_annotations`."""
    database = content.get("database")
    if not isinstance(database, dict) or not database:
        raise DataError(f"{where}: no videos: expected a non-empty object 'database'")
    videos = {name: _video(name, entry, f"{where}: video {name}") for name, entry in database.items()}
    labels = content.get("labels")
    if labels is None:
        labels = sorted({label for video in videos.values() for label in video.labels})
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) and label for label in labels):
        raise DataError(f"{where}: 'labels' must be a list of names")
    if len(set(labels)) < len(labels) or BACKGROUND in labels:
        raise DataError(f"{where}: 'labels' must be different from each other and from {BACKGROUND!r}")
    for video in videos.values():
        if unknown := sorted(video.labels - set(labels)):
            raise DataError(
                f"{where}: video {video.video_id}: unknown label {unknown[0]!r}; known are {name_some(labels, 30)}"
            )
    return Annotations(tuple(labels), videos)


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
        items = entry.get("annotations", ())
        rows = [(*map(float, item["segment"]), str(item["label"])) for item in items]
        segments = tuple(Segment(start, end, label) for start, end, label in rows)
        video = Video(
            name,
            str(entry["subset"]),
            duration,
            frames and int(frames),
            Localization(name, duration, segments),
            fps,
            frozenset(str(label) for label in entry.get("labels", ())),
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
