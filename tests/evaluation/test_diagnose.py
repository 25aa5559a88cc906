import json

import numpy as np
import pytest
from conftest import make_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluate import literal, videos

from backtal import BackTALModel, DataError, Localization, ModelConfig, Segment, temporal_iou
from backtal.data.datasets import DatasetFolder
from backtal.evaluation.diagnose import ERRORS, KINDS, diagnose, rank_videos
from backtal.evaluation.topk import count_inside, measure_top_frames

TRUTH = [Localization("v", 20.0, (Segment(0, 4, "jump"), Segment(10, 14, "jump"), Segment(5, 9, "run")))]
FOUND = [
    Localization(
        "v",
        20.0,
        (
            Segment(0, 4, "jump", 0.9),
            Segment(0, 3.5, "jump", 0.8),  # double detection: the instance is taken
            Segment(5, 9, "jump", 0.7),  # wrong label: it is a run
            Segment(12, 16, "jump", 0.6),  # localization: tIoU 1/3 with a jump
            Segment(7, 11, "jump", 0.5),  # confusion: 1/3 with the run, 1/7 with a jump
            Segment(16, 20, "jump", 0.4),  # background
            Segment(10, 14, "jump", 0.35),
            Segment(5, 9, "run", 0.3),
            Segment(0, 1, "fly", 0.9),  # no such label in the ground truth
        ),
    ),
    Localization("w", 20.0, (Segment(5, 9, "run", 0.2),)),  # background: no such video
]


def test_a_case_by_hand():
    diagnosis = diagnose(FOUND, TRUTH, multiples=4)
    # 2 jumps, so rows of 2 predictions; 1 run, so rows of 1.
    rows = [{k: n for k, n in zip(KINDS, row, strict=True) if n} for row in diagnosis.counts.tolist()]
    assert rows == [
        {"true positive": 2, "double detection": 1},
        {"wrong label": 1, "localization": 1, "background": 1},
        {"confusion": 1, "background": 1},
        {"true positive": 1},
    ]
    assert diagnosis.shares() == pytest.approx(dict(zip(ERRORS, (1 / 6, 1 / 6, 1 / 6, 1 / 6, 2 / 6), strict=True)))
    assert diagnosis.shares(1)["double detection"] == 1
    # Jumps: precision 1 at recall 1/2, 2/7 at recall 1; without one error 2/6. Runs: AP 1.
    assert diagnosis.mean_ap == pytest.approx((1 / 2 + 1 / 7 + 1) / 2)
    assert diagnosis.gain == pytest.approx(dict.fromkeys(ERRORS, (1 / 6 - 1 / 7) / 2))
    # Normalized: as if there were 1.5 of each; 1.5 hits and 5 errors, then 4.
    assert diagnosis.normalized_mean_ap == pytest.approx((0.5 + 0.5 * 1.5 / 6.5 + 1) / 2)
    assert diagnosis.normalized_gain["localization"] == pytest.approx((1.5 / 5.5 - 1.5 / 6.5) / 4)
    assert diagnosis.missed_share == 0
    assert diagnose(FOUND, TRUTH, multiples=3).mean_ap == pytest.approx(0.75)  # the late jump is not among 3G


def test_missed_instances_by_hand():
    truth = [
        *TRUTH,
        Localization("x", 10.0, (Segment(0, 1, "jump"), Segment(2, 8, "jump"))),
    ]
    diagnosis = diagnose(FOUND, truth, [0.5, 0.9], bins={"length": (1, 4), "coverage": (0.2, 0.5), "instances": (1,)})
    found = {name: [(g.name, g.instances, g.missed) for g in groups] for name, groups in diagnosis.missed.items()}
    assert found["length"] == [("0 to 1 s", 1, 1), ("1 to 4 s", 3, 0), ("over 4 s", 1, 1)]
    assert found["coverage"] == [("0 to 20 %", 4, 1 / 4), ("20 to 50 %", 0, 0), ("over 50 %", 1, 1)]
    assert found["instances"] == [("1", 1, 0), ("over 1", 4, 1 / 2)]
    assert diagnosis.missed_share == pytest.approx(2 / 5)


def test_a_find_at_a_precision_of_5_percent_does_not_count():
    errors = tuple(Segment(10, 11 + i / 100, "jump", 0.9) for i in range(19))
    truth = [Localization("v", 20.0, (Segment(0, 4, "jump"),))]
    for count, missed in ((18, 0), (19, 1)):
        found = [Localization("v", 20.0, (*errors[:count], Segment(0, 4, "jump", 0.1)))]
        assert diagnose(found, truth).missed_share == missed


