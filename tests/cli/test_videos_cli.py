"""What one command reads all read, and a file that cannot be read stops none of the others."""

import json
import logging

import pytest
from click.testing import CliRunner

pytest.importorskip("av", reason="needs the extra `video`")
pytest.importorskip("matplotlib")

from video_files import flash, noisy_flash, times_at, write_changing, write_sound, write_video

from backtal import BackTALModel, FeatureSpec, ModelConfig
from backtal.annotate import open_folder
from backtal.annotate.frames import HEIGHTS, Sheets, count_of, read_facts
from backtal.cli import main

BUILDER = """
import torch
from backtal import FeatureSpec
from backtal.video import Extractor

class Whole(torch.nn.Module):
    def forward(self, rgb):
        return rgb.float().mean(dim=(1, 2, 3)) / 255

def build(name, options):
    return Extractor(FeatureSpec("whole", fps=5, window=4, stride=2, dim=3), Whole(), 32)
"""
GOOD = ("avi", "counted", "joined", "late", "plain", "program", "turned")


def backtal(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder of good videos of many kinds among files that are none, `mine.py` with an extractor, and a model."""
    root = tmp_path_factory.mktemp("odd")
    (root / "mine.py").write_text(BUILDER)
    folder = root / "videos"
    folder.mkdir()
    times = times_at(25, 4)
    write_video(folder / "plain.mp4", times, flash(1.0))
    write_video(folder / "late.mkv", [2 + t for t in times], flash(3.0), sound=2.0)
    write_video(folder / "avi.avi", times, flash(1.0), b_frames=3, rate=25)
    write_video(folder / "counted.h264", times, flash(1.0), b_frames=2)
    write_changing(folder / "turned.ts", ((120, 160), (160, 120)), flash=(3.0, 4.0))
    for name, codec, rate in (("joined.ts", "libx264", None), ("program.vob", "mpeg2video", 25)):
        part = write_video(root / name, times, flash(1.0), codec=codec, rate=rate)
        (folder / name).write_bytes(part.read_bytes() * 2)
    broken = write_video(root / "broken.mp4", times, noisy_flash(1.0), options={"movflags": "faststart"}).read_bytes()
    (folder / "broken.mp4").write_bytes(broken[: len(broken) * 6 // 10])
    (folder / "unfinished.mp4").write_bytes((folder / "plain.mp4").read_bytes()[:2000])
    (folder / "page.webm").write_text("<!doctype html><title>404</title>")
    (folder / "empty.mov").touch()
    (folder / "folder.mkv").mkdir()
    (folder / "._plain.mp4").write_bytes(b"\0\5\x16\7 of macOS")
    write_sound(folder / "sound.m4v")
    spec = FeatureSpec("whole", fps=5, window=4, stride=2, dim=3)
    config = ModelConfig(feature_dim=3, labels=("flash",), hidden_dim=4, kernel_size=3, feature_spec=spec)
    BackTALModel(config).save_pretrained(root / "model")
    return folder


BAD = ("broken.mp4", "empty.mov", "folder.mkv", "page.webm", "sound.m4v", "unfinished.mp4")


def test_extract_does_the_good_ones_and_names_the_others(videos, tmp_path, caplog):
    done = backtal("extract", videos, "--extractor", f"{videos.parent}/mine.py:build", "--out", tmp_path)
    assert done.exit_code == 2
    report = json.loads(done.stdout)
    assert sorted(path.split("/")[-1] for path in report["written"]) == [f"{name}.npz" for name in GOOD]
    assert sorted(path.split("/")[-1] for path in report["failed"]) == sorted(BAD)
    for name in BAD:
        assert f"backtal extract: {videos / name}: " in done.stderr
    said = "\n".join(caplog.messages)
    for name, words in (("joined.ts", "at 4.0 s its clock"), ("program.vob", "at 4.0 s"), ("turned.ts", "after 5.")):
        assert f"{name}: {words}" in said


def test_localize_does_the_good_ones_and_names_the_others(videos, tmp_path):
    model, extractor = videos.parent / "model", f"{videos.parent}/mine.py:build"
    done = backtal("localize", videos, "--model", model, "--extractor", extractor, "--out", tmp_path / "found.json")
    assert done.exit_code == 2
    assert sorted(json.loads((tmp_path / "found.json").read_text())["results"]) == list(GOOD)
    for name in BAD:
        assert f"backtal localize: {videos / name}: " in done.stderr


def test_localize_goes_on_where_an_extractor_fails(videos, tmp_path):
    (tmp_path / "picky.py").write_text(
        BUILDER.replace("return rgb", "assert rgb.shape[2:4] != (43, 32), 'no tall pictures'\n        return rgb")
    )
    tall = write_video(tmp_path / "tall.mp4", times_at(25, 4), flash(1.0, size=(128, 96)), size=(128, 96))
    arguments = ["--model", videos.parent / "model", "--extractor", f"{tmp_path}/picky.py:build"]
    done = backtal("localize", tall, videos / "plain.mp4", *arguments, "--out", tmp_path / "found.json")
    assert done.exit_code == 2
    assert f"backtal localize: {tall}: AssertionError: no tall pictures" in done.stderr
    assert list(json.loads((tmp_path / "found.json").read_text())["results"]) == ["plain"]


def test_a_video_may_be_called_anything(videos, tmp_path):
    named = tmp_path / "recording"
    named.write_bytes((videos / "plain.mp4").read_bytes())
    model, extractor = videos.parent / "model", f"{videos.parent}/mine.py:build"
    done = backtal("extract", named, "--extractor", extractor, "--out", tmp_path / "features")
    assert done.exit_code == 0, done.stderr
    done = backtal("localize", named, "--model", model, "--extractor", extractor, "--out", tmp_path / "found.json")
    assert done.exit_code == 0, done.stderr
    assert list(open_folder(named).videos) == ["recording"]


def test_the_click_page_shows_what_extract_takes(videos):
    shown = open_folder(videos).videos
    assert set(GOOD) <= set(shown)
    assert "._plain" not in shown
    for name in (*GOOD, "broken"):
        facts = read_facts(shown[name])
        assert facts.duration == pytest.approx(
            {"turned": 10, "joined": 8, "program": 8, "late": 6}.get(name, 4), abs=0.1
        )
        assert len(Sheets().sheet(shown[name], 0, count_of(facts.duration), HEIGHTS[0])) > 500


@pytest.mark.parametrize("name", ["joined.ts", "turned.ts", "program.vob", "avi.avi", "counted.h264", "broken.mp4"])
def test_pictures_of_every_video_are_drawn(videos, tmp_path, name, caplog):
    caplog.set_level(logging.WARNING)
    extractor = f"{videos.parent}/mine.py:build"
    backtal("extract", videos / name, "--extractor", extractor, "--out", tmp_path, "--keep-damaged")
    features = tmp_path / f"{name.split('.')[0]}.npz"
    arguments = ["--model", videos.parent / "model", "--frames", videos / name, "--out", tmp_path / "a.svg"]
    done = backtal("plot", "timeline", features, *arguments)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "a.svg").read_text().count("<image ") == 10
    assert ("the rest is used" in caplog.text) == (name == "broken.mp4")


def test_a_timeline_of_a_video_says_that_features_are_drawn(videos):
    done = backtal("plot", "timeline", videos / "plain.mp4", "--model", videos.parent / "model", "--out", "a.png")
    assert done.exit_code == 2
    assert "plain.mp4: a video; draw its features (`backtal extract`), with --frames" in done.stderr
