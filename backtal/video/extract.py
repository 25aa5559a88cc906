"""From video files to feature files: workers decode while the network runs, batches reach across videos."""

import contextlib
import io
import json
import queue
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backtal.data.features import FeatureSpec, TimeAxis, VideoFeatures, write_features
from backtal.errors import ConfigError, DataError
from backtal.files import progress
from backtal.video.containers import import_av
from backtal.video.decode import Video
from backtal.video.extractors import Extractor
from backtal.video.windows import Window, stack, windows

_NOT_FINITE = "the extractor's network gave values that are NaN, infinite or beyond float16"


class Engine:
    """The network on its device, in evaluation mode.

    Args:
        extractor: what to run.
        device: where; None takes a GPU where there is one.
        bf16: compute in bfloat16.

    Raises:
        ConfigError: if there is no such device.
    """

    def __init__(self, extractor: Extractor, device: str | torch.device | None = None, *, bf16: bool = False) -> None:
        try:
            self.device = torch.empty(0, device=device or ("cuda" if torch.cuda.is_available() else "cpu")).device
        except (RuntimeError, AssertionError) as failure:
            reason = str(failure).splitlines()[0]
            raise ConfigError(f"device {device} cannot be used: {reason}") from None
        self.network, self.bf16, self.dim = extractor.network.eval().to(self.device), bf16, extractor.spec.dim

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Window]) -> Tensor:
        """Windows -> features ``[n, D]``, float16 on the CPU."""
        parts = [torch.from_numpy(part).to(self.device) for part in stack(batch)]
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            features = self.network(*parts)
        if features.shape != (len(batch), self.dim):
            expected = (len(batch), self.dim)
            raise ValueError(f"the extractor's network returned {tuple(features.shape)}, expected {expected}")
        return features.half().cpu()


class FeatureStream:
    """The features of one video while they are made: iterated over, it gives ``[D, n]`` (float16) in order.

    Args:
        path: the video.
        extractor: the network, as `load_extractor` builds it.
        batch_size: windows that go through the network at once.
        device: where the network runs; None takes a GPU where there is one.
        bf16: compute in bfloat16.
        keep_damaged: use what can be decoded of a damaged file.

    Attributes:
        axis: when each snippet is; known once the iteration has ended.

    Raises:
        DataError: while iterating, if the file cannot be read, holds no video or is damaged; or a value is not finite.
    """

    axis: TimeAxis

    def __init__(
        self,
        path: str | Path,
        extractor: Extractor,
        *,
        batch_size: int = 8,
        device: str | torch.device | None = None,
        bf16: bool = False,
        keep_damaged: bool = False,
    ) -> None:
        self.video = Video(path, extractor.spec.fps, size=extractor.size, keep_damaged=keep_damaged)
        self.extractor, self.batch_size = extractor, batch_size
        self.engine = Engine(extractor, device, bf16=bf16)

    def __iter__(self) -> Iterator[Tensor]:
        length = 0
        for batch in ahead(windows(self.video, self.extractor), 2 * self.batch_size, self.batch_size):
            features = self.engine(batch)
            if not features.isfinite().all():
                raise DataError(f"{self.video.path}: {_NOT_FINITE}")
            length += len(batch)
            yield features.T
        self.axis = _axis(self.video, length, self.extractor.spec)


def ahead(
    items: Iterator[Window], count: int, batch_size: int, stop: threading.Event | None = None
) -> Iterator[list[Window]]:
    """Batches of the items, up to `count` of which a thread makes in advance.

    Args:
        items: what to batch.
        count: made in advance.
        batch_size: of a full batch.
        stop: ends it; where it is given, a batch holds what is there, rather than wait for more.
    """
    ready: queue.Queue = queue.Queue(count)
    stopped = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if not _put(ready, item, stopped):
                    return
            _put(ready, None, stopped)
        except BaseException as failure:
            _put(ready, failure, stopped)

    threading.Thread(target=work, daemon=True).start()
    try:
        batch, more = list[Window](), True
        while more and not (stop and stop.is_set()):
            try:
                item = ready.get(block=not (stop and batch), timeout=0.2 if stop else None)
            except queue.Empty:
                item, more = None, True
            else:
                more = item is not None
            if isinstance(item, BaseException):
                raise item
            batch += [] if item is None else [item]
            if batch and (item is None or len(batch) == batch_size):
                yield batch
                batch = []
    finally:
        stopped.set()


