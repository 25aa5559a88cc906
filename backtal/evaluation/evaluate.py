"""Detection evaluation: ActivityNet's protocol, vectorised over predictions, classes and thresholds."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from backtal.data.truth import Truth
from backtal.errors import DataError, name_some
from backtal.segments.segments import Localization


@dataclass(frozen=True, eq=False)
class DetectionReport:
    """Average precision of every class at every threshold, and what it was measured on.

    Attributes:
        labels: the C classes that occur in the ground truth.
        tiou: the thresholds.
        ap: ``[C, len(tiou)]`` in [0, 1].
        f1: segment F1 at `f1_tiou`, over all classes, of the predictions that score at least `f1_score`.
        precision: of the same predictions.
        recall: of the same predictions.
        num_videos: videos in the ground truth.
        instances: of each label, its instances in the ground truth.
        num_predictions: predictions evaluated.
        unknown_videos: predicted videos that the dataset does not have; their predictions count as false.
        absent: of predicted labels without an instance, the number of predictions: false in F1, not part of the mAP.
    """

    labels: tuple[str, ...]
    tiou: tuple[float, ...]
    ap: np.ndarray
    f1: float
    precision: float
    recall: float
    f1_tiou: float
    f1_score: float
    num_videos: int
    instances: tuple[int, ...]
    num_predictions: int
    unknown_videos: tuple[str, ...] = ()
    absent: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_instances(self) -> int:
        """Instances in the ground truth."""
        return sum(self.instances)

    @property
    def mean_ap(self) -> np.ndarray:
        """``[len(tiou)]``: mean over the classes."""
        return self.ap.mean(axis=0)

    @property
    def average(self) -> float:
        """Mean of `mean_ap` over the thresholds."""
        return float(self.mean_ap.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``backtal evaluate --json`` prints them."""
        return {
            "mAP": {f"{t:g}": float(v) for t, v in zip(self.tiou, self.mean_ap, strict=True)},
            "average": self.average,
            "f1": self.f1,
            "precision": self.precision,
            "recall": self.recall,
            "f1_tiou": self.f1_tiou,
            "f1_score": self.f1_score,
            "ap": {label: [float(v) for v in row] for label, row in zip(self.labels, self.ap, strict=True)},
            "videos": self.num_videos,
            "instances": self.num_instances,
            "instances_of": dict(zip(self.labels, self.instances, strict=True)),
            "predictions": self.num_predictions,
            "unknown_videos": list(self.unknown_videos),
            "labels_without_instance": dict(self.absent),
        }

    def __str__(self) -> str:
        width = max(len("mean"), *(len(label) for label in self.labels))
        rows = [("tIoU", [f"{t:g}" for t in self.tiou], "mean", "instances")]
        counted = [*zip(self.labels, self.ap, self.instances, strict=True), ("mean", self.mean_ap, self.num_instances)]
        for label, values, count in counted:
            rows.append((label, [f"{100 * v:.1f}" for v in values], f"{100 * values.mean():.1f}", str(count)))
        lines = [
            f"{name:<{width}} " + " ".join(f"{v:>6}" for v in [*values, mean]) + f"  {count:>9}"
            for name, values, mean, count in rows
        ]
        lines.append(
            f"mAP in percent over {self.num_videos} videos, {self.num_instances} instances, "
            f"{self.num_predictions} predictions"
        )
        if self.absent:
            lines.append(
                f"{sum(self.absent.values())} of the predictions are of labels without an instance here "
                f"({name_some(self.absent)}): false in F1, not part of the mAP"
            )
        lines.append(
            f"F1 at tIoU {self.f1_tiou:g}, score >= {self.f1_score:g}: {100 * self.f1:.1f} "
            f"(precision {100 * self.precision:.1f}, recall {100 * self.recall:.1f})"
        )
        return "\n".join(lines)


