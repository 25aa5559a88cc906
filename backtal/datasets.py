"""The dataset folder: ``annotations.json``, ``clicks/*.txt``, ``features/<video>.npz``."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import trange

from backtal.clicks import BACKGROUND, ClickTrack, check_clicks, read_clicks
from backtal.config import ModelConfig
from backtal.errors import DataError, name_some
from backtal.features import VideoFeatures, read_features
from backtal.files import read_json
from backtal.segments import Localization, Segment


@dataclass(frozen=True)
class Video:
    """What the annotations say about a video. Times in seconds."""

    video_id: str
    subset: str
    duration: float
    num_frames: int | None
    ground_truth: Localization

    @property
    def labels(self) -> set[str]:
        """The video-level labels: all that training may know of the ground truth."""
        return {segment.label for segment in self.ground_truth}


@dataclass(frozen=True)
class Annotations:
    """The labels of a dataset, in their order, and its videos by name."""

    labels: tuple[str, ...]
    videos: dict[str, Video]

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


def read_annotations(path: str | Path) -> Annotations:
    """Read annotations in ActivityNet's form.

    ``{"labels": [...], "database": {video: {"subset", "duration", "fps", "num_frames", "annotations":
    [{"label", "segment": [start, end]}]}}}``. Without ``labels``, they are those that occur, sorted.

    Raises:
        DataError: if the file is missing or malformed, or a label is not listed; the message names the video.
    """
    content = read_json(path)
    database = content.get("database")
    if not isinstance(database, dict) or not database:
        raise DataError(f"{path}: no videos: expected a non-empty object 'database'")
    videos = {name: _video(name, entry, f"{path}: video {name}") for name, entry in database.items()}
    labels = content.get("labels")
    if labels is None:
        labels = sorted({label for video in videos.values() for label in video.labels})
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise DataError(f"{path}: 'labels' must be a list of names")
    if len(set(labels)) < len(labels) or BACKGROUND in labels:
        raise DataError(f"{path}: 'labels' must be different from each other and from {BACKGROUND!r}")
    for video in videos.values():
        if unknown := sorted(video.labels - set(labels)):
            raise DataError(
                f"{path}: video {video.video_id}: unknown label {unknown[0]!r}; known are {name_some(labels, 30)}"
            )
    return Annotations(tuple(labels), videos)


def _video(name: str, entry: Any, where: str) -> Video:
    try:
        duration = float(entry["duration"])
        frames = entry.get("num_frames")
        if frames is None and entry.get("fps"):
            frames = round(duration * float(entry["fps"]))
        rows = [(*map(float, item["segment"]), str(item["label"])) for item in entry["annotations"]]
        segments = tuple(Segment(start, end, label) for start, end, label in rows)
        video = Video(
            name,
            str(entry["subset"]),
            duration,
            frames and int(frames),
            Localization(name, duration, segments),
        )
    except DataError as failure:
        raise DataError(f"{where}: {failure}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as failure:
        raise DataError(
            f"{where}: needs 'subset', 'duration' and 'annotations' of 'label' and 'segment' ({failure!r})"
        ) from None
    if not 0 < duration < float("inf"):
        raise DataError(f"{where}: duration must be a positive number of seconds, got {duration}")
    return video


class DatasetFolder:
    """A dataset folder: annotations, clicks and features by video.

    Args:
        root: the folder, with ``annotations.json``, ``clicks/*.txt`` and ``features/<video>.npz``.

    Raises:
        DataError: if the folder or its annotations are missing or malformed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{root}: no such dataset folder")
        self.annotations = read_annotations(self.root / "annotations.json")

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.annotations.labels

    def features(self, video: Video) -> VideoFeatures:
        """Read the features of a video; the annotations give its duration."""
        path = self.root / "features" / f"{video.video_id}.npz"
        return read_features(path, duration=video.duration, num_frames=video.num_frames)

    def click_files(self, names: Sequence[str | Path] = ()) -> list[Path]:
        """The click files to use: those named (paths, or names in ``clicks/``), else the only one there is.

        Raises:
            DataError: if a file is missing, there is none, or there are several to choose from.
        """
        folder = self.root / "clicks"
        present = sorted(folder.glob("*.txt"))
        if names:
            found = [path if (path := Path(name)).exists() else folder / path.name for name in names]
            for name, path in zip(names, found, strict=True):
                if not path.is_file():
                    raise DataError(f"{name}: no such click file, neither as a path nor in {folder}")
            return found
        if not present:
            raise DataError(f"{folder}: no click file (*.txt); give one, or train from video labels only")
        if len(present) > 1:
            raise DataError(
                f"{folder} holds {name_some(p.name for p in present)}: choose one with --clicks "
                "(repeat the option to put several together)"
            )
        return present

    def clicks(self, files: Sequence[str | Path]) -> dict[str, ClickTrack]:
        """Read click files and check that every click belongs to a video of the dataset.

        Raises:
            DataError: for a click outside its video, on an unknown video or with an unknown label.
        """
        tracks = read_clicks(*files)
        durations = {name: video.duration for name, video in self.annotations.videos.items()}
        check_clicks(tracks, durations, self.labels)
        return tracks


class Example(NamedTuple):
    """A training video: features ``[D, T]``, multi-hot labels ``[C]``, click targets ``[T]``.

    A click target is a class index, C for background, -1 where nothing was clicked.
    """

    features: Tensor
    labels: Tensor
    clicks: Tensor


class Batch(NamedTuple):
    """Padded training videos: ``[B, D, T]``, ``[B]``, ``[B, C]``, ``[B, T]`` (-1 where not clicked)."""

    features: Tensor
    lengths: Tensor
    labels: Tensor
    clicks: Tensor


class TrainingSet(Dataset[Example]):
    """The training videos with what weak supervision gives: the set of labels of each, and clicks.

    All features are read and checked at once, so that bad input shows before training; up to
    `cache_bytes` of them stay in memory.

    Args:
        folder: the dataset.
        subset: name of the training subset.
        clicks: clicks by video; None trains from video labels only.
        model: what the features must fit; its labels and feature dimension are not read.
        allow_unclicked: accept videos without a click.

    Raises:
        DataError: for features that do not fit, a video without labels, or without a click where that is
            not allowed.
    """

    def __init__(
        self,
        folder: DatasetFolder,
        subset: str,
        clicks: Mapping[str, ClickTrack] | None,
        model: ModelConfig,
        *,
        allow_unclicked: bool = False,
        cache_bytes: int = 4 << 30,
    ) -> None:
        self.folder, self.model, self.clicks = folder, model, clicks or {}
        self.videos = folder.annotations.subset(subset)
        if unlabelled := [v.video_id for v in self.videos if not v.labels]:
            raise DataError(f"training videos without any label: {name_some(unlabelled)}")
        unclicked = [v.video_id for v in self.videos if not self.clicks.get(v.video_id)]
        if clicks is not None and unclicked and not allow_unclicked:
            raise DataError(
                f"{len(unclicked)} training video(s) without any click: {name_some(unclicked)}; "
                "click them, or pass --set allow_unclicked=true to learn from their labels alone"
            )
        self._cache: dict[int, VideoFeatures] = {}
        self._read_all(cache_bytes)

    def _read_all(self, cache_bytes: int) -> None:
        """Check every file, keep what fits in memory, gather the mean and deviation of each channel."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        first = None
        for index in trange(len(self), desc="reading features", unit="video", leave=False, disable=None):
            video = self.folder.features(self.videos[index])
            first = first or video
            video.check(first.features.shape[0], self.model.kernel_size, self.model.feature_spec or first.spec)
            values = video.features.double()
            count, total = count + values.shape[1], total + values.sum(1)
            squares = squares + values.square().sum(1)
            cache_bytes -= video.features.nbytes
            if cache_bytes >= 0:
                self._cache[index] = video
        assert first is not None
        self.feature_dim, self.feature_spec = first.features.shape[0], self.model.feature_spec or first.spec
        self.mean = (total / count).float()
        self.deviation = (squares / count - (total / count).square()).clamp(min=0).sqrt().float()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Example:
        """The example of one video, rescaled if the model wants a fixed length."""
        annotated = self.videos[index]
        video = self._cache.get(index) or self.folder.features(annotated)
        video = video.rescaled(self.model.temporal_length)
        class_of = {label: i for i, label in enumerate((*self.folder.labels, BACKGROUND))}
        labels = torch.zeros(len(self.folder.labels))
        labels[[class_of[label] for label in annotated.labels]] = 1
        clicks = torch.full((video.axis.length,), -1)
        if annotated.video_id in self.clicks:
            for click in self.clicks[annotated.video_id].clicks:
                clicks[video.axis.index(click.time)] = class_of[click.label]
        return Example(video.features, labels, clicks)

    def fingerprint(self) -> str:
        """A digest of the weak labels and feature shapes: equal for equal training data."""
        digest = hashlib.sha256(repr((self.folder.labels, self.feature_dim)).encode())
        for video in self.videos:
            track = self.clicks.get(video.video_id)
            digest.update(repr((video.video_id, video.duration, sorted(video.labels), track)).encode())
        return digest.hexdigest()


def collate(examples: Sequence[Example]) -> Batch:
    """Pad videos of different length into one batch."""
    lengths = [example.features.shape[1] for example in examples]
    longest = max(lengths)
    return Batch(
        torch.stack([F.pad(e.features, (0, longest - n)) for e, n in zip(examples, lengths, strict=True)]),
        torch.tensor(lengths),
        torch.stack([example.labels for example in examples]),
        torch.stack([F.pad(e.clicks, (0, longest - n), value=-1) for e, n in zip(examples, lengths, strict=True)]),
    )
