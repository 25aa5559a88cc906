"""Checking a dataset: what is missing, what does not line up, and what to do about it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from backtal.clicks.clicks import BACKGROUND, Click, ClickTrack
from backtal.data.annotations import Video
from backtal.data.click_stats import ClickCount, clicks_inside_actions, count_clicks
from backtal.data.datasets import SHORTEST, VideoDataset, foreign_clicks
from backtal.data.features import CROWDED, FeatureSpec, TimeAxis
from backtal.errors import DataError, name_some
from backtal.files import progress


@dataclass(frozen=True)
class Finding:
    """One kind of problem: an ``"error"`` stops training or localization, a ``"warning"`` makes it worse.

    `items` names every video (or click) concerned, `advice` says what to do.
    """

    level: Literal["error", "warning"]
    kind: str
    message: str
    items: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        listed = f": {name_some(self.items)}" if self.items else ""
        advice = f"\n      {self.advice}" if self.advice else ""
        return f"  {self.level}: {self.message}{listed}{advice}"


@dataclass(frozen=True)
class DatasetReport:
    """What `check_dataset` found; prints as a report, `broken` where there is an error."""

    root: str
    labels: int
    instances: int
    subsets: dict[str, int]
    features: str
    clicks: tuple[ClickCount, ...]
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> bool:
        """Whether something stops training or localization."""
        return any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, every video named."""
        return {**asdict(self), "broken": self.broken}

    def __str__(self) -> str:
        subsets = ", ".join(f"{count} {name}" for name, count in self.subsets.items())
        total = sum(self.subsets.values())
        lines = [f"{self.root}: {total} videos ({subsets}), {self.labels} labels, {self.instances} instances"]
        lines += [f"features: {self.features}", *map(str, self.clicks)]
        lines += ["", *map(str, sorted(self.findings, key=lambda f: f.level))] if self.findings else []
        errors = sum(finding.level == "error" for finding in self.findings)
        lines += ["", f"{errors} error(s), {len(self.findings) - errors} warning(s)"]
        return "\n".join(lines)


def check_dataset(
    dataset: VideoDataset,
    click_files: Sequence[str | Path] = (),
    *,
    features: bool = True,
    annotations: bool = True,
) -> DatasetReport:
    """Read everything and report what is missing and what does not line up, instead of stopping at the first problem.

    Args:
        dataset: an opened dataset folder, or other layout.
        click_files: paths, or names of the dataset's own files; all of its own where empty.
        features: also read the features.
        annotations: also look for what is odd in the annotations.

    Raises:
        DataError: if a click file is not there. (Malformed annotations already stop the opening of a dataset.)
    """
    videos = dataset.annotations.videos
    by_file, unread = dict[Path, dict[str, ClickTrack]](), []
    for path in dataset.click_files(click_files) if click_files else dataset.click_paths():
        try:
            by_file[path] = dataset.read_clicks(path)
        except DataError as failure:
            unread.append(Finding("error", "click_file", str(failure)))
    clicked = {name for tracks in by_file.values() for name, track in tracks.items() if track.clicks}
    subsets = {video.subset for video in videos.values()}
    trained = subsets & {"training"} or {video.subset for name, video in videos.items() if name in clicked}
    summary, findings = "not checked", list(_annotation_findings(dataset, trained) if annotations else ())
    if features:
        summary, found = _check_features(dataset)
        findings += found
    findings += unread
    for path, tracks in by_file.items():
        findings += _click_findings(path.name, tracks, dataset)
        findings += _unclicked_findings(path.name, tracks, dataset, trained, clicked)
    return DatasetReport(
        root=str(dataset.root),
        labels=len(dataset.labels),
        instances=sum(len(video.ground_truth) for video in videos.values()),
        subsets=dict(Counter(video.subset for video in videos.values())),
        features=summary,
        clicks=tuple(count_clicks(path.name, tracks, videos) for path, tracks in by_file.items()),
        findings=tuple(findings),
    )


