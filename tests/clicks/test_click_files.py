"""Every form of click file: what is written is read back, exports are understood, what is damaged is named."""

import json
import math

import pytest
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal import Click, ClickTrack, DataError, read_clicks, write_clicks
from backtal.clicks.files import BACKGROUND_NAMES, FORMS, parse_marks
from backtal.clicks.forms.form import Reading

RATES = {"lacp", "cvat", "label-studio"}
WRITTEN = {name for name, form in FORMS.items() if form.write}
LABELS = ("jump", "High Jump", 'Ünïcode, "quoted" & <b>\'s', "跳")
ordinary = st.text(st.characters(codec="utf-8", categories=["L", "N"], include_characters="-_.,&<>\"'()#"), min_size=1)
anything = st.text(st.characters(exclude_categories=[]), min_size=1)
seconds = st.floats(0, 1e5)
rates = st.sampled_from([1.0, 2.0, 10.0, 24.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 60.0])


def tracks_of(names, labels, times=seconds):
    clicks = st.lists(st.builds(Click, times, st.sampled_from([*labels, "background"])), min_size=1, max_size=8)
    return st.dictionaries(names, clicks, min_size=1, max_size=4).map(
        lambda found: {video: ClickTrack(video, tuple(listed)) for video, listed in found.items()}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("clicks") / "clicks.any"


def again(path, form, tracks, rate, labels=LABELS):
    """What is read back of the written clicks; of a form that needs no frame rate, without telling it."""
    told = rate if form in RATES else None
    write_clicks(path, tracks.values(), labels, form=form, frame_rates=told)
    return read_clicks(path, frame_rates=told)


def same(read, written, tolerance):
    assert list(read) == list(written)
    for video, track in written.items():
        for label in (*LABELS, "background"):
            times = read[video].times(label)
            assert len(times) == len(track.times(label))
            assert all(abs(a - b) <= tolerance for a, b in zip(times, track.times(label), strict=True))
        assert len(read[video]) == len(track)


@pytest.mark.parametrize("form", sorted(WRITTEN - RATES))
@given(tracks_of(ordinary, LABELS))
def test_seconds_come_back_exactly(place, form, tracks):
    assert again(place, form, tracks, None) == tracks


@pytest.mark.parametrize("form", sorted(RATES))
@given(tracks_of(ordinary, LABELS), rates)
def test_frames_come_back_within_half_a_frame(place, form, tracks, rate):
    same(again(place, form, tracks, rate), tracks, 0.5 / rate + 1e-6)


@pytest.mark.parametrize("form", sorted(RATES))
@given(tracks_of(ordinary, LABELS, st.integers(0, 10**6).map(float)), rates)
def test_times_on_frames_come_back_exactly(place, form, tracks, rate):
    tracks = {
        video: ClickTrack(video, tuple(Click(c.time / rate, c.label) for c in track.clicks))
        for video, track in tracks.items()
    }
    same(again(place, form, tracks, rate), tracks, 1e-9)
    twice = again(place, form, again(place, form, tracks, rate), rate)
    same(twice, tracks, 1e-9)


@pytest.mark.parametrize("form", sorted(WRITTEN))
@given(st.lists(anything, min_size=1, max_size=3), st.data())
def test_any_name_comes_back_or_is_refused(place, form, labels, data):
    tracks = data.draw(tracks_of(anything, labels, st.integers(0, 100).map(float)))
    place.write_text("before")
    try:
        read = again(place, form, tracks, 25.0, labels)
    except DataError:
        assert place.read_text() == "before"
    else:
        assert read.keys() == tracks.keys()
        for video, track in tracks.items():
            assert sorted((c.label, c.time) for c in read[video].clicks) == sorted(
                (c.label, c.time) for c in track.clicks
            )


def test_only_backtals_form_keeps_rounds(tmp_path, caplog):
    tracks = {"v": ClickTrack("v", (Click(1.0, round=1), Click(2.0, "jump", 4)))}
    for form in WRITTEN:
        rounds = [c.round for c in again(tmp_path / "x", form, tracks, 25.0)["v"].clicks]
        assert rounds == ([1, 4] if form == "backtal" else [1, 1])
        said = f"the form {form} keeps no annotation rounds: 1 click(s) of later ones are among the others"
        assert (said in caplog.text) == (form != "backtal")


def test_the_human_clicks_go_through_every_form(tmp_path):
    path = shared("data", "thumos14", "clicks", "A1.txt")
    tracks = read_clicks(path)
    for form in WRITTEN:
        read = again(tmp_path / form, form, tracks, 30.0)
        same(read, tracks, 0 if form not in RATES else 1 / 60 + 1e-9)


VIA = {
    "project": {"pid": "x", "pname": "n", "vid_list": ["1", "2"]},
    "config": {},
    "attribute": {
        "1": {"aname": "what", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "Background", "1": "jump"}},
        "2": {"aname": "note", "anchor_id": "FILE1_Z2_XY0", "type": 1, "options": {}},
    },
    "file": {
        "1": {"fid": 1, "fname": "day.1.mp4", "type": 4, "loc": 1, "src": ""},
        "2": {"fid": "2", "fname": "", "type": 4, "loc": 2, "src": "https://example.org/a%20b/day%202.webm?x=1"},
    },
    "view": {"1": {"fid_list": [1]}, "2": {"fid_list": ["2"]}},
    "metadata": {
        "1_aaaaaaaa": {"vid": "1", "flg": 0, "z": [4.0, 7.0], "xy": [], "av": {"1": "0"}},
        "1_bbbbbbbb": {"vid": "1", "flg": 0, "z": [9.25], "xy": [2, 1, 1, 5, 5], "av": {"1": "1"}},
        "2_cccccccc": {"vid": "2", "flg": 0, "z": [1], "xy": [], "av": {"1": "", "2": "run"}},
        "2_dddddddd": {"vid": "2", "flg": 0, "z": [], "xy": [2, 1, 1, 5, 5], "av": {}},
    },
}
VIA_TABLE = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# - metadata of {""1"":""3""} indicates attribute with id "1" set to an attribute option with id "3"
# FLAG_ID = {"RESERVED_FOR_FUTURE":1}
# ATTRIBUTE = {"1":{"aname":"what","type":4,"desc":"an inch is 1\\"","options":{"0":"background","1":"jump"}}}
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
"1_a","[""day,1.mp4""]",0,"[4,7]","[]","{""1"":""0""}"
"1_b","[""day,1.mp4""]",0,"[9.25]","[2,1,1,5,5]","{""1"":""1""}"
"1_c","[""day,1.mp4""]",0,"[]","[2,1,1,5,5]","{}"
"""
VIA_SEGMENTS = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# CSV_HEADER = metadata_id,file_list,temporal_segment_start,temporal_segment_end,metadata
"1_a","[""v.mp4""]",4,7,"{""what"":""background""}"
"1_b","[""v.mp4""]",9.25,,"{""what"":""jump""}"
"""


