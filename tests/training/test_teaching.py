"""What a stage teaches: chains worked out by hand or by enumeration, edges set by clicks, segments that agree."""

import itertools
import math

import numpy as np
import pytest
import torch

from backtal.training.teaching import (
    SWITCH,
    Opinion,
    calibrate,
    click_positions,
    most_likely,
    posterior,
    runs_of_classes,
    select,
    teach,
)


def opinion(cas: list[list[float]], clicks: list[int] | None = None, possible: list[bool] | None = None) -> Opinion:
    table = torch.tensor(cas)
    return Opinion(
        table,
        torch.ones(len(table), dtype=torch.bool) if possible is None else torch.tensor(possible),
        torch.tensor(clicks if clicks is not None else [-1] * table.shape[1]),
    )


def enumerate_chain(evidence: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Posterior and best path of a short chain, by going through all of them."""
    states, length = evidence.shape
    posterior_, best = np.zeros_like(evidence), (-math.inf, ())
    for path in itertools.product(range(states), repeat=length):
        weight = sum(evidence[s, t] for t, s in enumerate(path))
        joint = best_step = weight
        for a, b in itertools.pairwise(path):
            jump = SWITCH / states
            joint += math.log((1 - SWITCH) * (a == b) + jump)
            best_step += max(math.log(1 - SWITCH) if a == b else -math.inf, math.log(jump))
        for t, s in enumerate(path):
            posterior_[s, t] += math.exp(joint)
        best = max(best, (best_step, path))
    return posterior_ / posterior_.sum(0), best[1]


def test_the_chain_is_that_of_all_paths():
    rng = np.random.default_rng(0)
    for length in (1, 2, 5):
        evidence = torch.from_numpy(rng.normal(size=(3, length)) * 2).log_softmax(0)
        wanted, path = enumerate_chain(evidence.numpy())
        np.testing.assert_allclose(posterior([evidence])[0], wanted, atol=1e-6)
        assert tuple(most_likely([evidence])[0]) == path


def test_videos_of_different_length_do_not_meet():
    rng = np.random.default_rng(1)
    parts = [torch.from_numpy(rng.normal(size=(3, n))).log_softmax(0) for n in (3, 9, 6)]
    for together, one in zip(posterior(parts), parts, strict=True):
        torch.testing.assert_close(together, posterior([one])[0])
    for together, one in zip(most_likely(parts), parts, strict=True):
        assert together.tolist() == most_likely([one])[0].tolist()


def test_what_is_known_is_certain_and_what_cannot_be_is_not():
    said = opinion([[5.0, 5, 5, 5], [9.0, 9, 9, 9], [0.0, 0, 0, 0]], [-1, 2, -1, -1], [True, False, True])
    found = posterior([said.evidence()])[0]
    assert found[2, 1] == pytest.approx(1)
    assert found[1].max() == pytest.approx(0, abs=1e-6)
    assert most_likely([said.evidence()])[0].tolist() == [0, 2, 0, 0]


def test_a_click_on_a_class_that_the_labels_lack_counts():
    said = opinion([[0.0, 0, 0], [0.0, 0, 0], [0.0, 0, 0]], [-1, 1, -1], [True, False, True])
    assert most_likely([said.evidence()])[0][1] == 1


def test_positions_of_clicks():
    path = np.array([0, 2, 2, 2, 2, 0, 2, 2, 1, 2, 2, 2, 2])
    clicks = np.full(13, -1)
    clicks[[1, 7, 10]] = 2
    # The second stretch is too short, the third ends with the video.
    assert click_positions(path, clicks, 2) == [0.125]


def simulated(bias: float, seed: int = 0) -> tuple[list[Opinion], float]:
    """Videos whose activations put the edges wrong by as much as `bias` shifts background."""
    rng, videos = np.random.default_rng(seed), []
    for _ in range(60):
        time, level, clicks = np.arange(90), np.full(90, -9.0), np.full(90, -1)
        edges = [(15 * i + 5 + rng.integers(0, 3), 15 * i + 11 + rng.integers(0, 3)) for i in range(6)]
        for start, end in edges:
            middle, half = (start + end - 1) / 2, (end - start) / 2
            level = np.maximum(level, 1.5 * (half - np.abs(time - middle)))
        for (_, start), (end, _) in itertools.pairwise(edges):
            clicks[rng.integers(start, end)] = 1
        videos.append(opinion([level.tolist(), [bias] * 90], clicks.tolist()))
    return videos, bias


@pytest.mark.parametrize("bias", [-3.0, 0.0, 2.0])
def test_edges_are_set_so_that_clicks_are_uniform(bias: float):
    videos, _ = simulated(bias)
    assert calibrate(videos) + bias == pytest.approx(0, abs=1.6)


def test_few_clicks_change_nothing():
    videos, _ = simulated(3.0)
    assert calibrate(videos[:2]) == 0


def test_runs_carry_their_class_and_probability():
    path = np.array([0, 0, 2, 1, 1, 1])
    probability = np.array([[0.5, 0.7, 0, 0, 0, 0], [0, 0, 0, 0.9, 0.9, 0.6], [0.5, 0.3, 1, 0.1, 0.1, 0.4]])
    np.testing.assert_allclose(runs_of_classes(path, probability), [[0, 2, 0, 0.6], [3, 6, 1, 0.8]])


def test_selected_segments_agree_with_each_other_and_with_what_is_known():
    said = opinion([[0.0] * 20] * 3, [-1] * 9 + [2] + [-1] * 10, [True, False, True])
    found = np.array(
        [
            [2.0, 6.0, 0, 0.9],  # taken
            [3.0, 7.0, 0, 0.8],  # overlaps it
            [8.0, 12.0, 0, 0.95],  # holds a background click
            [12.0, 15.0, 1, 0.9],  # not a label of the video
            [15.0, 18.0, 0, 0.25],  # not worth it
            [10.0, 13.0, 0, 0.6],  # taken
        ]
    )
    chosen = select(found, said)
    assert sorted(chosen[:, 3].tolist()) == [0.6, 0.9]


def test_a_stretch_or_a_label_without_any_gets_its_best():
    said = opinion([[0.0] * 20] * 3, [2] + [-1] * 9 + [2] + [-1] * 8 + [2], [True, True, False])
    found = np.array([[2.0, 6.0, 0, 0.2], [3.0, 5.0, 0, 0.1], [12.0, 15.0, 0, 0.9], [6.0, 9.0, 1, 0.05]])
    chosen = select(found, said)
    assert sorted(chosen[:, 3].tolist()) == [0.05, 0.2, 0.9]


def test_nothing_found_is_nothing_taught():
    said = opinion([[-9.0] * 6, [-9.0] * 6, [9.0] * 6])
    (taught,) = teach([said], [np.empty((0, 4))])
    assert taught.segments.shape == (0, 4)
    assert not taught.ignored.any()
    assert taught.distribution[2].min() > 0.99