def _annotation_findings(dataset: VideoDataset, trained: set[str]) -> Iterator[Finding]:
    videos = dataset.annotations.videos.values()
    unlabelled = [v for v in videos if not v.labels]
    if untaught := [v.video_id for v in unlabelled if v.subset in trained]:
        message = f"{len(untaught)} video(s) of subset {name_some(sorted(trained))} without any label"
        advice = "say which actions occur in them, or move them out of the subset for training"
        yield Finding("error", "unlabelled_videos", message, tuple(untaught), advice)
    if others := [v.video_id for v in unlabelled if v.subset not in trained and v.annotated]:
        message = f"{len(others)} video(s) without any label"
        advice = "they count as videos in which nothing occurs, and cannot be trained on"
        yield Finding("warning", "unlabelled_videos", message, tuple(others), advice)
    measured = [v for v in videos if v.subset not in trained]
    unknown = [v.video_id for v in measured if not (v.located or v.ground_truth.segments)]
    if unknown and len(unknown) < len(measured):
        message = f"{len(unknown)} of {len(measured)} video(s) to measure on without start and end of their actions"
        yield Finding("warning", "unlocated_videos", message, tuple(unknown), "they are left out of all measuring")
    if partly := [f"{v.video_id} ({name_some(sorted(v.unlocated))})" for v in videos if v.annotated and v.unlocated]:
        message = f"{len(partly)} video(s) with labels of which it is not said when they occur"
        advice = "what is found of these labels there is left out of all measuring"
        yield Finding("warning", "unlocated_labels", message, tuple(partly), advice)
    names = Counter(v.video_id.casefold() for v in videos)
    if alike := [v.video_id for v in videos if names[v.video_id.casefold()] > 1]:
        message = f"{len(alike)} videos whose names differ in nothing but upper and lower case"
        yield Finding("warning", "names_alike", message, tuple(alike), "on macOS and Windows they are one file")
    if unused := [label for label in dataset.labels if not any(label in v.labels for v in videos)]:
        yield Finding("warning", "unused_labels", f"{len(unused)} label(s) that no video has", tuple(unused))
    rates = [v for v in videos if v.fps and v.num_frames and abs(v.num_frames / v.fps - v.duration) > 1]
    if rates:
        items = tuple(f"{v.video_id} ({v.num_frames} frames at {v.fps:g} fps, {v.duration:g} s)" for v in rates)
        message = f"{len(rates)} video(s) whose num_frames, fps and duration contradict each other by more than 1 s"
        yield Finding("warning", "frame_rate", message, items, "correct the one that is wrong; times depend on it")
    instances = [(v, s) for v in videos for s in v.ground_truth]
    outside = [(v, s) for v, s in instances if s.start < 0 or s.end > v.duration]
    if beyond := [f"{v.video_id} ({s.start:g}-{s.end:g} s of {v.duration:g} s)" for v, s in outside]:
        message = f"{len(beyond)} instance(s) reach beyond their video"
        advice = "the duration or the annotation is wrong; evaluation cannot find what lies outside"
        yield Finding("warning", "instance_outside", message, tuple(beyond), advice)
    if empty := [f"{v.video_id} at {s.start:g} s" for v, s in instances if s.duration == 0]:
        yield Finding("warning", "empty_instance", f"{len(empty)} instance(s) of zero length", tuple(empty))
    counted = Counter((v.video_id, s) for v, s in instances)
    repeated = [f"{name} ({s.label} {s.start:g}-{s.end:g} s)" for (name, s), count in counted.items() if count > 1]
    if repeated:
        yield Finding("warning", "repeated_instance", f"{len(repeated)} instance(s) given twice", tuple(repeated))


class _Shape(NamedTuple):
    """What the check keeps of the features of a video."""

    video: Video
    dim: int
    axis: TimeAxis
    spec: FeatureSpec | None


