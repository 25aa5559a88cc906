"""Where the errors are: DETAD's analysis (Alwassel et al., ECCV 2018), as in the paper's Fig. 2 (a).

A prediction that is not a true positive is compared with the instance it overlaps most, of whatever label:

| overlap       | label is right   | label is wrong |
|---------------|------------------|----------------|
| tIoU or more  | double detection | wrong label    |
| 0.1 to tIoU   | localization     | confusion      |
| less than 0.1 | background       | background     |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backtal.data.truth import Truth
from backtal.errors import DataError
from backtal.evaluation.evaluate import SegmentTable, Tables, match, overlaps, tables
from backtal.evaluation.topk import TopFrames
from backtal.segments.segments import Localization

KINDS = ("true positive", "double detection", "wrong label", "localization", "confusion", "background")
ERRORS = KINDS[1:]
LEAST_OVERLAP, LEAST_PRECISION = 0.1, 0.05

# Upper edges of the groups of instances; the last group is open. A value on an edge belongs to the lower group.
BINS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "activitynet": {"length": (30, 60, 120, 180), "coverage": (0.2, 0.4, 0.6, 0.8), "instances": (1, 4, 8)},
    "thumos14": {"length": (3, 6, 12, 18), "coverage": (0.02, 0.04, 0.06, 0.08), "instances": (1, 40, 80)},
}


@dataclass(frozen=True)
class Group:
    """Instances that are alike in some way, and the share of them that no prediction finds.

    `missed` is the mean over the thresholds, in [0, 1].
    """

    name: str
    instances: int
    missed: float


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What kinds of error there are, what each costs, and which instances are missed.

    Attributes:
        tiou: the thresholds; everything below is a mean over them.
        counts: ``[M, 6]`` predictions of each kind (in the order of `KINDS`): row m holds, of every class with G
            instances, its predictions ranked m * G to (m + 1) * G by score.
        mean_ap: of the predictions of these M rows, in [0, 1].
        gain: by kind of error, the mAP gained if there were no prediction of that kind.
        normalized_mean_ap: DETAD's mAP_N, in which every class counts as having the average number of instances.
        normalized_gain: by kind of error, the gain in mAP_N.
        missed: instances that no prediction finds, by ``length`` (s), ``coverage`` (of the video) and ``instances`` (of
            the label in the video). As in DETAD a find does not count below a normalized precision of 5 %.
        num_videos: videos in the ground truth.
        num_instances: instances in the ground truth.
        top_frames: see `backtal.evaluation.topk`; None where not measured.
    """

    tiou: tuple[float, ...]
    counts: np.ndarray
    mean_ap: float
    gain: dict[str, float]
    normalized_mean_ap: float
    normalized_gain: dict[str, float]
    missed: dict[str, tuple[Group, ...]]
    num_videos: int
    num_instances: int
    top_frames: TopFrames | None = None

    @property
    def missed_share(self) -> float:
        """Of all instances, those that no prediction finds."""
        groups = next(iter(self.missed.values()))
        return sum(group.missed * group.instances for group in groups) / self.num_instances

    def shares(self, multiples: int | None = None) -> dict[str, float]:
        """Of the errors among the first rows of `counts` (None for all), the share of each kind."""
        errors = self.counts[:multiples, 1:].sum(axis=0)
        return dict(zip(ERRORS, (errors / max(errors.sum(), 1e-12)).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``backtal diagnose --json`` prints them."""
        return {
            "tiou": list(self.tiou),
            "mAP": self.mean_ap,
            "kinds": [dict(zip(KINDS, row, strict=True)) for row in self.counts.tolist()],
            "share_of_errors": {"1G": self.shares(1), f"{len(self.counts)}G": self.shares()},
            "gain": self.gain,
            "mAP_N": self.normalized_mean_ap,
            "gain_N": self.normalized_gain,
            "missed": {name: [asdict(group) for group in groups] for name, groups in self.missed.items()},
            "videos": self.num_videos,
            "instances": self.num_instances,
            "top_frames": self.top_frames and asdict(self.top_frames),
        }

    def __str__(self) -> str:
        last = f"{len(self.counts)}G"
        per = 100 / np.maximum(self.counts.sum(axis=1), 1e-12)
        first, every = self.counts[0] * per[0], 100 * self.counts.sum(axis=0) / max(self.counts.sum(), 1e-12)
        lines = [f"{'kind of prediction, %':22}{'top 1G':>9}{'top ' + last:>9}{'mAP if gone':>14}{'gain':>8}"]
        for kind, a, b in zip(KINDS, first, every, strict=True):
            gain = (
                f"{100 * (self.mean_ap + self.gain[kind]):14.1f}{100 * self.gain[kind]:+8.1f}" if kind in ERRORS else ""
            )
            lines.append(f"{kind:22}{a:9.1f}{b:9.1f}{gain}")
        lines.append(f"{'predictions':22}{self.counts[0].sum():9.0f}{self.counts.sum():9.0f}")
        lines.append("")
        lines.append(f"{'missed instances, %':22}{'missed':>9}{'of':>9}")
        for name, groups in self.missed.items():
            lines += [f"{name + ' ' + g.name:22}{100 * g.missed:9.1f}{g.instances:9}" for g in groups if g.instances]
        lines.append(f"{'all':22}{100 * self.missed_share:9.1f}{self.num_instances:9}")
        if self.top_frames:
            lines += ["", str(self.top_frames)]
        lines += [
            "",
            f"mAP {100 * self.mean_ap:.1f} at tIoU {', '.join(f'{t:g}' for t in self.tiou)}; {self.num_videos} videos, "
            f"{self.num_instances} instances; G: the instances of a class",
        ]
        return "\n".join(lines)


def diagnose(
    predictions: Iterable[Localization],
    ground_truth: Truth | Iterable[Localization],
    tiou: Sequence[float] = (0.5,),
    *,
    multiples: int = 10,
    bins: str | Mapping[str, Sequence[float]] | None = None,
) -> Diagnosis:
    """Sort the predictions by kind of error and the missed instances by what they are like.

    Of every class with G instances, the best ``multiples * G`` predictions are looked at; all of them where it is
    about missed instances. Predictions of labels without an instance are no part of it, as of the mAP.

    Args:
        predictions: found segments.
        ground_truth: as for `evaluate`, with the videos' durations.
        tiou: temporal IoU thresholds, each in (0.1, 1]; DETAD takes 0.5 on THUMOS14, 0.5 to 0.95 on ActivityNet.
        multiples: how many times G predictions of each class.
        bins: groups of instances: DETAD's for ``"activitynet"`` or ``"thumos14"``, upper edges by characteristic, or
            None for fifths of the dataset's own lengths and coverages.

    Raises:
        DataError: if there is no ground truth, or thresholds or bins are not valid.

    Example:
        >>> from backtal import Segment
        >>> truth = [Localization("v", 20.0, (Segment(2, 6, "jump"), Segment(10, 14, "run")))]
        >>> jumps = (Segment(2, 6, "jump", 0.9), Segment(2, 5.5, "jump", 0.8), Segment(10, 14, "jump", 0.7))
        >>> diagnosis = diagnose([Localization("v", 20.0, jumps)], truth)
        >>> dict(zip(KINDS, diagnosis.counts.sum(axis=0).tolist()))["wrong label"]
        1.0
    """
    if not len(tiou) or not all(LEAST_OVERLAP < t <= 1 for t in tiou):
        raise DataError(f"tIoU thresholds must lie in ({LEAST_OVERLAP}, 1], got {list(tiou)}")
    if multiples < 1:
        raise DataError(f"multiples must be at least 1, got {multiples}")
    truth = Truth.of(ground_truth)
    both = tables(predictions, truth)
    both = both._replace(predicted=both.predicted.take(both.predicted.classes < len(both.labels)))
    instances, thresholds = (
        np.bincount(both.truth.classes, minlength=len(both.labels)),
        np.array(tiou, dtype=np.float64),
    )
    rank = _ranks(both.predicted.classes) // instances[both.predicted.classes]
    top, rank = both.predicted.take(rank < multiples), rank[rank < multiples]
    matched = match(top, both.truth, thresholds) >= 0
    kinds = _kinds(top, both.truth, matched, thresholds)
    counts = [np.bincount(rank * len(KINDS) + of, minlength=multiples * len(KINDS)) for of in kinds]

    def mean_ap(normalized: bool, without: int = -1) -> float:
        values = []
        for right, of in zip(matched, kinds, strict=True):
            for index, count in enumerate(instances):
                kept = right[(of != without) & (top.classes == index)]
                values.append(_average_precision(kept, count, instances.mean() if normalized else count))
        return float(np.mean(values))

    gains = [{k: mean_ap(n, without=KINDS.index(k)) - mean_ap(n) for k in ERRORS} for n in (False, True)]
    return Diagnosis(
        tiou=tuple(float(t) for t in tiou),
        counts=np.mean(counts, axis=0).reshape(multiples, len(KINDS)),
        mean_ap=mean_ap(False),
        gain=gains[0],
        normalized_mean_ap=mean_ap(True),
        normalized_gain=gains[1],
        missed=_missed(both, instances, thresholds, _durations(both, truth), bins),
        num_videos=len(both.known),
        num_instances=len(both.truth.classes),
    )


def _ranks(classes: np.ndarray) -> np.ndarray:
    """Of predictions in descending score, the rank of each within its class, from 0."""
    order = np.argsort(classes, kind="stable")
    first = np.searchsorted(classes[order], classes[order], side="left")
    ranks = np.empty(len(classes), dtype=np.int64)
    ranks[order] = np.arange(len(classes)) - first
    return ranks


def _kinds(predicted: SegmentTable, truth: SegmentTable, matched: np.ndarray, tiou: np.ndarray) -> np.ndarray:
    """The index in `KINDS` of each prediction at each threshold, ``[N, P]`` as `matched`.

    Of instances that a prediction overlaps equally, one of its own label comes first.
    """
    prediction, instance, overlap = overlaps(predicted.of_any_label(), truth.of_any_label(), LEAST_OVERLAP)
    wrong = predicted.classes[prediction] != truth.classes[instance]
    order = np.lexsort((wrong, -overlap, prediction))
    near, first = np.unique(prediction[order], return_index=True)
    kinds = np.full(matched.shape, KINDS.index("background"))
    for row, threshold in enumerate(tiou):
        enough = overlap[order][first] >= threshold
        right, other = (KINDS.index(k) for k in ("double detection", "wrong label"))
        close, confused = (KINDS.index(k) for k in ("localization", "confusion"))
        kinds[row, near] = np.where(
            wrong[order][first], np.where(enough, other, confused), np.where(enough, right, close)
        )
    kinds[matched] = KINDS.index("true positive")
    return kinds


def _precision(matched: np.ndarray, instances: int, counted_as: float) -> np.ndarray:
    """Precision after each prediction, best first, if the class had another number of instances (DETAD's AP_N)."""
    hits = np.cumsum(matched) / instances * counted_as
    return hits / (hits + np.cumsum(~matched))


def _average_precision(matched: np.ndarray, instances: int, counted_as: float) -> float:
    precision = _precision(matched, instances, counted_as)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[matched].sum() / instances)


def _durations(both: Tables, ground_truth: Iterable[Localization]) -> np.ndarray:
    durations = {video.video_id: video.duration for video in ground_truth}
    if missing := [name for name in both.known if not durations[name] > 0]:
        raise DataError(f"the ground truth of video {missing[0]} has no duration")
    return np.array([durations[name] for name in both.known])


def _missed(
    both: Tables,
    instances: np.ndarray,
    tiou: np.ndarray,
    durations: np.ndarray,
    bins: str | Mapping[str, Sequence[float]] | None,
) -> dict[str, tuple[Group, ...]]:
    truth, classes = both.truth, both.predicted.classes
    takes = match(both.predicted, truth, tiou)
    missed = np.ones((len(tiou), len(truth.classes)))
    for row, taken in enumerate(takes):
        for index, count in enumerate(instances):
            own = taken[classes == index]
            precise = _precision(own >= 0, count, instances.mean()) > LEAST_PRECISION
            missed[row, own[precise & (own >= 0)]] = 0
    length = truth.end - truth.start
    characteristics = {
        "length": length,
        "coverage": np.minimum(length / durations[truth.video], 1),
        "instances": np.bincount(truth.group, minlength=1)[truth.group].astype(np.float64),
    }
    return {
        name: _groups(name, values, _edges(name, values, bins), missed.mean(axis=0))
        for name, values in characteristics.items()
    }


def _edges(name: str, values: np.ndarray, bins: str | Mapping[str, Sequence[float]] | None) -> np.ndarray:
    if isinstance(bins, str):
        if bins not in BINS:
            raise DataError(f"unknown bins {bins!r}; known are {', '.join(BINS)}")
        bins = BINS[bins]
    if bins is not None:
        edges = np.array(bins.get(name, ()), dtype=np.float64)
        if (np.diff(edges) <= 0).any():
            raise DataError(f"bins: the edges of {name} must rise, got {edges.tolist()}")
        return edges
    if name == "instances":
        return np.array(BINS["activitynet"]["instances"], dtype=np.float64)
    return np.unique([float(f"{edge:.2g}") for edge in np.quantile(values, (0.2, 0.4, 0.6, 0.8))])


def _groups(name: str, values: np.ndarray, edges: np.ndarray, missed: np.ndarray) -> tuple[Group, ...]:
    group_of = np.searchsorted(edges, values, side="left")
    groups = []
    for index, text in enumerate(_names(name, edges)):
        inside = group_of == index
        groups.append(Group(text, int(inside.sum()), float(missed[inside].mean()) if inside.any() else 0.0))
    return tuple(groups)


def _names(name: str, edges: np.ndarray) -> list[str]:
    """What to call the groups: ``"1.2 to 2 s"``, ``"over 20 %"``, ``"2 to 4"``."""
    scale, unit = {"length": (1, " s"), "coverage": (100, " %")}.get(name, (1, ""))
    bounds = [f"{scale * edge:g}" for edge in edges]
    low = ["0", *bounds] if unit else ["1", *(f"{edge + 1:g}" for edge in edges)]
    closed = [a + unit if a == b else f"{a} to {b}{unit}" for a, b in zip(low, bounds, strict=False)]
    return [*closed, f"over {bounds[-1]}{unit}" if bounds else "any"]


@dataclass(frozen=True)
class VideoScore:
    """How well one video is localized.

    Attributes:
        video_id: the video.
        f1: segment F1 over all labels, the mean over the thresholds.
        instances: true ones.
        predictions: those that score enough.
    """

    video_id: str
    f1: float
    instances: int
    predictions: int


def rank_videos(
    predictions: Iterable[Localization],
    ground_truth: Truth | Iterable[Localization],
    tiou: Sequence[float],
    *,
    f1_score: float = 0.5,
) -> list[VideoScore]:
    """The videos of the ground truth, the worst first.

    Args:
        predictions: found segments.
        ground_truth: as for `evaluate`.
        tiou: temporal IoU thresholds.
        f1_score: least score of a prediction to count.

    Example:
        >>> from backtal import Segment
        >>> jump = (Segment(1, 3, "jump"),)
        >>> rank_videos([Localization("b", 9, jump)], [Localization(name, 9, jump) for name in "ab"], [0.5])[0].video_id
        'a'
    """
    both = tables(predictions, ground_truth)
    predicted = both.predicted.take(both.predicted.scores >= f1_score)
    count = len(both.known) + len(both.unknown)
    made, real = (np.bincount(t.video, minlength=count) for t in (predicted, both.truth))
    hits = [np.bincount(predicted.video[m >= 0], minlength=count) for m in match(predicted, both.truth, np.array(tiou))]
    f1 = 2 * np.mean(hits, axis=0) / np.maximum(made + real, 1)
    scores = [VideoScore(*row) for row in zip(both.known, f1.tolist(), real.tolist(), made.tolist(), strict=False)]
    return sorted(scores, key=lambda video: (video.f1, video.video_id))
