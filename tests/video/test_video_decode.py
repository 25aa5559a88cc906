"""Decoding: every frame in its second, whatever the file looks like."""

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")

from video_files import flash, moving_bar, times_at, write_sound, write_video

from backtal import DataError
from backtal.video import Video, is_video, videos_in


def irregular(seconds: float) -> list[float]:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.choice([1 / 60, 1 / 30, 1 / 10, 0.4], 10_000))
    return [0.0, *(round(float(t), 3) for t in times if t < seconds)]


FILES = {
    "constant": ("a.mp4", times_at(25, 8), {}),
    "23.976": ("a.mp4", times_at(24000 / 1001, 8), {}),
    "variable": ("a.mp4", irregular(8), {}),
    "variable in mkv": ("a.mkv", irregular(8), {}),
    "b-frames": ("a.mp4", times_at(30, 8), {"b_frames": 3}),
    "late start": ("a.mp4", [3 + t for t in times_at(25, 8)], {}),
    "late start in ts": ("a.ts", [100 + t for t in times_at(25, 8)], {"b_frames": 2}),
    "slow": ("a.mp4", times_at(2, 8), {}),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("fps", [25, 10, 4])
def test_a_flash_is_seen_in_its_second(tmp_path, kind, fps):
    name, times, options = FILES[kind]
    begin = next(t for t in times if t - times[0] >= 4.3)
    path = write_video(tmp_path / name, times, flash(begin, 0.6), **options)
    video = Video(path, fps)
    bright = [frame.mean() > 128 for frame in video]
    shown = [t for t in times if begin <= t + 1e-6 < begin + 0.6]
    after = next(t for t in times if t > shown[-1])
    truth_start, truth_end = begin - times[0], after - times[0]
    found = np.flatnonzero(bright) / fps
    # Half a frame is what timestamps may be rounded by.
    assert truth_start - 0.021 <= found[0] < truth_start + 1 / fps + 1e-6
    assert truth_end - 1 / fps - 0.021 <= found[-1] < truth_end + 1e-3
    assert video.num_frames == len(times)
    assert 0 < video.duration - (times[-1] - times[0]) < 0.55
    assert len(bright) == round(video.duration * fps)


def test_sound_that_starts_earlier_counts_from_there(tmp_path):
    times = [2 + t for t in times_at(25, 6)]
    path = write_video(tmp_path / "a.mp4", times, flash(5.0), sound=8.0)
    found = np.flatnonzero([frame.mean() > 128 for frame in Video(path, 25)]) / 25
    assert found[0] == pytest.approx(5.0, abs=0.06)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9"])
def test_codecs(tmp_path, codec):
    path = write_video(tmp_path / "a.mkv", times_at(25, 2), flash(1.0), codec=codec)
    assert np.flatnonzero([frame.mean() > 128 for frame in Video(path, 25)])[0] == 25


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_rotation(tmp_path, degrees):
    corner = np.zeros((64, 96, 3), np.uint8)
    corner[:16, :16] = 255
    path = write_video(tmp_path / "a.mp4", times_at(25, 0.4), lambda t: corner, rotation=degrees)
    frame = next(iter(Video(path, 25)))
    assert np.abs(frame.astype(int) - np.rot90(corner, degrees // 90 % 4)).mean() < 4


def test_sizes(tmp_path):
    path = write_video(tmp_path / "a.mp4", times_at(25, 0.4), lambda t: moving_bar(t, (51, 77)), size=(51, 77))
    assert next(iter(Video(path, 25))).shape == (51, 77, 3)
    assert next(iter(Video(path, 25, size=32))).shape == (32, 48, 3)
    assert next(iter(Video(path, 25, size=(40, 30)))).shape == (40, 30, 3)
    tall = write_video(tmp_path / "b.mp4", times_at(25, 0.4), lambda t: moving_bar(t, (96, 64)), size=(96, 64))
    assert next(iter(Video(tall, 25, size=32))).shape == (48, 32, 3)


def test_one_frame(tmp_path):
    path = write_video(tmp_path / "a.mp4", [0.0], moving_bar)
    assert len(list(Video(path, 25))) >= 1


def test_every_frame_as_it_is(tmp_path):
    path = write_video(tmp_path / "a.mp4", irregular(3), moving_bar)
    assert len(list(Video(path))) == len(irregular(3))


def broken_tail(tmp_path):
    whole = write_video(
        tmp_path / "whole.mp4", times_at(25, 10), moving_bar, options={"movflags": "faststart"}
    ).read_bytes()
    path = tmp_path / "broken.mp4"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    return path


def test_a_broken_tail_is_an_error_or_left_out(tmp_path):
    path = broken_tail(tmp_path)
    with pytest.raises(DataError, match=r"broken\.mp4: damaged after \d\.\d s: .*keep_damaged"):
        list(Video(path, 25))
    video = Video(path, 25, keep_damaged=True)
    frames = list(video)
    assert 4 < video.duration < 8
    assert len(frames) == round(video.duration * 25)
    assert "damaged after" in video.damage


def test_not_a_video(tmp_path):
    (tmp_path / "text.mp4").write_text("once upon a time\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_video(tmp_path / "both.mp4", times_at(25, 1), moving_bar, sound=1.0)
    for name, message in (
        ("text.mp4", "cannot be opened as a video: not a video"),
        ("empty.mp4", "cannot be opened as a video: an empty file"),
        ("nothing.mp4", "no such video"),
    ):
        with pytest.raises(DataError, match=f"{name}: {message}"):
            list(Video(tmp_path / name, 25))


def test_only_sound(tmp_path):
    write_sound(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="holds no video, only audio"):
        list(Video(tmp_path / "a.mp4", 25))


def test_videos_in(tmp_path):
    for folder in ("Abuse", ".cache"):
        (tmp_path / folder).mkdir()
    for name in ("b.mp4", "a.MKV", "notes.txt", "Abuse/b.v2.mp4", "Abuse/._b.mp4", ".cache/c.mp4"):
        (tmp_path / name).touch()
    found = {tmp_path / "Abuse" / "b.v2.mp4": "Abuse/b.v2", tmp_path / "a.MKV": "a", tmp_path / "b.mp4": "b"}
    assert videos_in([tmp_path, tmp_path / "Abuse"]) == found
    (tmp_path / "Abuse" / "back").symlink_to(tmp_path)
    assert videos_in([tmp_path]) == found
    assert videos_in([tmp_path / "notes.txt", tmp_path / "b.mp4"]) == {
        tmp_path / "notes.txt": "notes",
        tmp_path / "b.mp4": "b",
    }
    assert not is_video("a.npz")
    for name, video in (("b.heic", False), ("b.M4A", False), ("b", True), ("b.bin", True)):
        (tmp_path / name).write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(600))
        assert is_video(tmp_path / name) == video
    with pytest.raises(DataError, match="no such video or folder"):
        videos_in([tmp_path / "c.mp4"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no video"):
        videos_in([tmp_path / "folder"])