def read(tmp_path, text, name="file", **options):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return {video: [(c.time, c.label) for c in t.clicks] for video, t in read_clicks(path, **options).items()}


def test_via_projects_and_tables(tmp_path):
    clicks = [(5.5, "background"), (9.25, "jump")]
    assert read(tmp_path, VIA) == {"day.1": clicks, "day 2": [(1.0, "run")]}
    assert read(tmp_path, VIA_TABLE) == {"day,1": clicks}
    for ending in ("\r\n", "\r\r\n", "\n\r\n"):
        assert read(tmp_path, VIA_TABLE.replace("\n", ending)) == {"day,1": clicks}
    assert read(tmp_path, VIA_SEGMENTS) == {"v": clicks}


def shape(kind, frame, outside=0, keyframe=1):
    attributes = 'xtl="1" ytl="1" xbr="9" ybr="9"' if kind == "box" else 'points="1.00,2.00"'
    return f'<{kind} frame="{frame}" outside="{outside}" occluded="0" keyframe="{keyframe}" {attributes}></{kind}>'


def cvat(items, meta="<task><id>5</id><name>t</name><source>v.mp4</source></task>"):
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    return f"{head}<meta>{meta}</meta>{items}\n</annotations>"


def test_cvat_tracks(tmp_path, caplog):
    def track(*shapes, label="background"):
        return f'<track id="0" label="{label}" source="manual">{"".join(shapes)}</track>'

    def clicks(*tracks):
        return read(tmp_path, cvat("".join(tracks)), frame_rates={"v": 10.0})["v"]

    assert clicks(track(shape("box", 20), shape("box", 21, outside=1))) == [(2.0, "background")]
    assert clicks(track(shape("points", 35), label="jump")) == [(3.5, "jump")]
    # drawn from 20 to 29, and again at 50
    twice = track(shape("box", 20), shape("box", 30, outside=1), shape("box", 50), shape("box", 51, outside=1))
    assert clicks(twice) == [(2.45, "background"), (5.0, "background")]
    # drawn at 20 and never ended: the frames up to the last are there, but nobody drew them
    assert clicks(track(shape("box", 20), *(shape("box", f, keyframe=0) for f in range(21, 90)))) == [
        (2.0, "background")
    ]
    assert clicks(track(shape("box", 20), shape("box", 24), shape("box", 25, keyframe=0))) == [(2.2, "background")]
    point = '<points label="1" outside="{}" occluded="0" keyframe="1" points="1,2"></points>'
    bones = "".join(
        f'<skeleton frame="{f}" keyframe="1">{point.format(o)}{point.format(o)}</skeleton>' for f, o in ((7, 0), (8, 1))
    )
    assert clicks(track(bones)) == [(0.7, "background")]
    assert not read(tmp_path, cvat(track(shape("box", 20, outside=1))), frame_rates=10.0)
    assert "left out: 1 track(s) that are never visible" in caplog.text


