"""The Ray pipeline on a local Ray."""

import json

import pytest
import torch
from click.testing import CliRunner
from test_extract import BUILDER, flash_finder
from video_files import flash, times_at, write_video

pytest.importorskip("ray.data", reason="needs the extra `ray`")

from backtal import read_features
from backtal.cli import main


@pytest.mark.filterwarnings("ignore")
def test_as_without_ray(tmp_path):
    import ray

    (tmp_path / "mine.py").write_text(BUILDER.format(pause=0))
    (tmp_path / "videos").mkdir()
    for index in range(6):
        write_video(tmp_path / "videos" / f"v{index}.mp4", times_at(25, 2 + index), flash(1.0))
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    command = ["extract", tmp_path / "videos", "--extractor", f"{tmp_path}/mine.py:build"]
    command = [str(part) for part in command]
    alone = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "alone")])
    assert alone.exit_code == 2
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        arguments = [*command, "--out", str(tmp_path / "ray"), "--engine", "ray", "--actors", "2"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2, done.output
        report = json.loads(done.stdout[done.stdout.index("{") :])
        assert len(report["written"]) == 6
        assert [path.rpartition("/")[2] for path in report["failed"]] == ["bad.mp4"]
        (tmp_path / "videos" / "bad.mp4").unlink()
        again = CliRunner().invoke(main, arguments)
        assert again.exit_code == 0
        assert len(json.loads(again.stdout)["kept"]) == 6
    finally:
        ray.shutdown()
    for index in range(6):
        one, other = (read_features(tmp_path / f / f"v{index}.npz") for f in ("alone", "ray"))
        assert torch.equal(one.features, other.features)
        assert one.axis == other.axis


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["videos", "features"])
def test_localize_as_without_ray(tmp_path, kind):
    import ray

    (tmp_path / "mine.py").write_text(BUILDER.format(pause=0))
    (tmp_path / "videos").mkdir()
    for index in range(4):
        write_video(tmp_path / "videos" / f"v{index}.mp4", times_at(25, 4 + index), flash(1.0))
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    extractor = ["--extractor", f"{tmp_path}/mine.py:build"]
    if kind == "features":
        CliRunner().invoke(main, ["extract", str(tmp_path / "videos"), *extractor, "--out", str(tmp_path / "features")])
        (tmp_path / "features" / "bad.npz").write_bytes(b"nothing")
    flash_finder().save_pretrained(tmp_path / "model")
    command = ["localize", str(tmp_path / kind), "--model", str(tmp_path / "model")]
    command += extractor if kind == "videos" else []

    def found(name, *engine):
        done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / name), *engine])
        assert done.exit_code == 2, done.output
        assert f"{kind}/bad" in done.output
        return json.loads((tmp_path / name).read_text())["results"]

    alone = found("alone.json")
    assert len(alone) == 4
    assert all(alone.values())
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        assert found("ray.json", "--engine", "ray", "--actors", "2") == alone
    finally:
        ray.shutdown()
