import numpy as np
import pytest

from backtal import Click, ClickTrack, DataError, Localization, Segment
from backtal.plot import timeline

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
