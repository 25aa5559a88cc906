"""What a file is that is called like a video, and what its layout tells of its end."""

import av
import numpy as np
import pytest
from PIL import Image
from video_files import flash, times_at, write_sound, write_video

from backtal import DataError
from backtal.annotate.frames import read_facts
from backtal.video import Video, opens_as_video
from backtal.video.containers import announced_end, layout_of, open_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "a.mp4", times_at(25, 4), flash(1.0)).read_bytes()


def message(path) -> str:
    """What extraction says, which is what the click page says."""
    with pytest.raises(DataError) as caught:
        list(Video(path, 5))
    with pytest.raises(DataError) as on_page:
        read_facts(path)
    assert str(on_page.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


NOT_VIDEOS = {
    "page.mp4": (b"<!DOCTYPE html><html><title>404", "a web page, so the download went wrong"),
    "page2.mp4": (b"\n <HTML>sign in", "a web page"),
    "error.mp4": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML file"),
    "pointer.mp4": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer of Git LFS"),
    "zeros.mp4": (bytes(100_000), "its beginning is zeros"),
    "empty.mkv": (b"", "an empty file"),
    "text.mp4": (b"once upon a time\n" * 100, "not a video, or its beginning is damaged"),
    "matroska.mkv": (b"\x1a\x45\xdf\xa3\x01\x00\x00", "it is cut off right after its beginning"),
    "riff.avi": (b"RIFF\x00\x10\x00\x00AVI ", "it is cut off right after its beginning"),
}


@pytest.mark.parametrize("name", NOT_VIDEOS)
def test_what_is_no_video_is_recognised(tmp_path, name):
    content, expected = NOT_VIDEOS[name]
    (tmp_path / name).write_bytes(content)
    assert f"{name}: cannot be opened as a video: " in message(tmp_path / name)
    assert expected in message(tmp_path / name)


def test_an_mp4_that_broke_off_before_its_index_is_recognised(tmp_path, clip):
    path = tmp_path / "a.mp4"
    index = clip.rindex(b"moov")
    for size in (64, len(clip) // 2, index - 4, index + 3):
        path.write_bytes(clip[:size])
        assert "the file is not complete: its end, with the index (moov), is missing" in message(path)
    for size in (index + 4, index + 100, index + 300):
        path.write_bytes(clip[:size])
        assert "the file is not complete: it is cut off within its index (moov)" in message(path)


def test_an_index_that_was_reserved_and_never_written_is_missing(tmp_path, clip):
    path = tmp_path / "a.mp4"
    index = clip.rindex(b"moov") - 4
    path.write_bytes(clip[:index] + bytes(len(clip) - index))
    assert "its end, with the index (moov), is missing" in message(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
def test_a_picture_is_no_video(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(path)
    assert "a picture, not a video; many become one with: ffmpeg" in message(path)
    path.rename(tmp_path / "a.mp4")
    assert "a picture, not a video" in message(tmp_path / "a.mp4")


def test_pictures_that_move_are_a_video(tmp_path):
    frames = [Image.fromarray(np.full((64, 96, 3), value, np.uint8)) for value in (0, 120, 250)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=500)
    video = Video(tmp_path / "a.gif", 2)
    assert [round(float(picture.mean()), -1) for picture in video] == [0, 120, 250]
    assert read_facts(tmp_path / "a.gif").duration == pytest.approx(1.5)


def test_sound_with_a_cover_is_no_video_and_a_cover_does_not_hide_one(tmp_path, clip):
    write_sound(tmp_path / "sound.m4a")
    assert "holds no video, only audio" in message(tmp_path / "sound.m4a")
    (tmp_path / "a.mp4").write_bytes(clip)
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "p.png")
    for name, parts in (("cover.m4a", ("p.png", "sound.m4a")), ("both.mp4", ("p.png", "a.mp4"))):
        with av.open(str(tmp_path / name), "w", format="mp4") as out:
            sources = [av.open(str(tmp_path / part)) for part in parts]
            streams = [out.add_stream_from_template(source.streams[0]) for source in sources]
            streams[0].disposition = av.stream.Disposition.attached_pic
            for source, stream in zip(sources, streams, strict=True):
                for packet in source.demux(source.streams[0]):
                    if packet.size:
                        packet.stream = stream
                        out.mux(packet)
    assert "holds no video, only a cover picture and audio" in message(tmp_path / "cover.m4a")
    video = Video(tmp_path / "both.mp4", 5)
    assert len(list(video)) == 20
    assert video.num_frames == 100


def test_a_folder_and_what_may_not_be_read(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    assert "cannot be opened as a video: a folder" in message(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="no such video"):
        open_video(tmp_path / "b.mp4")


def test_a_wrong_tag_of_the_duration_is_not_believed(tmp_path):
    path = write_video(tmp_path / "a.mkv", times_at(25, 2), flash(1.0))
    content = path.read_bytes()
    place = content.rindex(b"DURATION") + 11
    assert content[place : place + 3] == b"00:"
    path.write_bytes(content[:place] + b"two sec" + content[place + 7 :])
    container, stream, start = open_video(path)
    assert announced_end(container, stream, start) == pytest.approx(2.0, abs=0.05)
    container.close()
    assert len(list(Video(path, 5))) == 10


def test_where_the_last_of_several_recordings_begins(tmp_path, clip):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip)
    assert layout_of(path, "mov,mp4") == (None, False)
    path.write_bytes(clip * 3)
    last, cut = layout_of(path, "mov,mp4")
    assert (last is not None and last > 2 * len(clip), cut) == (True, False)
    for name, form in (("a.mkv", "matroska,webm"), ("a.flv", "flv"), ("a.avi", "avi")):
        whole = write_video(tmp_path / name, times_at(25, 2), flash(1.0), rate=25).read_bytes()
        assert layout_of(tmp_path / name, form) == (None, False)
        (tmp_path / name).write_bytes(whole * 2)
        assert layout_of(tmp_path / name, form) == (len(whole), False)


@pytest.mark.parametrize(
    "content", [b"", b"\x1a", b"\x1a\x45\xdf\xa3", b"\x00" * 20, b"\xff" * 20, b"RIFF", b"G" * 500]
)
@pytest.mark.parametrize("form", ["mov,mp4", "matroska,webm", "avi", "mpegts", "mpeg"])
def test_any_bytes_have_a_layout(tmp_path, form, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    assert layout_of(path, form).last is None


def test_whether_a_file_that_is_named_is_a_video(tmp_path, clip):
    for name in ("a.mp4", "clip", "clip.bin"):
        (tmp_path / name).write_bytes(clip)
        assert opens_as_video(tmp_path / name)
    np.savez(tmp_path / "features", features=np.zeros((3, 4)))
    (tmp_path / "notes").write_text("no video\n")
    for name in ("features.npz", "notes", "nothing", ".", "clip.npz"):
        assert not opens_as_video(tmp_path / name)
