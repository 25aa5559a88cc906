"""What people coded in other programs becomes ground truth, and nothing of it is lost or replaced unsaid."""

import json

import pytest

from backtal import DataError, Segment
from backtal.data import Coded, import_coded, read_annotations, read_coded

JUMP = Coded({"v": (Segment(1.0, 2.5, "jump"),)}, {"v": 60.0})


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_segments_of_every_form(tmp_path):
    value = {"ranges": [{"start": 26, "end": 50}], "timelinelabels": ["jump"]}
    task = {"data": {"video": "v.mp4", "fps": 25}, "annotations": [{"result": [{"value": value}]}]}
    boxes = "".join(f'<box frame="{f}" outside="{int(f == 50)}" keyframe="1"/>' for f in (25, 50))
    cvat = "<annotations><meta><task><id>1</id><source>v.mp4</source></task></meta>"
    for text in (
        "video,start,end,label\nv.mp4,1,2,jump\n",
        "URLID,Tag,Start,End\nv,jump,1,2\n",
        [task],
        f'{cvat}<track id="0" label="jump">{boxes}</track></annotations>',
    ):
        coded = read_coded(write(tmp_path / "file", text), frame_rates=25.0)
        assert coded.segments == {"v": (Segment(1.0, 2.0, "jump"),)}


def test_moments_and_background_are_left_out_and_said(tmp_path, caplog):
    path = write(tmp_path / "t.csv", "video,start,end,label\nv,1,2,jump\nv,3,3,jump\nv,4,6,nothing\nw,1,2,Nothing\n")
    assert read_coded(path, background=["nothing"]).segments == {"v": (Segment(1.0, 2.0, "jump"),)}
    assert "t.csv: left out: 1 moment(s), which have no length" in caplog.text
    assert "t.csv: left out: 2 mark(s) on background" in caplog.text
    assert "left out: 1 video(s) without a segment: w" in caplog.text


def test_a_video_that_was_coded_twice_has_no_two_truths(tmp_path, caplog):
    text = "URLID,Tag,Start,End,Time\nv,jump,1,2,1\nv,jump,1.5,2.5,2\n"
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=r"a.csv: video v was coded more than once, in rounds 1 and 2: .* --round"):
        read_coded(path)
    assert read_coded(path, round=2).segments == {"v": (Segment(1.5, 2.5, "jump"),)}
    assert "left out: 1 mark(s) of other rounds than 2" in caplog.text
    other = write(tmp_path / "b.csv", "video,start,end,label\nv,1,2,jump\n")
    with pytest.raises(DataError, match=r"b.csv: video v was coded more than once, here and in .*a.csv: give one"):
        read_coded(path, other, round=1)


def test_what_stands_in_the_annotations_stays(tmp_path, caplog):
    entry = {"subset": "test", "duration": 61.0, "fps": 30, "url": "https://x.org", "annotations": []}
    other = {"subset": "training", "duration": 9.0, "labels": ["run"]}
    path = write(
        tmp_path / "annotations.json", {"labels": ["run", "jump"], "version": 3, "database": {"v": entry, "w": other}}
    )
    coded = Coded({**JUMP.segments, "x": (Segment(0.0, 1.0, "run"),)}, {"v": 60.0, "x": 7.5})
    annotations = import_coded(path, coded, subset="test", facts={"x": {"fps": 25.0, "duration": 8.0}})
    content = json.loads(path.read_text())
    said = [{"label": "jump", "segment": [1.0, 2.5]}]
    assert content["database"]["v"] == entry | {"annotations": said}
    assert content["database"]["w"] == other
    assert content["database"]["x"] == {
        "subset": "test",
        "duration": 8.0,
        "fps": 25.0,
        "annotations": [{"label": "run", "segment": [0.0, 1.0]}],
    }
    assert (content["version"], content["labels"]) == (3, ["run", "jump"])
    assert annotations == read_annotations(path)
    assert "replaced the annotations of 1 video(s): v" in caplog.text
    caplog.clear()
    import_coded(path, coded, subset="test")
    assert not caplog.records


def test_a_new_file_has_the_labels_that_were_coded(tmp_path):
    coded = Coded({"v": (Segment(1, 2, "run"), Segment(3, 4, "jump"))}, {"v": 9.0})
    assert import_coded(tmp_path / "annotations.json", coded, subset="test").labels == ("jump", "run")
    listed = import_coded(tmp_path / "b.json", coded, subset="test", labels=("run", "jump", "sit"))
    assert listed.labels == ("run", "jump", "sit")
    unlisted = {"database": {"w": {"subset": "training", "duration": 9, "labels": ["walk"]}}}
    path = write(tmp_path / "c.json", unlisted)
    assert import_coded(path, coded, subset="test").labels == ("jump", "run", "walk")


def test_accents_that_a_file_system_took_apart_name_the_same_video(tmp_path):
    path = write(
        tmp_path / "annotations.json", {"database": {"caf\u00e9": {"subset": "test", "duration": 9, "labels": []}}}
    )
    coded = Coded({"cafe\u0301": (Segment(1, 2, "jump"),)}, {})
    assert list(import_coded(path, coded, subset="test").videos) == ["caf\u00e9"]


def test_labels_that_the_dataset_does_not_have(tmp_path, caplog):
    path = write(tmp_path / "annotations.json", {"labels": ["jump"], "database": {}})
    coded = Coded({"v": (Segment(1, 2, "jump"), Segment(3, 4, "sit")), "w": (Segment(1, 2, "sit"),)}, {"v": 9, "w": 9})
    annotations = import_coded(path, coded, subset="test")
    assert [list(video.ground_truth) for video in annotations.videos.values()] == [[Segment(1, 2, "jump")]]
    assert "left out: segments of labels that are not its 'labels': 2 sit" in caplog.text
    assert "video w: left as it was, as no segment has a known label" in caplog.text
    before = path.read_text()
    with pytest.raises(DataError, match=r"no segment has one of its labels \(jump\); coded are 1 sit"):
        import_coded(path, Coded({"w": (Segment(1, 2, "sit"),)}, {"w": 9}), subset="test")
    with pytest.raises(DataError, match=r"the duration of 1 video\(s\) is not known: x; give .*--videos"):
        import_coded(path, Coded({"x": (Segment(1, 2, "jump"),)}, {}), subset="test")
    with pytest.raises(DataError, match=r"has other 'labels' already: jump; leave --labels out"):
        import_coded(path, JUMP, subset="test", labels=["jump", "sit"])
    with pytest.raises(DataError, match=r"nothing to write into it: no segment was coded"):
        import_coded(path, Coded({}, {}), subset="test")
    assert path.read_text() == before
