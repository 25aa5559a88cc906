import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal import DataError, Localization, Segment, nms, read_predictions, temporal_iou, write_predictions
from backtal.segments.segments import soft_nms, touching

intervals = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    min_size=1,
    max_size=12,
).map(np.array)


def overlap(a, b, offset=0.0):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]) + offset)
    union = (a[1] - a[0] + offset) + (b[1] - b[0] + offset) - inter
    return inter / union if union > 0 else 0.0


@given(intervals, intervals, st.sampled_from([0.0, 1.0]))
def test_iou_is_the_pairwise_formula(a, b, offset):
    expected = [[overlap(x, y, offset) for y in b] for x in a]
    np.testing.assert_allclose(temporal_iou(a, b, offset), expected, atol=1e-12)


@given(intervals, st.floats(0.1, 0.9), st.randoms())
def test_nms_is_the_greedy_rule(spans, threshold, random):
    scores = np.array([random.random() for _ in spans])
    expected = []
    for index in np.argsort(-scores, kind="stable"):
        if all(overlap(spans[k], spans[index]) < threshold for k in expected):
            expected.append(index)
    assert nms(spans, scores, threshold).tolist() == expected


def many(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Intervals as thresholds make them: nested, mostly short, a few very long, times that tie, and their scores."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 4 * count, count) / 4
    lengths = np.where(rng.random(count) < 0.02, rng.random(count) * count, rng.integers(0, 12, count) / 4)
    return np.stack([starts, starts + lengths], axis=1), rng.integers(0, 50, count) / 50


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [0.01, 0.25, 0.5, 0.55, 0.75, 1.0])
def test_nms_of_many_is_the_greedy_rule(threshold, offset):
    spans, scores = many(600, seed=1)
    overlaps = temporal_iou(spans, spans, offset)
    expected: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not expected or (overlaps[index, expected] < threshold).all():
            expected.append(index)
    assert nms(spans, scores, threshold, offset).tolist() == expected


@pytest.mark.parametrize("min_score", [0.0, 0.2])
def test_soft_nms_of_many_is_the_greedy_rule(min_score):
    for seed, longest in ((2, None), (3, 3)):  # all in one group, and in many
        spans, scores = many(400, seed)
        spans[:, 1] = np.minimum(spans[:, 1], spans[:, 0] + (longest or np.inf))
        overlaps, left, expected = temporal_iou(spans, spans), scores.copy(), []
        while left.max() > min_score:
            best = int(left.argmax())
            expected.append((best, left[best]))
            left *= np.exp(-(overlaps[best] ** 2) / 0.3)
            left[best] = -np.inf
        order, new = soft_nms(spans, scores, 0.3, min_score)
        assert order.tolist() == [index for index, _ in expected]
        np.testing.assert_allclose(new, [score for _, score in expected], rtol=1e-12)


def test_neighbouring_groups_are_joined_until_they_hold_so_many():
    spans, _ = many(400, 3)
    spans[:, 1] = np.minimum(spans[:, 1], spans[:, 0] + 3)
    apart, joined = touching(spans), touching(spans, 7)
    assert min(map(len, joined[:-1])) >= 7
    assert len(joined) < len(apart)
    owner = {int(member): index for index, group in enumerate(joined) for member in group}
    assert len(owner) == len(spans)
    assert all(len({owner[int(member)] for member in group}) == 1 for group in apart)


@given(intervals, st.randoms())
def test_soft_nms_keeps_all_and_never_raises_a_score(spans, random):
    scores = np.array([0.1 + random.random() for _ in spans])
    order, new = soft_nms(spans, scores, sigma=0.5)
    assert sorted(order.tolist()) == list(range(len(spans)))
    assert (new <= scores[order] + 1e-12).all()
    assert (np.diff(new) <= 1e-12).all()
    assert new[0] == scores.max()


def test_soft_nms_by_hand():
    order, new = soft_nms(np.array([[0, 2], [1, 3], [8, 9]]), np.array([1.0, 0.9, 0.5]), sigma=0.5, min_score=0.6)
    assert order.tolist() == [0, 1]
    assert new[1] == pytest.approx(0.9 * math.exp(-((1 / 3) ** 2) / 0.5))


def test_predictions_survive_a_round_trip(tmp_path):
    found = [Localization("v", 9.0, (Segment(0.1, 2.5, "ünï ☃", 0.25), Segment(3, 4, "b"))), Localization("w", 3.0, ())]
    write_predictions(tmp_path / "p.json", found)
    back = read_predictions(tmp_path / "p.json")
    assert [v.video_id for v in back] == ["v", "w"]
    assert back[0].segments == found[0].segments


def test_two_results_of_one_video_are_refused(tmp_path):
    found = [Localization("v", 9.0, (Segment(1, 2, "a"),)), Localization("v", 9.0, ())]
    with pytest.raises(DataError, match=r"p\.json: two results of video v"):
        write_predictions(tmp_path / "p.json", found)
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"a": 1}', "no 'results' object"),
        ('{"results": {"v": 3}}', "results of video v: expected a list"),
        ('{"results": {"v": [{"label": "a"}]}}', "video v, entry 0: needs 'label'"),
        ('{"results": {"v": [{"label": "a", "segment": [1]}]}}', "video v, entry 0: needs"),
        ('{"results": {"v": [{"label": "a", "segment": [3, 1]}]}}', "not an interval"),
        ('{"results": {"v": [{"label": "a", "segment": [1, 2], "score": NaN}]}}', "score nan"),
        (
            '{"results": {"v": [{"label": "a", "segment": [1, 1%s]}]}}' % ("0" * 400),
            "a number of 401 digits",
        ),
    ],
)
def test_malformed_predictions_name_the_entry(tmp_path, text, message):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def test_to_pandas_and_arrays():
    found = Localization("v", 9.0, (Segment(1, 2, "a", 0.5),))
    assert found.to_pandas().to_dict("records") == [{"video": "v", "start": 1, "end": 2, "label": "a", "score": 0.5}]
    spans, scores, labels = found.to_arrays()
    assert spans.shape == (1, 2)
    assert (scores.tolist(), labels.tolist()) == ([0.5], ["a"])
