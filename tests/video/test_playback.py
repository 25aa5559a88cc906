"""One clock for a whole file: recordings that were joined, odd timestamps, long stills, ends that are missing."""

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")

import av
from video_files import flash, noisy_flash, times_at, write_changing, write_video

from backtal import DataError
from backtal.annotate.frames import Reader, count_of, read_facts
from backtal.video import Video
from backtal.video.playback import survey

CODECS = {"mpg": "mpeg2video", "vob": "mpeg2video", "webm": "libvpx", "ogv": "libvpx", "mjpeg": "mjpeg"}
CODECS |= dict.fromkeys(("avi", "wmv"), "mpeg4")


def part(path, begin, *, seconds=4.0, start=0.0, picture=flash, b_frames=2):
    """`seconds` of video at 25 a second whose clock begins at `start`, white for 0.4 s from `begin` on."""
    times = [start + t for t in times_at(25, seconds)]
    codec = CODECS.get(path.suffix[1:], "libx264")
    rate = 25 if codec in ("mpeg2video", "mjpeg", "mpeg4") else None
    return write_video(path, times, picture(start + begin, 0.4), codec=codec, b_frames=b_frames, rate=rate)


def joined(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def white(path, fps=25.0, **options):
    """The seconds at which a white stretch begins, and the video, played to its end."""
    video = Video(path, fps, **options)
    bright = np.array([picture.mean() > 128 for picture in video])
    return (np.flatnonzero(bright & ~np.r_[False, bright[:-1]]) / fps).tolist(), video


def page_is_right(path, height=32):
    """The click page shows at every moment, asked for in any order, what extraction sees."""
    expected = list(Video(path, 2, size=(height, 48), keep_damaged=True))
    times = [index / 2 for index in range(count_of(read_facts(path).duration))]
    assert abs(len(times) - len(expected)) <= 1
    reader = Reader(path)
    for index in np.random.default_rng(0).permutation(min(len(times), len(expected)))[:20]:
        shown = reader.pictures([times[index]], height)[0]
        assert abs(float(shown.mean()) - float(expected[index].mean())) < 3, f"at {times[index]} s"
    reader.close()


@pytest.mark.parametrize("ending", ["mpg", "vob", "ts", "mts", "mkv", "webm", "avi", "mjpeg"])
def test_of_recordings_that_were_joined_nothing_is_lost(tmp_path, ending):
    a, b = (part(tmp_path / f"{begin}.{ending}", begin) for begin in (1.0, 2.0))
    path = joined(tmp_path / f"both.{ending}", a, b)
    found, video = white(path)
    assert found == pytest.approx([1.0, 6.0], abs=0.05)
    assert (video.num_frames, video.damage) == (200, "")
    assert video.duration == pytest.approx(8.0, abs=0.1)
    if ending not in ("avi", "mjpeg"):  # these have no clock that could start again
        assert [note.split(" its")[0] for note in video.notes] == ["at 4.0 s"]
    page_is_right(path)


def test_what_was_noted_is_logged(tmp_path, caplog):
    a = part(tmp_path / "a.ts", 1.0)
    path = joined(tmp_path / "both.ts", a, a)
    white(path)
    assert caplog.messages == [f"{path}: at 4.0 s its clock starts again (recordings that were joined?); time goes on"]


@pytest.mark.parametrize(
    "starts",
    [(3600.0, 0.0), (0.0, 3600.0), (95440.0, 95440.0, 95440.0), (0.0, 95442.0), (5.0, 9.0), (9.0, 5.0)],
    ids=[
        "back an hour",
        "an hour ahead",
        "wraps each time",
        "ahead to the wrap",
        "goes on",
        "back to before the first",
    ],
)
@pytest.mark.parametrize("ending", ["ts", "vob"])
def test_clocks_of_joined_recordings(tmp_path, ending, starts):
    parts = [part(tmp_path / f"{i}.{ending}", 1.0, start=start) for i, start in enumerate(starts)]
    path = joined(tmp_path / f"all.{ending}", *parts)
    found, video = white(path)
    assert found == pytest.approx([1.0 + 4 * i for i in range(len(starts))], abs=0.1)
    assert (video.num_frames, video.damage) == (100 * len(starts), "")
    page_is_right(path)


@pytest.mark.parametrize(("ending", "read"), [("mp4", 1), ("mov", 1), ("flv", 1), ("mkv", 2), ("webm", 2)])
def test_a_recording_behind_that_ffmpeg_does_not_read_is_an_error(tmp_path, ending, read):
    a = part(tmp_path / f"a.{ending}", 1.0)
    path = joined(tmp_path / f"all.{ending}", *[a] * (read + 1))
    with pytest.raises(DataError, match=r"all\.\w+: damaged after \d\.\d s: another recording was put behind this one"):
        white(path)
    found, video = white(path, keep_damaged=True)
    assert found == pytest.approx([1.0 + 4 * index for index in range(read)], abs=0.05)
    assert "another recording" in video.damage
    page_is_right(path)


def test_fragments_of_two_recordings(tmp_path):
    options = {"movflags": "empty_moov+frag_keyframe+default_base_moof"}
    times = times_at(25, 4)
    a = write_video(tmp_path / "a.mp4", times, flash(1.0, 0.4), options=options)
    assert white(a)[0] == pytest.approx([1.0], abs=0.05)
    with pytest.raises(DataError, match="another recording was put behind this one"):
        white(joined(tmp_path / "both.mp4", a, a))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_avi_counts_frames(tmp_path, codec, b_frames):
    times = times_at(25, 8)
    path = write_video(tmp_path / "a.avi", times, flash(3.0, 1.0), codec=codec, b_frames=b_frames, rate=25)
    found, video = white(path)
    assert found == [3.0]
    assert (video.num_frames, video.duration) == (200, pytest.approx(8.0))
    page_is_right(path)


def test_avi_with_frames_left_out(tmp_path):
    """What records to AVI leaves out frames that it has no time for, and players show the one before for longer."""
    times = [t for t in times_at(25, 8) if not 2.0 <= t < 2.6]
    path = write_video(tmp_path / "a.avi", times, flash(5.0, 1.0), b_frames=3, rate=25)
    found, video = white(path)
    assert found == pytest.approx([5.0], abs=0.09)
    assert (video.num_frames, video.duration) == (len(times), pytest.approx(8.0))


@pytest.mark.parametrize("ending", ["mkv", "mp4", "webm"])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_one_picture_may_stand_for_long(tmp_path, ending, b_frames):
    times = [*times_at(5, 10), *(710 + t for t in times_at(5, 10))]
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    path = write_video(tmp_path / f"a.{ending}", times, flash(711.0, 2.0), b_frames=b_frames, codec=codec)
    found, video = white(path, fps=5)
    assert found == pytest.approx([711.0], abs=0.05)
    assert (video.num_frames, video.damage) == (100, "")
    assert video.duration == pytest.approx(720.0, abs=0.3)
    assert video.notes == ["one picture stands from 9.8 s to 710.0 s"]
    page_is_right(path)


def test_the_last_picture_may_stand_for_long(tmp_path):
    path = write_video(tmp_path / "a.mp4", [0.0, 800.0, 1600.0], flash(800.0, 900.0))
    found, video = white(path, fps=1)
    assert found == [800.0]
    assert video.duration >= 1600.0


def stamped(path, stamps, form="matroska"):
    """A video whose packets get the given timestamps, in seconds, whatever they say."""
    times = times_at(25, len(stamps) / 25)
    source = write_video(path.with_suffix(".mp4"), times, flash(1.0, 0.4))
    with av.open(str(source)) as inside, av.open(str(path), "w", format=form) as out:
        stream = out.add_stream_from_template(inside.streams.video[0])
        packets = [packet for packet in inside.demux(video=0) if packet.size]
        for packet, stamp in zip(packets, stamps, strict=True):
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = round(stamp * 1000)
            out.mux(packet)
    return path


def test_a_jump_that_the_file_does_not_bear_out_is_damage_and_loses_no_frame(tmp_path):
    times = times_at(25, 4)
    path = stamped(tmp_path / "a.mkv", [*times[:50], *(90_000 + t for t in times[50:])])
    with pytest.raises(DataError, match=r"damaged after \d\.\d s: timestamps jump from 2\.0 s to 90002\.0 s"):
        white(path)
    found, video = white(path, keep_damaged=True)
    assert found == pytest.approx([1.0], abs=0.05)
    assert video.num_frames == 100
    assert 4 <= video.duration < 10


def test_timestamps_that_do_not_rise_lose_no_frame(tmp_path):
    times = times_at(25, 4)
    path = stamped(tmp_path / "a.mkv", [times[i - i % 3] for i in range(100)])
    found, video = white(path)
    assert found == pytest.approx([1.0], abs=0.09)
    assert video.num_frames == 100


def test_no_timestamps_at_all(tmp_path):
    path = part(tmp_path / "a.h264", 1.0)
    found, video = white(path)
    assert found == pytest.approx([1.0], abs=0.05)
    assert (video.num_frames, video.duration) == (100, pytest.approx(4.0))
    page_is_right(path)


@pytest.mark.parametrize("start", [-1.5, 3.0, 500.0])
@pytest.mark.parametrize("ending", ["mkv", "ts", "mp4"])
def test_a_clock_that_begins_elsewhere(tmp_path, ending, start):
    if ending == "mp4" and start < 0:
        pytest.skip("cut off by an edit list, as players do; see the next test")
    found, video = white(part(tmp_path / f"a.{ending}", 1.0, start=start))
    assert found == pytest.approx([1.0], abs=0.05)
    assert video.num_frames == 100


def test_an_edit_list_is_followed(tmp_path):
    """A cut without encoding anew keeps frames from the key frame before, and tells players not to show them."""
    whole = part(tmp_path / "whole.mp4", 3.0, seconds=6.0)
    path = tmp_path / "cut.mp4"
    with av.open(str(whole)) as inside, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = out.add_stream_from_template(inside.streams.video[0])
        for packet in inside.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts -= round(2.0 / packet.time_base)
                packet.dts -= round(2.0 / packet.time_base)
                out.mux(packet)
    found, video = white(path)
    assert found == pytest.approx([1.0], abs=0.05)
    assert video.duration == pytest.approx(4.0, abs=0.1)
    page_is_right(path)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share) // 188 * 188 + 50])
    return path


