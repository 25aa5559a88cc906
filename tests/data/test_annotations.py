"""Annotations: nothing is dropped or overwritten unsaid, and nothing is made of what does not fit."""

import json
import unicodedata

import pytest
from conftest import shared
from hypothesis import given
from hypothesis import strategies as st

from backtal import DataError
from backtal.data import DatasetFolder, read_annotations, write_annotations
from backtal.data.annotations import parse_annotations
from backtal.files import read_json
from backtal.segments.segments import read_predictions

ITEM = {"label": "open", "segment": [10, 20]}
ENTRY = {"subset": "test", "duration": 100, "annotations": [ITEM]}


def save(path, database, **more):
    path.write_text(json.dumps({"labels": ["open", "close"], "database": database} | more))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": "open"}, "'labels' must be a list, found 'open'"),
        ({"annotations": {"0": ITEM}}, "'annotations' must be a list"),
        ({"annotations": None}, "'annotations' must be a list, found None"),
        ({"annotations": [ITEM | {"label": ["open", "close"]}]}, "a label must be a name, found ['open', 'close']"),
        ({"annotations": [ITEM | {"label": 0}]}, "a label must be a name, found 0"),
        ({"annotations": [ITEM | {"segment": [1, 2, 3]}]}, "too many values"),
        ({"annotations": [ITEM | {"segment": "12"}]}, "'segment' must be a list, found '12'"),
        ({"subset": None}, "'subset' must be a name, found None"),
        ({"subset": ["test"]}, "'subset' must be a name, found ['test']"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_what_does_not_fit_is_refused_with_the_video(tmp_path, change, message, listed):
    path = save(tmp_path / "a.json", {"v": ENTRY | change}, **({} if listed else {"labels": None}))
    with pytest.raises(DataError) as failure:
        read_annotations(path)
    assert "video v: " in str(failure.value)
    assert message in str(failure.value)


VIDEOS = st.sampled_from(["a", "b", "b/c", "\u00e9", "e\u0301"])
ITEMS = st.lists(st.sampled_from([ITEM, ITEM | {"label": "close"}, {"label": "open", "segment": [1, 2]}]), max_size=4)


def text_of(pairs):
    """A JSON object of these keys and values, however often a key comes."""
    return "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}"


@given(st.lists(st.tuples(VIDEOS, ITEMS), min_size=1, max_size=5))
def test_as_many_instances_come_out_as_stand_in_the_file_or_it_is_refused(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("rows") / "a.json"
    database = text_of((name, ENTRY | {"annotations": items}) for name, items in pairs)
    path.write_text(f'{{"labels": ["open", "close"], "database": {database}}}')
    names = [unicodedata.normalize("NFC", name) for name, _ in pairs]
    if len(set(names)) < len(names):
        with pytest.raises(DataError, match=r"occurs twice in one object|differ in nothing but their form of Unicode"):
            read_annotations(path)
        return
    found = read_annotations(path)
    assert [(name, len(found.videos[name].ground_truth)) for name, _ in pairs] == [(n, len(rows)) for n, rows in pairs]
    write_annotations(path, found)
    assert read_annotations(path) == found


@given(st.lists(st.tuples(VIDEOS, ITEMS), max_size=5))
def test_as_many_predictions_come_out_as_stand_in_the_file_or_it_is_refused(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("rows") / "found.json"
    path.write_text(f'{{"results": {text_of(pairs)}}}')
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        with pytest.raises(DataError, match="occurs twice in one object"):
            read_predictions(path)
        return
    assert [(v.video_id, len(v)) for v in read_predictions(path)] == [(name, len(rows)) for name, rows in pairs]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_read_as_programs_write_it(tmp_path, encoding):
    (tmp_path / "a.json").write_bytes('{"é": 1}'.encode(encoding))
    assert read_json(tmp_path / "a.json") == {"é": 1}


def test_files_that_are_swapped_are_recognised(tmp_path):
    (tmp_path / "found.json").write_text('{"results": {"v": []}}')
    save(tmp_path / "annotations.json", {"v": ENTRY})
    with pytest.raises(DataError, match="this is a file of predictions"):
        read_annotations(tmp_path / "found.json")
    with pytest.raises(DataError, match="this is a file of annotations"):
        read_predictions(tmp_path / "annotations.json")
    with pytest.raises(DataError, match=f"no such dataset folder; did you mean {tmp_path}"):
        DatasetFolder(tmp_path / "annotations.json")


def test_predictions_without_a_score_are_named_and_strange_ones_refused(tmp_path, caplog):
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"results": {"v": [ITEM, ITEM | {"score": 0.5}]}}))
    assert [segment.score for segment in read_predictions(path)[0]] == [1.0, 0.5]
    assert "found.json: 1 segment(s) without a score; they count as of score 1" in caplog.text
    for change, message in (({"label": 0}, "a label must be a name, found 0"), ({"segment": "12"}, "must be a list")):
        path.write_text(json.dumps({"results": {"v": [ITEM | change]}}))
        with pytest.raises(DataError, match=message):
            read_predictions(path)


def test_labels_beside_annotations_are_not_located():
    for known, unlocated, located in (
        ({"annotations": [ITEM]}, set(), True),
        ({"annotations": [ITEM], "labels": ["open"]}, set(), True),
        ({"annotations": [ITEM], "labels": ["close"]}, {"close"}, False),
        ({"annotations": []}, set(), True),
        ({"annotations": [], "labels": ["open"]}, {"open"}, False),
        ({"labels": ["open"]}, {"open"}, False),
        ({"labels": []}, set(), False),
    ):
        content = {"labels": ["open", "close"], "database": {"v": {"subset": "test", "duration": 100} | known}}
        video = parse_annotations(content, "a.json").video("v")
        assert (set(video.unlocated), video.located) == (unlocated, located), known


def test_the_whole_truth_of_thumos14_is_known():
    annotations = read_annotations(shared("data", "thumos14", "annotations.json"))
    assert len(annotations.truth("test")) == len(annotations.subset("test"))
