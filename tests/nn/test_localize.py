import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backtal import LocalizationConfig, TimeAxis, localize
from backtal.nn.cas import BackTALOutput
from backtal.nn.localize import localize_arrays, minmax, outer_inner_contrast, resize, runs_above, runs_of, smooth
from backtal.settings.presets import RECIPES

PLAIN = LocalizationConfig(thresholds=(0.5, 0.6, 0.5), upsample=1, outer=0.5, gamma=0.1)


def test_a_case_by_hand():
    frame_scores = np.array([[0.0, 0.2, 0.8, 1.0, 0.4, 0.0, 0.0, 0.6, 0.0, 0.0]])
    axis = TimeAxis.even(10, 20.0)
    found = localize_arrays(frame_scores, np.array([0.7]), np.zeros(10), axis, ["a"], PLAIN)
    assert [(s.start, s.end, s.label) for s in found] == [(4.0, 8.0, "a"), (14.0, 16.0, "a")]
    # Run [2, 4): inner mean 0.9; outer area [1, 2) before, none after (int(3 + 0.5 * 2) = 4): mean 0.2.
    assert found[0].score == pytest.approx(0.9 - 0.2 + 0.1 * 0.7)


@given(arrays(bool, st.integers(1, 40)))
def test_runs_are_maximal_and_cover(active):
    rebuilt = np.zeros_like(active)
    previous_end = -1
    for start, end in runs_of(active):
        assert start > previous_end
        rebuilt[start:end] = True
        previous_end = end
    np.testing.assert_array_equal(rebuilt, active)


@given(arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 6)))
def test_runs_above_every_level_are_those_of_each_by_itself(levels):
    one_by_one = [runs_of(levels > level) for level in range(6)]
    np.testing.assert_array_equal(runs_above(levels), np.concatenate(one_by_one))


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1)), st.floats(0, 3), st.data())
def test_contrast_is_the_difference_of_means(sequence, outer, data):
    start = data.draw(st.integers(0, len(sequence) - 1))
    end = data.draw(st.integers(start + 1, len(sequence)))
    n = end - start
    before = sequence[max(0, int(start - outer * n)) : start]
    after = sequence[end : min(len(sequence), int(end - 1 + outer * n))]
    around = np.concatenate([before, after])
    expected = sequence[start:end].mean() - (around.mean() if around.size else 0)
    found = outer_inner_contrast(sequence, np.array([[start, end]]), outer)
    assert found[0] == pytest.approx(expected, abs=1e-9)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 30)), elements=st.floats(-5, 5)), st.integers(1, 90)
)
def test_resize_is_torchs_linear_interpolation(x, length):
    expected = torch.nn.functional.interpolate(torch.tensor(x)[None], size=length, mode="linear")[0]
    np.testing.assert_allclose(resize(x, length), expected.numpy(), atol=1e-9)


def test_minmax_clips_at_zero():
    np.testing.assert_allclose(
        minmax(np.array([[-1.0, 1.0, 3.0], [-3.0, -2.0, -1.0]])), [[-1 / 3, 1 / 3, 1], [-3, -2, -1]]
    )


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.architecture == "backtal"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_segments_lie_in_the_video_for_any_input(name, data):
    length = data.draw(st.integers(1, 30))
    cas = data.draw(arrays(np.float32, (3, length), elements=st.floats(-10, 10, width=32)))
    axis = TimeAxis.even(length, data.draw(st.floats(0.1, 100)), data.draw(st.integers(1, 100)))
    output = BackTALOutput(
        scores=torch.tensor(cas).mean(1)[None],
        cas=torch.tensor(cas)[None],
        foreground=torch.ones(1, 1, length),
        embedding=torch.ones(1, 2, length),
        first_layer=torch.tensor(cas)[None],
        lengths=torch.tensor([length]),
    )
    (found,) = localize(output, [axis], ["a", "b"], RECIPES[name].localization, ["v"])
    scores = [s.score for s in found]
    assert scores == sorted(scores, reverse=True)
    for segment in found:
        assert 0 <= segment.start <= segment.end <= axis.duration
        assert segment.label in ("a", "b")


def test_smoothing_is_a_gaussian_that_keeps_constants():
    x = torch.zeros(2, 21)
    x[0, 10], x[1] = 1, 3
    smoothed = smooth(x, 1.5)
    offsets = torch.arange(-10, 11)
    expected = torch.exp(-0.5 * (offsets / 1.5) ** 2) * (offsets.abs() <= 5)
    torch.testing.assert_close(smoothed[0], expected / expected.sum())
    torch.testing.assert_close(smoothed[1], x[1])
    assert smooth(x, 0.0) is x


def test_class_filter_and_min_score():
    frame_scores = np.tile([[0.0, 0.9, 0.9, 0.0]], (2, 1))
    axis, probabilities = TimeAxis.even(4, 4.0), np.array([0.1, 0.6])

    def labels(config):
        return {s.label for s in localize_arrays(frame_scores, probabilities, np.zeros(4), axis, ["a", "b"], config)}

    assert labels(PLAIN) == {"a", "b"}
    assert labels(dataclasses.replace(PLAIN, class_threshold=0.5)) == {"b"}
    assert labels(dataclasses.replace(PLAIN, min_score=0.95)) == {"b"}
    assert labels(dataclasses.replace(PLAIN, min_score=2.0)) == set()
