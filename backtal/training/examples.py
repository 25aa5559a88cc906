"""Training examples: what is known of each video, one at a time and padded into batches."""

import copy
import hashlib
import math
import statistics
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from backtal.training.store import READERS, read_all
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

    All features are read and checked at once, in parallel, so that bad input shows before training; up to
    `cache_bytes` of them stay in memory, in float16 where that loses nothing.

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
        self._told: dict[int, Example] = {}
        self._placed: dict[torch.device, dict[int, Tensor]] = {}
        self._taught: list[Taught] | None = None
        self._read_all(cache_bytes)

    def _read_all(self, cache_bytes: int) -> None:
        """Check every file, keep what fits in memory, gather the mean and deviation of each channel."""
        lengths, gaps, total, squares = list[int](), list[float](), torch.zeros(()), torch.zeros(())
        lows, highs = list[Tensor](), list[Tensor]()
        first, unusable, crowded, misfit = None, list[str](), list[str](), list[str]()
        found = read_all(lambda index: self.folder.features(self.videos[index]), len(self), self.model.temporal_length)
        bar = progress(found, total=len(self), desc="reading features", unit="video", leave=False)
        for index, read in enumerate(bar):
            if isinstance(read, DataError):
                unusable.append(str(read))
                continue
            video, axis = read.kept, read.axis
            first = first or video
            dim, spec = first.features.shape[0], self.model.feature_spec or first.spec
            try:
                check_fit(video.video_id, video.features.shape[0], video.spec, dim, spec, length=axis.length)
            except DataError as failure:
                unusable.append(str(failure))
                continue
            if axis.is_crowded:
                crowded.append(video.video_id)
            if axis.misfit:
                misfit.append(f"{video.video_id} ({axis.misfit})")
            lengths.append(axis.length)
            gaps += [gap / video.axis.step for gap in self._gaps(index)]
            lows.append(read.low)
            highs.append(read.high)
            total = total + read.total
            squares = squares + read.squares
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
        example = self._example(index)
        return example._replace(features=example.features.float())

    def _example(self, index: int) -> Example:
        """The example of one video, its features of the type in which they are kept."""
        annotated = self.videos[index]
        video = self._cache.get(index) or self.folder.features(annotated).rescaled(self.model.temporal_length)
        if index not in self._told:
            self._told[index] = self._tell(index, video.axis)
        example = self._told[index]._replace(features=video.features)
        if self._taught is None or annotated.video_id in self.located:
            return example
        told = self._taught[index]
        return example._replace(taught=told.distribution, segments=told.segments, ignored=told.ignored)

    def _tell(self, index: int, axis: TimeAxis) -> Example:
        """What is known of a video, without its features."""
        annotated = self.videos[index]
        class_of = {label: i for i, label in enumerate((*self.folder.labels, BACKGROUND))}
        labels, clicks = torch.zeros(len(self.folder.labels)), torch.full((axis.length,), -1)
        if index < self.known:
            labels[[class_of[label] for label in annotated.labels]] = 1
            if annotated.video_id in self.clicks:
                for click in self.clicks[annotated.video_id].clicks:
                    clicks[axis.index(click.time)] = class_of[click.label]
        if annotated.video_id in self.located:
            classes, segments = locate(annotated.ground_truth, axis, class_of)
            return Example(torch.empty(0), labels, classes, segments=segments)
        return Example(torch.empty(0), labels, clicks)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All videos in their order, as `hand_out` gives them."""
        order = range(len(self))
        return self.hand_out(order[start : start + batch_size] for start in range(0, len(order), batch_size))

    def hand_out(self, indices: Iterable[Sequence[int]], device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Batches of these videos, on a device.

        What is not in memory is read again, in threads, while the batches before are used. On a GPU, features stay in
        its memory where all of them take less than half of what is free there.

        Args:
            indices: those of each batch.
            device: where to.

        Yields:
            Features are of the type in which they are kept, mostly float16, and lie in memory that is used again: be
            done with a batch before you ask for the next.
        """
        device, ahead, space = torch.device(device), deque[list[Callable[[], Example]]](), torch.empty(0)
        resident = self._resident(device)

        def soon(index: int) -> Callable[[], Example]:
            if index in resident:
                return lambda: self._example(index)._replace(features=resident[index])
            return (lambda: self._example(index)) if index in self._cache else pool.submit(self._example, index).result

        def gathered(examples: list[Example]) -> Batch:
            nonlocal space
            if len({example.features.dtype for example in examples}) > 1:
                examples = [example._replace(features=example.features.float()) for example in examples]
            features = [example.features for example in examples]
            size = len(features) * features[0].shape[0] * max(one.shape[1] for one in features)
            if device.type == "cuda" and not resident:  # PyTorch keeps pinned memory until it has been copied from
                space = torch.empty(size, dtype=features[0].dtype, pin_memory=True)
            elif device.type != "cpu" or space.dtype != features[0].dtype or space.numel() < size:
                space = features[0].new_empty(size)
            return on(device, collate(examples, space if not resident else None))

        with ThreadPoolExecutor(READERS) as pool:
            for chosen in indices:
                ahead.append([soon(index) for index in chosen])
                if len(ahead) > 2:
                    yield gathered([example() for example in ahead.popleft()])
            while ahead:
                yield gathered([example() for example in ahead.popleft()])

    def _resident(self, device: torch.device) -> dict[int, Tensor]:
        """All features in the memory of a GPU, where they fit."""
        if device.type != "cuda":
            return {}
        if device not in self._placed:
            size = sum(video.features.nbytes for video in self._cache.values())
            fits = len(self._cache) == len(self) and size < torch.cuda.mem_get_info(device)[0] / 2
            kept = self._cache.items() if fits else ()
            self._placed[device] = {index: video.features.to(device) for index, video in kept}
        return self._placed[device]

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


