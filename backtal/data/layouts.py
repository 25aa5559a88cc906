"""Datasets as other projects store them, opened as the same object as our dataset folder.

``docs/layouts.md`` says which facts about each layout come from its source and which are assumed.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backtal.clicks.clicks import BACKGROUND, Click, ClickTrack
from backtal.clicks.files import read_clicks
from backtal.data.annotations import Annotations, Video, parse_annotations, read_dialect
from backtal.data.datasets import VideoDataset
from backtal.data.features import FeatureSpec, TimeAxis, VideoFeatures, stack_channels
from backtal.data.npy import read_npy, read_npz
from backtal.errors import BackTALError, DataError, name_some
from backtal.files import read_json, read_lines


@dataclass(frozen=True)
class LayoutOptions:
    """What a layout's files do not say themselves; each layout has its own defaults for what is None.

    Args:
        annotations: the annotation file (JSON), where it does not lie at its usual place.
        labels: names of the classes, in the order of the dataset's class indices.
        fps: frames per second that the feature extractor saw; None for the layout's default.
        stride: frames from one snippet to the next.
        window: frames that one snippet looks at.
        prefix: what feature files have before the video's name (``v_`` for ActivityNet); for W-TALC's joint
            files, the name of the dataset where a folder holds several.
    """

    annotations: Path | None = None
    labels: tuple[str, ...] | None = None
    fps: float | None = None
    stride: int | None = None
    window: int | None = None
    prefix: str = ""


def open_layout(name: str, root: str | Path, options: LayoutOptions | None = None) -> VideoDataset:
    """Open a dataset stored in the layout `name`, one of `LAYOUTS`.

    Raises:
        DataError: if there is no such layout, a file is missing or malformed, or a video is there twice.
        ConfigError: for an option that is no positive number.
    """
    if name not in LAYOUTS:
        raise DataError(f"unknown layout {name!r}; known are {', '.join(LAYOUTS)}")
    if not Path(root).is_dir():
        raise DataError(f"{root}: no such folder")
    return LAYOUTS[name](Path(root), options or LayoutOptions())


def released(root: Path, options: LayoutOptions) -> VideoDataset:
    """BackTAL's own files: one ``.npz`` per video with features, video labels and clicks.

    Keys: ``feat_spa`` and ``feat_tem`` ``[T, D]``, ``cls_label`` (multi-hot ``[C]``), ``point_label`` (marks of
    background clicks ``[L]``, or of clicks by class ``[L, C + 1]``, on L equal parts of the video), ``vid_name``,
    ``frame_num``, ``fps``, ``duration``. Files lie in `root`, or in ``train`` and ``test`` below it. Without an
    annotation file the dataset knows the video labels only.
    """
    files = sorted(root.glob("*.npz")) or sorted(root.glob("*/*.npz"))
    if not files:
        raise DataError(f"{root}: no .npz file, neither here nor one folder below")
    facts = {path: read_npz(path, ("cls_label", "point_label", *_SCALARS)) for path in files}
    names = dict[str, Path]()
    for path in files:
        name = _scalar(facts[path], "vid_name", path)
        if name in names:
            raise DataError(f"{path}: video {name} is in {names[name]} too")
        names[name] = path
    given = None
    if options.annotations:
        with _parsing(options.annotations):
            given = read_dialect(options.annotations, options.labels)
    marks = {name: _vector(facts[path], "cls_label", path) for name, path in names.items()}
    labels = given.labels if given else options.labels
    labels = labels or tuple(f"class{i:03d}" for i in range(len(next(iter(marks.values())))))
    videos = dict(given.videos) if given else {}
    for name, path in names.items():
        if len(marks[name]) != len(labels):
            raise DataError(f"{path}: `cls_label` has {len(marks[name])} entries, but there are {len(labels)} labels")
        present = frozenset(label for label, mark in zip(labels, marks[name], strict=True) if mark > 0)
        if given and name not in videos:
            raise DataError(f"{path}: video {name} is not in {options.annotations}")
        if given and videos[name].labels != present:
            raise DataError(
                f"{path}: `cls_label` says {sorted(present)}, {options.annotations} says {sorted(videos[name].labels)};"
                " give the labels in the order of `cls_label` with --labels"
            )
        if not given:
            videos[name] = _released_video(name, facts[path], path, present)
    annotations = Annotations(tuple(labels), videos)

    def read(path: Path, video: Video) -> VideoFeatures:
        arrays = read_npz(path, ("feat_spa", "feat_tem"))
        channels = stack_channels({"rgb": arrays["feat_spa"].T, "flow": arrays["feat_tem"].T}, path)
        return _on_axis(video, channels, FeatureSpec("i3d"))

    def clicks() -> dict[str, ClickTrack]:
        found = (_marked(name, facts[path]["point_label"], annotations, path) for name, path in names.items())
        return {track.video_id: track for track in found if len(track)}

    readers = {name: partial(read, path) for name, path in names.items()}
    return VideoDataset(root, annotations, readers, {root / "point_label": clicks})


_SCALARS = ("vid_name", "frame_num", "fps", "duration")


def _released_video(name: str, facts: Mapping[str, np.ndarray], path: Path, labels: frozenset[str]) -> Video:
    entry = {
        "subset": "test" if path.parent.name.startswith("test") else "training",
        "duration": _scalar(facts, "duration", path),
        "fps": _scalar(facts, "fps", path),
        "num_frames": _scalar(facts, "frame_num", path),
        "labels": sorted(labels),
    }
    return parse_annotations({"database": {name: entry}}, path).videos[name]


def _marked(name: str, marks: np.ndarray, annotations: Annotations, path: Path) -> ClickTrack:
    """The clicks of one video from `point_label`: each lies in the middle of the part that is marked."""
    classes = (*annotations.labels, BACKGROUND)
    marks = np.asarray(marks)
    columns = marks[:, None] if marks.ndim == 1 else marks
    if columns.ndim != 2 or columns.shape[1] not in (1, len(classes)) or columns.dtype.kind not in "biuf":
        raise DataError(f"{path}: `point_label` must be marks [L] or [L, {len(classes)}], found shape {marks.shape}")
    axis = TimeAxis.even(max(len(columns), 1), annotations.videos[name].duration)
    names = classes if columns.shape[1] > 1 else (BACKGROUND,)
    found = (Click(axis.seconds(float(row) + 0.5), names[column]) for row, column in np.argwhere(columns > 0))
    return ClickTrack(name, tuple(found))


def basnet(root: Path, options: LayoutOptions) -> VideoDataset:
    """``features/{train,test}/{rgb,flow}/<video>.npy`` ``[T, 1024]``, as BaS-Net and LACP use.

    HR-Pro's ``features/{train,test}/<video>.npy`` ``[T, 2048]`` too. Beside them ``split_{train,test}.txt``,
    ``gt.json`` or ``gt_full.json``, and where they exist ``fps_dict.json`` and action clicks ``point_*/*.csv``.
    """
    spec = _spec(options, fps=25, stride=16, window=16)
    paths, subsets = dict[str, tuple[Path, ...]](), dict[str, str]()
    for part, subset in (("train", "training"), ("test", "test")):
        found = _paired_files(root / "features" / part)
        split = root / f"split_{part}.txt"
        names = read_lines(split) if split.exists() else list(found)
        if both := [name for name in names if name in subsets]:
            raise DataError(f"{root}: videos in train and in test: {name_some(both)}")
        subsets |= dict.fromkeys(names, subset)
        paths |= {name: found[name] for name in names if name in found}
    if not paths:
        raise DataError(f"{root}: no features in features/train or features/test")
    frame_rates = read_json(root / "fps_dict.json") if (root / "fps_dict.json").exists() else {}
    where = options.annotations or _first(root, "gt_full.json", "gt.json")

    def complete(name: str, entry: dict[str, Any]) -> dict[str, Any]:
        entry["subset"] = subsets[name]
        if name in frame_rates:
            entry["fps"] = frame_rates[name]
        if "duration" not in entry and name in paths:
            entry["duration"] = _covered(len(np.atleast_1d(read_npy(paths[name][0]))), spec)
        return entry

    with _parsing(where):
        annotations = read_dialect(where, options.labels, complete, keep=subsets)
    readers = {name: partial(_read_npy_video, files, spec) for name, files in paths.items()}
    return _with_point_files(root, annotations, readers, sorted(root.glob("point_*/*.csv")))


