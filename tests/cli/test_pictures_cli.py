"""The commands that show how a model does."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TINY, make_folder, train_options

from backtal.cli import main
from backtal.errors import install

pytest.importorskip("matplotlib")


def backtal(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    base = tmp_path_factory.mktemp("pictures")
    data = make_folder(base / "data")
    settings = train_options(*TINY)
    assert backtal("train", data, "--out", base / "run", *settings).exit_code == 0
    assert backtal("localize", data, "--model", base / "run", "--out", base / "found.json").exit_code == 0
    return base


def test_diagnose(trained, tmp_path):
    arguments = ["diagnose", trained / "found.json", "--data", trained / "data"]
    done = backtal(*arguments, "--figure", tmp_path / "errors.svg")
    assert done.exit_code == 0, done.output
    assert "missed instances, %" in done.stdout
    assert "<svg" in (tmp_path / "errors.svg").read_text()
    values = json.loads(backtal(*arguments, "--json", "--model", trained / "run", "--tiou", "0.3:0.5:0.1").stdout)
    assert values["tiou"] == [0.3, 0.4, 0.5]
    assert values["top_frames"]["frames"] > 0
    refused = backtal(*arguments, "--figure", tmp_path / "errors.xyz")
    assert refused.exit_code == 2
    assert "must name a form of picture" in refused.stderr
    assert backtal(*arguments, "--tiou", "0.5", "--protocol", "hacs").exit_code == 2
    assert "known are activitynet" in backtal(*arguments, "--bins", "x").stderr


def test_plots(trained, tmp_path):
    data, run, found = trained / "data", trained / "run", trained / "found.json"
    shutil.copy(found, tmp_path / "again.json")
    np.savez(tmp_path / "new.npz", features=np.load(data / "features" / "v7.npz")["features"], duration=40.0)
    commands = {
        "timeline.png": ["timeline", data, "--model", run, "--video", "v0", "--clicks", "A1.txt"],
        "new.png": ["timeline", tmp_path / "new.npz", "--model", run],
        "affinity.png": ["affinity", data, "--model", run, "--video", "v7", "--second", 3, "--neighbours", 9],
        "loss.png": ["training", run],
        "map.png": ["curves", found, tmp_path / "again.json", "--data", data],
        "precision.png": ["curves", found, "--data", data, "--tiou", 0.5, "--label", "jump"],
    }
    for name, arguments in commands.items():
        done = backtal("plot", *arguments, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_video_that_is_not_there(trained, tmp_path):
    done = backtal("plot", "timeline", trained / "data", "--model", trained / "run", "--out", "x.png")
    assert "--video is missing" in done.stderr
    done = backtal("plot", "timeline", tmp_path / "nowhere", "--model", trained / "run", "--out", "x.png")
    assert "no such dataset folder" in done.stderr
    new = trained / "data" / "features" / "v7.npz"
    done = backtal("plot", "timeline", new, "--model", trained / "run", "--clicks", "A1.txt", "--out", "x.png")
    assert "need a dataset folder" in done.stderr
    done = backtal("plot", "timeline", trained / "data", "--model", trained / "run", "--video", "v77", "--out", "x.png")
    assert done.exit_code == 2
    assert "no video 'v77' in the dataset; it has v7" in done.stderr


def test_without_matplotlib_the_error_says_what_to_install(trained, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = backtal("plot", "training", trained / "run", "--out", tmp_path / "x.png")
    assert done.exit_code == 1
    assert done.stderr.strip() == f"backtal plot training: pictures need matplotlib: {install('plot')}"


def test_a_timeline_with_pictures_of_the_video(trained, tmp_path):
    pytest.importorskip("av", reason="needs the extra `video`")
    from video_files import moving_bar, times_at, write_video

    film = write_video(tmp_path / "v0.mp4", times_at(10, 15), moving_bar)
    arguments = [
        "timeline",
        trained / "data",
        "--model",
        trained / "run",
        "--video",
        "v0",
        "--out",
        tmp_path / "v0.svg",
    ]
    done = backtal("plot", *arguments, "--frames", film)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "v0.svg").read_text().count("<image ") == 10
    missing = backtal("plot", *arguments, "--frames", tmp_path / "x.mp4")
    assert missing.exit_code == 2
    assert "x.mp4: no such video" in missing.stderr