def _put(ready: queue.Queue, item: object, stop: threading.Event) -> bool:
    """Whether the item was taken before `stop`."""
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            ready.put(item, timeout=0.2)
            return True
    return False


def _axis(video: Video, length: int, spec: FeatureSpec) -> TimeAxis:
    return TimeAxis.of(length, video.duration, video.num_frames, spec)


def extract_file(path: str | Path, extractor: Extractor, **options) -> VideoFeatures:
    """The features of one video; `options` as for `FeatureStream`.

    Raises:
        DataError: if the file cannot be read, holds no video, or is damaged.
    """
    stream = FeatureStream(path, extractor, **options)
    features = torch.cat(list(stream), dim=1).float()
    return VideoFeatures(Path(path).stem, features, stream.axis, extractor.spec)


@dataclass
class Report:
    """What became of every video.

    Attributes:
        written: files that were written.
        kept: files that were there already.
        failed: by video, why there is no file.
        damaged: by video, what is wrong with it although its file was written.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """As a JSON object."""
        return asdict(self)


def extract_files(
    paths: Sequence[str | Path] | Mapping[Path, str],
    extractor: Extractor,
    out: str | Path,
    *,
    workers: int = 2,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    bf16: bool = False,
    keep_damaged: bool = False,
) -> Report:
    """Write ``OUT/<name of the video>.npz`` for every video; those that are there already are kept.

    Files appear whole or not at all, so a run that was killed goes on where it was. A video that cannot be read is
    reported, and the others are done.

    Args:
        paths: the videos; or by path what they are called, as `videos_in` finds them. Of ``class/video`` the features
            are in a folder ``class``.
        extractor: the network, as `load_extractor` builds it.
        out: the folder to write to.
        workers: threads that decode.
        batch_size: windows, also of several videos, that go through the network at once.
        device: where the network runs; None takes a GPU where there is one.
        bf16: compute in bfloat16.
        keep_damaged: use what can be decoded of a damaged file, and report it as well.

    Raises:
        DataError: if two videos have one name, or `out` holds features of another extractor.
    """
    import_av()
    report, targets = pending(paths, extractor.spec, out)
    left = list(targets)
    engine = Engine(extractor, device, bf16=bf16)
    todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in left:
        todo.put(path)
    ready: queue.Queue[tuple[Path, Window | _End]] = queue.Queue(max(2 * batch_size, workers))
    stop = threading.Event()
    workers = min(workers, max(len(left), 1))
    for _ in range(workers):
        arguments = (todo, ready, stop, extractor, keep_damaged, workers)
        threading.Thread(target=_decode, args=arguments, daemon=True).start()
    try:
        _gather(targets, ready, engine, batch_size, extractor.spec, report)
    finally:
        stop.set()
    return report


class _End(NamedTuple):
    """The end of a video: how long it was, or why it failed."""

    video: Video
    failure: str | None


def _decode(
    todo: "queue.SimpleQueue[Path]",
    ready: queue.Queue,
    stop: threading.Event,
    extractor: Extractor,
    keep_damaged: bool,
    workers: int,
) -> None:
    """What one worker does: windows of one video after the other, each video closed by its `_End`."""
    while not stop.is_set():
        try:
            path = todo.get_nowait()
        except queue.Empty:
            return
        # One decoder thread each once there are several workers: they are parallel enough.
        threads = 1 if workers > 1 else 0
        video = Video(path, extractor.spec.fps, size=extractor.size, keep_damaged=keep_damaged, threads=threads)
        failure = None
        try:
            for window in windows(video, extractor):
                if not _put(ready, (path, window), stop):
                    return
        except DataError as error:
            failure = str(error).removeprefix(f"{path}: ")
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        _put(ready, (path, _End(video, failure)), stop)


def _gather(
    targets: Mapping[Path, Path],
    ready: queue.Queue,
    engine: Engine,
    batch_size: int,
    spec: FeatureSpec,
    report: Report,
) -> None:
    """Take windows as they come, run the network on full batches, write each video once its last features are there."""
    held: list[tuple[Path, Window]] = []
    found: dict[Path, list[Tensor]] = {path: [] for path in targets}
    ended: dict[Path, _End] = {}
    with progress((), total=len(targets), desc="extracting", unit="video") as bar:
        while found:
            path, item = ready.get()
            if not isinstance(item, _End):
                held.append((path, item))
            elif item.failure is None:
                ended[path] = item
            else:
                report.failed[str(path)] = item.failure
                held = [(other, window) for other, window in held if other != path]
                del found[path]
                bar.update()
            if held and (len(held) >= batch_size or len(ended) == len(found)):
                for alike in _of_one_size(held):
                    features = engine([window for _, window in alike])
                    for (owner, _), row in zip(alike, features, strict=True):
                        found[owner].append(row)
                held = []
            waiting = {owner for owner, _ in held}
            for path in [path for path in ended if path not in waiting]:
                video = ended.pop(path).video
                rows = torch.stack(found.pop(path), dim=1)
                bar.update()
                if not rows.isfinite().all():
                    report.failed[str(path)] = _NOT_FINITE
                    continue
                target = targets[path]
                write_features(target, VideoFeatures(target.stem, rows, _axis(video, rows.shape[1], spec), spec))
                report.written.append(str(target))
                if video.damage:
                    report.damaged[str(path)] = video.damage


def _of_one_size(held: list[tuple[Path, Window]]) -> Iterator[list[tuple[Path, Window]]]:
    """The windows that go through the network together: videos of several shapes, uncropped, do not."""
    groups: dict[tuple, list[tuple[Path, Window]]] = {}
    for path, window in held:
        groups.setdefault(tuple(part.shape for part in window), []).append((path, window))
    yield from groups.values()


def pending(
    paths: Sequence[str | Path] | Mapping[Path, str], spec: FeatureSpec, out: str | Path
) -> tuple[Report, dict[Path, Path]]:
    """A report of the videos whose features are in `out` already, and of the other videos the files to write.

    Raises:
        DataError: if two videos have one name, or `out` holds features of another extractor.
    """
    report, left, names = Report(), dict[Path, Path](), {}
    called = paths if isinstance(paths, Mapping) else {Path(path): Path(path).stem for path in paths}
    for path, name in called.items():
        if (other := names.setdefault(name, path)) != path:
            raise DataError(f"{path} and {other} would both be written to {name}.npz: rename one")
        target = Path(out) / f"{name}.npz"
        stored = _stored_spec(target) if target.exists() else None
        if stored is None:
            left[path] = target
            continue
        if wrong := stored.mismatches(spec):
            raise DataError(
                f"{target}: made otherwise: {'; '.join(wrong)} (here: the file, there: now); choose another folder"
            )
        report.kept.append(str(target))
    return report, left


def _stored_spec(path: Path) -> FeatureSpec | None:
    """The spec of a feature file, without reading its features; None where the file is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            text = np.load(io.BytesIO(archive.read("spec.npy")), allow_pickle=False)
        return FeatureSpec.from_dict(json.loads(str(text)))
    except KeyError:
        raise DataError(f"{path}: does not say how it was made, and is left alone; choose another folder") from None
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