def actionformer(root: Path, options: LayoutOptions) -> VideoDataset:
    """One ``<video>.npy`` ``[T, D]`` per video and annotations in ActivityNet's form, as ActionFormer and OpenTAD use.

    Defaults: stride 4 and window 16 frames (THUMOS14), counted in the video's own frames unless `fps` is given.
    Features lie in `root` or in the one folder below it that holds some; the annotations in
    ``annotations/*.json`` or ``*.json``, if there is only one.
    """
    spec = _spec(options, fps=None, stride=4, window=16)
    folders = [d for d in (root, *sorted(p for p in root.iterdir() if p.is_dir())) if next(d.glob("*.npy"), None)]
    if len(folders) != 1:
        raise DataError(f"{root}: expected one folder of .npy files, found {name_some(folders) or 'none'}")
    files = {path.stem.removeprefix(options.prefix): path for path in sorted(folders[0].glob(f"{options.prefix}*.npy"))}
    where = options.annotations or _only(sorted({*root.glob("annotations/*.json"), *root.glob("*.json")}), root)
    with _parsing(where):
        annotations = read_dialect(where, options.labels)
    readers = {name: partial(_read_npy_video, (path,), spec) for name, path in files.items()}
    return VideoDataset(root, annotations, readers)


def wtalc(root: Path, options: LayoutOptions) -> VideoDataset:
    """One joint ``<Name>-<type>-JOINTFeatures.npy`` of all videos with ``<Name>-Annotations/*.npy``, as W-TALC uses.

    SF-Net too, whose action clicks ``single_frames/*.txt`` are found, and whose ``*_groundtruth.json``, given as
    the annotations, tells the frame rate of each video. Reading it takes as much memory as the joint file is large.
    """
    joint = _only(sorted(root.glob(f"{options.prefix}*-JOINTFeatures.npy")), root)
    folder = root / f"{joint.name.partition('-')[0]}-Annotations"
    tables = {}
    for name in _TABLES:
        with _parsing(folder / f"{name}.npy"):
            tables[name] = list(np.atleast_1d(read_npy(folder / f"{name}.npy")))
    if len({len(table) for table in tables.values()}) > 1:
        counts = ", ".join(f"{name} {len(table)}" for name, table in tables.items())
        raise DataError(f"{folder}: the files are not of one length: {counts}")
    rates = _frame_rates(options.annotations) if options.annotations else {}
    with _parsing(folder / "videoname.npy"):
        names = [_text(name) for name in tables["videoname"]]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{folder / 'videoname.npy'}: videos that are there twice: {name_some(twice)}")
    database = {}
    for name, *row in zip(names, *(tables[table] for table in _TABLES[1:]), strict=True):
        with _parsing(f"{folder}: video {name}"):
            database[name] = _joint_entry(*row) | {"fps": rates.get(name)}
    with _parsing(folder / "classlist.npy"):
        classes = options.labels or tuple(_text(label) for label in read_npy(folder / "classlist.npy"))
    annotations = parse_annotations({"labels": classes, "database": database}, folder)
    spec = _spec(options, fps=None if rates else 25, stride=16, window=16)
    load = cache(partial(_joint_features, joint, len(names)))

    def read(index: int, video: Video) -> VideoFeatures:
        where = f"{joint}, video {video.video_id}"
        with _parsing(where):
            channels = np.atleast_2d(np.asarray(load()[index], dtype=np.float32)).T
        return _on_axis(video, stack_channels({"features": channels}, where), spec, 25)

    readers = {name: partial(read, index) for index, name in enumerate(names)}
    return _with_point_files(root, annotations, readers, sorted(folder.glob("single_frames/*.txt")))