@pytest.mark.parametrize("ending", ["mkv", "ts", "webm", "flv", "avi", "wmv", "ogv"])
def test_an_end_that_is_missing_is_an_error(tmp_path, ending):
    path = cut(part(tmp_path / f"a.{ending}", 1.0, seconds=8.0, picture=noisy_flash), 0.6)
    with pytest.raises(DataError, match="damaged after"):
        white(path)
    found, video = white(path, keep_damaged=True)
    assert found == pytest.approx([1.0], abs=0.05)
    assert 1.3 < video.duration < 6.5


def test_a_live_recording_that_was_cut_off_is_an_error(tmp_path):
    path = tmp_path / "live.mkv"
    with (
        av.open(str(part(tmp_path / "a.mkv", 1.0))) as inside,
        av.open(str(path), "w", format="matroska", options={"live": "1"}) as out,
    ):
        stream = out.add_stream_from_template(inside.streams.video[0])
        for packet in inside.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    found, video = white(path)
    assert found == pytest.approx([1.0], abs=0.05)
    assert video.num_frames == 100
    page_is_right(path)
    with pytest.raises(DataError, match="ends in the middle of something"):
        white(cut(path, 0.6))


def test_lost_packets_are_damage_or_said(tmp_path):
    content = part(tmp_path / "a.ts", 1.0, picture=noisy_flash).read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    pictures = [i for i, packet in enumerate(packets) if int.from_bytes(packet[1:3], "big") & 0x1FFF == 0x100]
    path = tmp_path / "lost.ts"
    errors = 0
    for gone in pictures[20:-20:61]:
        path.write_bytes(b"".join(packets[:gone] + packets[gone + 1 :]))
        try:
            assert white(path, fps=1)[1].notes, f"packet {gone} of {len(packets)}"
        except DataError:
            errors += 1
    assert errors > len(pictures[20:-20:61]) / 2


