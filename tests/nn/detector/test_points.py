"""Which point answers for which segment, what it costs, and what is found: by values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from backtal import TimeAxis
from backtal.nn.cas import Points
from backtal.nn.detector.points import assign, decode, distance_iou_loss, focal_loss, in_seconds, point_losses
from backtal.nn.detector.pyramid import points
from backtal.settings.detector import DetectionConfig


def owners(segment: tuple[float, float], length: int = 32, levels: int = 4) -> set[tuple[float, float]]:
    placed = points(length, levels)
    found = assign(placed, torch.tensor([[segment]]), radius=1.5)[0]
    return {(float(p), float(s)) for p, s in placed[found >= 0]}


def test_short_segments_belong_to_the_lowest_level_and_long_ones_to_the_highest():
    assert owners((4.0, 6.0)) == {(4.5, 1.0), (5.5, 1.0)}
    assert {stride for _, stride in owners((4.0, 8.0))} == {1.0}
    assert {stride for _, stride in owners((0.0, 32.0))} == {8.0}
    assert {stride for _, stride in owners((4.0, 12.0))} == {2.0}


def test_a_segment_of_any_length_has_a_point():
    for length in np.arange(1.0, 32.0, 0.5):
        assert owners((0.0, float(length))), length


def test_a_point_of_two_segments_answers_for_the_shorter():
    placed = points(8, 1)
    found = assign(placed, torch.tensor([[[0.0, 8.0], [3.0, 5.0]]]), radius=1.5)[0]
    assert found.tolist() == [-1, -1, 0, 1, 1, 0, -1, -1]


def test_padding_and_no_segment_are_answered_by_nobody():
    assert (assign(points(8, 2), torch.zeros(1, 3, 2), radius=1.5) == -1).all()
    assert (assign(points(8, 2), torch.zeros(1, 0, 2), radius=1.5) == -1).all()


def test_focal_loss_of_a_coin():
    assert focal_loss(torch.tensor(0.0), torch.tensor(1.0)).item() == pytest.approx(0.25 * 0.25 * math.log(2))
    assert focal_loss(torch.tensor(0.0), torch.tensor(0.0)).item() == pytest.approx(0.75 * 0.25 * math.log(2))


def test_distance_iou_loss_by_hand():
    same = torch.tensor([1.0, 3.0])
    assert distance_iou_loss(same, same).item() == pytest.approx(0)
    # [-1, 3] against [-3, 3]: overlap 4 of 6, middles 1 apart in a hull of 6
    assert distance_iou_loss(same, torch.tensor([3.0, 3.0])).item() == pytest.approx(1 - 4 / 6 + (1 / 6) ** 2)


def made(length: int = 8) -> Points:
    places = points(length, 1)
    classes, distances = torch.zeros(1, 2, length), torch.ones(1, 2, length)
    return Points(classes, distances, places, torch.ones(1, length, dtype=torch.bool))


def test_costs_of_points_by_hand():
    segments = torch.tensor([[[2.0, 4.0, 1.0, 0.5]]])
    nothing = torch.zeros(1, 8, dtype=torch.bool)
    classes, edges, weight = point_losses(made(), segments, nothing, radius=1.5)
    negative, positive = 0.75 * 0.25 * math.log(2), 0.25 * 0.25 * math.log(2)
    # Six points of no class, two that answer at half the weight for class 1 of two.
    assert classes.item() == pytest.approx(6 * 2 * negative + 2 * 0.5 * (positive + negative))
    # At 2.5 the segment is 0.5 back and 1.5 on; 1 and 1 were said: overlap 1.5 of 2.5, middles 0.5 apart of 2.5
    assert edges.item() == pytest.approx(2 * 0.5 * (1 - 1.5 / 2.5 + (0.5 / 2.5) ** 2))
    assert weight.item() == pytest.approx(1.0)


def test_ignored_snippets_cost_nothing_unless_they_answer():
    segments = torch.tensor([[[2.0, 4.0, 1.0, 1.0]]])
    everything = torch.ones(1, 8, dtype=torch.bool)
    classes, _, weight = point_losses(made(), segments, everything, radius=1.5)
    negative, positive = 0.75 * 0.25 * math.log(2), 0.25 * 0.25 * math.log(2)
    assert classes.item() == pytest.approx(2 * (positive + negative))
    assert weight.item() == 2


def test_padding_never_costs():
    points_ = made()._replace(real=torch.tensor([[True] * 4 + [False] * 4]))
    nothing = torch.zeros(1, 8, dtype=torch.bool)
    classes, edges, weight = point_losses(points_, torch.tensor([[[5.0, 7.0, 0.0, 1.0]]]), nothing, radius=1.5)
    assert classes.item() == pytest.approx(4 * 2 * 0.75 * 0.25 * math.log(2))
    assert edges.item() == weight.item() == 0


def test_decode_suppresses_within_a_class_and_keeps_within_the_video():
    classes = np.array([[0.9, 0.8, 0.0005], [0.0, 0.7, 0.6]])
    intervals = np.array([[2.0, 4.0], [2.0, 4.0], [-3.0, 99.0]])
    hard = decode(classes, intervals, 10, DetectionConfig(soft_nms_sigma=None))
    assert hard.tolist() == [[2, 4, 0, 0.9], [2, 4, 1, 0.7], [0, 10, 1, 0.6]]
    soft = decode(classes, intervals, 10, DetectionConfig(soft_nms_sigma=0.5))
    assert soft[:, 3].tolist() == pytest.approx([0.9, 0.7, 0.6 * math.exp(-(0.2**2) / 0.5), 0.8 * math.exp(-2)])


def test_seconds_come_from_the_axis():
    axis = TimeAxis(0.5, 0.25, 10, 2.5)
    found = in_seconds(np.array([[2.0, 4.0, 1, 0.5], [9.9, 9.9, 0, 0.4]]), axis)
    assert found.tolist() == [[1.0, 1.5, 1, 0.5]]