_TABLES = ("videoname", "subset", "duration", "labels_all", "segments", "labels")


def _joint_entry(subset: Any, duration: Any, every: Any, segments: Any, labels: Any) -> dict[str, Any]:
    """What the tables say of one video, as an entry of annotations."""
    return {
        "subset": _text(subset),
        "duration": float(np.asarray(duration, dtype=np.float64).reshape(-1)[0]),
        "labels": sorted({_text(label) for label in every}),
        "annotations": [
            {"segment": [float(t) for t in segment], "label": _text(label)}
            for segment, label in zip(segments, labels, strict=True)
        ],
    }


def _frame_rates(path: Path) -> dict[str, Any]:
    database = read_json(path).get("database")
    if not isinstance(database, dict) or not all(isinstance(entry, dict) for entry in database.values()):
        raise DataError(f"{path}: expected an object 'database' of videos")
    return {name: entry.get("fps") for name, entry in database.items()}


def _joint_features(path: Path, count: int) -> np.ndarray:
    joint = np.atleast_1d(read_npy(path))
    if len(joint) != count:
        raise DataError(f"{path}: features of {len(joint)} videos, but videoname.npy names {count}")
    return joint


LAYOUTS: dict[str, Callable[[Path, LayoutOptions], VideoDataset]] = {
    "released": released,
    "basnet": basnet,
    "lacp": basnet,
    "hrpro": basnet,
    "actionformer": actionformer,
    "opentad": actionformer,
    "wtalc": wtalc,
    "sfnet": wtalc,
}


