"""Segments at the points and runs of the activations judge each other: values worked out by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from backtal.data.features import TimeAxis
from backtal.nn.cas import BackTALOutput, Points
from backtal.nn.detector import fusion
from backtal.nn.detector.fusion import agreement, fuse, localize_detector
from backtal.nn.localize import localize
from backtal.segments.segments import to_segments
from backtal.settings.detector import DetectionConfig

KEEP = DetectionConfig(soft_nms_sigma=None, nms_threshold=1.0)


def test_agreement_is_the_best_of_score_times_squared_overlap():
    ours = np.array([[0.0, 4.0, 0.5], [10.0, 12.0, 0.5]])
    others = np.array([[0.0, 2.0, 1.0], [1.0, 4.0, 0.8], [30.0, 31.0, 1.0]])
    assert agreement(ours, others).tolist() == pytest.approx([0.8 * 0.75**2, 0])
    assert agreement(ours, others[:0]).tolist() == [0, 0]
    assert agreement(ours[:0], others).tolist() == []


def test_agreement_in_blocks_is_agreement_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    tables = []
    for count in (50, 70):
        start = np.sort(rng.uniform(0, 100, count))
        tables.append(np.column_stack([start, start + rng.uniform(0.5, 20, count), rng.uniform(0, 1, count)]))
    at_once = agreement(*tables)
    monkeypatch.setattr(fusion, "BLOCK", 7)
    np.testing.assert_allclose(agreement(*tables), at_once)
    assert at_once.max() > 0.1


def test_each_kind_is_scored_by_itself_and_by_the_other():
    points, runs = np.array([[0, 4, 0, 0.9], [8, 9, 1, 0.6]]), np.array([[1, 4, 0, 0.5]])
    found = fuse(points, runs, dataclasses.replace(KEEP, point_weight=0.25))
    overlap = 0.75**2
    wanted = {
        (0, 4, 0): 0.25 * 0.9 + 0.75 * overlap * 0.5,
        (1, 4, 0): 0.75 * 0.5 + 0.25 * overlap * 0.9,
        (8, 9, 1): 0.25 * 0.6,
    }
    assert {tuple(row[:3]): row[3] for row in found.tolist()} == pytest.approx(wanted)
    assert [s.score for s in to_segments(found, ["a", "b"])] == sorted(wanted.values(), reverse=True)


def test_what_both_found_is_kept_once():
    points, runs = np.array([[0, 4, 0, 0.9]]), np.array([[0, 4, 0, 0.5]])
    first, second = fuse(points, runs, DetectionConfig())[:, 3]
    assert first == pytest.approx(0.3 * 0.9 + 0.7 * 0.5)
    assert second == pytest.approx(first * np.exp(-1 / 0.5))


def output() -> tuple[BackTALOutput, TimeAxis]:
    """Eight snippets; the activations say 2 to 5, the one sure point 2 to 6."""
    cas = torch.tensor([[-9.0, -9, 9, 9, 9, -9, -9, -9], [0.0] * 8])[None]
    classes, distances = torch.full((1, 1, 8), -9.0), torch.ones(1, 2, 8)
    classes[0, 0, 3], distances[0, :, 3] = 3.0, torch.tensor([1.5, 2.5])
    places = torch.stack([torch.arange(8) + 0.5, torch.ones(8)], dim=1)
    found = Points(classes, distances, places, torch.ones(1, 8, dtype=torch.bool))
    nothing, lengths = cas.new_empty(1, 0, 0), torch.tensor([8])
    made = BackTALOutput(torch.zeros(1, 2), cas, nothing, nothing, nothing, lengths, points=found)
    return made, TimeAxis.even(8, 16.0)


def test_points_alone_where_there_are_no_thresholds():
    made, axis = output()
    (alone,) = localize_detector(made, [axis], ["a"], DetectionConfig(thresholds=None, min_score=0.01))
    assert [(s.start, s.end) for s in alone] == [(4, 12)]
    (both,) = localize(made, [axis], ["a"], DetectionConfig(min_score=0.01, smoothing=0))
    best = {(round(s.start), round(s.end)) for s in list(both)[:2]}
    assert (4, 10) in best
    assert any((s.start, s.end) == (4, 12) for s in both)


def test_hard_suppression_leaves_out_what_is_below_the_least_score_as_soft_does():
    points = np.array([[0, 4, 0, 0.1], [8, 9, 0, 0.9]])
    for sigma in (None, 0.5):
        config = DetectionConfig(soft_nms_sigma=sigma, min_score=0.05)
        assert fuse(points, points[:0], config)[:, 0].tolist() == [8]