def test_a_cvat_task_of_every_25th_frame():
    meta = "<task><id>5</id><name>t</name><start_frame>50</start_frame><frame_filter>step=25</frame_filter></task>"
    moment = f'<track id="0" label="background">{shape("box", 50)}{shape("box", 75, outside=1)}</track>'
    long = f'<track id="1" label="jump">{shape("box", 100)}{shape("box", 200, outside=1)}</track>'
    marks = list(parse_marks(cvat(moment + long, meta), "t.xml", Reading(25.0)))
    assert [(mark.start, mark.end, mark.end + mark.frame) for mark in marks] == [(2, 2, 3), (4, 7, 8)]


def test_an_image_called_after_its_second_is_no_frame(tmp_path):
    tag = '<tag label="background" source="manual"/>'
    images = f'<image id="0" name="v_12.5.jpg">{tag}</image>'
    with pytest.raises(DataError, match="which frame of the video an image is cannot be told"):
        read(tmp_path, cvat(images + f'<image id="1" name="v_0007.jpg">{tag}</image>'), frame_rates=25.0)
    shots = f'<image id="2" name="shot1.0050.jpg">{tag}</image>'
    assert read(tmp_path, cvat(shots), frame_rates=25.0) == {"v": [(2.0, "background")]}


def test_what_ends_before_it_begins_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"jump from 1\.96 to 0\.16 s"):
        read(tmp_path, [task({"ranges": [{"start": 50, "end": 5}], "timelinelabels": ["jump"]})], frame_rates=24.0)


def test_a_rate_that_tasks_of_label_studio_know_better_is_said(tmp_path, caplog):
    ranges = {"ranges": [{"start": 301, "end": 301}], "timelinelabels": ["jump"], "framesCount": 900, "duration": 30}
    assert list(read(tmp_path, [task(ranges)], frame_rates=25.0).values()) == [[(10.0, "jump")]]
    assert "counted at 30 frames a second, as it says itself, not at 25" in caplog.text


def test_cvat_tags_and_projects(tmp_path):
    tag = '<tag label="Background" source="manual"></tag>'
    images = f'<image id="31" name="frame_000031" width="9" height="9">{tag}</image>'
    images += f'<image id="40" name="other.png" width="9" height="9">{tag}{tag}</image>'
    background = [(t, "background") for t in (3.1, 4.0, 4.0)]
    assert read(tmp_path, cvat(images), frame_rates=10.0) == {"v": background}
    assert read(tmp_path, cvat(images, meta="<job><id>3</id></job>"), "w.xml", frame_rates=10.0) == {"w": background}
    meta = "".join(
        f"<task><id>{i}</id><name>{n}</name><source>{n}.avi</source></task>" for i, n in ((1, "a b"), (2, "c"))
    )
    tracks = "".join(f'<track id="{i}" label="jump" task_id="{i}">{shape("box", 10 * i)}</track>' for i in (1, 2))
    project = cvat(tracks, f"<project><tasks>{meta}</tasks></project>")
    assert read(tmp_path, project, frame_rates={"a b": 10, "c": 20}) == {"a b": [(1.0, "jump")], "c": [(1.0, "jump")]}