def _spec(options: LayoutOptions, fps: float | None, stride: int, window: int) -> FeatureSpec:
    return FeatureSpec(
        "i3d",
        fps if options.fps is None else options.fps,
        window if options.window is None else options.window,
        stride if options.stride is None else options.stride,
    )


@contextmanager
def _parsing(where: str | Path) -> Iterator[None]:
    """Make one DataError, which begins with `where`, of what malformed content raises."""
    try:
        yield
    except BackTALError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, SystemError) as failure:
        # SystemError: numpy's for characters that Unicode does not have
        raise DataError(f"{where}: malformed: {failure}") from failure


def _on_axis(video: Video, channels: np.ndarray, spec: FeatureSpec, default_rate: float | None = None) -> VideoFeatures:
    """Features on their time axis; a spec without fps counts the video's own frames."""
    rate = spec.fps or video.frame_rate or default_rate
    axis = TimeAxis.of(channels.shape[1], video.duration, video.num_frames, dataclasses.replace(spec, fps=rate))
    return VideoFeatures(
        video.video_id, torch.from_numpy(channels), axis, dataclasses.replace(spec, dim=channels.shape[0])
    )


def _read_npy_video(paths: Sequence[Path], spec: FeatureSpec, video: Video) -> VideoFeatures:
    """One file of features ``[T, D]``, or one of RGB and one of flow."""
    if spec.fps is None and video.frame_rate is None:
        raise DataError(f"video {video.video_id}: its frame rate is not known; give it with --fps")
    names = ("features",) if len(paths) == 1 else ("rgb", "flow")
    arrays = {name: read_npy(path).T for name, path in zip(names, paths, strict=True)}
    return _on_axis(video, stack_channels(arrays, paths[0]), spec)


def _paired_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The feature files by video: ``<video>.npy``, or those of that name in ``rgb`` and ``flow``."""
    if (folder / "rgb").is_dir():
        rgb, flow = ({path.stem: path for path in sorted((folder / kind).glob("*.npy"))} for kind in ("rgb", "flow"))
        if lonely := sorted(rgb.keys() ^ flow.keys()):
            raise DataError(f"{folder}: videos with only one of rgb and flow: {name_some(lonely)}")
        return {name: (rgb[name], flow[name]) for name in rgb}
    return {path.stem: (path,) for path in sorted(folder.glob("*.npy"))}


def _with_point_files(
    root: Path, annotations: Annotations, readers: Mapping[str, Callable[[Video], VideoFeatures]], paths: Iterable[Path]
) -> VideoDataset:
    rates = annotations.frame_rates

    def known(path: Path) -> dict[str, ClickTrack]:
        tracks = read_clicks(path, frame_rates=rates, videos=annotations.videos)
        return {name: track for name, track in tracks.items() if name in annotations.videos}

    return VideoDataset(root, annotations, readers, {path: partial(known, path) for path in paths})


def _covered(length: int, spec: FeatureSpec) -> float:
    """Seconds that `length` snippets span, where nothing else tells the duration."""
    assert spec.fps is not None
    assert spec.stride is not None
    return ((length - 1) * spec.stride + (spec.window or spec.stride)) / spec.fps


def _scalar(facts: Mapping[str, np.ndarray], name: str, path: Path) -> Any:
    value = np.asarray(facts[name])
    if value.size != 1:
        raise DataError(f"{path}: `{name}` must be one value, found shape {value.shape}")
    with _parsing(f"{path}: `{name}`"):
        item = value.reshape(-1)[0]
        return _text(item) if name == "vid_name" else float(item)


def _vector(facts: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    value = np.asarray(facts[name]).squeeze()
    if value.ndim != 1 or value.dtype.kind not in "biuf":
        raise DataError(f"{path}: `{name}` must be a vector of numbers, found {value.dtype} of shape {value.shape}")
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _first(root: Path, *names: str) -> Path:
    found = [root / name for name in names if (root / name).exists()]
    if not found:
        raise DataError(f"{root}: no {' or '.join(names)}; give the annotation file with --annotations")
    return found[0]


def _only(paths: Sequence[Path], root: Path) -> Path:
    if len(paths) != 1:
        found = f"found {name_some(path.name for path in paths)}" if paths else "found none"
        raise DataError(f"{root}: expected one such file, {found}; say which with --annotations or --prefix")
    return paths[0]
