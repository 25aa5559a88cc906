import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal import DataError, Localization, Segment, temporal_iou
from backtal.evaluation.diagnose import rank_videos
from backtal.evaluation.evaluate import evaluate
from backtal.plot import precision_recall

TIOU = [0.1, 0.3, 0.5, 0.7]


def literal(predictions, truth, threshold):
    """ActivityNet's rule, one prediction at a time. Returns AP by label and the number of right predictions."""
    result = {}
    for label in {s.label for v in truth for s in v}:
        instances = {v.video_id: [s for s in v if s.label == label] for v in truth}
        total = sum(map(len, instances.values()))
        rows = [(s, v.video_id) for v in predictions for s in v if s.label == label]
        rows.sort(key=lambda row: -row[0].score)
        taken, hits = set(), []
        for segment, video in rows:
            candidates = instances.get(video, [])
            spans = np.array([(c.start, c.end) for c in candidates]).reshape(-1, 2)
            overlap = temporal_iou(np.array([[segment.start, segment.end]]), spans)[0]
            free = [i for i in np.argsort(-overlap) if overlap[i] >= threshold and (video, i) not in taken]
            if free:
                taken.add((video, free[0]))
            hits.append(bool(free))
        cumulative = np.cumsum(hits)
        precision = np.concatenate([[0], cumulative / np.arange(1, len(hits) + 1), [0]])
        recall = np.concatenate([[0], cumulative / total, [1]])
        for i in range(len(precision) - 2, -1, -1):
            precision[i] = max(precision[i], precision[i + 1])
        steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
        result[label] = float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())
    return result


def videos(seed, count, with_scores):
    rng = np.random.default_rng(seed)
    found = []
    for index in range(3):
        starts = rng.uniform(0, 20, rng.integers(0, count))
        segments = tuple(
            Segment(s, s + rng.uniform(0.5, 8), "ab"[rng.integers(2)], rng.uniform() if with_scores else 1.0)
            for s in starts
        )
        found.append(Localization(f"v{index}", 30.0, segments))
    return found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_vectorised_matching_is_the_literal_rule(seed):
    truth, predictions = videos(seed, 8, False), videos(seed + 1, 30, True)
    if not any(truth):
        truth = [*truth, Localization("w", 30.0, (Segment(1, 2, "a"),))]
    report = evaluate(predictions, truth, TIOU)
    for column, threshold in enumerate(TIOU):
        expected = literal(predictions, truth, threshold)
        assert set(report.labels) == set(expected)
        for label, row in zip(report.labels, report.ap, strict=True):
            assert row[column] == pytest.approx(expected[label], abs=1e-12)


def test_f1_by_hand():
    truth = [Localization("v", 20.0, (Segment(0, 4, "a"), Segment(8, 12, "b")))]
    found = [
        Localization(
            "v",
            20.0,
            (Segment(0, 3, "a", 0.9), Segment(0, 4, "a", 0.8), Segment(8, 12, "a", 0.7), Segment(8, 12, "b", 0.1)),
        )
    ]
    report = evaluate(found, truth, [0.5], f1_score=0.5)
    assert (report.precision, report.recall) == (pytest.approx(1 / 3), 0.5)
    assert report.f1 == pytest.approx(2 / 5)
    assert "F1 at tIoU 0.5, score >= 0.5: 40.0" in str(report)


def test_the_report_prints_and_converts():
    truth = [Localization("v", 9.0, (Segment(1, 3, "jump"),))]
    report = evaluate([Localization("v", 9.0, (Segment(1, 3, "jump", 0.8),))], truth, [0.5, 0.75])
    assert report.to_dict()["mAP"] == {"0.5": 1.0, "0.75": 1.0}
    assert report.to_dict()["ap"] == {"jump": [1.0, 1.0]}
    assert str(report).splitlines()[0].split() == ["tIoU", "0.5", "0.75", "mean", "instances"]
    assert str(report).splitlines()[1].split() == ["jump", "100.0", "100.0", "100.0", "1"]
    assert report.to_dict()["instances_of"] == {"jump": 1}
    assert "1 videos, 1 instances, 1 predictions" in str(report)


def test_strange_input():
    truth = [Localization("v", 9.0, (Segment(1, 3, "jump"),))]
    assert evaluate([Localization("v", 9.0, ())], truth, [0.5]).average == 0
    with pytest.raises(DataError, match="no prediction is for a video of the ground truth; predicted: nothing"):
        evaluate([], truth, [0.5])
    with pytest.raises(DataError, match="no prediction is for a video of the ground truth; predicted: w"):
        evaluate([Localization("w", 9.0, ())], truth, [0.5])
    with pytest.raises(DataError, match="holds no segment"):
        evaluate([], [Localization("v", 9.0, ())], [0.5])
    with pytest.raises(DataError, match=r"must lie in \(0, 1\]"):
        evaluate([], truth, [0.0])
    unknown = [
        Localization("w", 9.0, (Segment(1, 3, "jump", 0.9),)),
        Localization("v", 9.0, (Segment(1, 3, "jump", 0.5),)),
    ]
    report = evaluate(unknown, truth, [0.5])
    assert report.unknown_videos == ("w",)
    assert report.average == 0.5
    with pytest.raises(DataError, match="no predicted label is one of the dataset's: predicted are 'fly', the dataset"):
        evaluate([Localization("v", 9.0, (Segment(1, 3, "fly"),))], truth, [0.5])


def test_labels_without_an_instance_are_false_in_f1_and_no_part_of_the_map():
    truth = [Localization("v", 9.0, (Segment(1, 3, "jump"),))]
    found = [Localization("v", 9.0, (Segment(1, 3, "jump", 0.9), Segment(1, 3, "fly", 0.9), Segment(5, 6, "fly", 0.1)))]
    report = evaluate(found, truth, [0.5])
    assert (report.average, report.precision, report.recall) == (1, 0.5, 1)
    assert (report.labels, report.instances, report.num_predictions) == (("jump",), (1,), 3)
    assert report.to_dict()["labels_without_instance"] == {"fly": 2}
    assert "2 of the predictions are of labels without an instance here (fly): false in F1" in str(report)
    assert rank_videos(found, truth, [0.5])[0].f1 == pytest.approx(report.f1)
    curve = precision_recall({"one": found}, truth).axes[0].lines[0]
    assert (curve.get_xdata()[-1], curve.get_ydata()[-1]) == (100, pytest.approx(100 / 3))
