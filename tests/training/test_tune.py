import importlib
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from conftest import TINY, train_options

from backtal import BackTALModel, Click, ClickTrack, DataError, Localization, Segment
from backtal.cli import main
from backtal.data.datasets import DatasetFolder
from backtal.settings.presets import recipe
from backtal.training.tune import click_precision, tune

# `backtal.training.tune` is the function.
tuning = importlib.import_module("backtal.training.tune")
RECIPE = recipe("compact").with_settings([*TINY, "epochs=2"])
TRACK = ClickTrack("v", (Click(1.0), Click(5.0), Click(8.0), Click(20.0)))


def agreement(*segments):
    return click_precision([Localization("v", 30.0, segments)], {"v": TRACK}, {"v": frozenset({"run"})})


def test_precision_by_hand():
    assert agreement() == 0
    assert agreement(Segment(2, 3, "run", 0.9), Segment(6, 7, "run", 0.8), Segment(9, 19, "run", 0.7)) == 1
    # Wrong label, then right: precision 1/2 at the one hit of three stretches.
    assert agreement(Segment(2, 3, "jump", 0.9), Segment(2, 3, "run", 0.8)) == pytest.approx(0.5 / 3)
    # A second segment in a taken stretch, one that holds a click, and those outside all stretches are wrong.
    assert agreement(Segment(2, 3, "run", 0.9), Segment(3, 4, "run", 0.8)) == pytest.approx(1 / 3)
    assert agreement(Segment(4, 6, "run", 0.9)) == 0
    assert agreement(Segment(0, 0.5, "run", 0.9), Segment(21, 22, "run", 0.8)) == 0


def test_nothing_to_tune_by_is_an_error():
    with pytest.raises(DataError, match="two background clicks"):
        click_precision([Localization("v", 9.0, ())], {"v": ClickTrack("v", (Click(1.0),))}, {"v": frozenset()})


def test_settings_are_kept_unless_better_and_the_search_goes_on(folder, tmp_path):
    data = DatasetFolder(folder)
    clicks = data.clicks(data.click_files())
    first = tune(data, "training", clicks, RECIPE, tmp_path, folds=2, trials=3)
    assert first.agreement >= first.before
    if first.recipe != RECIPE:
        assert first.agreement > first.before
    assert _trials(tmp_path) == 3
    assert tune(data, "training", clicks, RECIPE, tmp_path, folds=2, trials=3) == first
    assert _trials(tmp_path) == 3


def _trials(out):
    return sum(json.loads(line)["op_code"] == 4 for line in (out / "trials.log").read_text().splitlines())


def test_starts_and_ends_are_not_read(folder, tmp_path):
    data = DatasetFolder(folder)
    clicks = data.clicks(data.click_files())
    first = tune(data, "training", clicks, RECIPE, tmp_path / "a", folds=2, trials=2)
    for name, video in data.annotations.videos.items():
        moved = [replace(s, start=0.0, end=video.duration) for s in video.ground_truth]
        data.annotations.videos[name] = replace(video, ground_truth=replace(video.ground_truth, segments=tuple(moved)))
    assert tune(data, "training", clicks, RECIPE, tmp_path / "b", folds=2, trials=2) == first


def test_a_kernel_size_is_taken_where_every_part_agrees_better(folder, tmp_path, monkeypatch):
    data = DatasetFolder(folder)
    clicks = data.clicks(data.click_files())
    asked = []

    def held_out(dataset, subset, clicks, recipe, out, folds):
        asked.append((recipe.model.kernel_size, recipe.training.stages, out.name))
        return [[recipe.model.kernel_size] * fold for fold in (1, 2)]

    better = {9: [0.5, 0.5], 3: [0.9, 0.4], 5: [0.6, 0.7], 7: [0.6, 0.6]}
    monkeypatch.setattr(tuning, "held_out", held_out)
    monkeypatch.setattr(tuning, "agreement", lambda part, labels, config: better[part[0]][len(part) - 1])
    two = RECIPE.with_settings(["stages=2"])
    found = tune(data, "training", clicks, two, tmp_path, folds=2, trials=1, kernel_sizes=(3, 5, 7))
    assert found.recipe == two.with_settings(["kernel_size=5"])
    assert found.kernel_sizes == pytest.approx({9: 0.5, 3: 0.65, 5: 0.65, 7: 0.6})
    assert asked[-5:] == [(k, 1, f"kernel{k}") for k in (9, 3, 5, 7)] + [(5, 2, tmp_path.name)]


@pytest.mark.parametrize(("own", "tried"), [(9, [9, 5, 17]), (3, [3, 1, 5]), (17, [17, 9])])
def test_kernel_sizes_tried_of_itself(folder, tmp_path, monkeypatch, own, tried):
    """Half and twice, but nothing longer than the shortest video: 20 snippets."""
    data = DatasetFolder(folder)
    monkeypatch.setattr(tuning, "held_out", lambda *arguments: [[arguments[3].model.kernel_size]])
    monkeypatch.setattr(tuning, "agreement", lambda part, labels, config: 0.5)
    mine = RECIPE.with_settings([f"kernel_size={own}"])
    found = tune(data, "training", data.clicks(data.click_files()), mine, tmp_path, folds=2, trials=1)
    assert list(found.kernel_sizes) == tried
    assert found.recipe == mine


def test_too_few_videos(folder, tmp_path):
    data = DatasetFolder(folder)
    with pytest.raises(DataError, match="cannot be divided"):
        tune(data, "training", data.clicks(data.click_files()), RECIPE, tmp_path, folds=999)


def test_the_command_writes_a_tuned_copy(folder, tmp_path):
    runner = CliRunner()
    settings = train_options(*TINY, "epochs=2")
    trained = runner.invoke(main, ["train", str(folder), "--out", str(tmp_path / "run"), *settings])
    assert trained.exit_code == 0, trained.output
    arguments = [
        "tune",
        str(folder),
        "--model",
        str(tmp_path / "run"),
        "--out",
        str(tmp_path / "tuned"),
        "--trials",
        "3",
    ]
    done = runner.invoke(main, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    tuned = BackTALModel.from_pretrained(tmp_path / "tuned")
    for name, value in result["changed"].items():
        assert getattr(tuned.localization, name) == value


def test_the_command_trains_the_kernel_size_it_found(folder, tmp_path, monkeypatch):
    runner, trained = CliRunner(), tmp_path / "run"
    settings = train_options(*TINY, "epochs=2")
    assert runner.invoke(main, ["train", str(folder), "--out", str(trained), *settings]).exit_code == 0
    monkeypatch.setattr(tuning, "agreement", lambda part, labels, config: part[0].output.cas.shape[0] * 0.1)
    monkeypatch.setattr(tuning, "_with_kernel", lambda recipe, size: recipe.with_settings(["kernel_size=3"]))
    arguments = ["tune", str(folder), "--model", str(trained), "--out", str(tmp_path / "tuned"), "--trials", "1"]
    done = runner.invoke(main, [*arguments, "--kernel-size", "3"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["changed"]["kernel_size"] == 3
    assert BackTALModel.from_pretrained(tmp_path / "tuned").config.kernel_size == 3
