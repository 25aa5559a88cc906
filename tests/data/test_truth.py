"""What is not known is not nothing: every command takes the truth from one place, which says what it leaves out."""

import json
import logging
import unicodedata

import pytest
from click.testing import CliRunner
from conftest import TINY, make_folder, train_options
from hypothesis import given
from hypothesis import strategies as st

from backtal import DataError, Localization, Segment
from backtal.cli import main
from backtal.data import Truth
from backtal.data.annotations import parse_annotations
from backtal.evaluation import diagnose, evaluate, rank_videos
from backtal.segments.segments import write_predictions

OPEN = {"label": "open", "segment": [10, 20]}


def entry(subset="test", **known):
    return {"subset": subset, "duration": 100, **known}


KNOWN = {
    "located": entry(annotations=[OPEN]),
    "nothing_occurs": entry(annotations=[]),
    "labels_only": entry(labels=["open"]),
    "emptied": entry(annotations=[], labels=["open"]),
    "unlabelled": entry(labels=[]),
    "partly": entry(annotations=[OPEN], labels=["open", "close"]),
    "trained_on": entry("training", annotations=[OPEN]),
}


def annotations(database, labels=("open", "close", "stir")):
    return parse_annotations({"labels": list(labels), "database": database}, "annotations.json")


def found(*names, label="open", score=0.9):
    return [Localization(name, 100.0, (Segment(10, 20, label, score),)) for name in names]


def test_videos_and_labels_of_which_nobody_knows_when_are_left_out_and_named(caplog):
    truth = annotations(KNOWN).truth("test")
    assert [video.video_id for video in truth] == ["located", "nothing_occurs", "partly"]
    said = caplog.text
    assert "3 of 6 videos in subset 'test' are left out, as start and end of their actions are not known" in said
    assert "labels_only, emptied, unlabelled" in said
    assert "1 label(s) are left out where nobody knows when they occur: close in partly" in said
    assert "2 of 3 labels have no instance in subset 'test', hence no average precision: close, stir" in said


def test_what_is_found_where_the_truth_is_not_known_is_neither_right_nor_wrong(caplog):
    truth = annotations(KNOWN).truth("test")
    right = found("located", "partly")
    vague = [*found("labels_only", "emptied", "unlabelled"), *found("partly", label="close"), *found("trained_on")]
    report = evaluate([*right, *vague], truth, [0.5])
    assert (report.average, report.f1, report.num_predictions) == (1, 1, 2)
    assert diagnose([*right, *vague], truth).mean_ap == 1
    assert {video.f1 for video in rank_videos([*right, *vague], truth, [0.5]) if video.instances} == {1}
    assert caplog.text.count("3 predicted segment(s) are left out, in 3 video(s) of which start and end") == 1
    assert caplog.text.count("1 predicted segment(s) are left out, in 1 video(s) of other subsets: trained_on") == 1
    assert caplog.text.count("1 predicted segment(s) are left out, whose label occurs in their video") == 1
    # Where it is known that nothing occurs, a find is wrong.
    assert evaluate([*right, *found("nothing_occurs")], truth, [0.5]).precision == pytest.approx(2 / 3)
    assert evaluate([*right, *found("located", label="close")], truth, [0.5]).precision == pytest.approx(2 / 3)