def collate(examples: Sequence[Example], space: Tensor | None = None) -> Batch:
    """Pad videos of different length into one batch; the features go into `space`, flat, where it is given."""

    def optional(name: str, default: Callable[[Example], Tensor]) -> list[Tensor] | None:
        given = [getattr(example, name) for example in examples]
        if all(one is None for one in given):
            return None
        return [default(example) if one is None else one for example, one in zip(examples, given, strict=True)]

    taught = optional("taught", lambda e: known_distribution(e.clicks, len(e.labels)))
    segments = optional("segments", lambda e: e.labels.new_zeros(0, 4))
    ignored = optional("ignored", lambda e: torch.zeros_like(e.clicks, dtype=torch.bool))
    return Batch(
        _padded([example.features for example in examples], space=space),
        torch.tensor([example.features.shape[1] for example in examples]),
        torch.stack([example.labels for example in examples]),
        _padded([example.clicks for example in examples], value=-1),
        None if taught is None else _padded(taught),
        None if segments is None else pad_sequence(segments, batch_first=True),
        None if ignored is None else _padded(ignored),
    )


def _padded(tensors: Sequence[Tensor], value: float = 0, space: Tensor | None = None) -> Tensor:
    """Tensors ``[..., T]`` of different T as ``[B, ..., longest T]``."""
    shape = len(tensors), *tensors[0].shape[:-1], max(tensor.shape[-1] for tensor in tensors)
    out = tensors[0].new_empty(shape) if space is None else space[: math.prod(shape)].view(shape)
    for row, tensor in zip(out, tensors, strict=True):
        row[..., : tensor.shape[-1]] = tensor
        if tensor.shape[-1] < shape[-1]:
            row[..., tensor.shape[-1] :] = value
    return out


def on(device: torch.device, batch: Batch) -> Batch:
    """The batch on a device."""
    ahead = device.type == "cuda"
    return Batch(*(None if t is None else t.to(device, non_blocking=ahead) for t in batch))  # type: ignore[arg-type]


def known_distribution(clicks: Tensor, background: int) -> Tensor:
    """``[C+1, T]``: 1 at the class of each known snippet of ``[T]``, 0 where nothing is known."""
    return F.one_hot(clicks.clamp(min=0), background + 1).T.float() * (clicks >= 0)