def _check_features(dataset: VideoDataset) -> tuple[str, list[Finding]]:
    videos, present = dataset.annotations.videos, dataset.feature_names()
    findings, shapes, damaged = [], list[_Shape](), []
    if missing := [name for name in videos if name not in present]:
        which = "no video has features" if len(missing) == len(videos) else f"{len(missing)} video(s) without features"
        advice = "extract them to features/<video>.npz, or convert them with `backtal dataset convert`"
        findings.append(Finding("error", "missing_features", which, tuple(missing), advice))
    if extra := sorted(present - videos.keys()):
        message = f"{len(extra)} feature file(s) of videos that are not annotated"
        findings.append(Finding("warning", "extra_features", message, tuple(extra), "they are not used"))
    for name in progress([name for name in videos if name in present], desc="reading features", leave=False):
        try:
            found = dataset.features(videos[name])
        except DataError as failure:
            damaged.append(str(failure))
            continue
        shapes.append(_Shape(videos[name], found.features.shape[0], found.axis, found.spec))
    if damaged:
        message = f"{len(damaged)} feature file(s) cannot be used"
        findings.append(Finding("error", "damaged_features", message, tuple(damaged), "extract or copy them again"))
    findings += _shape_findings(shapes)
    if not shapes:
        return "none", findings
    dims = "/".join(map(str, sorted({shape.dim for shape in shapes})))
    lengths = [shape.axis.length for shape in shapes]
    rate = median(1 / shape.axis.step for shape in shapes)
    shortest, longest = min(lengths), max(lengths)
    span = f"{shortest}{f'-{longest}' if longest > shortest else ''} snippets, {rate:.3g} per second"
    return f"{len(shapes)} of {len(videos)} videos, {dims} channels, {span}", findings


def _shape_findings(shapes: Sequence[_Shape]) -> Iterator[Finding]:
    if not shapes:
        return
    common = Counter(shape.dim for shape in shapes).most_common(1)[0][0]
    if odd := [s for s in shapes if s.dim != common]:
        message = f"{len(odd)} video(s) whose features do not have {common} channels like the others"
        advice = "all features must come from one extractor"
        if len({s.axis.length for s in shapes}) == 1 or all(s.axis.length == common for s in odd):
            advice = "as the other size is constant, they are probably [T, D], where [D, T] is meant: transpose them"
        items = tuple(f"{s.video.video_id} ({s.dim} channels)" for s in odd)
        yield Finding("error", "feature_dim", message, items, advice)
    if crowded := [s for s in shapes if s.axis.is_crowded]:
        items = tuple(f"{s.video.video_id} ({s.axis.length} snippets, {s.axis.num_frames} frames)" for s in crowded)
        yield Finding("warning", "crowded_features", f"{len(crowded)} video(s) with {CROWDED}", items)
    first = next((s.spec for s in shapes if s.spec), None)
    differing = [(s.video.video_id, s.spec.mismatches(first)) for s in shapes if s.spec and first]
    if other := [f"{name} ({'; '.join(wrong)})" for name, wrong in differing if wrong]:
        message = f"{len(other)} video(s) whose features were made differently from the first ones"
        yield Finding("error", "feature_spec", message, tuple(other), "extract all features in the same way")
    if short := [f"{s.video.video_id} ({s.axis.length})" for s in shapes if s.axis.length < SHORTEST]:
        message = f"{len(short)} video(s) of fewer than {SHORTEST} snippets, the span of the smallest kernel"
        yield Finding("error", "short_video", message, tuple(short), "leave them out, or extract with a smaller stride")
    rescaled = len({s.axis.length for s in shapes}) == 1
    usual = None if rescaled else median(s.axis.step for s in shapes)
    apart: dict[Literal["error", "warning"], list[str]] = {"error": [], "warning": []}
    for shape in shapes:
        duration, covered = shape.video.duration, _covered(shape.axis, usual)
        difference = abs(covered - duration)
        if difference > max(1.0, 4 * shape.axis.step, 0.05 * duration):
            level = "error" if difference > 0.25 * duration else "warning"
            apart[level].append(f"{shape.video.video_id} ({covered:.1f} s of features, {duration:.1f} s of video)")
    for level, items in apart.items():
        if items:
            message = f"{len(items)} video(s) whose features do not cover their duration"
            advice = "compare fps, stride and window of the features, and the duration in the annotations"
            yield Finding(level, "feature_length", message, tuple(items), advice)


