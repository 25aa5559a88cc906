"""Features of a video, where they come from, and which second each of them stands for."""

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backtal.data.npy import load_npz
from backtal.errors import ConfigError, DataError
from backtal.files import atomic_path, note

_READ = {"features", "rgb", "flow", "duration", "num_frames", "spec", "start", "step"}
_said_unused = set[tuple[str, ...]]()
CROWDED = "more snippets than frames: are its features [T, D], where [D, T] is meant?"


@dataclass(frozen=True)
class FeatureSpec:
    """How features were made. It travels with feature files and with checkpoints.

    Fields left None are unknown and match anything.

    Args:
        extractor: name of the network, for example ``"i3d"``.
        fps: frames per second that the extractor saw.
        window: frames that one snippet looks at.
        stride: frames from one snippet to the next.
        crop: spatial crop, for example ``"center224"``.
        flow: optical flow algorithm.
        dim: channels D.

    Example:
        >>> i3d = FeatureSpec("i3d", fps=25, window=16, stride=16, dim=2048)
        >>> i3d.mismatches(FeatureSpec("i3d", fps=25, window=16, stride=8))
        ['stride: 16 here, 8 there']
    """

    extractor: str | None = None
    fps: float | None = None
    window: int | None = None
    stride: int | None = None
    crop: str | None = None
    flow: str | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        for name in ("fps", "window", "stride", "dim"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"feature spec: {name} must be a positive number, got {value!r}")

    def mismatches(self, other: "FeatureSpec", ignore: Collection[str] = ()) -> list[str]:
        """Name the fields that both sides know and that differ, but for those to ignore.

        Raises:
            ConfigError: for a field to ignore that there is not.
        """
        names = [field.name for field in dataclasses.fields(self)]
        if unknown := set(ignore) - set(names):
            raise ConfigError(f"feature spec: no field {sorted(unknown)[0]!r} to ignore; there are {', '.join(names)}")
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names if name not in ignore)
        return [f"{n}: {a} here, {b} there" for n, a, b in pairs if None not in (a, b) and a != b]

    @classmethod
    def from_dict(cls, values: dict) -> "FeatureSpec":
        """Build from a JSON object; unknown keys are errors."""
        unknown = set(values) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise ConfigError(f"feature spec: unknown field {sorted(unknown)[0]!r}")
        return cls(**values)


