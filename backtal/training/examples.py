"""Training examples: what is known of each video, one at a time and padded into batches."""

import copy
import hashlib
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from backtal.clicks.clicks import BACKGROUND, ClickTrack
from backtal.data.datasets import VideoDataset
from backtal.data.features import CROWDED, TimeAxis, VideoFeatures, check_fit
from backtal.errors import DataError, name_some
from backtal.files import note, progress
from backtal.nn.layers import feature_scale
from backtal.segments.segments import Localization
from backtal.settings.config import NetworkConfig
from backtal.training.teaching import Taught


class Example(NamedTuple):
    """A training video.

    Attributes:
        features: ``[D, T]``.
        labels: ``[C]`` multi-hot; all 0 where no label is known.
        clicks: ``[T]`` class of a known snippet, C for background, -1 where unknown. Of a video whose start and end may
            be read, every snippet is known.
        taught: ``[C+1, T]`` what the network of the previous stage says; None in the first.
        segments: ``[M, 4]`` start, end, class and weight, in snippets: the true ones where start and end may be read,
            else those that the previous stage teaches.
        ignored: ``[T]`` True on snippets of which the previous stage is unsure.
    """

    features: Tensor
    labels: Tensor
    clicks: Tensor
    taught: Tensor | None = None
    segments: Tensor | None = None
    ignored: Tensor | None = None


class Batch(NamedTuple):
    """Padded training videos; see `Example`.

    Attributes:
        features: ``[B, D, T]``.
        lengths: ``[B]``.
        labels: ``[B, C]``.
        clicks: ``[B, T]``, -1 in padding.
        taught: ``[B, C+1, T]``, 0 in padding.
        segments: ``[B, M, 4]``, of no length in padding.
        ignored: ``[B, T]``.
    """

    features: Tensor
    lengths: Tensor
    labels: Tensor
    clicks: Tensor
    taught: Tensor | None = None
    segments: Tensor | None = None
    ignored: Tensor | None = None


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
        located: training videos whose start and end may be read; of all others they teach nothing.
        unlabelled: subset of videos of which nothing is read but their features: what one stage says of them teaches
            the next; None for none.

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
        located: Collection[str] = (),
        unlabelled: str | None = None,
        cache_bytes: int = 4 << 30,
    ) -> None:
        self.folder, self.model, self.clicks = folder, model, clicks or {}
        self.videos = folder.annotations.subset(subset)
        if bare := [v.video_id for v in self.videos if not v.labels]:
            raise DataError(f"training videos without any label: {name_some(bare)}")
        self.located = frozenset(located)
        self._check_located()
        unclicked = [v.video_id for v in self.videos if not self.clicks.get(v.video_id)]
        unclicked = [name for name in unclicked if name not in self.located]
        if clicks is not None and unclicked and not allow_unclicked:
            raise DataError(
                f"{len(unclicked)} training video(s) without any click: {name_some(unclicked)}; "
                "click them, or pass --set allow_unclicked=true to learn from their labels alone"
            )
        self.known = len(self.videos)
        if unlabelled is not None:
            if unlabelled == subset:
                raise DataError(f"subset {subset!r} is trained on: name another one of videos without labels")
            self.videos = [*self.videos, *folder.annotations.subset(unlabelled)]
        self._cache: dict[int, VideoFeatures] = {}
        self._taught: list[Taught] | None = None
        self._read_all(cache_bytes)

    def _read_all(self, cache_bytes: int) -> None:
        """Check every file, keep what fits in memory, gather the mean and deviation of each channel."""
        lengths, gaps, total, squares = list[int](), list[float](), torch.zeros(()), torch.zeros(())
        lows, highs = list[Tensor](), list[Tensor]()
        first, unusable, crowded, misfit = None, list[str](), list[str](), list[str]()
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
            if video.axis.misfit:
                misfit.append(f"{video.video_id} ({video.axis.misfit})")
            values = video.features.double()
            lengths.append(values.shape[1])
            step = video.axis.rescaled(self.model.temporal_length or video.axis.length).step
            gaps += [gap / step for gap in self._gaps(index)]
            lows.append(video.features.amin(1))
            highs.append(video.features.amax(1))
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
            note(f"{len(crowded)} training video(s) with {CROWDED}: {name_some(crowded)}")
        if misfit:
            note(
                f"{len(misfit)} training video(s) whose features do not cover their duration, so that clicks may lie "
                f"on wrong snippets: {name_some(misfit)}"
            )
        assert first is not None
        self.feature_dim, self.feature_spec = first.features.shape[0], self.model.feature_spec or first.spec
        count, self.shortest = sum(lengths), min(lengths)
        self.shortest_id = self.videos[lengths.index(self.shortest)].video_id
        self.click_gap = statistics.median(gaps) if gaps else None
        self.mean = (total / count).float()
        self.deviation = (squares / count - (total / count).square()).clamp(min=0).sqrt().float()
        self._extremes = torch.stack(lows), torch.stack(highs)

    def farthest(self) -> Tensor:
        """``[N]``: how many deviations the farthest value of each video lies from its channel's mean."""
        scale = feature_scale(self.deviation)
        low, high = ((extreme - self.mean) * scale for extreme in self._extremes)
        return torch.maximum(-low, high).amax(1)

    def _check_located(self) -> None:
        videos = {video.video_id: video for video in self.videos}
        if strange := sorted(self.located - set(videos)):
            raise DataError(f"start and end of no training video: {name_some(strange)}")
        if without := [name for name in sorted(self.located) if not videos[name].located]:
            raise DataError(f"the annotations do not say when actions start and end in {name_some(without)}")

    def _gaps(self, index: int) -> list[float]:
        """Seconds between consecutive background clicks of a video."""
        track = self.clicks.get(self.videos[index].video_id)
        return [later - earlier for earlier, later in pairwise(track.times() if track else ())]

    @property
    def all_located(self) -> bool:
        """Whether start and end of every video may be read."""
        return len(self.located) == len(self)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Example:
        """The example of one video, rescaled if the model wants a fixed length."""
        annotated = self.videos[index]
        video = self._cache.get(index) or self.folder.features(annotated).rescaled(self.model.temporal_length)
        class_of = {label: i for i, label in enumerate((*self.folder.labels, BACKGROUND))}
        labels, clicks = torch.zeros(len(self.folder.labels)), torch.full((video.axis.length,), -1)
        example = Example(video.features, labels, clicks)
        if index < self.known:
            labels[[class_of[label] for label in annotated.labels]] = 1
            if annotated.video_id in self.clicks:
                for click in self.clicks[annotated.video_id].clicks:
                    clicks[video.axis.index(click.time)] = class_of[click.label]
        if annotated.video_id in self.located:
            classes, segments = locate(annotated.ground_truth, video.axis, class_of)
            return example._replace(clicks=classes, segments=segments)
        if self._taught is None:
            return example
        told = self._taught[index]
        return example._replace(taught=told.distribution, segments=told.segments, ignored=told.ignored)

    def taught_by(self, taught: Sequence[Taught]) -> "TrainingSet":
        """The same videos, each with what the stage before says of it; where start and end are known, that stands."""
        copied = copy.copy(self)
        copied._taught = list(taught)
        return copied

    def fingerprint(self) -> str:
        """A digest of the weak labels and feature shapes: equal for equal training data."""
        digest = hashlib.sha256(repr((self.folder.labels, self.feature_dim)).encode())
        for video in self.videos:
            track = self.clicks.get(video.video_id)
            said = (video.video_id, video.duration, sorted(video.labels), track)
            digest.update(repr(said + ((video.ground_truth,) if video.video_id in self.located else ())).encode())
        if self.known < len(self):
            digest.update(repr(self.known).encode())
        return digest.hexdigest()