def test_a_video_without_predictions_and_one_of_no_dataset_are_named(caplog):
    truth = annotations(KNOWN).truth("test")
    report = evaluate(found("located", "elsewhere"), truth, [0.5])
    assert report.unknown_videos == ("elsewhere",)
    assert (report.precision, report.recall) == (0.5, 0.5)
    assert "1 predicted video(s) that the dataset does not have: elsewhere" in caplog.text
    assert "2 of the 3 videos in subset 'test' are not among the predictions: nothing_occurs, partly" in caplog.text


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (
            found("located", label="Open"),
            "no predicted label is one of the dataset's: predicted are 'Open', the",
        ),
        (found("located", label="open "), "predicted are 'open ', the dataset has 'open', 'close', 'stir'"),
        (found("Located"), "no prediction is for a video of the ground truth in subset 'test'; predicted: Located"),
        (found("labels_only"), "no prediction is for a video of the ground truth"),
        (found("trained_on"), "no prediction is for a video of the ground truth"),
        ([], "predicted: nothing"),
    ],
)
def test_where_nothing_fits_there_is_no_table_of_zeros(predictions, message):
    truth = annotations(KNOWN).truth("test")
    for measure in (lambda: evaluate(predictions, truth, [0.5]), lambda: diagnose(predictions, truth)):
        with pytest.raises(DataError) as failure:
            measure()
        assert message in str(failure.value)


def test_a_label_of_the_dataset_that_is_found_but_does_not_occur_is_a_zero_and_no_error():
    assert evaluate(found("located", label="stir"), annotations(KNOWN).truth("test"), [0.5]).average == 0


def test_predictions_after_the_end_of_their_video_are_counted(caplog):
    frames = [Localization("located", 100.0, (Segment(250, 500, "open", 0.9), Segment(99, 120, "open", 0.8)))]
    assert evaluate(frames, annotations(KNOWN).truth("test"), [0.5]).average == 0
    assert (
        "1 of 2 predicted segment(s) begin after the end of their video, such as 250 to 500 s in located" in caplog.text
    )


def test_some_misspelt_labels_are_named(caplog):
    truth = annotations(KNOWN).truth("test")
    report = evaluate([*found("located"), *found("located", label="Open")], truth, [0.5])
    assert (report.average, report.precision) == (0.5, 0.5)
    assert "1 predicted label(s) that the dataset does not have: 'Open' (1 segments)" in caplog.text


def test_a_subset_of_which_nothing_is_known_is_refused():
    with pytest.raises(DataError, match="none of the 1 videos of subset 'test' has start and end of its actions"):
        annotations({"v": entry(labels=["open"])}).truth("test")
    with pytest.raises(DataError, match="no video in subset 'x'; the dataset has test"):
        annotations({"v": entry(labels=["open"])}).truth("x")


def test_names_in_the_other_form_of_unicode_are_the_same_names():
    composed, taken_apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    label = unicodedata.normalize("NFC", "öffnen")
    for mine, theirs in ((composed, taken_apart), (taken_apart, composed)):
        item = {"label": label, "segment": [10, 20]}
        truth = annotations({mine: entry(annotations=[item])}, [label]).truth("test")
        report = evaluate(found(theirs, label=unicodedata.normalize("NFD", label)), truth, [0.5])
        assert (report.average, report.labels, report.unknown_videos) == (1, (label,), ())


ROWS = st.tuples(st.sampled_from([*KNOWN, "elsewhere"]), st.sampled_from(["open", "close", "no"]))


@given(st.lists(ROWS))
def test_as_many_predictions_come_out_as_go_in_less_those_said_to_be_left_out(rows):
    predictions = [*found("located"), *(f for video, label in rows for f in found(video, label=label))]
    truth = annotations(KNOWN).truth("test")
    report = evaluate(predictions, truth, [0.5])
    left_out = [remark for remark in truth.remarks if "predicted segment(s) are left out" in remark]
    assert report.num_predictions + sum(int(remark.split()[0]) for remark in left_out) == len(predictions)