@dataclass(frozen=True)
class TimeAxis:
    """Where each snippet lies in the video: snippet ``i`` stands for ``[start + i * step, ... + step)``.

    Args:
        start: second at which snippet 0 begins.
        step: seconds per snippet.
        length: number of snippets T.
        duration: seconds of the video; no time beyond it is ever returned.
        num_frames: frames of the video, where known.

    Example:
        >>> axis = TimeAxis.even(length=20, duration=10.0)
        >>> axis.seconds(3), axis.index(1.6)
        (1.5, 3)
        >>> axis.rescaled(100).index(1.6)
        16
    """

    start: float
    step: float
    length: int
    duration: float
    num_frames: int | None = None

    @classmethod
    def even(cls, length: int, duration: float, num_frames: int | None = None) -> "TimeAxis":
        """Snippets that divide the whole duration evenly."""
        return cls(0.0, duration / length, length, duration, num_frames)

    @classmethod
    def of(
        cls, length: int, duration: float, num_frames: int | None = None, spec: FeatureSpec | None = None
    ) -> "TimeAxis":
        """Snippets placed by fps, window and stride where the spec knows them, else evenly.

        A snippet stands for one stride of time around the middle of its window.
        """
        if spec is None or spec.fps is None or spec.stride is None:
            return cls.even(length, duration, num_frames)
        window = spec.stride if spec.window is None else spec.window
        return cls((window - spec.stride) / 2 / spec.fps, spec.stride / spec.fps, length, duration, num_frames)

    @property
    def is_crowded(self) -> bool:
        """Whether there are more snippets than frames, where their number is known: see `CROWDED`."""
        return self.num_frames is not None and self.length > self.num_frames

    @property
    def misfit(self) -> str | None:
        """How long features and video are, as text, where the snippets do not cover the duration, or go far beyond it.

        Example:
            >>> TimeAxis(0.0, 0.5, length=50, duration=5.0).misfit
            '25.0 s of features, 5.0 s of video'
        """
        covered = 2 * self.start + self.length * self.step  # as much is before the first snippet as after the last
        if abs(covered - self.duration) <= max(1.0, 4 * self.step, 0.05 * self.duration):
            return None
        return f"{covered:.1f} s of features, {self.duration:.1f} s of video"

    def seconds(self, index: float) -> float:
        """Second at which the (possibly fractional) snippet position lies."""
        return min(max(self.start + index * self.step, 0.0), self.duration)

    def all_seconds(self, index: np.ndarray) -> np.ndarray:
        """`seconds` of every position in an array of any shape."""
        return np.clip(self.start + index * self.step, 0.0, self.duration)

    def index(self, seconds: float) -> int:
        """The snippet that stands for this second; the nearest one outside the covered range."""
        return min(max(int((seconds - self.start) // self.step), 0), self.length - 1)

    def middles(self) -> np.ndarray:
        """The second in the middle of each snippet, ``[T]``."""
        return self.all_seconds(np.arange(self.length) + 0.5)

    def rescaled(self, length: int) -> "TimeAxis":
        """The same stretch of time in another number of snippets."""
        return dataclasses.replace(self, step=self.step * self.length / length, length=length)


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features ``[D, T]`` (float32) of one video with their time axis.

    Example:
        >>> video = VideoFeatures("v1", torch.randn(8, 20), TimeAxis.even(20, duration=10.0))
        >>> video.rescaled(100).features.shape
        torch.Size([8, 100])
    """

    video_id: str
    features: Tensor
    axis: TimeAxis
    spec: FeatureSpec | None = None

    def rescaled(self, length: int | None) -> "VideoFeatures":
        """Linear interpolation over time to `length` snippets; None keeps the native length."""
        if length is None or length == self.axis.length:
            return self
        features = F.interpolate(self.features[None], size=length, mode="linear", align_corners=False)[0]
        return dataclasses.replace(self, features=features, axis=self.axis.rescaled(length))

    def check(
        self, dim: int, min_length: int, spec: FeatureSpec | None = None, ignore_spec: Collection[str] = ()
    ) -> None:
        """Raise DataError where a network for `dim` channels and kernels of `min_length` cannot take this.

        Fields of the spec that are named in `ignore_spec` may differ.
        """
        check_fit(self.video_id, self.features.shape[0], self.spec, dim, spec, ignore_spec, self.features.shape[1])
        check_length(self.video_id, self.features.shape[1], min_length)


def check_fit(
    video_id: str,
    found_dim: int,
    found: FeatureSpec | None,
    dim: int,
    spec: FeatureSpec | None,
    ignore_spec: Collection[str] = (),
    length: int | None = None,
) -> None:
    """Raise DataError where features of `found_dim` channels, made as `found` says, are not those a network takes.

    Their `length` in snippets tells whether they are [T, D] where [D, T] is meant.
    """
    if found_dim != dim:
        hint = f"; it has {length} snippets: are they [T, D], where [D, T] is meant?" if length == dim else ""
        raise DataError(f"video {video_id}: features have {found_dim} channels, expected {dim}{hint}")
    if spec is not None and found is not None and (wrong := found.mismatches(spec, ignore_spec)):
        raise DataError(
            f"video {video_id}: its features differ from what the model was trained on: {'; '.join(wrong)} "
            "(here: the features, there: the model); to use them all the same, name the fields in ignore_spec "
            "(--ignore-spec)"
        )


def check_length(video_id: str, length: int, min_length: int) -> None:
    """Raise DataError where a video has fewer snippets than one kernel spans."""
    if length < min_length:
        raise DataError(
            f"video {video_id}: {length} snippet(s), fewer than the {min_length} that one kernel spans; "
            "leave the video out or extract features with a smaller stride"
        )


def read_features(path: str | Path, *, duration: float | None = None, num_frames: int | None = None) -> VideoFeatures:
    """Read a feature file: ``.npz`` with ``features [D, T]``, or ``rgb`` and ``flow``, which are stacked.

    The file may also hold ``duration`` (seconds), ``num_frames``, ``spec`` (a `FeatureSpec` as JSON), and ``start``
    and ``step``, the seconds of a `TimeAxis` that the spec does not give.

    Args:
        path: the file; its stem is the video id.
        duration: seconds of the video; overrides the file's. Without any, the spec gives it.
        num_frames: frames of the video; overrides the file's.

    Raises:
        DataError: if the file is missing, truncated, not numeric, holds NaN or infinity, is not
            ``[D, T]`` with T >= 1, or says nothing about its duration.
    """
    path = Path(path)
    arrays = load_npz(path)
    features = torch.from_numpy(stack_channels(arrays, path))
    axis, spec = read_axis(arrays, path, *features.shape, duration=duration, num_frames=num_frames)
    return VideoFeatures(path.stem, features, axis, spec)


def read_axis(
    arrays: Mapping[str, np.ndarray],
    path: str | Path,
    dim: int,
    length: int,
    *,
    duration: float | None = None,
    num_frames: int | None = None,
) -> tuple[TimeAxis, FeatureSpec | None]:
    """The time axis and the spec that the arrays of a feature file give for features ``[dim, length]``.

    Raises:
        DataError: naming `path`, if they are malformed or say nothing about the duration.
    """
    if unused := arrays.keys() - _READ:
        _say_unused(tuple(sorted(unused)), path)
    spec = None
    if "spec" in arrays:
        try:
            spec = FeatureSpec.from_dict(json.loads(str(arrays["spec"])))
        except (ValueError, TypeError, OverflowError, RecursionError, SystemError) as failure:
            raise DataError(f"{path}: spec: {failure}") from None
    if spec is not None and spec.dim is not None and spec.dim != dim:
        hint = f", and {length} snippets: are they [T, D], where [D, T] is meant?" if length == spec.dim else ""
        raise DataError(f"{path}: {dim} channels, but its spec says {spec.dim}{hint}")
    if duration is None and "duration" in arrays:
        duration = _number(arrays, "duration", path)
    if num_frames is None and "num_frames" in arrays:
        num_frames = int(_number(arrays, "num_frames", path))
    if duration is None and spec is not None and spec.fps is not None and spec.stride is not None:
        duration = ((length - 1) * spec.stride + (spec.window or spec.stride)) / spec.fps
    if duration is None:
        raise DataError(
            f"{path}: no duration known; store `duration` (seconds) or `spec` in the file, or give the dataset folder"
        )
    if not (math.isfinite(duration) and duration > 0):
        raise DataError(f"{path}: duration must be a positive number of seconds, got {duration}")
    axis = TimeAxis.of(length, duration, num_frames, spec)
    if "start" in arrays and "step" in arrays:
        axis = dataclasses.replace(axis, start=_number(arrays, "start", path), step=_number(arrays, "step", path))
        if axis.step <= 0:
            raise DataError(f"{path}: start {axis.start} and step {axis.step} are no seconds of a time axis")
    return axis, spec


def _say_unused(names: tuple[str, ...], path: str | Path) -> None:
    """Say that arrays of a file are not read; once, as a dataset has them in every file."""
    if names not in _said_unused:
        _said_unused.add(names)
        note(f"{path}: {', '.join(names)}: not used, here nor in other feature files")


def _number(arrays: Mapping[str, np.ndarray], name: str, path: str | Path) -> float:
    value = arrays[name]
    if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        raise DataError(f"{path}: {name} must be one number, and finite")
    return float(value.reshape(())[()])


def write_features(path: str | Path, video: VideoFeatures, *, half: bool = True) -> None:
    """Write a feature file that `read_features` reads, atomically.

    Features are stored as float16, unless `half` is False or one of them is beyond its range (65,504).
    """
    features = video.features.cpu().numpy()
    half = half and bool(np.abs(features).max() <= np.finfo(np.float16).max)
    content = {
        "features": features.astype(np.float16 if half else np.float32, copy=False),
        "duration": np.array(video.axis.duration),
    }
    if video.axis.num_frames is not None:
        content["num_frames"] = np.array(video.axis.num_frames)
    axis = video.axis
    if axis != TimeAxis.of(axis.length, axis.duration, axis.num_frames, video.spec):
        content |= {"start": np.array(axis.start), "step": np.array(axis.step)}
    if video.spec is not None:
        content["spec"] = np.array(json.dumps(dataclasses.asdict(video.spec)))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)


def stack_channels(arrays: Mapping[str, np.ndarray], path: str | Path) -> np.ndarray:
    """Check the arrays of a video, ``features [D, T]`` or ``rgb`` and ``flow``, and stack them to ``[D, T]`` float32.

    Raises:
        DataError: naming `path`, if they are missing, not numeric, empty, of different lengths, NaN or infinite.
    """
    if "features" in arrays:
        names = ["features"]
        if also := sorted({"rgb", "flow"} & arrays.keys()):
            raise DataError(f"{path}: holds `features` and `{'` and `'.join(also)}`; keep what is meant")
    elif "rgb" in arrays and "flow" in arrays:
        names = ["rgb", "flow"]
    else:
        hint = " (np.savez(path, features=array) names it)" if sorted(arrays) == ["arr_0"] else ""
        raise DataError(f"{path}: holds {sorted(arrays)}; expected `features`, or `rgb` and `flow`{hint}")
    parts = [arrays[name] for name in names]
    for name, part in zip(names, parts, strict=True):
        if part.ndim != 2 or part.dtype.kind not in "fiu":
            raise DataError(f"{path}: `{name}` must be numbers [D, T], found {part.dtype} of shape {part.shape}")
        if 0 in part.shape:
            raise DataError(f"{path}: `{name}` is empty (shape {part.shape})")
    if len({part.shape[1] for part in parts}) > 1:
        raise DataError(f"{path}: `rgb` and `flow` have different lengths: {[part.shape[1] for part in parts]}")
    features = np.concatenate([_widened(part) for part in parts], dtype=np.float32, casting="same_kind")
    check_finite(features, path)
    return features


def _widened(array: np.ndarray) -> np.ndarray:
    """float16 as float32, by PyTorch, as NumPy takes twenty times as long for it; any other type as it is."""
    return torch.from_numpy(np.array(array)).float().numpy() if array.dtype == np.float16 else array


def check_finite(features: np.ndarray, path: str | Path, first: int = 0) -> None:
    """Raise DataError where a snippet of ``[D, T]`` is NaN or infinite; `first` is the number of the first."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=0))
    if bad.size:
        number = first + bad[0]
        raise DataError(f"{path}: NaN or infinite values in {bad.size} snippet(s), the first is number {number}")
