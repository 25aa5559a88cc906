"""Statistics of clicks: worked examples, the three human files of THUMOS14, and what simulated clicks must give."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import shared
from hypothesis import given
from hypothesis import strategies as st

from backtal import Click, ClickTrack, Localization, Segment, read_clicks, simulate_clicks
from backtal.data.annotations import Video, read_annotations
from backtal.data.click_stats import Agreement, click_report, count_clicks, kolmogorov_smirnov

# Stretches 0-10, 20-20.5, 21-30 and 40-60; the actions at 10, 20.5 and 30 are two runs, as half a second is no gap.
TRUTH = (Segment(10, 20, "jump"), Segment(20.5, 21, "run"), Segment(30, 40, "jump"))


def video(name="v", segments=TRUTH, duration=60.0):
    return Video(name, "training", duration, None, Localization(name, duration, segments))


def track(*times, name="v"):
    return {name: ClickTrack(name, tuple(Click(time) for time in times))}


def measured(tracks, segments=TRUTH):
    return click_report({"me": tracks}, {"v": video(segments=segments)}).annotators["me"]


def test_videos_of_which_only_the_labels_are_known_say_nothing_of_places():
    labelled = replace(video("w", ()), video_labels=frozenset({"jump"}))
    tracks = track(2.5, 15.0) | track(4.0, 8.0, name="w")
    report = click_report({"me": tracks}, {"v": video(), "w": labelled})
    stats = report.annotators["me"]
    assert (stats.count.background, stats.count.judged, stats.count.inside, stats.located) == (4, 2, 1, 1)
    assert stats.count.inside_share == 0.5
    assert (stats.per_minute, stats.total.number) == (2, 4)
    alone = click_report({"me": tracks}, {"w": labelled})
    assert "stretches" not in str(alone)
    assert "4.00" in str(alone)
    assert "inside" not in str(alone.annotators["me"].count)


def test_a_worked_example():
    stats = measured(track(2.5, 15.0, 25.5, 25.5, 40.0, 50.25))
    assert (stats.count.clicks, stats.count.inside, stats.count.on_edge) == (6, 2, 1)
    assert stats.count.inside_share == pytest.approx(1 / 3)
    assert stats.off_grid == 1
    assert stats.per_minute == 6
    assert stats.positions.tolist() == [0.25, 0.5, 0.5, 0.5125]
    assert stats.histogram.tolist() == [0, 0, 0.25, 0, 0, 0.75, 0, 0, 0, 0]
    assert stats.total == ("all", 4, 1, 1)
    assert {s.name: tuple(s)[1:] for s in stats.stretches if s.number} == {
        "0.5 to 1 s": (1, 1, 0),
        "5 to 10 s": (1, 0, 1),
        "10 s on": (2, 0, 0),
    }
    # 2.5-15 none (the first run lies at 15.5), 15-25.5 one, the repeated click none, 25.5-40 one, 40-50.25 none
    assert stats.runs_between == (3, 2, 0)
    assert measured(track(5.0, 50.0)).runs_between == (0, 0, 1)


def test_the_ends_of_the_video_are_background():
    stats = measured(track(0.0, 60.0))
    assert stats.positions.tolist() == [0.0, 1.0]
    assert stats.count.inside == 0


def test_action_clicks_are_counted_apart():
    tracks = {"v": ClickTrack("v", (Click(15.0, "jump"), Click(5.0)))}
    stats = measured(tracks)
    assert (stats.count.clicks, stats.count.background, stats.count.inside) == (2, 1, 0)
    assert stats.positions.tolist() == [0.5]


def test_agreement_of_two_annotators():
    both = click_report({"a": track(5.0, 20.2), "b": track(7.0, 50.0)}, {"v": video()})
    (found,) = both.agreements
    assert found == Agreement("a", "b", both=1, only_first=1, only_second=1, neither=1)
    assert found.kappa == 0
    (same,) = click_report({"a": track(5.0, 50), "b": track(7.0, 50.0)}, {"v": video()}).agreements
    assert (same.both, same.neither, same.kappa) == (2, 2, 1.0)
    (apart,) = click_report({"a": track(5.0), "b": track(5.0, name="w")}, {"v": video(), "w": video("w")}).agreements
    assert apart.stretches == 0  # no video that both clicked
    assert "of 4 background stretches both clicked 1 (25.0 %), neither 1 (25.0 %); Cohen's kappa 0.00" in str(both)


@given(*4 * [st.integers(0, 50)])
def test_kappa_is_what_its_definition_says(both, first, second, neither):
    kappa = Agreement("a", "b", both, first, second, neither).kappa
    assert -1 - 1e-9 <= kappa <= 1 + 1e-9
    labels = [(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither
    if labels:
        a, b = np.array(labels).T
        expected = np.mean([(x == y) for x in a for y in b])
        observed = np.mean(a == b)
        assert kappa == pytest.approx((observed - expected) / (1 - expected) if expected < 1 else 1.0)


def test_without_annotations_clicks_are_only_counted():
    report = click_report({"a": track(5.0, 7.25), "b": track(5.0)}, {})
    assert report.agreements == ()
    assert math.isnan(report.annotators["a"].per_minute)
    text = str(report)
    assert [line.split()[-4:] for line in text.splitlines()][1:3] == [
        ["videos", "1", "1"],
        ["background", "clicks", "2", "1"],
    ]
    assert "stretch" not in text
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["annotators"]["a"]["ks_distance"] is None
    assert count_clicks("x", {}, {}).inside_share == 0


def test_kolmogorov_smirnov():
    # Tabulated: for n = 100, 5 % lie farther off than 0.134, and 1 % than 0.161.
    for distance, p_value in ((0.134, 0.05), (0.161, 0.01)):
        values = np.clip((np.arange(100) + 1) / 100 - distance, 0, 1)
        found = kolmogorov_smirnov(values)
        assert found[0] == pytest.approx(distance)
        assert found[1] == pytest.approx(p_value, abs=0.003)
    assert kolmogorov_smirnov(np.zeros(50)) == (1.0, pytest.approx(0, abs=1e-12))
    rng = np.random.default_rng(0)
    small = np.mean([kolmogorov_smirnov(rng.random(40))[1] < 0.1 for _ in range(1000)])
    assert small == pytest.approx(0.1, abs=0.03)


def test_simulated_clicks_are_uniform_and_miss_nothing_but_short_stretches():
    rng = np.random.default_rng(0)
    videos, tracks = {}, {}
    for index in range(300):
        name = f"v{index}"
        start, length = float(rng.uniform(0.2, 80)), float(rng.uniform(1, 30))
        videos[name] = video(name, (Segment(start, start + length, "jump"),), 120.0)
        tracks[name] = simulate_clicks(name, videos[name].ground_truth, 120.0, rng, frame_rate=50.0)
    stats = click_report({"simulated": tracks}, videos).annotators["simulated"]
    assert stats.count.inside <= 2  # the frame shown exactly at the end of an action
    assert (stats.total.missed, stats.total.several) == (0, 0)
    assert stats.uniformity[1] > 0.05
    assert stats.runs_between[1] == 300


def test_the_human_clicks_of_thumos14():
    root = shared("data", "thumos14", "annotations.json").parent
    videos = read_annotations(root / "annotations.json").videos
    report = click_report({name: read_clicks(root / "clicks" / f"{name}.txt") for name in ("A1", "A2", "A3")}, videos)
    found = {
        name: (s.count.inside, [round(100 * part / sum(s.runs_between)) for part in s.runs_between[1::-1]])
        for name, s in report.annotators.items()
    }
    assert found == {"A1": (175, [65, 23]), "A2": (52, [84, 13]), "A3": (175, [79, 16])}
    assert sum(s.off_grid for s in report.annotators.values()) == 494
    for stats in report.annotators.values():
        assert stats.uniformity[0] < 0.04
        assert (np.abs(stats.histogram - 0.1) < 0.03).all()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["annotators"]["A1"]["clicks"] == 2264
