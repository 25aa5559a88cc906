"""The examples run, and the features of the `shrec22` checkpoint are the reference features."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
from conftest import shared

from backtal import DataError, read_features

EXAMPLES = Path(__file__).parents[1] / "examples"
WITH_ARGUMENTS = {"shrec22_features.py"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({path.name for path in EXAMPLES.glob("*.py")} - WITH_ARGUMENTS))
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert processes.run(processes.script, EXAMPLES / name, check=True, timeout=300).stdout


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """As plain Python, which its cells are; without outputs, so that a change of it can be read."""
    notebook = json.loads((EXAMPLES / "folder_to_picture.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], len(notebook["cells"])) == (4, 15)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    lines = ["".join(cell["source"]) for cell in cells]
    lines += ["assert report.mean_ap[0] > 0.5, report", "figure.savefig('timeline.png')"]
    monkeypatch.chdir(tmp_path)
    done = processes.run(processes.code, "\n".join(lines), check=True)
    assert "background at" in done.stdout
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def shrec():
    spec = importlib.util.spec_from_file_location("shrec22_features", EXAMPLES / "shrec22_features.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def walk(frames: int, seed: int = 0) -> np.ndarray:
    """A hand that wanders: ``[N, 26, 3]``."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.05, (26, 3)) + np.cumsum(rng.normal(0, 0.01, (frames, 26, 3)), axis=0)


def write(path: Path, joints: np.ndarray, separator: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[i, i / 20, *frame.ravel()] for i, frame in enumerate(joints)]
    path.write_text("\n".join(separator.join(f"{value:.8f}" for value in row) + separator for row in rows) + "\n")


def test_shrec22_features_end_to_end(shrec, tmp_path, monkeypatch, capsys):
    for index, separator in enumerate((";", " ", "; "), 1):
        write(tmp_path / "training" / f"{index}.txt", walk(41 + index, index), separator)
    write(tmp_path / "test" / "1.txt", walk(30, 9), ";")
    monkeypatch.setattr(sys, "argv", ["x", *(str(tmp_path / name) for name in ("training", "test", "out"))])
    shrec.main()
    assert "wrote 4 files" in capsys.readouterr().out
    videos = [read_features(tmp_path / "out" / f"training_00{i}.npz") for i in (1, 2, 3)]
    assert [video.features.shape for video in videos] == [(372, 10), (372, 10), (372, 11)]
    assert videos[1].axis.duration == 43 / 20
    assert videos[1].spec == shrec.SPEC
    every = np.concatenate([video.features for video in videos], axis=1)
    assert np.abs(every.mean(axis=1)).max() < 1e-3
    assert every.std(axis=1).max() < 1.001


def test_shrec22_quantities_by_hand(shrec):
    joints = walk(8)
    values = shrec.quantities(joints)
    np.testing.assert_allclose(values[3, :3], joints[3, 0] - joints[3, 1])
    np.testing.assert_allclose(values[3, 3 * 6 : 3 * 7], joints[3, 7] - joints[3, 1])
    np.testing.assert_allclose(values[3, 75:78], 5 * (joints[3, 1] - joints[2, 1]))
    np.testing.assert_allclose(values[3, 153 + 6], np.linalg.norm(joints[3, 9] - joints[3, 0]))
    np.testing.assert_allclose(values[3, 153 + 6 + 3], np.linalg.norm(joints[3, 9] - joints[3, 14]))
    np.testing.assert_allclose(values[3, 183:], joints[3, 1])
    normal = shrec.normalized(joints)
    np.testing.assert_allclose(normal[:, 1].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.median(np.linalg.norm(normal - normal[:, 1:2], axis=2).mean(axis=1)), 1)
    features = shrec.snippets(joints)
    assert features.shape == (372, 2)
    np.testing.assert_allclose(features[186 + 160, 1], shrec.quantities(normal)[4:, 160].std())


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "0 frames"), ("1;2;3\n", "1.txt:1: expected index, time and 78"), ("a;b\n", "expected numbers")],
)
def test_shrec22_bad_files_are_named(shrec, tmp_path, text, message):
    (tmp_path / "1.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        shrec.read_joints(tmp_path / "1.txt")


def test_shrec22_features_are_the_reference_features(shrec):
    """As far as joints rounded to 0.1 mm can tell: rounding them once more changes as much as there is to explain."""
    raw, reference = shared("data", "shrec22_raw"), shared("data", "shrec22", "features")
    joints = {path.stem: np.load(path)["joints"] / 1e4 for path in sorted(raw.glob("*.npz"))}
    assert len(joints) == 288
    found = {name: shrec.snippets(values) for name, values in joints.items()}
    mean, scale = shrec.statistics([found[name] for name in found if name.startswith("training")])
    rng, off, rounded = np.random.default_rng(0), [], []
    for index, (name, features) in enumerate(found.items()):
        stored = np.load(reference / f"{name}.npz")["features"].astype(np.float64)
        assert stored.shape == features.shape
        off.append(np.abs((features - mean) / scale - stored))
        if index % 6 == 0:
            shaken = joints[name] + rng.uniform(-5e-5, 5e-5, joints[name].shape)
            rounded.append(np.abs(shrec.snippets(shaken) - features) / scale)
    off, rounded = np.concatenate(off, axis=1), np.concatenate(rounded, axis=1)
    assert np.median(off) < 0.004
    moving = scale[:, 0] > 2 * shrec.EPSILON  # all but distances of joints to themselves
    assert moving.sum() == 362
    typical = np.median(off, axis=1)[moving] / (np.median(rounded, axis=1)[moving] + 1e-4)
    assert typical.max() < 1.25
    assert off.max() < 0.3