def locate(truth: Localization, axis: TimeAxis, class_of: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """What start and end say of snippets.

    A snippet is of the class of the segment that covers its middle, of several the shortest; a segment that covers the
    middle of none has the snippet in which its own middle lies.

    Args:
        truth: the segments of a video.
        axis: when its T snippets are.
        class_of: index of each label; background is the highest.

    Returns:
        ``[T]`` class of each snippet and ``[M, 4]`` start, end, class and a weight of 1, in snippets.
    """
    segments = sorted(truth, key=lambda segment: segment.start - segment.end)
    classes = torch.full((axis.length,), max(class_of.values()))
    middles, rows = torch.from_numpy(axis.middles()), list[list[float]]()
    for segment in segments:
        covered = (middles >= segment.start) & (middles < segment.end)
        if not covered.any():
            covered[axis.index((segment.start + segment.end) / 2)] = True
        classes[covered] = class_of[segment.label]
        start, end = ((second - axis.start) / axis.step for second in (segment.start, segment.end))
        rows.append([start, end, class_of[segment.label], 1.0])
    return classes, torch.tensor(rows).reshape(-1, 4)


def collate(examples: Sequence[Example]) -> Batch:
    """Pad videos of different length into one batch."""
    lengths = [example.features.shape[1] for example in examples]
    longest = max(lengths)

    def padded(tensors: Iterable[Tensor], value: float = 0) -> Tensor:
        missing = ((t, longest - t.shape[-1]) for t in tensors)
        return torch.stack([F.pad(t, (0, count), value=value) if count else t for t, count in missing])

    def optional(name: str, default: Callable[[Example], Tensor]) -> list[Tensor] | None:
        given = [getattr(example, name) for example in examples]
        if all(one is None for one in given):
            return None
        return [default(example) if one is None else one for example, one in zip(examples, given, strict=True)]

    taught = optional("taught", lambda e: known_distribution(e.clicks, len(e.labels)))
    segments = optional("segments", lambda e: e.features.new_zeros(0, 4))
    ignored = optional("ignored", lambda e: torch.zeros_like(e.clicks, dtype=torch.bool))
    return Batch(
        padded(example.features for example in examples),
        torch.tensor(lengths),
        torch.stack([example.labels for example in examples]),
        padded((example.clicks for example in examples), value=-1),
        None if taught is None else padded(taught),
        None if segments is None else pad_sequence(segments, batch_first=True),
        None if ignored is None else padded(ignored),
    )


def known_distribution(clicks: Tensor, background: int) -> Tensor:
    """``[C+1, T]``: 1 at the class of each known snippet of ``[T]``, 0 where nothing is known."""
    return F.one_hot(clicks.clamp(min=0), background + 1).T.float() * (clicks >= 0)
