import numpy as np
import pytest

from backtal import BackTALModel, Click, ClickTrack, DataError, Localization, ModelConfig, Segment
from backtal.data.annotations import Video
from backtal.data.click_stats import click_report
from backtal.data.datasets import DatasetFolder
from backtal.evaluation.diagnose import diagnose
from backtal.evaluation.evaluate import evaluate
from backtal.plot import (
    affinity_mask,
    affinity_of_video,
    click_positions,
    diagnosis_figure,
    map_over_tiou,
    precision_recall,
    timeline,
    timeline_of_features,
    timeline_of_video,
    training_curves,
)
from backtal.plot.style import style, styles_of

pytest.importorskip("matplotlib")

TRUTH = Localization("v", 20.0, (Segment(2, 6, "jump"), Segment(10, 13, "run")))
FOUND = Localization("v", 20.0, (Segment(2, 5, "jump", 0.9), Segment(3, 6, "run", 0.6), Segment(10, 12, "run", 0.1)))
CLICKS = ClickTrack("v", (Click(1.0), Click(8.0), Click(16.0)))


def rows(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def test_bars_curves_and_clicks_are_all_there():
    scores = np.random.default_rng(0).random((3, 40))
    figure = timeline(TRUTH, {"A": FOUND}, frame_scores={"A": scores}, labels=("jump", "run"), clicks=CLICKS)
    axes = rows(figure)
    assert list(axes) == ["truth", "A: scores", "A: segments"]
    assert len(axes["truth"].patches) == 2
    bars = axes["A: segments"].containers
    assert len(bars) == 2  # the one with score 0.1 is left out
    assert [(bar[0].get_x(), bar[0].get_width()) for bar in bars] == [(2, 3), (3, 3)]
    assert bars[0][0].get_y() != bars[1][0].get_y()  # they overlap in time, so they lie in different lanes
    assert bars[0][0].get_alpha() > bars[1][0].get_alpha()
    curves = axes["A: scores"].lines
    assert len(curves) == 2
    np.testing.assert_allclose(curves[1].get_ydata(), scores[1])
    np.testing.assert_allclose(curves[0].get_xdata()[[0, -1]], [0.25, 19.75])
    assert axes["truth"].lines[0].get_xdata().tolist() == [1.0, 8.0, 16.0]
    assert [text.get_text() for text in axes["truth"].texts] == ["jump", "run"]
    assert [text.get_text() for text in axes["A: segments"].texts] == ["0.90", "0.60"]
    assert axes["A: segments"].get_xlabel() == "time (s)"
    assert axes["truth"].get_xlim() == (0, 20)


def test_a_class_looks_the_same_in_every_row_and_is_in_the_legend():
    figure = timeline(TRUTH, {"A": FOUND, "B": FOUND}, clicks=CLICKS)
    axes = rows(figure)
    colours = {label: {p.get_facecolor()[:3] for p in axes[label].patches[-2:]} for label in ("truth", "A: segments")}
    assert colours["truth"] == colours["A: segments"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["jump", "run", "background click"]


def test_scores_must_fit_the_labels():
    with pytest.raises(DataError, match="does not fit 1 labels"):
        timeline(TRUTH, frame_scores={"A": np.zeros((5, 10))}, labels=("jump",))


def test_something_must_say_how_long_the_video_is():
    with pytest.raises(DataError, match="how long is the video"):
        timeline(None, frame_scores={"A": np.zeros((1, 10))}, labels=("jump",))


def test_frames_stand_where_they_belong():
    pictures = [(float(second), np.full((90, 160, 3), second * 10, dtype=np.uint8)) for second in range(20)]
    figure = timeline(TRUTH, {"A": FOUND}, frames=pictures)
    row = rows(figure)["frames"]
    assert len(row.child_axes) == 10
    assert [inset.get_title() for inset in row.child_axes][:2] == ["1.0 s", "3.0 s"]
    assert row.child_axes[3].images[0].get_array()[0, 0].tolist() == [70, 70, 70]
    assert rows(timeline(TRUTH, frames=pictures[4:5]))["frames"].child_axes[0].get_label() == "frame at 4 s"

    asked = []
    timeline(TRUTH, frames=lambda second: asked.append(second) or pictures[0][1])
    assert asked == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    with pytest.raises(DataError, match=r"must be \[H, W, 3\], got shape \(5, 5\)"):
        timeline(TRUTH, frames=[(1.0, np.zeros((5, 5)))])


def test_no_two_of_many_classes_look_the_same():
    labels = [f"class {i}" for i in range(30)]
    video = Localization("v", 60.0, tuple(Segment(2 * i, 2 * i + 1, label) for i, label in enumerate(labels)))
    looks = styles_of(labels, [video])
    assert len({(look.colour, look.hatch) for look in looks.values()}) == 30
    assert len({(look.colour, str(look.dash)) for look in looks.values()}) == 30


def test_classes_share_a_colour_only_where_there_are_too_many():
    labels = [f"class {i}" for i in range(30)]
    video = Localization("v", 60.0, tuple(Segment(2 * i, 2 * i + 1, labels[i]) for i in (2, 9, 16, 17, 23)))
    looks = styles_of(labels, [video])
    assert looks["class 2"] == style(2)
    assert len({look.colour for look in looks.values()}) == 5


def test_affinity_of_frames():
    affinity = np.zeros((5, 40))
    affinity[2] = 1
    affinity[3, 8] = 0.5  # the frame after frame 8, which is 4.0 to 4.5 s
    figure = affinity_mask(affinity, [4.1, 0.2], truth=TRUTH)
    action, background = figure.axes
    assert action.get_title(loc="left") == "a frame of jump, 4.2 s"
    heights = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in action.patches[:5]}
    assert heights == {3.25: 0, 3.75: 0, 4.25: 1, 4.75: 0.5, 5.25: 0}
    assert background.get_title(loc="left") == "a frame of background, 0.2 s"
    assert len(background.containers[0]) == 2  # no neighbours before the start
    chosen = [axes.containers[1][0].get_facecolor() for axes in figure.axes]
    assert chosen[0] != chosen[1]
    with pytest.raises(DataError, match="K odd"):
        affinity_mask(np.zeros((4, 40)), truth=TRUTH)


def test_training_curves_show_every_term(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"epoch": 1, "total": 3, "frame": 2, "affinity": 1, "held_out": 4, "seconds": 1}\n'
        '{"epoch": 2, "total": 2, "frame": 1, "affinity": 0.5, "held_out": 3, "seconds": 1}\n'
    )
    total, frame, affinity = training_curves(log).axes
    assert [line.get_ydata().tolist() for line in total.lines] == [[3, 2], [4, 3]]
    assert frame.lines[0].get_ydata().tolist() == [2, 1]
    assert affinity.get_title(loc="left") == "affinity (eq. 13)"
    log.write_text('{"epoch": 1}\n')
    with pytest.raises(DataError, match="line 1: not a row of a training log"):
        training_curves(log)
    with pytest.raises(DataError, match="is empty"):
        training_curves([])


