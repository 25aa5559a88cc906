"""The detector learns from clicks, from start and end, from mixes and from what it says itself of unlabelled videos."""

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_folder
from safetensors.torch import load_file

from backtal import ConfigError, DataError
from backtal.cli import main
from backtal.data.datasets import DatasetFolder
from backtal.nn import DetectorModel
from backtal.settings import Recipe, recipe
from backtal.training import TrainingSet, fit
from backtal.training.examples import collate
from backtal.training.methods import DetectorMethod
from backtal.training.train import for_dataset

SMALL = ("width=16", "levels=3", "embedding_dim=4", "embedding_hidden_dim=8", "head_layers=1", "input_dropout=0")
SMALL += ("batch_size=3", "min_epoch_steps=1", "epochs=3", "warmup_epochs=0", "averaging=0.5", "checkpoint_every=1")
RECIPE = recipe("detector").with_settings(SMALL)
LEARNING = RECIPE.with_settings(["epochs=40", "min_epoch_steps=4", "learning_rate=0.01", "head_dropout=0", "dropout=0"])


def training_set(
    root: Path, *, located: Collection[str] = (), unlabelled: str | None = None, clicked: bool = True
) -> TrainingSet:
    folder = DatasetFolder(root)
    clicks = folder.clicks(folder.click_files()) if clicked else None
    return TrainingSet(folder, "training", clicks, RECIPE.model, located=located, unlabelled=unlabelled)


def names(root: Path, subset: str = "training") -> list[str]:
    return [video.video_id for video in DatasetFolder(root).annotations.subset(subset)]


@pytest.mark.slow
def test_it_finds_what_it_was_taught_by_clicks(tmp_path: Path):
    root = make_folder(tmp_path / "data", videos=24)
    model = fit(training_set(root), LEARNING.with_settings(["epochs=20"]), tmp_path / "run", device="cpu")
    data = DatasetFolder(root)
    for video in data.annotations.subset("test"):
        (best, *_), (truth,) = model.localize(data.features(video)).segments, video.ground_truth.segments
        assert best.label == truth.label
        assert min(best.end, truth.end) - max(best.start, truth.start) > 0.5 * (truth.end - truth.start)


def test_start_and_end_teach_edges_in_one_stage(folder: Path, tmp_path: Path):
    videos = training_set(folder, located=names(folder), clicked=False)
    model = fit(videos, LEARNING, tmp_path / "run", device="cpu")
    model.localization = dataclasses.replace(model.localization, thresholds=None)  # the edges at the points
    assert not (tmp_path / "run" / "stage1").exists()
    data = DatasetFolder(folder)
    for video in data.annotations.subset("test"):
        (best, *_), (truth,) = model.localize(data.features(video)).segments, video.ground_truth.segments
        assert best.label == truth.label
        assert best.start == pytest.approx(truth.start, abs=0.4)
        assert best.end == pytest.approx(truth.end, abs=0.4)


def test_one_seed_one_checkpoint_and_a_broken_run_goes_on_to_it(folder: Path, tmp_path: Path):
    fit(training_set(folder), RECIPE, tmp_path / "a", device="cpu")
    fit(training_set(folder), RECIPE, tmp_path / "b", device="cpu")

    class StopError(Exception):
        pass

    from backtal.training import train

    original, count = train._Run.train_epoch, []

    def stop(self: train._Run, epoch: int) -> None:
        count.append(epoch)
        if len(count) == 5:
            raise StopError
        original(self, epoch)

    train._Run.train_epoch = stop
    try:
        with pytest.raises(StopError):
            fit(training_set(folder), RECIPE, tmp_path / "c", device="cpu")
    finally:
        train._Run.train_epoch = original
    fit(training_set(folder), RECIPE, tmp_path / "c", resume=True, device="cpu")
    a, b, c = (load_file(tmp_path / run / "model.safetensors") for run in "abc")
    assert all(torch.equal(a[name], b[name]) and torch.equal(a[name], c[name]) for name in a)


