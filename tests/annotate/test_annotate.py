"""The click page without its page: frames, folders, files, suggestions."""

import io
import json
import os
import threading
import unicodedata
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import flash, moving_bar, times_at, write_sound, write_video

from backtal import Click, ClickTrack, DataError, Localization, Segment, read_clicks, write_clicks
from backtal.cli import main
from backtal.data.annotations import read_annotations

pytest.importorskip("starlette")
pytest.importorskip("av")

from backtal.annotate import open_folder
from backtal.annotate.clickfile import read_marks, replace_marks
from backtal.annotate.frames import HEIGHTS, SHEET, Facts, Reader, Sheets, read_facts
from backtal.annotate.store import UNLABELLED, Stale, Store
from backtal.annotate.suggest import Suggestion, expected_loss, suggest, worth
from backtal.video import Video

B = "background"

# ---- frames


@pytest.mark.parametrize(
    ("fps", "options"),
    [
        (25, {}),
        (23.976, {"b_frames": 2}),
        (12, {"rotation": 90}),
        (7, {"codec": "mpeg4", "suffix": ".avi"}),
        (30, {"suffix": ".ts", "b_frames": 2}),
    ],
)
def test_the_strip_shows_what_the_decoder_shows(tmp_path, fps, options):
    path = tmp_path / f"v{options.pop('suffix', '.mp4')}"
    write_video(path, times_at(fps, 9.3), moving_bar, **options)
    reader = Reader(path)
    forwards = reader.pictures([k / 2 for k in range(18)], 96)
    assert forwards[0].shape[0] == 96
    expected = list(Video(path, fps=2, size=forwards[0].shape[:2], keep_damaged=True))
    for k in range(18):
        np.testing.assert_array_equal(forwards[k], expected[k], err_msg=f"frame {k}")
    for k in (15, 3, 9, 0, 17):
        np.testing.assert_array_equal(reader.pictures([k / 2], 96)[0], expected[k], err_msg=f"frame {k}, seeking")


def test_irregular_times_and_a_late_start(tmp_path):
    times = [0.7, 0.75, 1.4, 3.1, 3.15, 3.9, 6.0, 6.2]
    path = write_video(tmp_path / "v.mp4", times, moving_bar, sound=6.5)
    got = Reader(path).pictures([k / 2 for k in range(12)], 64)
    expected = list(Video(path, fps=2, size=got[0].shape[:2]))
    for k in range(12):
        np.testing.assert_array_equal(got[k], expected[k], err_msg=f"frame {k}")


