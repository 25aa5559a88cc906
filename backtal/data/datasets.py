"""Datasets: the folder of ``annotations.json``, ``clicks/*.txt`` and ``features/<video>.npz``; training examples."""

import copy
import hashlib
import statistics
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from backtal.annotations import Annotations, Video, read_annotations, write_annotations
from backtal.click_files import read_clicks, write_clicks
from backtal.clicks import BACKGROUND, Click, ClickTrack, check_clicks
from backtal.config import ModelConfig
from backtal.errors import DataError, name_some
from backtal.features import VideoFeatures, check_fit, read_features, write_features
from backtal.files import is_taken, progress, read_json, write_json

SHORTEST = 5  # snippets: the smallest kernel that `backtal.train.for_dataset` derives from clicks
_MARKER = ".conversion.json"


class VideoDataset:
    """Annotated videos with their features and clicks, however they are stored.

    `DatasetFolder` opens our own folder, `backtal.layouts` those of other projects.

    Args:
        root: where the dataset lies, for messages.
        annotations: labels and videos.
        readers: by video name, what reads the features of a video; a video without features is not in it.
        click_readers: by path, what reads the clicks that lie there, by video.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: Annotations,
        readers: Mapping[str, Callable[[Video], VideoFeatures]],
        click_readers: Mapping[Path, Callable[[], dict[str, ClickTrack]]] | None = None,
    ) -> None:
        self.root, self.annotations = Path(root), annotations
        self._readers, self._click_readers = readers, click_readers or {}
        self._click_place = self.root

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.annotations.labels

    def feature_names(self) -> set[str]:
        """The videos that have features, whether or not they are annotated."""
        return set(self._readers)

    def features(self, video: Video) -> VideoFeatures:
        """Read the features of a video; the annotations give its duration.

        Raises:
            DataError: if there are none, or they are damaged.
        """
        if video.video_id not in self._readers:
            raise DataError(f"{self.root}: no features of video {video.video_id}")
        return self._readers[video.video_id](video)

    def click_paths(self) -> list[Path]:
        """The click files that belong to the dataset."""
        return list(self._click_readers)

    def click_files(self, names: Sequence[str | Path] = ()) -> list[Path]:
        """The click files to use: those named (paths, or names of the dataset's own), else the only one there is.

        Raises:
            DataError: if a file is missing, there is none, or there are several to choose from.
        """
        present = self.click_paths()
        if names:
            own = {path.name: path for path in present}
            found = [path if (path := Path(name)).exists() else own.get(path.name, path) for name in names]
            for name, path in zip(names, found, strict=True):
                if not path.exists():
                    raise DataError(f"{name}: no such click file, neither as a path nor in {self._click_place}")
            return found
        if not present:
            raise DataError(f"{self._click_place}: no click file; give one, or train from video labels only")
        if len(present) > 1:
            raise DataError(
                f"{self._click_place} holds {name_some(p.name for p in present)}: choose one with --clicks "
                "(repeat the option to put several together)"
            )
        return present

    def read_clicks(self, path: str | Path) -> dict[str, ClickTrack]:
        """Read one click file, in any form that `backtal.read_clicks` knows, without comparing it with the videos.

        Raises:
            DataError: if it is missing or malformed.
        """
        if path in self._click_readers:
            return self._click_readers[Path(path)]()
        return read_clicks(path, frame_rates=self.annotations.frame_rates)

    def clicks(self, files: Sequence[str | Path]) -> dict[str, ClickTrack]:
        """Read click files, put them together and check that every click belongs to a video of the dataset.

        Raises:
            DataError: for a click outside its video, on an unknown video or with an unknown label.
        """
        found: dict[str, tuple[Click, ...]] = {}
        for path in files:
            for video, track in self.read_clicks(path).items():
                found[video] = found.get(video, ()) + track.clicks
        tracks = {video: ClickTrack(video, clicks) for video, clicks in found.items()}
        durations = {name: video.duration for name, video in self.annotations.videos.items()}
        check_clicks(tracks, durations, self.labels)
        return tracks


class DatasetFolder(VideoDataset):
    """A dataset folder: annotations, clicks and features by video.

    Args:
        root: the folder, with ``annotations.json``, ``clicks/*.txt`` and ``features/<video>.npz``.

    Raises:
        DataError: if the folder or its annotations are missing or malformed.
    """

    def __init__(self, root: str | Path) -> None:
        if not Path(root).is_dir():
            raise DataError(f"{root}: no such dataset folder")
        super().__init__(root, read_annotations(Path(root) / "annotations.json"), {})
        self._click_place = self.root / "clicks"

    def feature_names(self) -> set[str]:
        """The videos that have a feature file, whether or not they are annotated."""
        return {path.stem for path in self.root.glob("features/*.npz")}

    def features(self, video: Video) -> VideoFeatures:
        """Read the features of a video; the annotations give its duration."""
        return read_features(self._path(video), duration=video.duration, num_frames=video.num_frames)

    def checksums(self, video: Video) -> list[tuple[str, int]]:
        """Name and CRC-32 of each array in a video's feature file, which stand there: no feature is read.

        Raises:
            DataError: if the file is missing or damaged.
        """
        try:
            with zipfile.ZipFile(self._path(video)) as file:
                return [(array.filename, array.CRC) for array in file.infolist()]
        except (OSError, ValueError, zipfile.BadZipFile) as failure:
            raise DataError(f"{self._path(video)}: cannot be read: {failure}") from None

    def _path(self, video: Video) -> Path:
        return self.root / "features" / f"{video.video_id}.npz"

    def click_paths(self) -> list[Path]:
        """The files in ``clicks/``."""
        return sorted(self._click_place.glob("*.txt"))


def write_folder(
    dataset: VideoDataset,
    out: str | Path,
    *,
    clicks: Sequence[str | Path] = (),
    skip_missing: bool = False,
    half: bool = False,
) -> None:
    """Write a dataset as our dataset folder; stopped, it goes on where it was when called again.

    Each file appears whole or not at all, and ``annotations.json`` last: without it the folder is no dataset yet.

    Args:
        dataset: what to write, for example what `backtal.layouts.open_layout` opened.
        out: the folder to write.
        clicks: click files beside the dataset's own.
        skip_missing: leave out the videos that have no features, instead of refusing.
        half: store features as float16 (half the size, three significant digits).

    Raises:
        DataError: if `out` holds another dataset, features are missing or damaged, or clicks do not fit.
    """
    out, videos = Path(out), dict(dataset.annotations.videos)
    if missing := [name for name in videos if name not in dataset.feature_names()]:
        if not skip_missing or len(missing) == len(videos):
            raise DataError(
                f"{dataset.root}: {len(missing)} of {len(videos)} videos have no features: {name_some(missing)}; "
                "add them, or leave these videos out with --skip-missing"
            )
        videos = {name: video for name, video in videos.items() if name not in set(missing)}
    if unsafe := [name for name in videos if name != Path(name).name or name.startswith(".") or "\\" in name]:
        raise DataError(f"{dataset.root}: video {unsafe[0]!r} is no name for a file")
    paths = [*dataset.click_paths(), *map(Path, clicks)]
    if len({path.stem for path in paths}) < len(paths):
        raise DataError(f"click files of one name: {name_some(paths)}")
    tracks = {path: dataset.clicks([path]) for path in paths}
    first = dataset.features(next(iter(videos.values())))
    made = {"spec": repr(first.spec), "start": first.axis.start, "step": first.axis.step, "half": half}
    made |= {"source": str(dataset.root.resolve()), "labels": list(dataset.labels), "videos": sorted(videos)}
    _claim(out / _MARKER, made)
    for name, video in progress(videos.items(), desc="converting", unit="video"):
        target = out / "features" / f"{name}.npz"
        if not target.exists():
            write_features(target, dataset.features(video), half=half)
    for path, found in tracks.items():
        kept = [track for name, track in found.items() if name in videos]
        write_clicks(out / "clicks" / f"{path.stem}.txt", kept, dataset.labels)
    write_annotations(out / "annotations.json", Annotations(dataset.labels, videos))
    (out / _MARKER).unlink()


def _claim(marker: Path, conversion: dict[str, Any]) -> None:
    """Begin a conversion in an empty folder, or go on with the same one."""
    out = marker.parent
    if marker.exists():
        if read_json(marker) != conversion:
            raise DataError(f"{out}: another conversion was begun here; delete the folder or choose another")
        for leftover in out.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
    elif is_taken(out):
        raise DataError(f"{out}: already there and not empty; delete it or choose another folder")
    else:
        write_json(marker, conversion)


class Example(NamedTuple):
    """A training video: features ``[D, T]``, multi-hot labels ``[C]``, click targets ``[T]``.

    A click target is a class index, C for background, -1 where nothing was clicked. `taught` is ``[C+1, T]``, what the
    network of the previous stage says; None in the first.
    """

    features: Tensor
    labels: Tensor
    clicks: Tensor
    taught: Tensor | None = None


class Batch(NamedTuple):
    """Padded training videos: ``[B, D, T]``, ``[B]``, ``[B, C]``, ``[B, T]`` (-1 in padding too), ``[B, C+1, T]``."""

    features: Tensor
    lengths: Tensor
    labels: Tensor
    clicks: Tensor
    taught: Tensor | None = None


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

    Attributes:
        shortest: snippets of the shortest video.
        shortest_id: its name.
        click_gap: median number of snippets between two consecutive background clicks; None without any.

    Raises:
        DataError: for features that do not fit, a video without labels, or without a click where that is
            not allowed.
    """

    def __init__(
        self,
        folder: VideoDataset,
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
        self._taught: list[Tensor] | None = None
        self._read_all(cache_bytes)

    def _read_all(self, cache_bytes: int) -> None:
        """Check every file, keep what fits in memory, gather the mean and deviation of each channel."""
        lengths, gaps, total, squares = list[int](), list[float](), torch.zeros(()), torch.zeros(())
        first = None
        for index in progress(range(len(self)), desc="reading features", unit="video", leave=False):
            video = self.folder.features(self.videos[index])
            first = first or video
            dim, spec = first.features.shape[0], self.model.feature_spec or first.spec
            check_fit(video.video_id, video.features.shape[0], video.spec, dim, spec)
            values = video.features.double()
            lengths.append(values.shape[1])
            step = video.axis.rescaled(self.model.temporal_length or video.axis.length).step
            gaps += [gap / step for gap in self._gaps(index)]
            total = total + values.sum(1)
            squares = squares + values.square().sum(1)
            video = video.rescaled(self.model.temporal_length)
            cache_bytes -= video.features.nbytes
            if cache_bytes >= 0:
                self._cache[index] = video
        assert first is not None
        self.feature_dim, self.feature_spec = first.features.shape[0], self.model.feature_spec or first.spec
        count, self.shortest = sum(lengths), min(lengths)
        self.shortest_id = self.videos[lengths.index(self.shortest)].video_id
        self.click_gap = statistics.median(gaps) if gaps else None
        self.mean = (total / count).float()
        self.deviation = (squares / count - (total / count).square()).clamp(min=0).sqrt().float()

    def _gaps(self, index: int) -> list[float]:
        """Seconds between consecutive background clicks of a video."""
        track = self.clicks.get(self.videos[index].video_id)
        return [later - earlier for earlier, later in pairwise(track.times() if track else ())]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Example:
        """The example of one video, rescaled if the model wants a fixed length."""
        annotated = self.videos[index]
        video = self._cache.get(index) or self.folder.features(annotated).rescaled(self.model.temporal_length)
        class_of = {label: i for i, label in enumerate((*self.folder.labels, BACKGROUND))}
        labels = torch.zeros(len(self.folder.labels))
        labels[[class_of[label] for label in annotated.labels]] = 1
        clicks = torch.full((video.axis.length,), -1)
        if annotated.video_id in self.clicks:
            for click in self.clicks[annotated.video_id].clicks:
                clicks[video.axis.index(click.time)] = class_of[click.label]
        return Example(video.features, labels, clicks, self._taught[index] if self._taught else None)

    def taught_by(self, teacher: Callable[[Example], Tensor]) -> "TrainingSet":
        """The same videos, each with what `teacher` says of it, ``[C+1, T]``."""
        taught = copy.copy(self)
        taught._taught = [teacher(self[index]) for index in range(len(self))]
        return taught

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

    def padded(tensors: Iterable[Tensor], value: float = 0) -> Tensor:
        missing = ((t, longest - t.shape[-1]) for t in tensors)
        return torch.stack([F.pad(t, (0, count), value=value) if count else t for t, count in missing])

    taught = [example.taught for example in examples if example.taught is not None]
    return Batch(
        padded(example.features for example in examples),
        torch.tensor(lengths),
        torch.stack([example.labels for example in examples]),
        padded((example.clicks for example in examples), value=-1),
        padded(taught) if taught else None,
    )
