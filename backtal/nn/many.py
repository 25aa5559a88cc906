"""Many videos at once: those of similar length share a batch, processes share the work, results come as they are found.

Videos are taken in groups, in their order. What is computed together depends on the group alone, so that a run that
was cut off and goes on finds the same to the last bit, whatever the number of processes.
"""

import hashlib
import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from backtal.data.features import VideoFeatures, read_features
from backtal.errors import ConfigError, DataError
from backtal.nn.ensemble import check_together, localize_together, with_localization
from backtal.nn.pretrained import LocalizationModel
from backtal.nn.stream import CHUNK
from backtal.segments.segments import Localization

# Videos in a group; bytes of a feature file up to which it shares a batch, as a whole group is in memory.
GROUP = 64
_SHORT = 4 << 20


class Entry(NamedTuple):
    """A video to localize.

    Attributes:
        name: of the video.
        path: its feature file, or the video itself.
        duration: seconds, where annotations say; else its file does.
        num_frames: frames, where annotations say.
    """

    name: str
    path: Path
    duration: float | None = None
    num_frames: int | None = None


@dataclass(frozen=True)
class Localizer:
    """What localizes, as every process can be told it.

    Args:
        models: names or folders of checkpoints; several: their mean probabilities.
        settings: changed localization settings, ``KEY=VALUE``.
        ignore_spec: fields of the feature spec that may differ.
        bf16: compute in bfloat16.
        extractor: for videos, arguments of `LocalizationModel.extractor`; None for the one the checkpoint names.
        keep_damaged: use what can be decoded of damaged videos.
    """

    models: tuple[str, ...]
    settings: tuple[str, ...] = ()
    ignore_spec: tuple[str, ...] = ()
    bf16: bool = False
    extractor: tuple[str | None, tuple[Path, ...]] = (None, ())
    keep_damaged: bool = False

    def absolute(self) -> "Localizer":
        """The same, whatever the folder of the process is."""
        from backtal.video.bulk import absolute_extractor

        models = tuple(str(Path(name).absolute()) if Path(name).exists() else name for name in self.models)
        return replace(self, models=models, extractor=absolute_extractor(*self.extractor))

    def load(self) -> "Loaded":
        """The networks, in this process."""
        models = [LocalizationModel.from_pretrained(name) for name in self.models]
        if self.bf16:
            models = [model.bfloat16() for model in models]
        with_localization(models[0], self.settings)
        check_together(models)
        return Loaded(self, models)


Found = tuple[Entry, Localization | Exception]


class Loaded:
    """Networks in memory, which localize groups of videos; see `Localizer`."""

    def __init__(self, job: Localizer, models: Sequence[LocalizationModel]) -> None:
        self.job, self.models = job, models
        self._extractor: Any = None

    def digest(self) -> str:
        """Equal for equal weights."""
        found = hashlib.sha256()
        for model in self.models:
            for tensor in model.state_dict().values():
                found.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
        return found.hexdigest()

    def extractor(self) -> Any:
        """What extracts the features of videos."""
        if self._extractor is None:
            self._extractor = self.models[0].extractor(*self.job.extractor)
        return self._extractor

    def read(self, group: Sequence[Entry]) -> list[VideoFeatures | Exception | None]:
        """The features of small feature files, ready for the network; None for whatever goes through it in chunks."""
        return [self._read(entry) for entry in group]

    def _read(self, entry: Entry) -> VideoFeatures | Exception | None:
        from backtal.video import opens_as_video

        try:
            if opens_as_video(entry.path) or entry.path.stat().st_size > _SHORT:
                return None
            video = read_features(entry.path, duration=entry.duration, num_frames=entry.num_frames)
            return self.models[0].prepare(replace(video, video_id=entry.name), ignore_spec=self.job.ignore_spec)
        except (DataError, OSError) as failure:
            return failure
        except Exception as failure:  # the other videos are done all the same
            return DataError(f"{entry.path}: {type(failure).__name__}: {failure}")

    def localize(self, group: Sequence[Entry], videos: Sequence[VideoFeatures | Exception | None]) -> list[Found]:
        """The segments of each video of a group, or what keeps it from being localized."""
        found: dict[int, Localization | Exception] = {}
        short = list[int]()
        for index, (entry, video) in enumerate(zip(group, videos, strict=True)):
            if isinstance(video, Exception):
                found[index] = video
            elif video is not None and video.axis.length <= CHUNK:
                short.append(index)
            else:
                found[index] = self._alone(entry)
        for batch in alike(short, [0 if isinstance(v, Exception) or v is None else v.axis.length for v in videos]):
            together = [video for index in batch if isinstance(video := videos[index], VideoFeatures)]
            try:
                results: Sequence[Localization | Exception] = self._batch(together)
            except ConfigError:
                raise
            except Exception as failure:  # the others are done all the same
                results = [DataError(f"{v.video_id}: {type(failure).__name__}: {failure}") for v in together]
            found |= zip(batch, results, strict=True)
        return [(entry, found[index]) for index, entry in enumerate(group)]

    @torch.inference_mode()
    def _batch(self, videos: Sequence[VideoFeatures]) -> list[Localization]:
        first, rest = self.models[0], self.models[1:]
        outputs = [model.run_batch(videos) for model in (first, *rest)]
        output = first.combine(outputs) if rest else outputs[0]
        return first.localize_output(output, [video.axis for video in videos], [video.video_id for video in videos])

    def _alone(self, entry: Entry) -> Localization | Exception:
        from backtal.video import opens_as_video

        options: dict[str, Any] = {"ignore_spec": self.job.ignore_spec}
        given: Path | VideoFeatures = entry.path
        try:
            if opens_as_video(entry.path):
                options |= {"extractor": self.extractor(), "keep_damaged": self.job.keep_damaged}
            elif entry.duration is not None:
                given = read_features(entry.path, duration=entry.duration, num_frames=entry.num_frames)
            return replace(localize_together(self.models, given, **options), video_id=entry.name)
        except (ConfigError, ImportError):
            raise
        except (DataError, OSError) as failure:
            return failure
        except Exception as failure:  # FFmpeg's or the extractor's: the other videos are done all the same
            return DataError(f"{entry.path}: {type(failure).__name__}: {failure}")


