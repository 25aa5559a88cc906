import numpy as np
import pytest
from conftest import shared
from hypothesis import given
from hypothesis import strategies as st

from backtal import Click, ClickTrack, DataError, Segment, read_clicks, simulate_clicks, write_clicks
from backtal.clicks.clicks import background_stretches, check_clicks, damage_clicks, simulate_action_clicks

HEADER = "URLID,URL,TagID,Tag,Start,End,Time,State\n"


def test_reads_the_annotation_form(tmp_path):
    path = tmp_path / "A.txt"
    path.write_text(
        "\ufeff" + HEADER + "v,v.mp4,2,background_background,64,64.5,2,1\nv,v.mp4,0,jump,3.5,3.5,1,1\n",
        encoding="utf-8",
    )
    assert read_clicks(path) == {"v": ClickTrack("v", (Click(3.5, "jump"), Click(64.25, round=2)))}


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1).filter(str.strip)


@given(st.dictionaries(names, st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, 9)), min_size=1), max_size=5))
def test_round_trip(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("clicks") / "A.txt"
    tracks = {v: ClickTrack(v, tuple(Click(t, round=r) for t, r in clicks)) for v, clicks in content.items()}
    write_clicks(path, tracks.values(), ["a"])
    assert read_clicks(path) == tracks


def test_files_are_put_together(tmp_path):
    for name, time in (("A", 1.0), ("B", 2.0)):
        write_clicks(tmp_path / name, [ClickTrack("v", (Click(time),))], ["a"])
    assert read_clicks(tmp_path / "A", tmp_path / "B")["v"].times() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("URLID,Tag\nv,b\n", "no column End, Start"),
        (
            HEADER + "v,v,2,background_background,x,1,1,1\n",
            "line 2: Start must be .* found 'x'",
        ),
        (HEADER + "v,v,2,background_background,1,1,1,1\nv,v,2\n", "line 3"),
        (HEADER + "v,v,2,background_background,5,1,1,1\n", "line 2: not a click"),
        (HEADER + "v,v,2,background_background,nan,nan,1,1\n", "line 2: Start must be a number"),
        (HEADER + ",v,2,background_background,1,1,1,1\n", "URLID or Tag is empty"),
    ],
)
def test_malformed_rows_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "A.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_clicks(path)


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (ClickTrack("w", (Click(1.0),)), "video w, which is not in the dataset"),
        (ClickTrack("v", (Click(10.5),)), "click at 10.5 s, but the video lasts 10.0 s"),
        (ClickTrack("v", (Click(1.0, "fly"),)), "unknown label 'fly'"),
    ],
)
def test_clicks_must_belong_to_the_dataset(track, message):
    with pytest.raises(DataError, match=message):
        check_clicks({track.video_id: track}, {"v": 10.0}, ["jump"])


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 10)), max_size=6), st.floats(20, 60), st.integers(0, 2**32 - 1)
)
def test_simulation_follows_the_protocol(spans, duration, seed):
    segments = [Segment(start, min(start + length, duration), "a") for start, length in spans if start < duration]
    stretches = background_stretches(segments, duration)
    assert sum(end - start for start, end in stretches) <= duration + 1e-9
    times = simulate_clicks("v", segments, duration, np.random.default_rng(seed)).times()
    assert all(2 * time == int(2 * time) for time in times)
    inside = [[time for time in times if start <= time < end] for start, end in stretches]
    assert sum(map(len, inside)) == len(times)
    for (start, end), found in zip(stretches, inside, strict=True):
        shown = np.arange(0, 2 * duration + 1) / 2
        assert len(found) == min(1, ((shown >= start) & (shown < end)).sum())


def test_simulated_positions_are_uniform():
    rng = np.random.default_rng(0)
    times = np.array([simulate_clicks("v", [], 100.0, rng).times()[0] for _ in range(2000)])
    assert np.abs(np.histogram(times, bins=4, range=(0, 100))[0] / 2000 - 0.25).max() < 0.04


# Ten actions of 4 s, each followed by a gap: 1 s, 2 s, ... 10 s.
ACTIONS = [Segment(4.0 * i + i * (i + 1) / 2, 4.0 * i + i * (i + 1) / 2 + 4, "a") for i in range(10)]
DURATION = ACTIONS[-1].end + 10


def simulated(seed=0, **options):
    return simulate_clicks("v", ACTIONS, DURATION, np.random.default_rng(seed), **options)


def test_short_gaps_go_unnoticed():
    for shortest in (0.0, 1.0, 3.5, 10.0, 11.0):
        gaps = [b - a for a, b in background_stretches(ACTIONS, DURATION)]
        assert len(simulated(shortest_gap=shortest)) == sum(gap >= shortest for gap in gaps)


def test_missed_and_wrong_clicks_come_at_their_rates():
    missed = np.mean([10 - len(simulated(seed, missed=0.3)) for seed in range(300)]) / 10
    assert missed == pytest.approx(0.3, abs=0.03)
    inside, total = 0, 0
    for seed in range(300):
        times = simulated(seed, wrong=0.2).times()
        assert all((2 * time).is_integer() for time in times)
        inside += sum(any(s.start <= time < s.end for s in ACTIONS) for time in times)
        total += len(times)
    assert total == 3000
    assert inside / total == pytest.approx(0.2, abs=0.03)


def test_one_seed_gives_one_file():
    options = {"missed": 0.2, "wrong": 0.2, "shortest_gap": 1.5}
    assert simulated(3, **options) == simulated(3, **options)
    assert len({simulated(seed, **options) for seed in range(20)}) == 20


def test_action_clicks_lie_in_their_actions():
    for rate in (None, 2.0):
        for seed in range(50):
            track = simulate_action_clicks("v", ACTIONS, np.random.default_rng(seed), frame_rate=rate)
            assert len(track) == len(ACTIONS)
            for click, action in zip(track.clicks, ACTIONS, strict=True):
                assert action.start <= click.time < action.end
                assert rate is None or (rate * click.time).is_integer()
    unseen = [Segment(1.1, 1.4, "blink"), Segment(2.0, 3.0, "jump")]
    track = simulate_action_clicks("v", unseen, np.random.default_rng(0), frame_rate=2.0)
    assert [click.label for click in track.clicks] == ["jump"]


def test_damage_keeps_the_rest_as_it_was():
    track = ClickTrack("v", tuple(Click(float(t), round=2) for t in range(100)))
    rng = np.random.default_rng(0)
    assert damage_clicks(track, ACTIONS, rng) == track
    kept = damage_clicks(track, ACTIONS, rng, drop=0.5)
    assert set(kept.clicks) < set(track.clicks)
    moved = damage_clicks(track, ACTIONS, rng, wrong=0.5)
    assert len(moved) == 100
    assert all(click.round == 2 for click in moved.clicks)
    assert damage_clicks(track, [], rng, wrong=1.0) == track  # there is no action to move to


def test_the_human_click_files_of_thumos14():
    counts = []
    for name in ("A1.txt", "A2.txt", "A3.txt"):
        tracks = read_clicks(shared("data", "thumos14", "clicks", name))
        counts.append((len(tracks), sum(len(track) for track in tracks.values())))
    assert counts == [(200, 2264), (199, 2323), (199, 2344)]
