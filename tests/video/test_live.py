"""Sources that go on: cameras, UDP, playlists, what sends nothing; and where in the stream what comes again lies."""

import io
import logging
import math
import os
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("av", reason="needs the extra `video`")

import av
import numpy as np
from live_streams import Playlist, light_extractor, light_model, send_udp, shown

from backtal import DataError
from backtal.nn import Saving
from backtal.video import Video
from backtal.video.live import Live, Opened

HALF_A_STRIDE = 0.1


def watched(source, **options):
    return list(light_model().watch(source, extractor=light_extractor(), **options))


def finals(events):
    return sorted((event.start, event.end) for event in events if event.kind == "final")


def said(caplog):
    return caplog.at_level(logging.WARNING, "backtal")


def in_place(events, flashes, within=HALF_A_STRIDE):
    return finals(events) == [pytest.approx(flash, abs=within) for flash in flashes]


@pytest.mark.slow
def test_udp_whose_sender_begins_again_and_is_silent_for_a_while(caplog):
    """The second part comes over the same socket, with a clock that begins again; before the third all is given up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    parts = [(0.0, 1.6), (2.6, 4.2), (7.0, 8.8)]
    flashes = [(start + 0.6, start + 1.2) for start, _ in parts]
    send_udp(port, parts, flashes)
    with said(caplog):
        events = watched(f"udp://127.0.0.1:{port}", patience=2.0, give_up=1.0, longest=10.0)
    assert in_place(events, flashes)
    assert caplog.text.count("its clock jumps") == 1
    assert "nothing is known from 1.6 s to 2.6 s" in caplog.text
    assert "nothing came in time" in caplog.text


@pytest.mark.slow
def test_a_playlist_that_is_away_for_a_while_loses_nothing_and_ends_when_it_is_complete(tmp_path, caplog):
    flashes = [(0.2, 0.8), (2.2, 2.8), (4.2, 4.8), (6.2, 6.8)]
    playlist = Playlist(tmp_path, 8.0, flashes)

    def away() -> None:
        time.sleep(max(playlist.began + 4.5 - time.time(), 0))
        playlist.down.set()
        time.sleep(1.5)
        playlist.down.clear()

    threading.Thread(target=away).start()
    with said(caplog):
        events = watched(playlist.address, longest=10.0)
    assert in_place(events, flashes)
    assert "it goes on; nothing is lost" in caplog.text
    assert "complete; the stream ended at 8.0 s" in caplog.text


def test_a_camera_that_comes_again(monkeypatch, caplog):
    """There is none here: FFmpeg's generated pictures are opened as one, in real time, and end after 1.6 s."""
    bright = "geq=lum='if(between(T,0.6,1.2),235,16)':cb=128:cr=128"
    source = f"nullsrc=s=96x64:r=25:d=1.6,{bright},realtime"
    monkeypatch.setattr("backtal.video.sources._DEVICES", {sys.platform: "lavfi"})
    for place in ("sources", "live"):
        monkeypatch.setattr(f"backtal.video.{place}.is_device", lambda name: name == source)
    stop, events = threading.Event(), []
    with said(caplog):
        for event in light_model().watch(source, extractor=light_extractor(), longest=10.0, stop=stop):
            events.append(event)
            if len(finals(events)) == 2:
                stop.set()
    (first, second) = finals(events)[:2]
    assert first == pytest.approx((0.6, 1.2), abs=1.5 * HALF_A_STRIDE)
    assert second[1] - second[0] == pytest.approx(0.6, abs=2 * HALF_A_STRIDE)
    assert second[0] >= 2.2 - HALF_A_STRIDE
    assert "cut off after 1.6 s; it is tried again" in caplog.text


def test_no_camera_is_said_with_those_there_are():
    with pytest.raises(DataError, match=r"^987: no such camera; there (is none|are /dev/video)"):
        watched("987")


