import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TINY

from backtal import ConfigError, DataError
from backtal.cli import main
from backtal.data.datasets import DatasetFolder
from backtal.settings.presets import recipe
from backtal.training.examples import TrainingSet
from backtal.training.experiment import TABLES, Protocol, Run, ablate, baseline_run, measure, measure_all
from backtal.training.train import for_dataset

BASE = recipe("compact").with_settings([*TINY, "epochs=1"])


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs of tables one after the other, to be quick."""
    from backtal.training import experiment

    monkeypatch.setattr(
        experiment, "measure_all", lambda protocol, runs, out, jobs: [measure(protocol, r, out) for r in runs]
    )


@pytest.mark.parametrize("table", TABLES)
def test_every_table_runs(folder, tmp_path, in_this_process, table):
    """All rows of every table."""
    printed = ablate(table, Protocol(folder), BASE, tmp_path, clicks=["A1.txt"], seeds=[0])
    lines = printed.splitlines()
    assert len(lines) == 4 + len(TABLES[table].rows)
    for line, row in zip(lines[4:], TABLES[table].rows, strict=True):
        assert line.startswith(f"| {row.name} |")
        assert str(row.paper or "") in line.split("|")[-2]


@pytest.mark.slow
def test_runs_are_shared_resumed_and_in_order(folder, tmp_path, forked):
    runs = [Run(BASE.with_settings([f"training.seed={seed}"]), "A1.txt") for seed in (0, 1, 0)]
    out = tmp_path / "runs"
    first = measure_all(Protocol(folder), runs, out, jobs=2)
    assert first[0] == first[2] != first[1]
    folders = list(out.iterdir())
    assert len(folders) == 2
    stamps = {path: (path / "result.json").stat().st_mtime_ns for path in folders}
    assert measure_all(Protocol(folder), runs, out, jobs=1) == first
    assert stamps == {path: (path / "result.json").stat().st_mtime_ns for path in folders}


def drop_a_click(root):
    for path in (root / "clicks").iterdir():
        path.write_text("".join(path.read_text(encoding="utf-8-sig").splitlines(keepends=True)[:-1]))


def move_an_action_of_the_test(root):
    path = root / "annotations.json"
    content = json.loads(path.read_text())
    content["database"]["v7"]["annotations"][0]["segment"] = [0, 1]
    path.write_text(json.dumps(content))


def double_features(root):
    path = root / "features" / "v6.npz"
    np.savez(path, features=2 * np.load(path)["features"])


@pytest.mark.parametrize("change", [drop_a_click, move_an_action_of_the_test, double_features])
def test_a_result_of_other_data_is_refused(folder, tmp_path, change):
    chosen, out = Run(BASE, "A1.txt"), tmp_path / "runs"
    first = measure(Protocol(folder), chosen, out)
    other = shutil.copytree(folder, tmp_path / "other")
    assert measure(Protocol(other), chosen, out) == first
    change(other)
    with pytest.raises(ConfigError, match=r"result\.json: was measured on other data, .*choose another --out"):
        measure(Protocol(other), chosen, out)


def test_a_result_of_another_protocol_or_of_unknown_data_is_refused(folder, tmp_path):
    chosen = Run(BASE, "A1.txt")
    measure(Protocol(folder), chosen, tmp_path)
    for protocol in (
        Protocol(folder, "test", "training"),
        Protocol(folder, tiou=(0.5,)),
        Protocol(folder, f1_score=0.1),
    ):
        with pytest.raises(ConfigError, match="other data, subsets or thresholds"):
            measure(protocol, chosen, tmp_path)
    (path,) = tmp_path.glob("*/result.json")
    content = json.loads(path.read_text())
    del content["data"]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"result\.json: names no data; choose another --out"):
        measure(Protocol(folder), chosen, tmp_path)


def test_what_a_run_sees(folder, tmp_path):
    labels = measure(Protocol(folder), baseline_run(BASE, 3), tmp_path)
    both = measure(Protocol(folder), Run(BASE, "A1.txt", action=True), tmp_path)
    assert (labels["clicks"], both["clicks"], both["action_clicks"]) == (None, "A1.txt", True)
    settings = json.loads((tmp_path / baseline_run(BASE, 3).name() / "recipe.json").read_text())
    assert settings["loss"]["frame"] == 0
    assert not settings["model"]["affinity"]


def kernels(out):
    settings = [json.loads(path.read_text()) for path in out.glob("*/recipe.json")]
    return {s["model"]["kernel_size"] for s in settings}


def test_all_rows_have_one_kernel_but_those_that_set_one(folder, tmp_path, in_this_process):
    base = recipe("compact").with_settings([*TINY, "epochs=1", "kernel_size=3", "training.kernel_per_gap=0.6"])
    data = DatasetFolder(folder)
    clicked = TrainingSet(data, "training", data.clicks(data.click_files()), base.model)
    wanted = for_dataset(base, clicked).model.kernel_size
    assert wanted not in (3, 9)
    ablate("6", Protocol(folder), base, tmp_path / "6", clicks=["A1.txt"], seeds=[0])
    assert kernels(tmp_path / "6") == {wanted}
    ablate("9", Protocol(folder), base, tmp_path / "9", clicks=["A1.txt"], seeds=[0])
    assert kernels(tmp_path / "9") == {3, 5, 7, 9}


def test_subsets_and_thresholds_of_a_table(folder, tmp_path, in_this_process):
    path = folder / "annotations.json"
    path.write_text(path.read_text().replace('"training"', '"val"'))
    arguments = ["ablate", "layout", "--data", str(folder), "--out", str(tmp_path / "runs"), "--seeds", "1"]
    arguments += [part for setting in (*TINY, "epochs=1") for part in ("--set", setting)]
    for options, message in (
        ([], "no video in subset 'training'; the dataset has test, val"),
        (["--training-subset", "val", "--subset", "new"], "no video in subset 'new'"),
        (["--training-subset", "val", "--tiou", "0.1:0.4:0.1"], "tIoU 0.5, which is not among the thresholds"),
    ):
        done = CliRunner().invoke(main, [*arguments, *options])
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr
        assert not (tmp_path / "runs").exists()
    done = CliRunner().invoke(main, [*arguments, "--training-subset", "val", "--tiou", "0.3:0.6:0.1"])
    assert done.exit_code == 0, done.output
    assert "| mean mAP 0.3:0.6 |" in done.stdout


def test_a_dataset_without_clicks(folder, tmp_path):
    (folder / "clicks" / "A1.txt").unlink()
    with pytest.raises(DataError, match="clicks: no click file"):
        ablate("6", Protocol(folder), BASE, tmp_path, clicks=[])


def test_unknown_table(tmp_path, folder):
    with pytest.raises(ConfigError, match="no table '5'; there are 6, 7, 8"):
        ablate("5", Protocol(folder), BASE, tmp_path, clicks=["A1.txt"])
