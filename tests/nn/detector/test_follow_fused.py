"""Fused segments that are settled one by one are those of all at once; what may still change them is waited for."""

import numpy as np
import pytest

from backtal.nn.detector.follow_fused import Fusion, Limits, Seen, to_come
from backtal.nn.detector.fusion import fuse
from backtal.segments.segments import suppress, temporal_iou
from backtal.settings.detector import DetectionConfig

LONGEST = 10.0


def made_up(rng, seconds):
    """Weak points everywhere, stronger ones around a few runs; both sorted by when they are known."""
    places = np.sort(rng.uniform(0, seconds, 6 * seconds))
    scores = rng.uniform(0.001, 0.06, len(places)) * rng.uniform(0, 1, len(places))
    half = rng.uniform(0.2, LONGEST / 2, (2, len(places)))
    runs = []
    for earliest in np.arange(2.0, seconds - 6, 6.0):
        start, length = earliest + rng.uniform(0, 3), rng.uniform(0.5, 4)
        runs += [[start - part, start + length + part, rng.uniform(0.2, 0.9)] for part in (0, 0.1, 0.4)]
        near = (places > start) & (places < start + length)
        scores[near] = rng.uniform(0.01, 0.95, near.sum())
        half[:, near] = np.abs([places[near] - start, start + length - places[near]]) + rng.uniform(0, 0.4, near.sum())
    points = np.column_stack([np.maximum(places - half[0], 0), places + half[1], scores])
    return places, points, np.array(runs)


def all_at_once(points, runs, config, floor):
    edges, scores = suppress(
        points[:, :2],
        points[:, 2],
        sigma=config.soft_nms_sigma,
        threshold=config.nms_threshold,
        min_score=config.min_score,
    )
    rows = np.column_stack([edges, np.zeros(len(edges)), scores])
    fused = fuse(rows, np.insert(runs.reshape(-1, 3), 2, 0, axis=1), config)
    return sorted((start, end, score) for start, end, _, score in fused.tolist() if score >= floor)


def one_by_one(places, points, runs, fusion, *, wait=3 * LONGEST):
    """What is settled while points come by their place and runs when they have ended; and how late."""
    told, found, late, forced, done = np.empty((0, 3)), [], [], 0, np.zeros(0, bool)
    known, ended = np.zeros(len(points), bool), np.zeros(len(runs), bool)
    for now in [*np.arange(0.5, places[-1], 0.5), np.inf]:
        known_then, ended_then = places < now, runs[:, 1] < now - 1
        waiting = runs[~ended_then, 0].min(initial=now - 1)
        marks = np.zeros(len(points) + len(runs), bool)
        marks[np.concatenate([known, ended])] = done
        known, ended = known_then, ended_then
        seen = Seen(points[known], runs[ended], told, marks[np.concatenate([known, ended])])
        limits = Limits() if np.isinf(now) else Limits(now - LONGEST, waiting, patience=now - wait)
        settled = fusion.settle(seen, limits)
        told, done = np.concatenate([told, settled.final]), settled.done
        found += settled.final.tolist()
        late += (now - settled.final[:, 1]).tolist() if np.isfinite(now) else []
        forced += settled.forced
    return sorted(map(tuple, found)), late, forced


@pytest.mark.parametrize("floor", [0.45, 0.2])
@pytest.mark.parametrize(("sigma", "weight"), [(0.5, 0.3), (None, 0.3), (0.3, 0.8)])
def test_settled_one_by_one_equals_all_at_once(floor, sigma, weight):
    rng = np.random.default_rng(0)
    config = DetectionConfig(soft_nms_sigma=sigma, point_weight=weight, nms_threshold=0.43)
    for _ in range(3):
        places, points, runs = made_up(rng, 90)
        found, late, forced = one_by_one(places, points, runs, Fusion(config, floor))
        np.testing.assert_allclose(found, all_at_once(points, runs, config, floor), rtol=0, atol=1e-6)
        assert forced == 0
        assert len(late) > len(found) // 2  # not only at the end
        assert max(late) < 2 * LONGEST


def test_what_is_so_weak_that_its_chain_does_not_end_is_closed_in_time_and_counted():
    places, points, runs = made_up(np.random.default_rng(0), 90)
    found, late, forced = one_by_one(places, points, runs, Fusion(DetectionConfig(), 0.05))
    assert forced > 0
    assert len(found) > 20
    assert max(late) <= 3 * LONGEST + 1


def test_how_much_an_interval_may_agree_with_one_to_come():
    rng = np.random.default_rng(0)
    edges = np.sort(rng.uniform(0, 10, (50, 2)), axis=1)
    later = np.sort(rng.uniform(6, 12, (200, 2)), axis=1)
    found = temporal_iou(edges, later).max(1) ** 2
    assert (found <= to_come(edges, 6.0) + 1e-9).all()
    assert found.max() > 0.5
    assert to_come(edges, np.inf).max() == 0