def image(number, name, task_id=None):
    belongs = f' task_id="{task_id}"' if task_id else ""
    tag = '<tag label="background" source="manual"></tag>'
    return f'<image id="{number}" name="{name}"{belongs} width="9" height="9">{tag}</image>'


def test_the_frame_of_an_image_is_the_number_in_its_name(tmp_path, caplog):
    def seconds(*images):
        found = read(tmp_path, cvat("".join(images)), frame_rates=25.0)
        return {video: [time for time, _ in clicks] for video, clicks in found.items()}

    for name in ("frame_000050.jpg", "img_00050.jpg", "v-50.png", "50.jpg", "v/00050.jpg", "a.b.50", "frame_000050"):
        caplog.clear()
        assert seconds(image(2, name)) == {"v": [2.0]}
        assert f"image 2 is called {name!r}: frames, counted from 0, are taken from the names of its 1" in caplog.text
    assert seconds(image(0, "f0.jpg"), image(1, "f25.jpg"), image(2, "f50.jpg")) == {"v": [0.0, 1.0, 2.0]}
    caplog.clear()  # ffmpeg counts from 1
    assert seconds(image(0, "00001.jpg"), image(25, "00026.jpg")) == {"v": [0.0, 1.0]}
    assert "names that count from 1" in caplog.text
    caplog.clear()
    assert seconds(image(25, "frame_000025"), image(50, "50.png"), image(75, "sky.png")) == {"v": [1.0, 2.0, 3.0]}
    assert "is called" not in caplog.text
    assert seconds(image(0, "day1/f25.jpg"), image(1, "day2/f25.jpg")) == {"day1": [1.0], "day2": [1.0]}
    for images in (
        (image(0, "f50.jpg"), image(1, "f25.jpg")),
        (image(0, "f50.jpg"), image(1, "f50.png")),
        (image(0, "f50.jpg"), image(1, "sky.png")),
        (image(0, "sky.png"), image(5, "f50.jpg")),
    ):
        with pytest.raises(DataError, match="which frame of the video an image is cannot be told"):
            seconds(*images)


def test_cvat_tasks_of_images_and_ids_that_are_there_twice(tmp_path, caplog):
    track = f'<track id="0" label="jump" source="manual">{shape("box", 10)}</track>'
    images = "<task><id>5</id><name>v</name><mode>annotation</mode></task>"
    assert read(tmp_path, cvat(track, images), frame_rates=10.0) == {"v": [(1.0, "jump")]}
    assert "video v is a task of images: the frames of its tracks count the images" in caplog.text
    with pytest.raises(DataError, match="two tasks have the same id"):
        read(tmp_path, cvat(track, images + images), frame_rates=10.0)


def test_which_rate_was_used_is_said(tmp_path, caplog):
    found = read(tmp_path, "class,video_id,point\njump,v,50\njump,w,50\n", "p.csv", frame_rates={"v": 25, "w": 50})
    assert found == {"v": [(2.0, "jump")], "w": [(1.0, "jump")]}
    assert "p.csv: frames counted at 25 to 50 a second, as the annotations have it" in caplog.text
    read(tmp_path, "class,video_id,point\njump,v,50\n", "p.csv", frame_rates=30.0)
    assert "p.csv: frames counted at 30 a second, as given" in caplog.text
    caplog.clear()
    write_clicks(tmp_path / "out", [ClickTrack("v", (Click(1.0),))], [], form="cvat", frame_rates=25.0)
    read(tmp_path, "v,1,jump\n", frame_rates=25.0)
    assert not caplog.records


def task(*values, data=None, **more):
    result = [{"id": str(i), "from_name": "x", "to_name": "video", "value": value} for i, value in enumerate(values)]
    return {
        "id": 1,
        "data": data or {"video": "/data/upload/3/0a1b2c3d-v.mp4", "fps": 25},
        "annotations": [{"result": result}],
        **more,
    }