def evaluate(
    predictions: Iterable[Localization],
    ground_truth: Truth | Iterable[Localization],
    tiou: Sequence[float],
    *,
    f1_tiou: float = 0.5,
    f1_score: float = 0.5,
) -> DetectionReport:
    """Mean average precision as ActivityNet computes it.

    Per class, predictions of all videos in descending score; each takes the unmatched instance of its
    video that it overlaps most, if by at least the threshold. Interpolated AP is the area under the monotone
    envelope of precision over recall; the mean is over the classes in the ground truth.

    Args:
        predictions: found segments. Those of a label without an instance are wrong in F1 and no part of the mAP.
        ground_truth: from `Annotations.truth`, which knows what is not known and has it left out; or true segments of
            every video.
        tiou: temporal IoU thresholds, each in (0, 1].
        f1_tiou: threshold of the segment F1.
        f1_score: least score of a prediction to count for the segment F1.

    Raises:
        DataError: if there is no ground truth, or no prediction is for any of its videos or has any of its labels.

    Example:
        >>> from backtal import Segment
        >>> truth = [Localization("v", 9.0, (Segment(1, 3, "jump"),))]
        >>> found = [Localization("v", 9.0, (Segment(1, 2.9, "jump", 0.8), Segment(5, 6, "jump", 0.3)))]
        >>> evaluate(found, truth, [0.5, 0.99]).mean_ap.tolist()
        [1.0, 0.0]
    """
    if not len(tiou) or not all(0 < t <= 1 for t in tiou):
        raise DataError(f"tIoU thresholds must lie in (0, 1], got {list(tiou)}")
    labels, absent, known, unknown, predicted, gt = tables(predictions, ground_truth)
    matched = match(predicted, gt, np.array([*tiou, f1_tiou], dtype=np.float64)) >= 0
    instances = np.bincount(gt.classes, minlength=len(labels)).tolist()
    ap = np.empty((len(labels), len(tiou)))
    for index, count in enumerate(instances):
        ap[index] = average_precision(matched[: len(tiou), predicted.classes == index], count)
    confident = predicted.scores >= f1_score
    hits = int((matched[-1] & confident).sum())
    return DetectionReport(
        labels=labels,
        tiou=tuple(float(t) for t in tiou),
        ap=ap,
        f1=2 * hits / max(int(confident.sum()) + len(gt.classes), 1),
        precision=hits / max(int(confident.sum()), 1),
        recall=hits / len(gt.classes),
        f1_tiou=f1_tiou,
        f1_score=f1_score,
        num_videos=len(known),
        instances=tuple(instances),
        num_predictions=len(predicted.classes),
        unknown_videos=unknown,
        absent={label: int((predicted.classes == len(labels) + i).sum()) for i, label in enumerate(absent)},
    )


class SegmentTable:
    """Segments as columns.

    `video` and `classes` are indices, `group` stands for both, `start` and `end` are seconds.
    """

    def __init__(self, videos: list[Localization], video_index: dict[str, int], class_index: dict[str, int]):
        segments = [segment for video in videos for segment in video.segments]
        counts = [len(video.segments) for video in videos]
        self.video = np.repeat(np.array([video_index[video.video_id] for video in videos], dtype=np.int64), counts)
        self.classes = np.array([class_index[segment.label] for segment in segments], dtype=np.int64)
        self.group = self.video * len(class_index) + self.classes
        self.start, self.end, self.scores = (
            np.fromiter(map(attrgetter(name), segments), np.float64, len(segments))
            for name in ("start", "end", "score")
        )

    def take(self, index: np.ndarray) -> "SegmentTable":
        """The rows of an index or mask, in its order."""
        taken = copy(self)
        for name, column in vars(self).items():
            setattr(taken, name, column[index])
        return taken

    def by_score(self) -> "SegmentTable":
        """By descending score; the order of equal scores stays."""
        return self.take(np.argsort(-self.scores, kind="stable"))

    def of_any_label(self) -> "SegmentTable":
        """The same rows, grouped by video alone."""
        grouped = copy(self)
        grouped.group = self.video
        return grouped


class Tables(NamedTuple):
    """Predictions, best first, and ground truth as columns.

    Attributes:
        labels: the C classes that occur in the ground truth, sorted.
        absent: predicted labels that do not, sorted; the indices after, of predictions that are all wrong.
        known: the videos of the ground truth, sorted; the first indices.
        unknown: predicted videos without ground truth; the indices after.
        predicted: the predictions.
        truth: the instances.
    """

    labels: tuple[str, ...]
    absent: tuple[str, ...]
    known: tuple[str, ...]
    unknown: tuple[str, ...]
    predicted: SegmentTable
    truth: SegmentTable


