"""Texts of users in pictures: every sign as it is, every script."""

import warnings

import numpy as np
import pytest

from backtal import Click, ClickTrack, Localization, Segment
from backtal.data.annotations import Video
from backtal.data.click_stats import click_report
from backtal.evaluation.diagnose import diagnose
from backtal.evaluation.evaluate import evaluate
from backtal.plot import (
    affinity_mask,
    click_positions,
    diagnosis_figure,
    map_over_tiou,
    precision_recall,
    save,
    timeline,
    training_curves,
)
from backtal.plot.text import _tell, width_of
from backtal.report.html import picture

pytest.importorskip("matplotlib")

from matplotlib import font_manager
from matplotlib.text import Text

HOSTILE = (
    "spend ca$$h",
    "win $, lose $",
    r"\frac{1}{0",
    "x_^2",
    "_hidden",
    "$",
    r"a\nb",
    "100 % & #1 {~}",
    "<b>bold</b>",
)
TRUTH = Localization("v", 40.0, tuple(Segment(4.0 * i + 0.5, 4.0 * i + 3.5, label) for i, label in enumerate(HOSTILE)))


def figures(name, truth=TRUTH):
    """Every kind of picture, with `name` wherever a user's text goes, and the labels of `truth`."""
    labels = [segment.label for segment in truth]
    scores = np.random.default_rng(0).random((len(labels), 40))
    track = {name: {"v": ClickTrack("v", (Click(0.2), Click(truth.duration - 0.5)))}}
    video = Video("v", "test", truth.duration, None, truth)
    two = {name: [truth], f"_{name}": [truth]}
    return {
        "timeline": timeline(truth, {name: truth}, frame_scores={name: scores}, labels=labels, title=name),
        "affinity": affinity_mask(np.ones((5, 40)), truth=truth, title=name),
        "training": training_curves([{"epoch": 1, "total": 2.0, "held_out": 2.1}], title=name),
        "map": map_over_tiou({n: evaluate(found, [truth], [0.3, 0.5]) for n, found in two.items()}, title=name),
        "curves": precision_recall(two, [truth], labels=labels, title=name),
        "errors": diagnosis_figure({name: diagnose([truth], [truth])}, title=name),
        "clicks": click_positions(click_report(track, {"v": video}), title=name),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_texts_are_drawn_as_they_are(tmp_path, name):
    for kind, figure in figures(name).items():
        save(figure, tmp_path / f"{kind}.svg")
        texts = [text for text in figure.findobj(Text) if text.get_text().strip("\N{MINUS SIGN}-.0123456789")]
        assert not any(text.get_parse_math() for text in texts), kind
        assert any(name in text.get_text() for text in texts), kind


def test_dollar_signs_stand_in_the_picture(tmp_path):
    """In an SVG whose texts are kept as texts, what is drawn can be read."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):
        save(timeline(TRUTH, title="cost $5 to $9 ^_"), tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert ">cost $5 to $9 ^_</text>" in drawn
    assert ">win $, lose $</text>" in drawn


def test_legends_hold_names_that_begin_with_an_underscore():
    drawn = figures("_name")
    named = {
        kind: [text.get_text() for text in figure.legends[0].get_texts()]
        for kind, figure in drawn.items()
        if figure.legends
    }
    assert list(HOSTILE) == named["timeline"][: len(HOSTILE)]
    assert any(text.startswith("_name: ") for text in named["clicks"])
    for kind in ("map", "curves"):
        legend = drawn[kind].axes[0].get_legend()
        assert [text.get_text().split(" (")[0] for text in legend.get_texts()] == ["_name", "__name"]


@pytest.fixture
def fonts(monkeypatch):
    """The machine's fonts: by default only what matplotlib draws with anyway."""
    manager = font_manager.fontManager
    every = manager.ttflist
    monkeypatch.setattr(manager, "ttflist", [font for font in every if font.name == "DejaVu Sans"])
    return lambda name: manager.ttflist.extend(font for font in every if font.name == name)


WIDE = Localization("v", 9.0, (Segment(1, 4, "跳远"), Segment(5, 8, "ジャンプ")))


def test_letters_that_no_font_has_are_said_once(tmp_path, fonts, caplog):
    _tell.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a.png", "a.pdf", "a.svg"):
            save(timeline(WIDE), tmp_path / name)
        picture(timeline(WIDE), "")
    (said,) = caplog.messages
    assert "ジ, プ, ャ, ン, 跳 and 1 more (cjk, katakana)" in said
    assert "apt install fonts-noto-core fonts-noto-cjk" in said


def test_letters_are_taken_from_a_font_that_has_them(tmp_path, fonts, caplog):
    fonts("DejaVu Serif")
    bear, ain = "\N{LATIN LETTER AIN}", "\N{LATIN LETTER SMALL CAPITAL EZH}"
    figure = timeline(Localization("v", 9.0, (Segment(1, 8, f"{ain} jump {bear}ᴥ"),)), title="plain")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(figure, tmp_path / "a.png")
        figure.savefig(tmp_path / "b.png")
    families = {tuple(text.get_fontfamily()) for text in figure.findobj(Text)}
    assert {family[-1] for family in families} == {"DejaVu Serif"}
    assert not caplog.messages


def test_a_wide_letter_needs_the_room_of_two():
    assert width_of("jump") == 4
    assert width_of("跳远") == 4
    assert width_of("e\u0301te\u0301") == 3
    narrow = Localization("v", 100.0, (Segment(0, 6, "跳跳跳跳"), Segment(10, 16, "jump")))
    drawn = [text.get_text() for text in timeline(narrow).axes[0].texts]
    assert drawn == ["jump"]