def test_facts(tmp_path):
    path = write_video(tmp_path / "v.mp4", times_at(10, 8.25), flash(2), size=(64, 128), rotation=90)
    facts = read_facts(path)
    assert facts.duration == pytest.approx(8.2, abs=0.11)
    assert (facts.num_frames, facts.count) == (82, 17)
    assert facts.aspect == pytest.approx(0.5)
    with pytest.raises(DataError, match=r"sound\.mp4: holds no video"):
        read_facts(write_sound(tmp_path / "sound.mp4"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.mp4: cannot be opened"):
        read_facts(tmp_path / "empty.mp4")


def test_a_file_that_does_not_say_how_long_it_is(tmp_path):
    path = write_video(tmp_path / "v.mkv", times_at(10, 6), moving_bar, options={"live": "1"})
    assert read_facts(path).duration == pytest.approx(6, abs=0.15)


def test_sheets_are_cached_bounded_and_agree_between_threads(tmp_path):
    from PIL import Image

    path = write_video(tmp_path / "v.mp4", times_at(10, 30), moving_bar)
    sheets = Sheets(cache_bytes=60_000)
    count = read_facts(path).count
    found = {}

    def work(offset):
        for step in range(8):
            index = (step + offset) % 4
            found.setdefault(index, set()).add(sheets.sheet(path, index, count, HEIGHTS[0]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {index: len(kinds) for index, kinds in found.items()} == dict.fromkeys(range(4), 1)
    assert sum(map(len, sheets._cache.values())) == sheets._size <= 60_000
    picture = Image.open(io.BytesIO(found[3].pop()))
    assert picture.size == ((count - 3 * SHEET) * 144, 96)
    for index, height in ((4, 96), (-1, 96), (0, 97)):
        with pytest.raises(DataError, match="no sheet"):
            sheets.sheet(path, index, count, height)


def test_a_damaged_video_shows_what_there_is(tmp_path):
    path = write_video(tmp_path / "v.ts", times_at(10, 20), moving_bar)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    pictures = Reader(path).pictures([0.0, 2.0, 19.0], 96)
    assert len(pictures) == 3


# ---- folder


def test_which_folder_and_which_videos(tmp_path):
    videos = tmp_path / "data" / "videos"
    videos.mkdir(parents=True)
    for name in ("b.mp4", "a.webm", "notes.txt", "._b.mp4", ".hidden.webm"):
        (videos / name).write_bytes(b"x")
    for place in (tmp_path / "data", videos, videos / "b.mp4"):
        folder = open_folder(place)
        assert folder.root == tmp_path / "data"
    assert list(open_folder(videos).videos) == ["a", "b"]
    assert list(folder.videos) == ["b"]
    assert open_folder(videos, tmp_path / "other").root == tmp_path / "other"


def test_names_are_the_users_on_the_page_too(tmp_path):
    videos = tmp_path / "data" / "videos"
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for name in ("Abuse/clip", "Arson/clip", "می\u200cرود", "👩\u200d🚀", apart):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / f"{name}.mp4").write_bytes(b"x")
    (videos / "a\nb.mp4").write_bytes(b"x")
    database = {composed: {"subset": "training", "duration": 9.0, "labels": []}}
    (tmp_path / "data" / "annotations.json").write_text(json.dumps({"labels": ["jump"], "database": database}))
    folder = open_folder(tmp_path / "data")
    assert set(folder.videos) == {"Abuse/clip", "Arson/clip", "می\u200cرود", "👩\u200d🚀", composed}
    assert "no video can be called so: it has line breaks" in folder.left_out["'a\\nb.mp4'"]
    made = Store(folder, ("jump",), lambda name: Facts(9.0, 8.0, 72, 1.5))
    for name in ("Abuse/clip", "می\u200cرود", composed):
        now = made.state("me", name)
        made.save("me", name, change(now, [(1.5, B)], ["jump"], done=True))
    saved = read_annotations(tmp_path / "data" / "annotations.json").videos
    clicked = {"Abuse/clip", "می\u200cرود", composed}
    assert {name for name, video in saved.items() if video.labels == {"jump"}} == clicked
    assert set(read_clicks(tmp_path / "data" / "clicks" / "me.txt")) == clicked


def test_videos_kept_elsewhere_belong_to_the_folder_that_links_to_them(tmp_path, monkeypatch):
    (tmp_path / "disk" / "films").mkdir(parents=True)
    (tmp_path / "disk" / "films" / "a.mp4").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    videos = tmp_path / "data" / "videos"
    videos.symlink_to(tmp_path / "disk" / "films")
    monkeypatch.chdir(tmp_path / "data")
    for place in (tmp_path / "data", videos, videos / "a.mp4", ".", "videos", "videos/a.mp4"):
        folder = open_folder(place)
        assert (folder.root, folder.media) == (tmp_path / "data", tmp_path / "disk" / "films")
        assert folder.video("a").read_bytes() == b"x"
    assert open_folder(videos, tmp_path / "other").root == tmp_path / "other"
    (tmp_path / "disk" / "films").rename(tmp_path / "disk" / "videos")
    (tmp_path / "disk" / "videos" / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "disk" / "videos" / "inner")
    assert open_folder("..").root == tmp_path / "disk"


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    videos = tmp_path / "data" / "videos"
    videos.mkdir(parents=True)
    (tmp_path / "secret.mp4").write_bytes(b"s")
    (videos / "a.mp4").write_bytes(b"x")
    (videos / "inside.mp4").symlink_to(videos / "a.mp4")
    (videos / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (videos / "bad\nname.mp4").write_bytes(b"x")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "b.mp4").write_bytes(b"s")
    (videos / "dir").symlink_to(tmp_path / "others")
    (videos / "dir.mp4").mkdir()
    folder = open_folder(videos)
    assert set(folder.videos) == {"a", "inside"}
    assert set(folder.left_out) == {"out.mp4", "'bad\\nname.mp4'", "b.mp4", "dir.mp4"}
    (videos / "a.mp4").unlink()
    (videos / "a.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(DataError, match="no video 'a'"):
        folder.video("a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "clicks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out of"):
        folder.own("clicks", "me.txt")


def test_no_video_and_two_of_one_name(tmp_path):
    with pytest.raises(DataError, match="no such video or folder"):
        open_folder(tmp_path / "none")
    with pytest.raises(DataError, match="holds no video"):
        open_folder(tmp_path)
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"two videos are called a: a\.mkv, a\.mp4"):
        open_folder(tmp_path)


# ---- click files


def test_rows_that_do_not_change_stay_as_they_are(tmp_path):
    path = tmp_path / "A1.txt"
    lines = [
        "URLID,URL,TagID,Tag,Start,End,Time,State,Note",
        'other,"http://x/y,z",20,background_background,3.25,3.75,2,0,keep me',
        "mine,u,20,background_background,1.0,1.0,3,1,first",
        "mine,u,20,background_background,9.0,9.4,1,1,second",
        "last,u,0,jump,4,4,1,1,",
        "mine,u,20,Background,9.5,9.5,2,1,of another round",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    marks = read_marks(path)
    assert marks["mine"] == [(1.0, B), (9.2, B), (9.5, B)]
    replace_marks(path, "mine", {(9.2, B), (9.5, B), (5.0, B), (6.0, "run")}, ["jump", "run"])
    after = path.read_text(encoding="utf-8-sig").splitlines()
    assert after[:2] == lines[:2]
    assert after[2:] == [
        "mine,mine.mp4,2,background_background,5.0,5.0,1,1,",
        "mine,mine.mp4,1,run,6.0,6.0,1,1,",
        lines[3],
        lines[5],
        lines[4],
    ]
    replace_marks(path, "new", {(0.5, B)}, ["jump", "run"])
    assert read_clicks(path)["new"].times() == [0.5]
    replace_marks(path, "mine", set(), ["jump", "run"])
    assert "mine" not in read_marks(path)


times = st.floats(0, 1e4, allow_nan=False)
texts = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(texts, st.sets(times, max_size=5), max_size=4), texts, st.sets(times, max_size=5))
def test_any_names_and_times_come_back(tmp_path_factory, others, video, marks):
    path = tmp_path_factory.mktemp("clicks") / "c.txt"
    tracks = [ClickTrack(name, tuple(map(Click, found))) for name, found in others.items()]
    write_clicks(path, tracks, ["jump"])
    replace_marks(path, video, {(time, B) for time in marks}, ["jump"])
    expected = {name: sorted(found) for name, found in (others | {video: marks}).items() if found}
    assert {name: [t for t, _ in found] for name, found in read_marks(path).items()} == expected
    assert {name: track.times() for name, track in read_clicks(path).items()} == expected


def test_files_of_another_form_are_refused_not_overwritten(tmp_path):
    path = tmp_path / "points.txt"
    path.write_text("v,3.5,jump\n")
    with pytest.raises(DataError, match="choose another annotator's name"):
        replace_marks(path, "v", {(1.0, B)}, ["jump"])
    assert path.read_text() == "v,3.5,jump\n"


def test_a_quote_that_never_ends_is_named(tmp_path):
    path = tmp_path / "me.txt"
    path.write_text('URLID,Tag,Start,End\na,"jump,1,1\n' + "a,jump,1,1\n" * 20_000)
    with pytest.raises(DataError, match=r"me\.txt, line \d+: field larger"):
        read_marks(path)


# ---- store


@pytest.fixture
def store(tmp_path):
    videos = tmp_path / "data" / "videos"
    videos.mkdir(parents=True)
    for name in ("a", "b", "truth"):
        (videos / f"{name}.mp4").write_bytes(b"x")
    content = {
        "labels": ["jump", "run"],
        "version": "mine",
        "database": {
            "truth": {
                "subset": "validation",
                "duration": 30,
                "url": "http://there",
                "annotations": [{"label": "run", "segment": [1, 2], "id": 7}],
            }
        },
    }
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(content))
    return Store(open_folder(videos), ["run", "wave"], lambda video: Facts(20.25, 25.0, 506, 1.5))


def change(state, marks=(), labels=(), done=False):
    return {
        "base": state.revision,
        "marks": [{"time": time, "label": label} for time, label in marks],
        "labels": list(labels),
        "done": done,
    }


def test_labels_of_the_folder_stay_first_and_new_ones_follow(store):
    assert store.labels == ("jump", "run", "wave")
    state = store.save("me", "a", change(store.state("me", "a"), [(2.0, B)]))
    written = json.loads((store.folder.root / "annotations.json").read_text())
    assert written["labels"] == ["jump", "run", "wave"]
    assert written["version"] == "mine"
    assert written["database"]["truth"]["annotations"] == [{"label": "run", "segment": [1, 2], "id": 7}]
    assert written["database"]["a"] == {
        "subset": UNLABELLED,
        "duration": 20.25,
        "labels": [],
        "fps": 25.0,
        "num_frames": 506,
    }
    assert state.marks == ((2.0, B),)


def test_a_video_is_for_training_once_it_has_labels(store):
    def subset():
        return read_annotations(store.folder.root / "annotations.json").videos["a"].subset

    state = store.save("me", "a", change(store.state("me", "a"), [(2.0, B)], ["wave", "jump"], True))
    assert subset() == "training"
    assert read_annotations(store.folder.root / "annotations.json").videos["a"].labels == {"jump", "wave"}
    assert (state.labels, state.done) == (("jump", "wave"), True)
    store.save("me", "a", change(state, [(2.0, B)], []))
    assert subset() == UNLABELLED


def test_ground_truth_stays_and_its_labels_are_given(store):
    state = store.state("me", "truth")
    assert (state.given, state.labels) == (("run",), ())
    state = store.save("me", "truth", change(state, [(29.5, B), (3.0, "jump")], ["jump", "run"]))
    assert state.labels == ("jump",)
    entry = json.loads((store.folder.root / "annotations.json").read_text())["database"]["truth"]
    assert entry == {
        "subset": "validation",
        "duration": 30,
        "url": "http://there",
        "annotations": [{"label": "run", "segment": [1, 2], "id": 7}],
        "labels": ["jump"],
    }


def test_what_is_not_current_is_refused(store):
    first = store.state("me", "a")
    saved = store.save("me", "a", change(first, [(2.0, B)]))
    assert store.save("me", "a", change(first, [(2.0, B)])) == saved  # the answer was lost, the change was not
    with pytest.raises(Stale) as refused:
        store.save("me", "a", change(first, [(4.0, B)]))
    assert refused.value.state == saved
    assert store.state("me", "a") == saved
    assert store.save("anna", "a", change(store.state("anna", "a"), [(4.0, B)])).marks == ((4.0, B),)
    assert store.state("me", "a") == saved
    assert store.annotators() == ["anna", "me"]


def test_files_that_the_page_cannot_read_are_no_annotators(store):
    store.save("me", "a", change(store.state("me", "a"), [(2.0, B)]))
    clicks = store.folder.root / "clicks"
    (clicks / "points.txt").write_text("a,3.5,jump\n")
    (clicks / "damaged.txt").write_text("URLID,Tag,Start,End\na,jump,soon,4\n")
    (clicks / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (clicks / "folder.txt").mkdir()
    (clicks / "out.txt").symlink_to("/etc/hostname")
    (clicks / "-.txt").write_bytes((clicks / "me.txt").read_bytes())
    assert store.annotators() == ["me"]


def test_another_program_that_changes_the_file_is_noticed(store):
    state = store.save("me", "a", change(store.state("me", "a"), [(2.0, B)]))
    write_clicks(store.folder.root / "clicks" / "me.txt", [ClickTrack("a", (Click(2.0), Click(8.0)))], store.labels)
    with pytest.raises(Stale):
        store.save("me", "a", change(state, [(3.0, B)]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"marks": [{"time": 20.5, "label": B}]}, "no click on 'background' at 20.5 s"),
        ({"marks": [{"time": -0.5, "label": B}]}, "no click"),
        ({"marks": [{"time": float("nan"), "label": B}]}, "a mark needs"),
        ({"marks": [{"time": 10**400, "label": B}]}, "a mark needs"),
        ({"marks": [{"time": True, "label": B}]}, "a mark needs"),
        ({"marks": [{"time": 1.0, "label": "fly"}]}, "no click on 'fly'"),
        ({"marks": [7]}, "a mark needs"),
        ({"marks": None}, "expected at most"),
        ({"marks": [{"time": k / 1000, "label": B} for k in range(20_001)]}, "expected at most"),
        ({"labels": ["fly"]}, "unknown label 'fly'; known are jump, run, wave"),
        ({"labels": [["run"]]}, "labels must be"),
        ({"labels": "run"}, "labels must be"),
        ({"done": 1}, "done as true or false"),
    ],
)
def test_malformed_changes_change_nothing(store, wrong, message):
    before = store.save("me", "a", change(store.state("me", "a"), [(2.0, B)]))
    with pytest.raises(DataError, match=message):
        store.save("me", "a", change(before) | wrong)
    assert store.state("me", "a") == before


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x" * 41, "a\\b", "nul\0", "a ", "né\n"])
def test_names_that_are_no_annotators(store, name):
    with pytest.raises(DataError, match="up to 40 letters"):
        store.state(name, "a")


def test_a_click_that_was_there_stays_wherever_it_is(store):
    write_clicks(store.folder.root / "clicks" / "me.txt", [ClickTrack("a", (Click(99.0),))], store.labels)
    state = store.state("me", "a")
    saved = store.save("me", "a", change(state, [(99.0, B), (1.0, B)]))
    assert saved.marks == ((1.0, B), (99.0, B))


def test_time_adds_up_over_visits_and_never_twice(store):
    assert store.add_time("me", "a", "0" * 8, 5.0) == 5.0
    assert store.add_time("me", "a", "0" * 8, 5.0) == 5.0
    assert store.add_time("me", "a", "0" * 8, 3.0) == 5.0
    assert store.add_time("me", "a", "1" * 8, 2.5) == 7.5
    assert store.state("me", "a").seconds == 7.5
    for visit, seconds in (("x", 1.0), ("0" * 8, -1.0), ("0" * 8, float("inf")), (None, 1.0), ("0" * 8, "5")):
        with pytest.raises(DataError):
            store.add_time("me", "a", visit, seconds)


@pytest.mark.parametrize("seconds", [[], {"00000000": "5"}, {"00000000": float("nan")}, None, 5])
def test_a_malformed_progress_is_named(store, seconds):
    path = store.folder.root / "progress" / "me.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"videos": {"a": {"seconds": seconds}}}))
    with pytest.raises(DataError, match=r"me\.json: expected an object 'videos'"):
        store.states("me")
    with pytest.raises(DataError, match=r"me\.json: expected an object 'videos'"):
        store.add_time("me", "a", "0" * 8, 5.0)


def test_a_folder_that_cannot_be_written_keeps_what_it_has(store, monkeypatch):
    before = store.save("me", "a", change(store.state("me", "a"), [(2.0, B)]))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save("me", "a", change(before, [(2.0, B), (4.0, B)]))
    monkeypatch.undo()
    assert store.state("me", "a") == before
    assert not list((store.folder.root / "clicks").glob(".*"))


def test_many_writers_lose_nothing(store):
    other = Store(store.folder, None, store.facts)

    def work(number):
        for step in range(5):
            mine = (number + step * 0.01, B)
            while True:
                keeper = store if number % 2 else other
                state = keeper.state("me", "a")
                try:
                    keeper.save("me", "a", change(state, {*state.marks, mine}, state.labels))
                    break
                except Stale:
                    continue

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.state("me", "a").marks) == 30


def test_no_labels_and_malformed_annotations(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match="Give --labels FILE"):
        Store(open_folder(tmp_path), None, lambda video: Facts(1, 1, 1, 1))
    with pytest.raises(DataError, match="no label can be called 'background'"):
        Store(open_folder(tmp_path), ["background"], lambda video: Facts(1, 1, 1, 1))
    for labels in (5, [["jump"]], "jump"):
        (tmp_path / "annotations.json").write_text(json.dumps({"labels": labels}))
        with pytest.raises(DataError, match="'labels' must be a list of names"):
            Store(open_folder(tmp_path), ["run"], lambda video: Facts(1, 1, 1, 1))
    (tmp_path / "annotations.json").write_text('{"labels": ["jump"], "database": {"a": {}}}')
    with pytest.raises(DataError, match=r"video a: 'annotations' .* are missing; a new video"):
        Store(open_folder(tmp_path), None, lambda video: Facts(1, 1, 1, 1))


# ---- suggestions


def test_nothing_is_proposed_where_the_model_is_sure():
    sure = np.array([1.0] * 40 + [0.0] * 20 + [1.0] * 40)
    assert suggest(sure, Localization("v", 50, (Segment(20, 30, "jump"),)), [], 2) == []
    assert worth([], 50) == 0


def test_the_expected_loss_is_largest_at_one_over_e():
    p = np.linspace(0, 1, 1001)
    losses = [expected_loss(np.full(9, value))[4] for value in p]
    assert p[int(np.argmax(losses))] == pytest.approx(1 / np.e, abs=1e-3)
    assert max(losses) == pytest.approx(1, abs=1e-5)


def test_an_unsure_stretch_is_proposed_until_it_is_clicked():
    p = np.ones(100)
    p[30:40] = 0.4
    nothing = Localization("v", 50, ())
    (found,) = suggest(p, nothing, [], 2)
    assert found.kind == "unsure"
    assert 26 <= found.first <= 31
    assert 38 <= found.last <= 43
    assert found.value > 0.9
    assert worth([found], 60) == pytest.approx(found.value)
    assert suggest(p, nothing, [17.5], 2) == []


def test_a_gap_between_two_detected_actions_is_proposed_until_it_is_clicked():
    p = np.ones(100)
    p[20:30] = p[60:70] = 0.0
    detected = Localization("v", 50, (Segment(10, 15, "jump"), Segment(30, 35, "run"), Segment(11, 14, "run")))
    assert suggest(p, detected, [], 2) == [Suggestion(30, 59, "between", 0.0)]
    assert suggest(p, detected, [20.0], 2) == []


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=80),
    st.lists(st.floats(0, 60), max_size=4),
    st.lists(st.tuples(st.floats(0, 40), st.floats(0, 5)), max_size=4),
)
def test_suggestions_lie_in_the_video_and_do_not_overlap(p, clicked, actions):
    segments = tuple(Segment(start, start + length, "jump") for start, length in actions)
    found = suggest(np.array(p), Localization("v", len(p) / 2, segments), clicked, 2)
    taken = np.zeros(len(p), int)
    for suggestion in found:
        assert 0 <= suggestion.first <= suggestion.last < len(p)
        assert 0 <= suggestion.value <= 1
        taken[suggestion.first : suggestion.last + 1] += suggestion.kind == "unsure"
    assert taken.max() <= 1