def _covered(axis: TimeAxis, usual: float | None) -> float:
    """Seconds that the snippets span; where their rate is only derived from the duration, at the `usual` rate."""
    derived = usual and axis == TimeAxis.even(axis.length, axis.duration, axis.num_frames)
    return axis.length * usual if usual and derived else axis.start + axis.length * axis.step


def _strayed(click: Click, video: Video) -> bool:
    """Whether an action click lies outside every instance of its action, where instances are annotated."""
    instances = [s for s in video.ground_truth if s.label == click.label]
    return bool(instances) and not any(s.start <= click.time <= s.end for s in instances)


def _click_findings(file: str, tracks: dict[str, ClickTrack], dataset: VideoDataset) -> Iterator[Finding]:
    videos, known = dataset.annotations.videos, {*dataset.labels, BACKGROUND}
    clicks = [(name, click) for name, track in tracks.items() if name in videos for click in track.clicks]
    if unknown := sorted(tracks.keys() - videos.keys()):
        message = f"{file}: clicks on {len(unknown)} video(s) that are not in the dataset"
        yield Finding("error", "unknown_video", message, tuple(unknown), "remove these rows, or annotate the videos")
    if labels := [f"{name} at {c.time:g} s ({c.label})" for name, c in clicks if c.label not in known]:
        message = f"{file}: {len(labels)} click(s) with a label that the dataset does not have"
        yield Finding("error", "unknown_label", message, tuple(labels))
    if late := [f"{n} at {c.time:g} s of {videos[n].duration:g} s" for n, c in clicks if c.time > videos[n].duration]:
        yield Finding("error", "click_outside", f"{file}: {len(late)} click(s) after the end of the video", tuple(late))
    hits = clicks_inside_actions(tracks, videos)
    if inside := [f"{hit.video_id} at {hit.click.time:g} s ({hit.label})" for hit in hits]:
        share = 100 * len(inside) / sum(click.label == BACKGROUND for _, click in clicks)
        message = f"{file}: {len(inside)} background click(s) ({share:.1f} %) lie inside an annotated action"
        advice = "look at them (--json lists all): either the click or the annotation is wrong"
        yield Finding("warning", "click_inside_action", message, tuple(inside), advice)
    if foreign := foreign_clicks(tracks, dataset.annotations):
        message = f"{file}: {len(foreign)} action click(s) with a label that their video does not have"
        advice = "either the click or the video's labels are wrong; training is told both"
        yield Finding("warning", "foreign_label", message, tuple(foreign), advice)
    strayed = [f"{name} at {c.time:g} s ({c.label})" for name, c in clicks if _strayed(c, videos[name])]
    if strayed:
        message = f"{file}: {len(strayed)} action click(s) outside every instance of their action"
        yield Finding("warning", "action_click_outside", message, tuple(strayed))
    counted = Counter((name, click.time, click.label) for name, click in clicks)
    repeated = [f"{name} at {time:g} s" for (name, time, _), count in counted.items() if count > 1]
    if repeated:
        yield Finding("warning", "repeated_click", f"{file}: {len(repeated)} click(s) given twice", tuple(repeated))


def _unclicked_findings(
    file: str, tracks: dict[str, ClickTrack], dataset: VideoDataset, trained: set[str], clicked: set[str]
) -> Iterator[Finding]:
    """Videos that a file leaves out; an error where they are trained on and no other file has them either."""
    videos = dataset.annotations.videos
    subsets = trained | {videos[name].subset for name in tracks if name in videos}
    bare = [v for v in videos.values() if v.subset in subsets and not tracks.get(v.video_id)]
    if bare:
        level = "error" if any(v.subset in trained and v.video_id not in clicked for v in bare) else "warning"
        where = name_some(sorted({v.subset for v in bare}))
        message = f"{file}: {len(bare)} video(s) of subset {where} without any click"
        advice = "click them, or train with --set allow_unclicked=true"
        yield Finding(level, "unclicked_videos", message, tuple(v.video_id for v in bare), advice)