def test_sound_without_pictures_is_said(tmp_path):
    with av.open(str(tmp_path / "sound.ts"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.utime(tmp_path / "sound.ts", (0, 0))
    with pytest.raises(DataError, match="holds no video, only audio"):
        watched(tmp_path / "sound.ts")


def raw(path):
    """Pictures as most cameras send them."""
    with av.open(str(path), "w", format="nut") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuyv422"
        for index in range(75):
            frame = av.VideoFrame.from_ndarray(shown([(0.6, 1.2)], index / 25), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuyv422")))
        container.mux(stream.encode())
    os.utime(path, (0, 0))
    return path


def test_clips_of_raw_pictures(tmp_path):
    watched(raw(tmp_path / "raw.nut"), save=Saving(tmp_path / "clips", before=0.2, after=0.2))
    (clip,) = (tmp_path / "clips").iterdir()
    bright = [picture.mean() > 128 for picture in Video(clip, fps=25)]
    assert sum(bright) / 25 == pytest.approx(0.6, abs=0.05)
    assert 4 <= bright.index(True) <= 6


def test_what_a_clip_lacks_is_said(tmp_path, monkeypatch, caplog):
    """There is room for the last second alone."""
    monkeypatch.setattr("backtal.video.clips._MOST_BYTES", 25 * 64 * 96 * 2)
    with said(caplog):
        watched(raw(tmp_path / "raw.nut"), save=Saving(tmp_path / "clips", before=0.2, after=2.0))
    assert "begins 1.6 s late: what was before is not kept any more" in caplog.text


def test_the_container_is_closed_after_its_last_picture_was_used(tmp_path, monkeypatch):
    """A camera's pictures lie in the memory of its driver, which is gone then."""
    import backtal.video.decode as decode

    order, given = [], decode.picture_of
    path = raw(tmp_path / "raw.nut")
    container = av.open(str(path))
    closing = SimpleNamespace(
        duration=None, format=container.format, streams=container.streams, start_time=container.start_time,
        demux=container.demux, close=lambda: order.append("closed"),
    )  # fmt: skip
    monkeypatch.setattr(decode, "picture_of", lambda *args: order.append("picture") or given(*args))
    stream = container.streams.video[0]
    monkeypatch.setattr("backtal.video.live.open_source", lambda *_: (closing, stream, 0.0))
    watched("x.nut")
    assert order.count("closed") == 1
    assert order[-1] == "closed"


@pytest.mark.parametrize("kind", ["pipe", "tcp"])
def test_what_sends_nothing_ends_when_it_is_told(kind, monkeypatch):
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        if kind == "pipe":
            source, (end, _) = "-", os.pipe()
            file = io.FileIO(end)
            monkeypatch.setattr("backtal.video.sources.io.FileIO", lambda *_, **__: file)
        began = time.monotonic()
        assert watched(source, patience=30.0, stop=stop) == []
    assert time.monotonic() - began < 15


def live(source, end, clock, now=None):
    """A source of which seconds up to `end` came, with timestamps from 1.4 s on; by the wall's clock it is `now`."""
    made = Live(source, light_extractor(), None)
    made._origin, made._end, made._epoch = 1.4, end, time.time() - (end if now is None else now)
    container = SimpleNamespace(duration=clock[1] and round(clock[1] * 1e6), start_time=0)
    return made._placed(container, None, clock[0] + 1.4)


@pytest.mark.parametrize(
    ("source", "end", "begins", "lasts", "now", "wanted"),
    [
        ("rtsp://x", 20.0, 25.0, None, 25.0, 25.0),  # its clock went on
        ("rtsp://x", 20.0, 0.0, None, 25.0, None),  # it began again: the wall's clock counts
        ("rtsp://x", 3.0, 0.0, None, 5.0, None),
        ("http://x/a.ts", 20.0, 17.5, None, 22.0, 20.0),  # what was sent again is left out
        ("rtsp://x", 20.0, 90.0, None, 25.0, None),  # its clock leapt
        ("http://x/a.m3u8", 40.0, 22.0, None, 45.0, 40.0),  # a playlist begins some segments back
        ("http://x/a.m3u8", 40.0, 52.0, None, 75.0, 52.0),
        ("http://x/a.m3u8", 400.0, 0.0, None, 410.0, None),  # another playlist
        ("http://x/a.m3u8", 400.0, 0.0, 420.0, 410.0, 400.0),  # it is complete
        ("http://x/a.mp4", 40.0, 0.0, 60.0, 45.0, 40.0),
    ],
)
def test_where_it_goes_on(source, end, begins, lasts, now, wanted):
    opened = live(source, end, (begins, lasts), now)
    assert isinstance(opened, Opened)
    assert opened.begin == (None if wanted is None else pytest.approx(wanted))
    assert opened.start == pytest.approx((begins if wanted is None else wanted) + 1.4)


def test_before_anything_came_there_is_nothing_to_go_on_from():
    made = Live("rtsp://x", light_extractor(), None)
    assert math.isinf(made._epoch)
    opened = made._placed(SimpleNamespace(duration=None), None, 77.0)
    assert (opened.start, opened.begin) == (77.0, 0.0)
