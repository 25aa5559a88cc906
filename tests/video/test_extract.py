"""From video files to features and segments: through the library and the command line."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("av", reason="needs the extra `video`")

from test_video_decode import FILES
from video_files import flash, moving_bar, times_at, write_sound, write_video

from backtal import BackTALModel, ConfigError, DataError, FeatureSpec, LocalizationConfig, ModelConfig, read_features
from backtal.cli import main
from backtal.video import Extractor, FeatureStream, extract_file, extract_files, load_extractor, videos_in
from backtal.video.windows import windows

BUILDER = """
import time
import torch
from backtal import FeatureSpec
from backtal.video import Extractor

class MeanColour(torch.nn.Module):
    def forward(self, rgb):
        time.sleep({pause})
        return rgb.float().mean(dim=(1, 2, 3)) / 255

def build(name, options):
    return Extractor(FeatureSpec("mean-colour", fps=25, window=16, stride=16, dim=3), MeanColour(), 32, 32)
"""


class MeanColour(torch.nn.Module):
    def forward(self, rgb):
        assert rgb.dtype == torch.uint8
        return rgb.float().mean(dim=(1, 2, 3)) / 255


def mean_colour(fps=25, window=16, stride=16):
    return Extractor(FeatureSpec("mean-colour", fps, window, stride, dim=3), MeanColour(), 32, 32)


def flash_finder() -> BackTALModel:
    """A network made by hand that scores brightness."""
    config = ModelConfig(
        feature_dim=3, labels=("flash",), hidden_dim=2, num_layers=1, kernel_size=1, affinity=False, filter_dim=1,
        standardize=True, topk_ratio=0.01, feature_spec=mean_colour().spec, embedding_dim=1,
    )  # fmt: skip
    model = BackTALModel(config, LocalizationConfig(class_threshold=0.0, feature_thresholds=None)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.foreground_filter.conv_2.bias.fill_(50)
        model.trunk[0].weight[0] = 10
        model.trunk[0].weight[1] = -10
        model.classifier.weight[0, 0, 0] = model.classifier.weight[1, 1, 0] = 1
    model.set_feature_statistics(torch.full((3,), 0.14), torch.full((3,), 0.1))
    return model


def backtal(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 4), (4, 16), (1, 1), (3, 7)])
@pytest.mark.parametrize("count", [1, 5, 16, 40, 41, 47])
def test_windows(count, window, stride):
    """Every window holds the frames it should; frames are compared by their number."""
    extractor = mean_colour(window=window, stride=stride)
    frames = [np.full((32, 32, 3), number, np.uint8) for number in range(count)]
    found = [part[0][:, 0, 0, 0].tolist() for part in windows(frames, extractor)]  # type: ignore[arg-type]
    for index, numbers in enumerate(found):
        expected = [min(index * stride + offset, count - 1) for offset in range(window)]
        assert numbers == expected
    covered = (len(found) - 1) * stride + window
    assert covered + stride > count - stride / 2
    full = max(0, (count - window) // stride + 1)
    assert len(found) in (full, full + 1)
    assert len(found) > 0


@pytest.mark.parametrize("kind", FILES)
def test_a_flash_is_found_within_half_a_stride(tmp_path, kind):
    name, times, options = FILES[kind]
    begin = next(t for t in times if t - times[0] >= 4.3)
    path = write_video(tmp_path / name, times, flash(begin, 0.2), **options)
    shown = [t for t in times if begin <= t + 1e-6 < begin + 0.2]
    after = next(t for t in times if t > shown[-1])
    middle = (begin + after) / 2 - times[0]
    best = max(flash_finder().localize(path, extractor=mean_colour()), key=lambda s: s.score)
    assert (best.start + best.end) / 2 == pytest.approx(middle, abs=0.5 * 16 / 25)


@pytest.mark.parametrize(("fps", "window", "stride"), [(25, 16, 4), (10, 4, 4), (5, 1, 1), (12.5, 2, 8)])
def test_a_flash_is_found_at_other_strides(tmp_path, fps, window, stride):
    path = write_video(tmp_path / "a.mp4", times_at(30, 20), flash(12.0, 0.7))
    features = extract_file(path, mean_colour(fps, window, stride))
    weight = features.features[0] - features.features[0].median()
    middle = float((weight * torch.arange(len(weight))).sum() / weight.sum())
    assert features.axis.seconds(middle + 0.5) == pytest.approx(12.35, abs=0.5 * stride / fps)


def test_one_call_is_extract_then_localize(tmp_path):
    write_video(tmp_path / "a.mp4", times_at(25, 10), flash(3.0))
    report = extract_files([tmp_path / "a.mp4"], mean_colour(), tmp_path / "out", workers=2, batch_size=3)
    assert report.written == [str(tmp_path / "out" / "a.npz")]
    model = flash_finder()
    whole = model.localize(tmp_path / "a.mp4", extractor=mean_colour())
    assert whole == model.localize(tmp_path / "out" / "a.npz") == model.localize(read_features(tmp_path / "out/a.npz"))
    assert whole.duration == pytest.approx(10.0, abs=0.05)


def test_the_command_line(tmp_path):
    (tmp_path / "mine.py").write_text(BUILDER.format(pause=0))
    (tmp_path / "videos").mkdir()
    for index in range(5):
        write_video(tmp_path / "videos" / f"v{index}.mp4", times_at(25, 2 + index), flash(1.0))
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    command = ["extract", tmp_path / "videos", "--extractor", f"{tmp_path}/mine.py:build", "--out", tmp_path / "out"]
    done = backtal(*command, "--batch-size", "4")
    assert done.exit_code == 2
    assert "bad.mp4: cannot be opened as a video" in done.stderr
    report = json.loads(done.stdout)
    assert sorted(Path(path).stem for path in report["written"]) == [f"v{index}" for index in range(5)]
    assert list(report["failed"]) == [str(tmp_path / "videos" / "bad.mp4")]
    (tmp_path / "videos" / "bad.mp4").unlink()
    again = backtal(*command)
    assert again.exit_code == 0
    assert len(json.loads(again.stdout)["kept"]) == 5
    other = backtal(*command, "--stride", "8")
    assert other.exit_code == 2
    assert "stride: 16 here, 8 there" in other.stderr

    flash_finder().save_pretrained(tmp_path / "model")
    localize = ["localize", *sorted((tmp_path / "videos").glob("*.mp4")), "--model", tmp_path / "model"]
    done = backtal(*localize, "--extractor", f"{tmp_path}/mine.py:build", "--out", tmp_path / "p.json")
    assert done.exit_code == 0, done.output
    files = ["localize", *sorted((tmp_path / "out").glob("*.npz")), "--model", tmp_path / "model"]
    assert backtal(*files, "--out", tmp_path / "q.json").exit_code == 0
    assert json.loads((tmp_path / "p.json").read_text()) == json.loads((tmp_path / "q.json").read_text())
    without = backtal(*localize, "--out", tmp_path / "p.json")
    assert without.exit_code == 2
    assert "extractor 'mean-colour' is unknown" in without.stderr


def test_localizing_a_folder_of_videos(tmp_path):
    """What cannot be read is named, the rest is done; several models see the features that one sees."""
    (tmp_path / "mine.py").write_text(BUILDER.format(pause=0))
    (tmp_path / "videos").mkdir()
    for index in range(3):
        write_video(tmp_path / "videos" / f"v{index}.mp4", times_at(25, 4), flash(1.0 + index, 0.7))
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    flash_finder().save_pretrained(tmp_path / "model")
    command = ["localize", tmp_path / "videos", "--extractor", f"{tmp_path}/mine.py:build", "--model"]
    done = backtal(*command, tmp_path / "model", "--out", tmp_path / "p.json")
    assert done.exit_code == 2
    assert re.search(r"^backtal localize: .*bad\.mp4: cannot be opened as a video: not a", done.stderr, re.MULTILINE)
    found = json.loads((tmp_path / "p.json").read_text())["results"]
    assert sorted(found) == ["v0", "v1", "v2"]
    again = backtal(*command, tmp_path / "model", "--model", tmp_path / "model", "--out", tmp_path / "q.json")
    assert again.exit_code == 2
    together = json.loads((tmp_path / "q.json").read_text())["results"]
    for video, segments in found.items():
        assert [s["segment"] for s in together[video]] == [s["segment"] for s in segments]
        assert [s["score"] for s in together[video]] == pytest.approx([s["score"] for s in segments], abs=1e-5)
    none = backtal(*["localize", tmp_path / "videos" / "bad.mp4", *command[2:]], tmp_path / "model", "--out", "x.json")
    assert none.exit_code == 2
    assert not Path("x.json").exists()
    missing = backtal("localize", tmp_path / "x.mp4", "--model", tmp_path / "model", "--out", tmp_path / "p.json")
    assert missing.exit_code == 2
    assert "x.mp4: no such file or folder" in missing.stderr


def test_wrong_devices_and_features_of_another_origin(tmp_path):
    path = write_video(tmp_path / "a.mp4", times_at(25, 1), moving_bar)
    with pytest.raises(ConfigError, match="device gpu cannot be used"):
        extract_files([path], mean_colour(), tmp_path, device="gpu")
    np.savez(tmp_path / "a.npz", features=np.ones((3, 4)), duration=1.0)
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(DataError, match=r"a\.npz: does not say how it was made, and is left alone"):
        extract_files([path], mean_colour(), tmp_path)
    assert (tmp_path / "a.npz").read_bytes() == before
    (tmp_path / "a.npz").write_bytes(before[:100])
    assert extract_files([path], mean_colour(), tmp_path).written == [str(tmp_path / "a.npz")]


def test_bf16_and_batches_do_not_change_the_order(tmp_path):
    paths = [write_video(tmp_path / f"{n}.mp4", times_at(25, 3 + n), moving_bar) for n in range(4)]
    for batch_size, workers in ((1, 1), (5, 3)):
        extract_files(paths, mean_colour(), tmp_path / str(batch_size), batch_size=batch_size, workers=workers)
    extract_files(paths, mean_colour(), tmp_path / "bf16", bf16=True)
    for path in paths:
        one, five, bf16 = (read_features(tmp_path / f / f"{path.stem}.npz") for f in ("1", "5", "bf16"))
        assert torch.equal(one.features, five.features)
        assert one.axis == five.axis
        assert bf16.features == pytest.approx(one.features, abs=0.02)
        assert torch.equal(one.features, extract_file(path, mean_colour()).features)


def test_videos_in_folders_keep_the_names_of_these(tmp_path):
    for name in ("Abuse/x.mp4", "Arson/x.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True)
        write_video(tmp_path / "videos" / name, times_at(25, 3), moving_bar)
    videos = videos_in([tmp_path / "videos"])
    written = sorted(extract_files(videos, mean_colour(), tmp_path / "out").written)
    assert written == [str(tmp_path / "out" / "Abuse" / "x.npz"), str(tmp_path / "out" / "Arson" / "x.npz")]
    assert sorted(extract_files(videos, mean_colour(), tmp_path / "out").kept) == written


def test_two_videos_of_one_name(tmp_path):
    with pytest.raises(DataError, match="rename one"):
        extract_files([tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4"], mean_colour(), tmp_path)


def test_a_failing_network_stops_the_run(tmp_path):
    path = write_video(tmp_path / "a.mp4", times_at(25, 4), moving_bar)

    class Wrong(torch.nn.Module):
        def forward(self, rgb):
            return rgb.float().mean(dim=(1, 2, 3, 4))

    with pytest.raises(ValueError, match=r"returned \(6,\), expected \(6, 3\)"):
        extract_files([path], Extractor(mean_colour().spec, Wrong(), 32, 32), tmp_path)


def test_features_that_are_not_finite_are_a_failure_of_their_video(tmp_path):
    class Unstable(torch.nn.Module):
        def forward(self, rgb):
            mean = rgb.float().mean(dim=(1, 2, 3))
            return torch.where(mean > 128, 1e5, mean)

    extractor = Extractor(mean_colour().spec, Unstable(), 32, 32)
    good = write_video(tmp_path / "good.mp4", times_at(25, 3), flash(100))
    bad = write_video(tmp_path / "bad.mp4", times_at(25, 3), flash(1.0, 1.5))
    report = extract_files([bad, good], extractor, tmp_path)
    assert report.written == [str(tmp_path / "good.npz")]
    assert "beyond float16" in report.failed[str(bad)]
    with pytest.raises(DataError, match=r"bad\.mp4: .*beyond float16"):
        flash_finder().localize(bad, extractor=extractor)


def test_a_stream_can_be_left(tmp_path):
    path = write_video(tmp_path / "a.mp4", times_at(25, 20), moving_bar)
    first = next(iter(FeatureStream(path, mean_colour(), batch_size=2)))
    assert first.shape == (3, 2)


def test_a_checkpoint_without_an_extractor(tmp_path):
    model = BackTALModel(ModelConfig(feature_dim=3, labels=("a",), hidden_dim=2))
    with pytest.raises(ConfigError, match="name the extractor"):
        model.localize(tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match="unknown; there are i3d"):
        load_extractor("nothing")
    spec = FeatureSpec("os:system", 25, 16, 16, dim=3)
    with pytest.raises(ConfigError, match="'os:system' is unknown"):
        BackTALModel(ModelConfig(feature_dim=3, labels=("a",), hidden_dim=2, feature_spec=spec)).localize("a.mp4")


def damaged(whole: bytes, sound: bytes, count: int):
    """`count` damaged files of five kinds, as (name, bytes)."""
    rng = np.random.default_rng(0)
    media = whole.index(b"mdat") + 4
    for index in range(count):
        kind = index % 5
        if kind == 0:
            yield f"truncated{index}", whole[: int(rng.integers(1, len(whole) * 9 // 10))]
        elif kind == 1:
            bits = np.frombuffer(whole, np.uint8).copy()
            places = rng.integers(media, len(bits), max(20, len(bits) // 500))
            bits[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
            yield f"flipped{index}", bits.tobytes()
        elif kind == 2:
            yield f"empty{index}", b""
        elif kind == 3:
            yield f"text{index}", ("not a video at all\n" * int(rng.integers(1, 1000))).encode()
        else:
            yield f"sound{index}", sound


def test_damaged_files_are_named_and_the_good_ones_done(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    options = {"movflags": "faststart"}
    whole = write_video(tmp_path / "w.mp4", times_at(25, 10), moving_bar, options=options, b_frames=2).read_bytes()
    sound = write_sound(tmp_path / "s.mp4").read_bytes()
    bad = dict(damaged(whole, sound, 200))
    for name, content in bad.items():
        (folder / f"{name}.mp4").write_bytes(content)
    good = [f"good{index}" for index in range(20)]
    for index, name in enumerate(good):
        write_video(folder / f"{name}.mp4", times_at(25, 1 + index % 4), moving_bar)
    (tmp_path / "mine.py").write_text(BUILDER.format(pause=0))
    done = backtal("extract", folder, "--extractor", f"{tmp_path}/mine.py:build", "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    report = json.loads(done.stdout)
    assert {Path(path).stem for path in report["failed"]} == set(bad)
    assert {Path(path).stem for path in report["written"]} == set(good)
    for name in bad:
        assert re.search(rf"^backtal extract: .*{name}\.mp4: \S+", done.stderr, re.MULTILINE)
    for name in good:
        read_features(tmp_path / "out" / f"{name}.npz")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """No file is ever corrupt, and what was finished stays as it was."""
    kills = int(os.environ.get("BACKTAL_KILLS", "2"))
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for index in range(8 + 2 * kills):
        write_video(folder / f"v{index}.mp4", times_at(25, 4), moving_bar)
    (tmp_path / "mine.py").write_text(BUILDER.format(pause=0.15))
    command = [processes.command, "extract", folder, "--out", out, "--batch-size", "2"]
    command += ["--extractor", f"{tmp_path}/mine.py:build"]
    rng = np.random.default_rng()
    finished: dict[Path, tuple[int, int]] = {}
    for _ in range(kills):
        with Path(os.devnull).open("w") as nowhere:
            run = processes.start(*command, stdout=nowhere, stderr=nowhere)
        begun = len(finished)
        limit = time.time() + 60
        while run.exitcode is None and len(list(out.glob("*.npz"))) <= begun and time.time() < limit:
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0, 1)))
        run.kill()
        run.join()
        for path, state in finished.items():
            assert (path.stat().st_ino, path.stat().st_mtime_ns) == state
        for path in out.glob("*.npz"):
            read_features(path)
            finished[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    done = processes.run(*command, check=True)
    report = json.loads(done.stdout)
    assert {Path(path) for path in report["kept"]} == set(finished)
    assert len(report["kept"]) + len(report["written"]) == 8 + 2 * kills
    for path, state in finished.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == state