def test_curves_of_several_models():
    models = {"A": [FOUND], "B": [TRUTH]}
    figure = map_over_tiou({name: evaluate(found, [TRUTH], [0.5, 0.7]) for name, found in models.items()})
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[75, 50], [100, 100]]
    figure = precision_recall(models, [TRUTH], labels=["run"])
    everything, run = figure.axes
    # In order of score: jump (right at 0.5), run at 3-6 s (wrong), run at 10-12 s (right).
    assert everything.lines[0].get_xdata().tolist() == [0, 50, 50, 100]
    assert everything.lines[0].get_ydata().tolist() == pytest.approx([100, 100, 50, 200 / 3])
    assert run.lines[0].get_ydata().tolist() == [0, 0, 50]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["A", "B"]
    assert everything.lines[0].get_linestyle() != everything.lines[1].get_linestyle()
    with pytest.raises(DataError, match="no instance of 'fly'"):
        precision_recall(models, [TRUTH], labels=["fly"])


def test_the_diagnosis_as_a_picture():
    diagnosis = diagnose([FOUND], [TRUTH], multiples=3)
    kinds, gain, missed = diagnosis_figure({"A": diagnosis}).axes
    assert kinds.get_label() == "A: kinds"
    assert len(kinds.containers) == 6
    heights = np.array([[bar.get_height() for bar in kind] for kind in kinds.containers])
    np.testing.assert_allclose(heights.sum(axis=0), [100, 100, 0])
    assert [text.get_text() for text in gain.texts] == [f"{100 * g:+.1f}" for g in diagnosis.gain.values()]
    assert len({bar.get_hatch() for bar in gain.patches}) == 5
    groups = [group for groups in diagnosis.missed.values() for group in groups if group.instances]
    assert len(missed.patches) == len(groups)
    assert [tick.get_text() for tick in missed.get_xticklabels()] == [f"{g.name}  (n={g.instances})" for g in groups]


def test_pictures_of_a_video_of_a_dataset(folder):
    dataset = DatasetFolder(folder)
    video = dataset.annotations.subset("test")[0]
    model = BackTALModel(ModelConfig(feature_dim=8, labels=dataset.labels, hidden_dim=8))
    figure = timeline_of_video(video, dataset, {"net": model}, least_score=0)
    assert "net: scores" in rows(figure)
    figure = affinity_of_video(video, dataset, model, neighbours=5)
    assert len(figure.axes) == 2


def test_without_truth_there_is_no_row_for_it(folder):
    dataset = DatasetFolder(folder)
    features = dataset.features(dataset.annotations.subset("test")[0])
    model = BackTALModel(ModelConfig(feature_dim=8, labels=dataset.labels, hidden_dim=8))
    figure = timeline_of_features(features, {"net": model}, least_score=0)
    assert list(rows(figure)) == ["net: scores", "net: segments"]
    assert rows(figure)["net: scores"].get_xlim() == (0, features.axis.duration)
    clicked = timeline(None, {"A": FOUND}, clicks=CLICKS)
    assert rows(clicked)["truth"].get_title(loc="left") == "clicks"
    assert list(rows(timeline(TRUTH, {"A": FOUND}))) == ["truth", "A: segments"]


def test_click_positions_of_two_annotators():
    video = Video("v", "training", 20.0, None, TRUTH)
    tracks = {"A1": {"v": CLICKS}, "A2": {"v": ClickTrack("v", (Click(8.0),))}, "nothing": {"v": ClickTrack("v", ())}}
    report = click_report(tracks, {"v": video})
    axes = rows(click_positions(report))
    assert list(axes) == ["histogram", "excess"]
    bars = [[bar.get_height() for bar in container] for container in axes["histogram"].containers]
    assert bars == [(100 * report.annotators[name].histogram).tolist() for name in ("A1", "A2")]
    assert sum(bars[0]) == pytest.approx(100)
    assert len(axes["excess"].lines) == 3  # one of them the zero line
    # the three clicks lie at 1/2, 1/2 and 3/7 of their stretches
    assert axes["excess"].lines[1].get_ydata() == pytest.approx([100 * (1 / 3 - 3 / 7), 100 * (2 / 3 - 0.5), 50.0])
    with pytest.raises(DataError, match="no background click to draw"):
        click_positions(click_report(tracks, {}))