# ---- the command


def test_the_command_says_what_is_wrong(tmp_path):
    def annotate(*arguments):
        return CliRunner().invoke(main, ["annotate", *map(str, arguments), "--no-browser"])

    missing = annotate(tmp_path / "none", "--labels", tmp_path / "l.txt")
    assert (missing.exit_code, "no such video or folder" in missing.stderr) == (2, True)
    write_video(tmp_path / "a.mp4", times_at(8, 2), moving_bar)
    unlabelled = annotate(tmp_path)
    assert (unlabelled.exit_code, "Give --labels FILE" in unlabelled.stderr) == (2, True)
    (tmp_path / "l.txt").write_text("jump\n")
    name = annotate(tmp_path, "--labels", tmp_path / "l.txt", "--annotator", "../me")
    assert (name.exit_code, "up to 40 letters" in name.stderr) == (2, True)
    model = annotate(tmp_path, "--labels", tmp_path / "l.txt", "--model", tmp_path / "none")
    assert model.exit_code == 2
    assert not (tmp_path / "annotations.json").exists()


def test_the_browser_is_not_started_with_the_token(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", times_at(8, 2), moving_bar)
    (tmp_path / "l.txt").write_text("jump\n")
    address, found = "http://127.0.0.1:8765/?token=secret", []

    def start(started):
        page = Path(url2pathname(urlsplit(started).path))
        found.append((started, page, page.read_text(), page.stat().st_mode & 0o777, page.parent.stat().st_mode & 0o777))

    monkeypatch.setattr(webbrowser, "open", start)
    monkeypatch.setattr("backtal.annotate.server.serve", lambda *_, opened, **__: opened(address))
    result = CliRunner().invoke(main, ["annotate", str(tmp_path), "--labels", str(tmp_path / "l.txt")])
    assert result.exit_code == 0
    assert f"open {address}" in result.stderr
    ((started, page, text, *modes),) = found
    assert "secret" not in started
    assert f'content="0; url={address}"' in text
    assert modes == [0o600, 0o700]
    assert not page.parent.exists()