def test_label_studio_exports(tmp_path):
    frame = {"ranges": [{"start": 26, "end": 26}], "timelinelabels": ["Background"]}
    span = {"ranges": [{"start": 51, "end": 101}], "timelinelabels": ["jump"]}
    choice = {"choices": ["good"]}
    assert read(tmp_path, [task(frame, span, choice)]) == {"v": [(1.0, "background"), (3.0, "jump")]}
    assert read(tmp_path, [task(frame, data={"video": "/data/local-files/?d=films/day 1.mp4"})], frame_rates=12.5) == {
        "day 1": [(2.0, "background")]
    }
    reduced = {"id": 1, "video": "s3://bucket/v.mp4", "tricks": [frame, span], "annotator": 1, "fps": 25.0}
    assert read(tmp_path, [reduced]) == {"v": [(1.0, "background"), (3.0, "jump")]}
    box = {"x": 16, "y": 51, "width": 30, "height": 28, "rotation": 0}
    one = {
        "labels": ["background"],
        "framesCount": 500,
        "duration": 20,
        "sequence": [{**box, "enabled": False, "frame": 11}],
    }
    assert read(tmp_path, [task(one)]) == {"v": [(0.4, "background")]}
    ended = [
        {**box, "enabled": True, "frame": 1},
        {**box, "enabled": True, "frame": 5},
        {**box, "enabled": False, "frame": 21},
    ]
    assert read(tmp_path, [task({**one, "sequence": ended})]) == {"v": [(0.4, "background")]}
    assert read(tmp_path, [task({**one, "sequence": ended[:1]})]) == {"v": [(0.0, "background")]}
    sound = {"start": 1.5, "end": 2.5, "channel": 0, "labels": ["jump"]}
    assert read(tmp_path, [task(sound, data={"clip": "https://x.org/w.mkv"})]) == {"w": [(2.0, "jump")]}
    assert read(tmp_path, [task(data={"text": "no video"})]) == {}


def test_label_studio_keeps_annotators_apart_and_leaves_cancelled_work_out(tmp_path):
    found = task()
    values = [{"ranges": [{"start": f, "end": f}], "timelinelabels": ["background"]} for f in (1, 26, 51)]
    found["annotations"] = [
        {"result": [{"value": value}], "was_cancelled": cancelled}
        for value, cancelled in zip(values, (False, True, False), strict=True)
    ]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([found]))
    assert read_clicks(path)["v"].clicks == (Click(0.0, round=1), Click(2.0, round=2))


def test_label_studio_counts_in_a_rate_of_its_own(tmp_path, caplog):
    ten = {"ranges": [{"start": 10 * 24 + 1, "end": 10 * 24 + 1}], "timelinelabels": ["background"]}

    def seconds(rates, **data):
        caplog.clear()
        ((time, _),) = read(tmp_path, [task(ten, data={"video": "v.mp4", **data})], "t.json", frame_rates=rates)["v"]
        return time

    for rates in (None, {}, {"v": 30.0}):  # the dataset's rate is not that of the project
        assert seconds(rates) == 10.0
        assert "t.json: counted at 24 frames a second, as Label Studio counts" in caplog.text
        assert "in 1 region(s) that carry no rate; if the project has one, convert with --fps" in caplog.text
    assert seconds(48.0) == 5.0
    assert "t.json: frames counted at 48 a second, as given" in caplog.text
    for key in ("fps", "frameRate", "frame_rate"):
        assert seconds({"v": 30.0}, **{key: 12}) == 20.0
        assert not caplog.records


def test_label_studio_leaves_nothing_out_unsaid(tmp_path, caplog):
    def span(*labels, **ends):
        return {"ranges": [ends], "timelinelabels": list(labels)}

    both = task(span("jump", "run", start=26, end=26), span("run", start=None, end=51), span("run", start=76, end=None))
    clicks = [(1.0, "jump"), (1.0, "run"), (2.0, "run"), (3.0, "run")]
    assert read(tmp_path, [both]) == {"v": clicks}
    assert not caplog.records
    more = {"predictions": [{"result": []}], "drafts": [{}, {}]}
    found = task({"choices": ["good"]}, {"ranges": [], "timelinelabels": ["jump"]}, **more)
    found["annotations"].append({"result": [], "was_cancelled": True})
    assert read(tmp_path, [found]) == {}
    for said in (
        "left out: 2 result(s) without a time",
        "left out: 1 cancelled annotation(s)",
        "left out: 1 predictions that nobody submitted",
        "left out: 2 drafts that nobody submitted",
    ):
        assert said in caplog.text


