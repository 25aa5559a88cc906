import numpy as np
import pytest
from conftest import shared
from hypothesis import given
from hypothesis import strategies as st

from backtal import Click, ClickTrack, DataError, Segment, read_clicks, simulate_clicks, write_clicks
from backtal.clicks import background_stretches, check_clicks

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
        (HEADER + "v,v,2,background_background,x,1,1,1\n", "line 2: Start, End and Time must be numbers"),
        (HEADER + "v,v,2,background_background,1,1,1,1\nv,v,2\n", "line 3"),
        (HEADER + "v,v,2,background_background,5,1,1,1\n", "line 2: not a click"),
        (HEADER + "v,v,2,background_background,nan,nan,1,1\n", "line 2: not a click"),
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


def test_the_human_click_files_of_thumos14():
    counts = []
    for name in ("A1.txt", "A2.txt", "A3.txt"):
        tracks = read_clicks(shared("data", "thumos14", "clicks", name))
        counts.append((len(tracks), sum(len(track) for track in tracks.values())))
    assert counts == [(200, 2264), (199, 2323), (199, 2344)]
