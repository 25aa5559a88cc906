"""Clicks like a human's: the rates that were counted are the rates that come out."""

import numpy as np
import pytest
from conftest import shared

from backtal import Segment
from backtal.clicks import simulate_human_clicks
from backtal.clicks.human import INSIDE, INSIDE_TENTHS, LENGTHS, MISSED, SEVERAL
from backtal.data import DatasetFolder, click_report


def simulate(gap: float, count: int = 4000):
    """Actions of 5.1 s, with as many seconds of background between each two; clicks of both kinds, and the actions."""
    actions = [Segment(k * (5.1 + gap) + gap, (k + 1) * (5.1 + gap), "jump") for k in range(count)]
    end = actions[-1].end
    times = np.array(simulate_human_clicks("v", actions, end, np.random.default_rng(0)).times())
    place = times % (5.1 + gap)
    return times[place < gap], times[place >= gap], actions


@pytest.mark.parametrize(("gap", "group"), [(0.3, 0), (0.7, 1), (1.3, 2), (3.1, 3), (7.3, 4), (20.3, 5)])
def test_stretches_are_missed_and_clicked_twice_as_often_as_people_did(gap: float, group: int):
    right, _, actions = simulate(gap)
    clicked = np.bincount((right // (5.1 + gap)).astype(int), minlength=len(actions))
    assert (clicked == 0).mean() == pytest.approx(max(MISSED[group], INSIDE * (1 - SEVERAL[group])), abs=0.025)
    assert (clicked > 1).mean() == pytest.approx(SEVERAL[group], abs=0.02)


def test_clicks_inside_actions_are_near_their_ends():
    right, inside, _ = simulate(7.3)
    assert len(inside) / (len(inside) + len(right)) == pytest.approx(INSIDE, abs=0.01)
    tenths = np.histogram((inside % 12.4 - 7.3) / 5.1, 10, (0, 1))[0] / len(inside)
    np.testing.assert_allclose(tenths, INSIDE_TENTHS, atol=0.08)


def test_clicks_outside_actions_lie_on_the_grid():
    right, _, _ = simulate(7.3)
    assert (right * 2 == np.round(right * 2)).all()


def test_a_video_without_actions_is_one_stretch():
    track = simulate_human_clicks("v", [], 100.0, np.random.default_rng(0))
    assert track.times()
    assert all(0 <= time < 100 for time in track.times())
    assert len(simulate_human_clicks("v", [Segment(0, 9, "jump")], 9.0, np.random.default_rng(0))) == 0


def test_the_rates_are_those_of_the_human_click_files():
    folder = DatasetFolder(shared("data", "thumos14"))
    people = {path.stem: folder.read_clicks(path) for path in folder.click_paths()}
    stats = list(click_report(people, folder.annotations.videos).annotators.values())
    groups = [np.sum([s.stretches[i][1:] for s in stats], axis=0) for i in range(len(LENGTHS) + 1)]
    np.testing.assert_allclose([missed / number for number, missed, _ in groups], MISSED)
    np.testing.assert_allclose([several / number for number, _, several in groups], SEVERAL)
    inside, edge, clicks = (sum(getattr(s.count, name) for s in stats) for name in ("inside", "on_edge", "judged"))
    assert (inside - edge) / clicks == pytest.approx(INSIDE)
