"""Training examples: what weak supervision gives of each video, one at a time and padded into batches."""

import copy
import hashlib
import logging
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from backtal.clicks.clicks import BACKGROUND, ClickTrack
from backtal.data.datasets import VideoDataset
from backtal.data.features import CROWDED, VideoFeatures, check_fit
from backtal.errors import DataError, name_some
from backtal.files import progress
from backtal.settings.config import NetworkConfig

_LOG = logging.getLogger("backtal")


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
        model: NetworkConfig,
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
        first, unusable, crowded = None, list[str](), list[str]()
        for index in progress(range(len(self)), desc="reading features", unit="video", leave=False):
            try:
                video = self.folder.features(self.videos[index])
                first = first or video
                dim, spec = first.features.shape[0], self.model.feature_spec or first.spec
                check_fit(
                    video.video_id, video.features.shape[0], video.spec, dim, spec, length=video.features.shape[1]
                )
            except DataError as failure:
                unusable.append(str(failure))
                continue
            if video.axis.is_crowded:
                crowded.append(video.video_id)
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
        if unusable:
            several = f"{len(unusable)} training videos cannot be used, see `backtal dataset check`: "
            raise DataError((several if len(unusable) > 1 else "") + name_some(unusable, 3))
        if crowded:
            _LOG.warning(f"{len(crowded)} training video(s) with {CROWDED}: {name_some(crowded)}")
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
