import json
import math

import pytest

from backtal import DataError, Localization, Segment, read_predictions, write_predictions
from backtal.segments.growing import GrowingPredictions

FOUND = [
    Localization("v1", 10.0, (Segment(1.0, 2.5, "jump \n high", 0.9), Segment(0.1, 0.3, "run", 1e-9))),
    Localization("v2", 3.5, ()),
    Localization("Küche/v3", 7.0, (Segment(0.0, 7.0, "run", 0.25),)),
]
MADE = {"weights": "abc"}


def test_the_form_of_activitynet_is_as_json_writes_it(tmp_path):
    for found in (FOUND, []):
        write_predictions(tmp_path / "p.json", found)
        text = (tmp_path / "p.json").read_text()
        assert text == json.dumps(json.loads(text), indent=1) + "\n"
        assert [one.segments for one in read_predictions(tmp_path / "p.json")] == [one.segments for one in found]


def test_lines_hold_the_same_and_the_duration(tmp_path):
    write_predictions(tmp_path / "p.jsonl", FOUND)
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 3
    assert read_predictions(tmp_path / "p.jsonl") == FOUND
    write_predictions(tmp_path / "p.jsonl", [Localization("v", math.nan, ())])
    assert math.isnan(read_predictions(tmp_path / "p.jsonl")[0].duration)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not valid JSON"),
        ("[]", 'line 1: expected {"video"'),
        ('{"video": "v", "segments": 3}', "line 1: results of video v: expected a list"),
        ('{"video": "v", "duration": "x", "segments": []}', "line 1: duration must be seconds"),
        ('{"video": "v", "segments": []}\n{"video": "v", "segments": []}', "several lines of video v"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        read_predictions(tmp_path / "p.jsonl")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_what_was_cut_off_goes_on_to_the_same_file(tmp_path, name):
    write_predictions(tmp_path / name, FOUND)
    whole = (tmp_path / name).read_bytes()
    growing = GrowingPredictions(tmp_path / name, MADE)
    growing.add(FOUND[:2])
    part = growing.part.read_bytes()
    for cut in range(len(part) - 20, len(part)):
        growing.part.write_bytes(part[:cut])
        again = GrowingPredictions(tmp_path / name, MADE, resume=True)
        assert again.done == {"v1"}
        assert again.has(["v1"])
        assert not again.has(["v1", "v2"])
        again.add(FOUND)
        assert again.finish() == 3
        assert (tmp_path / name).read_bytes() == whole
        assert not growing.part.exists()


def test_results_of_another_run_are_refused_or_begun_anew(tmp_path):
    GrowingPredictions(tmp_path / "p.json", MADE).add(FOUND)
    with pytest.raises(DataError, match="other models, settings or videos"):
        GrowingPredictions(tmp_path / "p.json", {"weights": "x"}, resume=True)
    assert GrowingPredictions(tmp_path / "p.json", {"weights": "x"}).done == set()