def test_via_leaves_nothing_out_unsaid(tmp_path, caplog):
    ticked = changed(VIA, ["attribute", "1", "type"], 2)
    ticked["metadata"] = {"a": {"vid": "1", "flg": 0, "z": [4.0], "xy": [], "av": {"1": "0,1", "2": "note to self"}}}
    ticked["metadata"]["b"] = {"vid": "1", "flg": 0, "z": [], "xy": [2, 1, 1, 5, 5], "av": {}}
    assert read(tmp_path, ticked) == {"day.1": [(4.0, "background"), (4.0, "jump")]}
    assert "left out: 1 value(s) of the attribute 'note', beside the first one filled in" in caplog.text
    assert "left out: 1 entr(ies) without a time" in caplog.text
    with pytest.raises(DataError, match="line 6: 7 fields, but CSV_HEADER has 6"):
        read(tmp_path, VIA_TABLE.replace('"{""1"":""0""}"', '"{""1"":""0""}",x'))


@pytest.mark.parametrize(
    ("content", "before", "again"),
    [(VIA, '"1_bbbbbbbb": ', '"1_bbbbbbbb": {}, '), ([task()], '"data": ', '"data": {}, ')],
    ids=["via", "label-studio"],
)
def test_a_key_that_is_there_twice_is_refused(tmp_path, content, before, again):
    with pytest.raises(DataError, match=r"not valid JSON: the key '\w+' occurs twice"):
        read(tmp_path, json.dumps(content).replace(before, again + before))


def test_which_labels_are_background_is_a_choice(tmp_path):
    text = "v,1,nothing\nv,2,BACKGROUND\nv,3,background_background\n"
    labels = [label for _, label in read(tmp_path, text)["v"]]
    assert labels == ["nothing", "background", "background"]
    labels = [label for _, label in read(tmp_path, text, background=["Nothing", *BACKGROUND_NAMES])["v"]]
    assert labels == ["background"] * 3


def test_names_of_videos():
    for address, name in {
        "v.mp4": "v",
        "a/b/v.1.MP4": "v.1",
        "C:\\films\\v.avi": "v",
        "v.1": "v.1",
        ".mp4": ".mp4",
        "https://x.org/a%20b.webm?token=1#t=3": "a b",
        "https://[x.org/v.mp4": "v",
    }.items():
        assert Reading().video(address) == name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/films/cam 1/x.mp4", "cam 1/x"),
        ("file:///films/cam%201/x.mp4", "cam 1/x"),
        (r"D:\films\cam 1\x.avi", "cam 1/x"),
        ("https://a.org/cam%201/x.mp4?raw=1", "cam 1/x"),
        ("cam 2/x.mp4", "x"),
        ("u.mp4", "u"),
        ("deep/cam 1/cafe\u0301.mp4", "cam 1/caf\u00e9"),
    ],
)
def test_a_known_name_may_have_folders_in_it(address, name):
    assert Reading(names=["x", "cam 1/x", "cam 1/caf\u00e9"]).video(address) == name


def changed(content, path, value):
    copy = json.loads(json.dumps(content))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if value is KeyError:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return copy