def test_start_and_end_change_nothing_where_they_may_not_be_read(tmp_path: Path):
    root = make_folder(tmp_path / "data")
    fit(training_set(root), RECIPE, tmp_path / "a", device="cpu")
    content = json.loads((root / "annotations.json").read_text())
    for entry in content["database"].values():
        for item in entry["annotations"]:
            item["segment"] = [0.5, 1.5]
    (root / "annotations.json").write_text(json.dumps(content))
    fit(training_set(root), RECIPE, tmp_path / "b", device="cpu")
    fit(training_set(root, located=names(root)[:1]), RECIPE, tmp_path / "c", device="cpu")
    a, b, c = (load_file(tmp_path / run / "model.safetensors") for run in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_unlabelled_videos_join_the_second_stage_alone(folder: Path, tmp_path: Path):
    content = json.loads((folder / "annotations.json").read_text())
    for name in names(folder)[3:]:
        content["database"][name]["subset"] = "unlabelled"
    (folder / "annotations.json").write_text(json.dumps(content))
    click_file = folder / "clicks" / "A1.txt"
    kept = [
        line for line in click_file.read_text("utf-8-sig").splitlines() if line.split(",")[0] not in {"v3", "v4", "v5"}
    ]
    click_file.write_text("\n".join(kept) + "\n")
    fit(training_set(folder), RECIPE, tmp_path / "few", device="cpu")
    fit(training_set(folder, unlabelled="unlabelled"), RECIPE, tmp_path / "more", device="cpu")
    few, more = (load_file(tmp_path / run / "stage1" / "model.safetensors") for run in ("few", "more"))
    weights = {name for name in few if not name.startswith("feature_")}
    assert any(not torch.equal(few[n], more[n]) for n in few)  # standardised by all features there are
    few, more = (load_file(tmp_path / run / "model.safetensors") for run in ("few", "more"))
    assert any(not torch.equal(few[name], more[name]) for name in weights)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_any_number_of_videos_may_have_start_and_end(folder: Path, tmp_path: Path, count: int):
    model = fit(training_set(folder, located=names(folder)[:count]), RECIPE, tmp_path / "run", device="cpu")
    assert isinstance(model, DetectorModel)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert np.isfinite([entry["total"] for entry in log]).all()
    assert {"classes", "edges", "teacher"} <= set(log[0])


def test_the_held_out_part_is_judged_with_the_weights_that_are_kept(folder: Path, tmp_path: Path):
    fit(training_set(folder), RECIPE.with_settings(["held_out=0.4"]), tmp_path / "run", device="cpu")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(entry["held_out"]) for entry in log)
    settings = [*SMALL, "held_out=0.4", "epochs=1", "averaging=0.999", "learning_rate=0.1", "warmup_epochs=0"]
    videos = training_set(folder, located=names(folder), clicked=False)
    model = fit(videos, RECIPE.with_settings(settings), tmp_path / "far", device="cpu")
    (entry,) = [json.loads(line) for line in (tmp_path / "far" / "log.jsonl").read_text().splitlines()]
    method = DetectorMethod(for_dataset(RECIPE, videos), videos)
    order = torch.randperm(len(videos), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        batches = [collate([videos[index]]) for index in order[: round(0.4 * len(order))]]
        losses = [float(method.terms(method.run(model, batch), batch)["total"]) for batch in batches]
    assert entry["held_out"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_one_stage_without_start_and_end_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="set stages=2"):
        fit(training_set(folder), RECIPE.with_settings(["stages=1"]), tmp_path / "run", device="cpu")


def test_the_training_subset_is_not_unlabelled(folder: Path):
    with pytest.raises(DataError, match="name another one"):
        training_set(folder, unlabelled="training")


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def test_the_command_line(folder: Path, tmp_path: Path):
    small = [part for setting in SMALL for part in ("--set", setting)]
    code, said = run("train", folder, "--out", tmp_path / "full", "--recipe", "detector", "--full-labels", *small)
    assert code == 0, said
    code, said = run("localize", folder, "--model", tmp_path / "full", "--out", tmp_path / "found.json")
    assert code == 0, said
    (tmp_path / "names.txt").write_text("v0\nv2\n")
    some = ["--segments", tmp_path / "names.txt"]
    code, said = run("train", folder, "--out", tmp_path / "some", "--recipe", "detector", *some, *small)
    assert code == 0, said
    assert (tmp_path / "some" / "stage1" / "config.json").exists()


@pytest.mark.parametrize("option", [["--full-labels"], ["--segments", "names.txt"], ["--unlabelled", "test"]])
def test_the_papers_recipes_refuse_other_labels(folder: Path, tmp_path: Path, option: list[str]):
    code, said = run("train", folder, "--out", tmp_path / "run", "--recipe", "compact", *option)
    assert code == 2
    assert "need --recipe detector" in said


def test_a_run_of_the_detector_says_its_architecture(folder: Path, tmp_path: Path):
    fit(training_set(folder), RECIPE, tmp_path / "run", device="cpu")
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["architecture"] == "detector"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architecture"] == "detector"


def test_a_detector_setting_is_no_setting_of_the_paper():
    with pytest.raises(ConfigError, match="unknown setting 'levels'"):
        Recipe().with_settings(["levels=3"])
