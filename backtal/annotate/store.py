"""What is known and saved of every video: clicks by annotator, labels, time spent. Nothing is overwritten unseen.

A change says on which `revision` it was made, a digest of what it replaces. If that is not what the files hold by now,
because of another tab, another annotator or an editor, the change is refused, and the page puts it on top of what there
is.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from filelock import FileLock

from backtal.annotate.clickfile import Mark, read_marks, replace_marks
from backtal.annotate.folder import Folder
from backtal.annotate.frames import Facts
from backtal.clicks.clicks import BACKGROUND
from backtal.data.annotations import parse_annotations
from backtal.errors import DataError, name_some
from backtal.files import read_json, write_json

UNLABELLED = "unlabelled"  # subset of the videos whose labels nobody has ticked yet: not for training
_MOST_MARKS = 20_000
_MOST_SECONDS = 1e6
_LARGEST = 1e12
_NAME = re.compile(r"\w(?:[\w .-]{0,38}\w)?")


@dataclass(frozen=True)
class State:
    """What an annotator has said of a video.

    Attributes:
        marks: clicks.
        labels: that were ticked.
        given: labels that the ground truth says anyway.
        done: whether the annotator has finished the video.
        seconds: that this took.
    """

    marks: tuple[Mark, ...]
    labels: tuple[str, ...]
    given: tuple[str, ...]
    done: bool
    seconds: float

    @property
    def revision(self) -> str:
        """Digest of marks, labels and `done`."""
        text = json.dumps([self.marks, self.labels, self.done])
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "marks": [{"time": time, "label": label} for time, label in self.marks],
            "labels": list(self.labels),
            "given": list(self.given),
            "done": self.done,
            "seconds": self.seconds,
            "revision": self.revision,
        }


class Stale(Exception):  # noqa: N818 - an answer rather than a failure
    """A change was made on a state that is not current; `state` is."""

    def __init__(self, state: State) -> None:
        super().__init__("changed elsewhere")
        self.state = state


class Store:
    """The files of a dataset folder that annotating changes.

    ``annotations.json``, ``clicks/<annotator>.txt``, and ``progress/<annotator>.json`` with the time spent on each
    video and whether it is done. Several processes may use one folder.

    Args:
        folder: where.
        labels: names of the actions; None for those in ``annotations.json``. New ones are added to these.
        facts: tells duration and frame rate of a video's file.
        subset: what a video belongs to once its labels are ticked, if the folder does not say.

    Raises:
        DataError: if there are no labels, or ``annotations.json`` is malformed.
    """

    def __init__(
        self,
        folder: Folder,
        labels: Sequence[str] | None,
        facts: Callable[[str], Facts],
        subset: str = "training",
    ) -> None:
        self.folder, self.facts, self.subset = folder, facts, subset
        self._lock = threading.RLock()
        content, nothing, known = self._annotations(), {"-": _nothing(1.0)}, ()
        if content.get("labels") is not None:
            known = parse_annotations(content | {"database": nothing}, self._annotations_path).labels
        elif content.get("database"):
            known = parse_annotations(content, self._annotations_path).labels
        self.labels = tuple(dict.fromkeys([*known, *(labels or ())]))
        if not self.labels:
            raise DataError(f"{folder.root}: which actions are there? Give --labels FILE, one label per line")
        checked = {"labels": self.labels, "database": content.get("database") or nothing}
        parse_annotations(checked, self._annotations_path)

    @property
    def _annotations_path(self) -> Path:
        return self.folder.own("annotations.json")

    def _annotations(self) -> dict[str, Any]:
        path = self._annotations_path
        return read_json(path) if path.exists() else {}

    def _clicks_path(self, annotator: str) -> Path:
        return self.folder.own("clicks", f"{checked_name(annotator)}.txt")

    def _progress_path(self, annotator: str) -> Path:
        return self.folder.own("progress", f"{checked_name(annotator)}.json")

    def _progress(self, annotator: str) -> dict[str, Any]:
        path = self._progress_path(annotator)
        videos = read_json(path).get("videos") if path.exists() else {}
        if not isinstance(videos, dict) or not all(map(_is_progress, videos.values())):
            raise DataError(f"{path}: expected an object 'videos' of objects, with numbers in their object 'seconds'")
        return videos

    def annotators(self) -> list[str]:
        """Names of the click files that the page can read; others, such as SF-Net's, may lie beside them."""
        return sorted(path.stem for path in self.folder.own("clicks").glob("*.txt") if self._is_readable(path.stem))

    def _is_readable(self, annotator: str) -> bool:
        try:
            read_marks(self._clicks_path(annotator))
        except (DataError, OSError):
            return False
        return True

    def states(self, annotator: str) -> dict[str, State]:
        """What an annotator has said of every video of the folder.

        Raises:
            DataError: if a file is malformed, or `annotator` is no name.
        """
        marks, progress = read_marks(self._clicks_path(annotator)), self._progress(annotator)
        database = self._annotations().get("database", {})
        return {
            video: _state(marks.get(video, ()), database.get(video, {}), progress.get(video, {}))
            for video in self.folder.videos
        }

    def state(self, annotator: str, video: str) -> State:
        """What an annotator has said of one video; see `states`."""
        self.folder.video(video)
        return self.states(annotator)[video]

    def duration(self, video: str) -> float:
        """Seconds: what ``annotations.json`` says, else the file."""
        entry = self._annotations().get("database", {}).get(video)
        return float(entry["duration"]) if entry else self.facts(video).duration

    def known_durations(self) -> dict[str, float]:
        """Seconds of the videos that ``annotations.json`` has."""
        return {name: float(entry["duration"]) for name, entry in self._annotations().get("database", {}).items()}

    def save(self, annotator: str, video: str, change: Mapping[str, Any]) -> State:
        """Save what an annotator says of a video.

        Args:
            annotator: who.
            video: of which video.
            change: ``base``, the revision that it replaces, ``marks``, ``labels`` and ``done``, as in `State.to_dict`.

        Returns:
            The state that is saved now. A change that is there already counts as saved.

        Raises:
            Stale: if the files hold another revision than `base`.
            DataError: if the change is malformed, or a file is.
            OSError: if it cannot be written; each file is then as before, or holds the change.
        """
        self.folder.video(video)
        duration = self.duration(video)
        with self._locked():
            now = self.state(annotator, video)
            wanted = self._wanted(change, now, duration)
            if wanted.revision == now.revision:
                return now
            if change.get("base") != now.revision:
                raise Stale(now)
            if wanted.marks != now.marks:
                replace_marks(self._clicks_path(annotator), video, set(wanted.marks), self.labels)
            self._save_labels(video, wanted.labels)
            if wanted.done != now.done:
                progress = self._progress(annotator)
                progress.setdefault(video, {})["done"] = wanted.done
                write_json(self._progress_path(annotator), {"videos": progress})
            return wanted

    def add_time(self, annotator: str, video: str, visit: object, seconds: object) -> float:
        """Note that a visit of the page has spent `seconds` on a video so far; returns the seconds of all visits.

        Raises:
            DataError: if the seconds or the visit are malformed.
        """
        self.folder.video(video)
        if not (_is_number(seconds) and 0 <= seconds <= _MOST_SECONDS and isinstance(visit, str)):
            raise DataError("seconds must be a number, and visit a name")
        if not re.fullmatch(r"[0-9a-f-]{8,40}", visit):
            raise DataError("visit must be 8 to 40 hexadecimal digits")
        with self._locked():
            progress = self._progress(annotator)
            visits = progress.setdefault(video, {}).setdefault("seconds", {})
            if seconds > visits.get(visit, 0.0):
                visits[visit] = round(float(seconds), 1)
                write_json(self._progress_path(annotator), {"videos": progress})
            return sum(visits.values())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock, FileLock(self.folder.own(".annotate.lock"), timeout=20):
            yield

    def _wanted(self, change: Mapping[str, Any], now: State, duration: float) -> State:
        marks, labels, done = change.get("marks"), change.get("labels"), change.get("done")
        if not isinstance(marks, list) or len(marks) > _MOST_MARKS or not isinstance(done, bool):
            raise DataError(f"expected at most {_MOST_MARKS} marks, and done as true or false")
        found = set()
        for mark in marks:
            time, label = (mark.get("time"), mark.get("label")) if isinstance(mark, dict) else (None, None)
            if not (_is_number(time) and isinstance(label, str)):
                raise DataError("a mark needs a time in seconds and a label")
            if (time, label) not in now.marks and not (0 <= time <= duration and label in (*self.labels, BACKGROUND)):
                raise DataError(f"no click on {label!r} at {time} s is possible in a video of {duration} s")
            found.add((float(time), label))
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise DataError("labels must be a list of names")
        if unknown := set(labels) - set(self.labels):
            raise DataError(f"unknown label {sorted(unknown)[0]!r}; known are {name_some(self.labels, 30)}")
        ticked = tuple(sorted(set(labels) - set(now.given)))
        return State(tuple(sorted(found)), ticked, now.given, done, now.seconds)

    def _save_labels(self, video: str, labels: Sequence[str]) -> None:
        """Write labels into the entry of a video, which is made where there is none; all else stays."""
        content = self._annotations()
        before = json.dumps(content)
        database = content.setdefault("database", {})
        if video not in database:
            facts = self.facts(video)
            database[video] = _nothing(facts.duration)
            if facts.fps:
                database[video]["fps"] = round(facts.fps, 6)
            if facts.num_frames:
                database[video]["num_frames"] = facts.num_frames
        entry = database[video]
        given = {item["label"] for item in entry.get("annotations", ())}
        listed = sorted({*labels, *(label for label in entry.get("labels", ()) if label in given)})
        if listed != sorted(entry.get("labels", ())):
            entry["labels"] = listed
        if not entry.get("annotations"):
            if labels and entry["subset"] == UNLABELLED:
                entry["subset"] = self.subset
            elif not labels and entry["subset"] == self.subset:
                entry["subset"] = UNLABELLED
        content["labels"] = list(dict.fromkeys([*content.get("labels", ()), *self.labels]))
        if json.dumps(content) != before:
            ordered = {"labels": content.pop("labels"), **content}
            parse_annotations(ordered, self._annotations_path)
            write_json(self._annotations_path, ordered)


def checked_name(annotator: str) -> str:
    """The name of an annotator, which is also that of a file.

    Raises:
        DataError: if it is none.
    """
    if not _NAME.fullmatch(annotator):
        raise DataError(f"annotator {annotator!r}: a name has up to 40 letters, digits, blanks, dots and dashes")
    return annotator


def _nothing(duration: float) -> dict[str, Any]:
    # Without `annotations`, even empty ones: that would say that no action occurs.
    return {"subset": UNLABELLED, "duration": duration, "labels": []}


def _state(marks: Sequence[Mark], entry: Mapping[str, Any], progress: Mapping[str, Any]) -> State:
    given = {str(item["label"]) for item in entry.get("annotations", ())}
    ticked = {str(label) for label in entry.get("labels", ())} - given
    seconds = sum(map(float, progress.get("seconds", {}).values()))
    return State(tuple(marks), tuple(sorted(ticked)), tuple(sorted(given)), progress.get("done") is True, seconds)


def _is_progress(entry: object) -> bool:
    visits = entry.get("seconds", {}) if isinstance(entry, dict) else None
    return isinstance(visits, dict) and all(map(_is_number, visits.values()))


def _is_number(value: object) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -_LARGEST < value < _LARGEST