def tables(predictions: Iterable[Localization], ground_truth: Truth | Iterable[Localization]) -> Tables:
    """Put predictions and ground truth into columns; see `evaluate` for what is raised."""
    truth = Truth.of(ground_truth)
    labels = tuple(sorted({segment.label for video in truth for segment in video}))
    if not labels:
        raise DataError("the ground truth holds no segment: measuring needs videos with start and end of their actions")
    found = truth.judged(predictions)
    absent = tuple(sorted({segment.label for video in found for segment in video} - set(labels)))
    known = tuple(sorted({video.video_id for video in truth}))
    unknown = tuple(sorted({video.video_id for video in found} - set(known)))
    video_index = {name: i for i, name in enumerate([*known, *unknown])}
    class_index = {label: i for i, label in enumerate([*labels, *absent])}
    predicted = SegmentTable(found, video_index, class_index).by_score()
    return Tables(labels, absent, known, unknown, predicted, SegmentTable(list(truth), video_index, class_index))


def match(predicted: SegmentTable, truth: SegmentTable, tiou: np.ndarray) -> np.ndarray:
    """The instance that each prediction (in descending score) takes, -1 for none: ``[len(tiou), predictions]``.

    Greedy matching in order of score is a stable matching in which every instance prefers the
    better-scored prediction, so all predictions propose at once and instances keep the best proposer.
    """
    pair_prediction, pair_truth, overlap = overlaps(predicted, truth, float(tiou.min()))
    matched = np.full((len(tiou), len(predicted.classes)), -1)
    for row, threshold in enumerate(tiou):
        enough = overlap >= threshold
        matched[row] = _stable_matching(
            pair_prediction[enough], pair_truth[enough], len(predicted.classes), len(truth.classes)
        )
    return matched


def overlaps(predicted: SegmentTable, truth: SegmentTable, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one video and class that overlap by `least`: by prediction, then by falling overlap."""
    order = np.argsort(truth.group, kind="stable")
    groups = truth.group[order]
    first = np.searchsorted(groups, predicted.group, side="left")
    count = np.searchsorted(groups, predicted.group, side="right") - first
    prediction = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(prediction)) - np.repeat(np.cumsum(count) - count, count)
    instance = order[np.repeat(first, count) + offset]
    start = np.maximum(predicted.start[prediction], truth.start[instance])
    end = np.minimum(predicted.end[prediction], truth.end[instance])
    intersection = np.maximum(end - start, 0)
    union = (predicted.end - predicted.start)[prediction] + (truth.end - truth.start)[instance] - intersection
    overlap = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    near = np.flatnonzero(overlap >= least)
    near = near[np.lexsort((-overlap[near], prediction[near]))]
    return prediction[near], instance[near], overlap[near]


def _stable_matching(
    pair_prediction: np.ndarray, pair_truth: np.ndarray, num_predictions: int, num_truth: int
) -> np.ndarray:
    count = np.bincount(pair_prediction, minlength=num_predictions)
    last = np.cumsum(count)
    pointer = last - count
    nobody = num_predictions
    holder = np.full(num_truth, nobody)
    proposing = np.flatnonzero(pointer < last)
    while proposing.size:
        wanted = pair_truth[pointer[proposing]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, proposing)
        rejected = np.concatenate([proposing[holder[wanted] != proposing], before[before != holder[wanted]]])
        rejected = np.sort(rejected[rejected != nobody])
        rejected = rejected[np.diff(rejected, prepend=-1) > 0]
        pointer[rejected] += 1
        proposing = rejected[pointer[rejected] < last[rejected]]
    matched = np.full(num_predictions, -1)
    taken = np.flatnonzero(holder != nobody)
    matched[holder[taken]] = taken
    return matched


def average_precision(matched: np.ndarray, num_instances: int) -> np.ndarray:
    """Interpolated average precision (PASCAL VOC 2011 and later).

    Args:
        matched: ``[N, P]`` for N thresholds: whether each prediction, best first, is right.
        num_instances: true instances of the class.

    Returns:
        ``[N]`` in [0, 1].
    """
    hits = np.cumsum(matched, axis=1, dtype=np.float64)
    precision = hits / np.arange(1, matched.shape[1] + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (envelope * matched).sum(axis=1) / num_instances