def alike(chosen: Sequence[int], lengths: Sequence[int], most: int = CHUNK) -> Iterator[list[int]]:
    """Batches of similar length, of at most `most` snippets with their padding.

    Example:
        >>> list(alike([0, 1, 2, 3], [10, 90, 12, 100], most=200))
        [[0, 2], [1, 3]]
    """
    batch = list[int]()
    for index in sorted(chosen, key=lambda index: lengths[index]):
        if batch and ((len(batch) + 1) * lengths[index] > most or lengths[index] > 2 * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def groups_of(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    """The entries in groups, in their order."""
    return [entries[start : start + GROUP] for start in range(0, len(entries), GROUP)]


def localize_groups(loaded: Loaded, groups: Iterable[Sequence[Entry]], jobs: int = 1) -> Iterator[list[Found]]:
    """Localize groups of videos, and give their results in their order.

    Args:
        loaded: what localizes.
        groups: of videos.
        jobs: processes. With one, the next group is read while the network works on this one; of several, each loads
            the models itself.

    Raises:
        ConfigError: if nothing is known to extract features of videos with.
    """
    if jobs == 1:
        with ThreadPoolExecutor(1) as reader:
            ahead = deque[tuple[Sequence[Entry], Future[Any]]]()
            for group in groups:
                ahead.append((group, reader.submit(loaded.read, group)))
                if len(ahead) > 1:
                    this, videos = ahead.popleft()
                    yield loaded.localize(this, videos.result())
            for this, videos in ahead:
                yield loaded.localize(this, videos.result())
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(loaded.job, threads)) as pool:
        waiting = deque[Future[list[Found]]]()
        for group in groups:
            waiting.append(pool.submit(_localize, group))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_here: Loaded


def _begin(job: Localizer, threads: int) -> None:
    global _here
    torch.set_num_threads(threads)
    _here = job.load()


def _localize(group: Sequence[Entry]) -> list[Found]:
    return _here.localize(group, _here.read(group))


class _Actor:
    """One copy of the networks on a Ray cluster; takes numbers of groups, returns their results."""

    def __init__(self, job: Localizer, groups: Sequence[Sequence[Entry]]) -> None:
        self.loaded, self.groups = job.load(), groups

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        groups = [self.groups[int(number)] for number in batch["group"]]
        found = [self.loaded.localize(group, self.loaded.read(group)) for group in groups]
        return {"found": [pickle.dumps(one) for one in found]}


def localize_on_ray(
    loaded: Loaded, groups: Sequence[Sequence[Entry]], *, actors: int = 1, gpus_per_actor: float | None = None
) -> Iterator[list[Found]]:
    """As `localize_groups`, by actors on a Ray cluster; results come in any order. All machines see the same files.

    Args:
        loaded: what localizes.
        groups: of videos.
        actors: copies of the networks.
        gpus_per_actor: what each reserves; None for one where the cluster has any.

    Raises:
        ImportError: if Ray is not installed.
    """
    from backtal.video.bulk import rows_on_ray

    groups = [[entry._replace(path=entry.path.absolute()) for entry in group] for group in groups]
    rows = rows_on_ray(
        [{"group": number} for number in range(len(groups))],
        *(_Actor, (loaded.job.absolute(), groups), 1),
        actors=actors,
        gpus_per_actor=gpus_per_actor,
    )
    return (pickle.loads(row["found"]) for row in rows)