def test_parts_of_one_stream_are_joined_without_damage(tmp_path):
    """What downloads a stream writes one part behind the other; their counters of packets start again each time."""
    parts = [part(tmp_path / f"{i}.ts", 1.0, seconds=2.0, start=10 + 2.0 * i) for i in range(3)]
    found, video = white(joined(tmp_path / "all.ts", *parts))
    assert found == pytest.approx([1.0, 3.0, 5.0], abs=0.05)
    assert (video.num_frames, video.damage) == (150, "")


@pytest.mark.parametrize("sizes", [((120, 160), (160, 120)), ((120, 160), (60, 80)), ((120, 160), (90, 160))])
def test_pictures_that_change_their_size_are_fitted_into_the_first_size(tmp_path, sizes):
    path = write_changing(tmp_path / "a.ts", sizes, flash=(3.0, 4.0))
    for size, expected in ((None, (120, 160)), (60, (60, 80)), ((50, 70), (50, 70))):
        video = Video(path, 5, size=size)
        pictures = list(video)
        assert {picture.shape for picture in pictures} == {(*expected, 3)}
        assert [index / 5 for index, p in enumerate(pictures) if p.mean() > 90] == [3.0, 3.2, 3.4, 3.6, 3.8]
        (height, width), (tall, wide) = sizes[1], sizes[0]
        assert any(f"change from {wide} x {tall} to {width} x {height}" in note for note in video.notes)
    after = pictures[-1]
    share = min(120 / sizes[1][0], 160 / sizes[1][1]) * sizes[1][1] / 160
    assert (after.mean(axis=(0, 2)) > 8).mean() == pytest.approx(share, abs=0.06)  # the rest is black
    page_is_right(path)


def test_a_file_that_says_how_long_it_is_is_not_gone_through(tmp_path):
    assert survey(part(tmp_path / "a.mp4", 1.0)) is None
    assert survey(part(tmp_path / "a.mkv", 1.0)) is None
    found = survey(part(tmp_path / "a.ts", 1.0))
    assert found is not None
    assert (found.jumps, found.places) == (False, [])