TIMELINE = [task({"ranges": [{"start": 26, "end": 26}], "timelinelabels": ["jump"]})]
DRAWN = [task({"sequence": [{"frame": 11, "enabled": False}], "framesCount": 500, "duration": 20, "labels": ["jump"]})]
RESULT = (0, "annotations", 0, "result", 0)
DAMAGED = {
    "empty": ("", "is empty"),
    "prose": ("Dear colleagues,\nhere are the clicks.\n", "not a click file in a known form"),
    "no json": ('{"metadata": {}, "fid_list"', "not valid JSON: .* line 1 column"),
    "deep": ("[" * 100_000 + '"annotations"', "not valid JSON"),
    "via without view": (
        changed(VIA, ["view"], KeyError) | {"fid_list": 0},
        "'view' must be an object, found NoneType",
    ),
    "via time": (changed(VIA, ["metadata", "1_aaaaaaaa", "z"], ["soon"]), "metadata '1_aaaaaaaa': its time must be a"),
    "via negative": (changed(VIA, ["metadata", "1_aaaaaaaa", "z"], [-1, -1]), "not negative, found -1"),
    "via times": (changed(VIA, ["metadata", "1_aaaaaaaa", "z"], 4), "'z' must be a list, found int"),
    "via view gone": (changed(VIA, ["view", "1"], KeyError), "metadata '1_aaaaaaaa': its view '1' must be an object"),
    "via no file": (changed(VIA, ["view", "1", "fid_list"], []), "view '1' shows no file"),
    "via file gone": (changed(VIA, ["file", "1"], KeyError), "file 1 must be an object"),
    "via no label": (changed(VIA, ["metadata", "1_aaaaaaaa", "av"], {}), "metadata '1_aaaaaaaa': no label"),
    "via row": (VIA_TABLE.replace("[4,7]", "[4,7"), "line 6: not valid JSON"),
    "via row short": (VIA_TABLE.replace(',"[2,1,1,5,5]","{""1"":""1""}"', ""), "line 7: no column metadata"),
    "via row files": (VIA_TABLE.replace('"[""day,1.mp4""]",0,"[4,7]"', '"[]",0,"[4,7]"'), "line 6: file_list is empty"),
    "via two rows": (VIA_TABLE.replace(',0,"[9.25]"', ',0\r"[9.25]"'), "line 7: no column metadata"),
    "via segments": (VIA_SEGMENTS.replace("4,7", "later,7"), "line 3: its time must be a number .* found 'later'"),
    "cvat cut": (cvat(shape("box", 1))[:-20], "not valid XML: .* line"),
    "cvat entities": ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "document type declaration"),
    "cvat frame": (
        cvat(f'<track id="3" label="jump">{shape("box", "x")}</track>'),
        "track 3: its frame must be a number",
    ),
    "cvat no frame": (
        cvat('<track id="3" label="jump"><box outside="0"/></track>'),
        "track 3: its frame must be .* None",
    ),
    "cvat no label": (cvat(f'<track id="3">{shape("box", 1)}</track>'), "track 3: no label"),
    "cvat task": (
        cvat(f'<track id="3" label="j" task_id="9">{shape("box", 1)}</track>'),
        "its task 9 is not described",
    ),
    "cvat which task": (
        cvat(f'<track id="3" label="j">{shape("box", 1)}</track>', "<task><id>1</id></task><task><id>2</id></task>"),
        "there are 2 tasks, but no task_id",
    ),
    "ls task": ([1, {"annotations": []}], "task 0: it must be an object, found int"),
    "ls annotations": (changed(TIMELINE, (0, "annotations"), 5), "task 0: 'annotations' must be a list, found int"),
    "ls result": (changed(TIMELINE, (0, "annotations", 0), {}), "'result' of an annotation must be a list"),
    "ls value": (
        changed(TIMELINE, (*RESULT, "value"), []),
        "task 0, annotation 0, result 0: 'value' must be an object",
    ),
    "ls frame": (
        changed(TIMELINE, (*RESULT, "value", "ranges", 0, "start"), "one"),
        "result 0: 'start' must be a number that is not negative, found 'one'",
    ),
    "ls frame 0": (changed(TIMELINE, (*RESULT, "value", "ranges", 0, "start"), 0), "frames count from 1, found 0"),
    "ls label": (changed(TIMELINE, (*RESULT, "value", "timelinelabels"), []), "result 0: no label"),
    "ls endless": (
        [task({"sequence": [{"frame": 9}], "framesCount": 1, "duration": 1e308, "labels": ["x"]})],
        "at inf s",
    ),
    "ls fps": (changed(TIMELINE, (0, "data", "fps"), "0"), "rate of video v must be positive, found fps 0"),
    "ls duration": (
        [task({"sequence": [{"frame": 9}], "framesCount": "9", "duration": "0", "labels": ["x"]})],
        "result 0: the frame rate of video v must be positive, found framesCount 9, duration 0",
    ),
    "ls frames": (
        [task({"sequence": [{"frame": 9}], "framesCount": "0", "duration": 3, "labels": ["x"]})],
        "must be positive, found framesCount 0, duration 3",
    ),
    "ls slowest": (
        [task({"sequence": [{"frame": 9}], "framesCount": 1e-300, "duration": 1e300, "labels": ["x"]})],
        "must be positive, found framesCount 1e-300",
    ),
    "ls video": (changed(TIMELINE, (0, "data"), {"text": "x"}), "task 0: 'video' must be a text, found NoneType"),
    "sfnet": ("v,1.5,jump\nv,2.5\n", "line 2: expected video,second,label, found 'v,2.5'"),
    "sfnet negative": ("v,1.5,jump\nv,-2,jump\n", "line 2: expected video,second,label"),
    "lacp": ("class,video_id,point\njump,v,\n", "line 2: needs class, video_id and a frame number"),
    "backtal": ("URLID,Tag\nv,b\n", "no column End, Start; expected the header URLID,URL"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named_in_one_line(tmp_path, kind):
    text, message = DAMAGED[kind]
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, text, "clicks.any", frame_rates=25.0)
    assert str(caught.value).startswith(str(tmp_path / "clicks.any"))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"\x89PNG\r\n\xff")
    with pytest.raises(DataError, match="x: not a text file"):
        read_clicks(tmp_path / "x")
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError, match="cannot be read"):
            read_clicks(path)