def backtal(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def half_annotated(tmp_path_factory):
    """A dataset with a run, one test video of which only the labels are known, and predictions of all its videos."""
    base = tmp_path_factory.mktemp("half")
    root = make_folder(base / "data", videos=6)
    assert backtal("train", root, "--out", base / "run", *train_options(*TINY)).exit_code == 0
    content = json.loads((root / "annotations.json").read_text())
    known = content["database"]["v7"]
    known["labels"] = [item["label"] for item in known.pop("annotations")]
    (root / "annotations.json").write_text(json.dumps(content))
    (segment,) = content["database"]["v6"]["annotations"]
    right = Segment(*segment["segment"], segment["label"], 0.6)
    wrong = tuple(Segment(i / 2, i / 2 + 0.4, label, 0.9) for i in range(10) for label in ("jump", "run"))
    rows = [Localization("v6", 9.0, (right, *wrong[:3])), Localization("v7", 9.0, wrong), *found("v0", label="jump")]
    write_predictions(base / "found.json", rows)
    return base


def test_commands_give_one_number_for_one_file(half_annotated):
    data, predictions = half_annotated / "data", half_annotated / "found.json"
    measured = backtal("evaluate", predictions, "--data", data, "--tiou", "0.5:0.5:0.1", "--json")
    diagnosed = backtal("diagnose", predictions, "--data", data, "--json")
    assert (measured.exit_code, diagnosed.exit_code) == (0, 0)
    measured_, diagnosed_ = json.loads(measured.stdout), json.loads(diagnosed.stdout)
    assert 0 < measured_["average"] < 1
    assert measured_["average"] == pytest.approx(diagnosed_["mAP"])
    assert measured_["videos"] == diagnosed_["videos"] == 1
    assert measured_["remarks"] == diagnosed_["remarks"]
    page = half_annotated / "report.html"
    report = ["report", half_annotated / "run", "--data", data, "--predictions", predictions, "--out", page]
    reported = backtal(*report, "--tiou", "0.5:0.5:0.1", "--show", 1)
    assert reported.exit_code == 0, reported.output
    text = page.read_text()
    assert f"<b>{100 * measured_['average']:.1f}</b>" in text
    assert f"<b>{100 * measured_['f1']:.1f}</b>" in text
    drawn = backtal("plot", "curves", predictions, "--data", data, "--out", half_annotated / "curves.png")
    for done in (measured, diagnosed, reported, drawn):
        assert "1 of 2 videos in subset 'test' are left out" in done.stderr
        assert "20 predicted segment(s) are left out, in 1 video(s) of which start and end" in done.stderr
    assert "1 of 2 videos in subset &#x27;test&#x27; are left out" in text


def test_pictures_do_not_call_background_what_nobody_has_annotated(half_annotated):
    pytest.importorskip("matplotlib")
    from backtal import BackTALModel
    from backtal.data import DatasetFolder
    from backtal.plot import affinity_of_video

    dataset, model = DatasetFolder(half_annotated / "data"), BackTALModel.from_pretrained(half_annotated / "run")
    for name, said in (("v6", "background"), ("v7", "a frame,")):
        figure = affinity_of_video(dataset.annotations.video(name), dataset, model, [0.1])
        assert said in figure.axes[0].get_title(loc="left")


def test_the_table_of_runs_leaves_out_the_same(half_annotated, tmp_path, caplog):
    from backtal.settings import recipe
    from backtal.training.experiment import Protocol, Run, measure

    caplog.set_level(logging.WARNING)
    protocol = Protocol(half_annotated / "data")
    result = measure(protocol, Run(recipe("compact").with_settings([*TINY, "epochs=1"]), "A1.txt"), tmp_path)
    assert (result["videos"], result["instances"]) == (1, 1)
    assert "1 of 2 videos in subset 'test' are left out" in caplog.text


def test_action_clicks_are_not_simulated_where_nobody_knows_when(half_annotated, tmp_path):
    from backtal.settings import recipe
    from backtal.training.experiment import Protocol, Run, measure

    protocol = Protocol(half_annotated / "data", training="test", test="training")
    with pytest.raises(DataError, match=r"not known of 1 training video\(s\): v7"):
        measure(protocol, Run(recipe("compact").with_settings([*TINY]), None, action=True), tmp_path)


def test_a_truth_of_bare_segments_knows_no_more_than_they_say():
    truth = Truth.of(found("a", "b"))
    assert (len(truth), truth.labels, Truth.of(truth)) == (2, ("open",), truth)