def kinds_literally(found, truth, threshold, multiples):
    """DETAD's rule, one prediction at a time: kind and row of each of the best predictions."""
    instances = {v.video_id: list(v) for v in truth}
    total = {}
    for video in truth:
        for segment in video:
            total[segment.label] = total.get(segment.label, 0) + 1
    result = []
    for label, count in total.items():
        rows = [(s, v.video_id) for v in found for s in v if s.label == label]
        rows.sort(key=lambda row: -row[0].score)
        taken = set()
        for rank, (segment, video) in enumerate(rows[: multiples * count]):
            there = instances.get(video, [])
            spans = np.array([(s.start, s.end) for s in there]).reshape(-1, 2)
            overlap = temporal_iou(np.array([[segment.start, segment.end]]), spans)[0]
            own = [i for i in np.argsort(-overlap) if there[i].label == label and overlap[i] >= threshold]
            free = [i for i in own if (video, i) not in taken]
            if free:
                taken.add((video, free[0]))
                kind = "true positive"
            elif not there or overlap.max() < 0.1:
                kind = "background"
            else:
                right = there[int(overlap.argmax())].label == label
                if overlap.max() >= threshold:
                    kind = "double detection" if right else "wrong label"
                else:
                    kind = "localization" if right else "confusion"
            result.append((rank // count, kind, label, video, segment))
    return result


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.7]))
def test_the_definitions_literally(seed, threshold):
    truth, found = videos(seed, 6, False), videos(seed + 1, 30, True)
    if not any(truth):
        truth = [*truth, Localization("w", 30.0, (Segment(1, 2, "a"),))]
    diagnosis = diagnose(found, truth, [threshold], multiples=3)
    rows = kinds_literally(found, truth, threshold, 3)
    expected = np.zeros((3, 6))
    for row, kind, *_ in rows:
        expected[row, KINDS.index(kind)] += 1
    np.testing.assert_array_equal(diagnosis.counts, expected)

    def mean_ap(without):
        kept = {}
        for _, kind, _, video, segment in rows:
            if kind != without:
                kept.setdefault(video, []).append(segment)
        kept = [Localization(video, 30.0, tuple(segments)) for video, segments in kept.items()]
        return np.mean(list(literal(kept, truth, threshold).values()))

    assert diagnosis.mean_ap == pytest.approx(mean_ap(None))
    for kind, gain in diagnosis.gain.items():
        assert diagnosis.mean_ap + gain == pytest.approx(mean_ap(kind))


def test_it_prints_and_converts():
    diagnosis = diagnose(FOUND, TRUTH)
    values = json.loads(json.dumps(diagnosis.to_dict()))
    assert values["kinds"][0]["true positive"] == 2
    assert values["missed"]["instances"][0] == {"name": "1", "instances": 1, "missed": 0.0}
    assert values["top_frames"] is None
    text = str(diagnosis)
    assert text.splitlines()[2].split() == ["double", "detection", "33.3", "11.1", "83.3", "+1.2"]
    assert "3 instances" in text


def test_bad_arguments():
    with pytest.raises(DataError, match=r"must lie in \(0.1, 1\]"):
        diagnose(FOUND, TRUTH, [0.05])
    with pytest.raises(DataError, match="known are activitynet, thumos14"):
        diagnose(FOUND, TRUTH, bins="hacs")
    with pytest.raises(DataError, match="must rise"):
        diagnose(FOUND, TRUTH, bins={"length": (4, 1)})
    with pytest.raises(DataError, match="has no duration"):
        diagnose(FOUND, [Localization("v", float("nan"), TRUTH[0].segments)])
    assert diagnose([Localization("v", 20.0, ())], TRUTH).missed_share == 1


def test_videos_are_ranked_by_f1():
    truth = [TRUTH[0], Localization("x", 10.0, (Segment(0, 1, "run"),))]
    worst, best = rank_videos(FOUND, truth, [0.5, 0.95], f1_score=0.3)
    assert (worst.video_id, worst.f1, worst.predictions) == ("x", 0, 0)
    # 9 predictions, one of them of no label of the truth, 3 instances; all three found at either threshold.
    assert (best.video_id, best.instances, best.predictions) == ("v", 3, 9)
    assert best.f1 == pytest.approx(2 * 3 / 12)


def test_top_frames_by_hand():
    truth = Localization("v", 8.0, (Segment(1, 3, "jump"), Segment(5, 7, "run")))
    rows = {"jump": np.array([0, 9, 8, 0, 0, 7, 6, 0.0]), "run": np.array([5, 0, 0, 0, 0, 6, 0, 4.0])}
    counts = count_inside(rows, np.arange(8) + 0.5, truth, count=4)
    assert counts.tolist() == [[2 + 1, 8], [4 + 2, 8], [2 + 2, 16], [4 + 4, 16]]


def test_top_frames_of_a_model(tmp_path):
    folder = DatasetFolder(make_folder(tmp_path / "data"))
    model = BackTALModel(ModelConfig(feature_dim=8, labels=folder.labels, hidden_dim=8, topk_ratio=0.2))
    measured = measure_top_frames(model, folder, folder.annotations.truth("test"))
    lengths = [folder.features(v).axis.length for v in folder.annotations.subset("test")]
    assert measured.frames == sum(int(0.2 * length + 1e-9) for length in lengths)
    inside = [v.ground_truth.segments[0].duration / v.duration for v in folder.annotations.subset("test")]
    assert measured.chance_own == pytest.approx(np.average(inside, weights=lengths))
    assert measured.own == measured.any  # one label a video
    assert "by chance" in str(measured)