@pytest.mark.parametrize("form", sorted(RATES))
def test_frames_need_a_rate(tmp_path, form):
    track = ClickTrack("v", (Click(1.0),))
    for rate in (None, {"w": 25.0}, 0.0, math.nan, math.inf):
        with pytest.raises(DataError, match="frame rate of video v is not known"):
            write_clicks(tmp_path / "x", [track], [], form=form, frame_rates=rate)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(tmp_path):
    for name, form, message in (
        ("v", "excel", "unknown form of click file 'excel'; known are backtal, table, sfnet"),
        ("a/b", "via", "the form via cannot hold video 'a/b'"),
        ("a/b", "cvat", "the form cvat cannot hold video 'a/b'"),
        (" v", "sfnet", "cannot hold video ' v'"),
        ("a\x00b", "cvat", "cannot be written in the form cvat: .*not valid XML"),
        ("a\ud800b", "backtal", "cannot be written in the form backtal: .*surrogates"),
    ):
        with pytest.raises(DataError, match=message):
            write_clicks(tmp_path / "x", [ClickTrack(name, (Click(1.0),))], [], form=form, frame_rates=25.0)
    with pytest.raises(DataError, match="click with unknown label 'fly'"):
        write_clicks(tmp_path / "x", [ClickTrack("v", (Click(1.0, "fly"),))], ["jump"])
    assert not list(tmp_path.iterdir())


def examples():
    """A text of each form, as other programs write it."""
    yield json.dumps(VIA)
    yield VIA_TABLE
    yield VIA_SEGMENTS
    yield cvat(f'<track id="3" label="jump">{shape("box", 1)}{shape("box", 5, outside=1)}</track>')
    yield json.dumps(TIMELINE)
    yield "v,1.5,jump\nv,2.5,run\n"
    yield "class,video_id,point\njump,v,45\n"
    yield "URLID,URL,TagID,Tag,Start,End,Time,State\nv,v.mp4,2,background_background,64,64.5,2,1\n"


def or_refused(path):
    try:
        tracks = read_clicks(path, frame_rates=25.0)
    except DataError as failure:
        message = str(failure)
    else:
        assert all(0 <= click.time < math.inf for track in tracks.values() for click in track.clicks)
        return
    assert message.startswith(str(path))


@settings(max_examples=300)
@given(st.sampled_from(list(examples())), st.data())
def test_a_damaged_text_is_read_or_refused(place, text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    put = data.draw(
        st.text(max_size=6) | st.sampled_from(['"', "[", "}", "<", "null", "-1", "1e999", "NaN", "0", "\n", "\r", ","])
    )
    place.write_text(text[:start] + put + text[end:], encoding="utf-8", errors="ignore")
    or_refused(place)


def nodes(content, path=()):
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from nodes(value, (*path, key))


wrong_values = st.sampled_from(
    [None, True, 0, -1, 1e308, "", "x", [], [None], [[]], {}, {"": None}, KeyError, "NaN", "0", "\r", 10**400]
)


@pytest.mark.parametrize("content", [VIA, TIMELINE, DRAWN], ids=["via", "timeline", "drawn"])
@given(st.data())
def test_a_wrong_value_anywhere_is_read_or_refused(place, content, data):
    path = data.draw(st.sampled_from(list(nodes(content))))
    place.write_text(json.dumps(changed(content, path, data.draw(wrong_values))))
    or_refused(place)
