"""Files, files that grow, pipes, and addresses that are cut off: nothing is lost but what was in the gaps."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("av", reason="needs the extra `video`")

import av
import live_streams
import processes
from live_streams import MINE, Server, feed, light_extractor, light_model, shown
from video_files import times_at, write_video

from backtal import DataError
from backtal.cli import main
from backtal.nn import Saving
from backtal.video import Video
from backtal.video.clips import Ring

FLASHES = [(0.6, 1.2), (3.0, 3.6), (5.2, 5.8), (7.2, 7.8)]
PARTS = [(0.0, 1.8), (2.4, 4.2), (4.6, 6.2), (6.8, 8.4)]
HALF_A_STRIDE = 0.1


def watched(source, **options):
    return list(light_model().watch(source, extractor=light_extractor(), **options))


def finals(events):
    return sorted((event.start, event.end, event.score) for event in events if event.kind == "final")


def assert_in_place(events, flashes):
    found = finals(events)
    assert len(found) == len(flashes)
    for (start, end, _), flash in zip(found, flashes, strict=True):
        assert (start, end) == pytest.approx(flash, abs=HALF_A_STRIDE)


@pytest.fixture
def film(tmp_path) -> Path:
    """Complete for long; a key frame every fifth of a second."""
    path = tmp_path / "film.mkv"
    with path.open("wb") as file:
        feed(file.write, FLASHES[:3], 0.0, 6.0, began=None, form="matroska")
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
def test_a_file_gives_what_localize_gives(tmp_path, ending):
    path = write_video(tmp_path / f"a.{ending}", times_at(24, 6.4), lambda time: shown(FLASHES[:3], time), b_frames=2)
    os.utime(path, (0, 0))
    events = watched(path)
    whole = light_model().localize(path, extractor=light_extractor()).above(0.45)
    assert finals(events) == sorted((s.start, s.end, pytest.approx(s.score, abs=1e-5)) for s in whole)
    assert len(whole) == 3


@pytest.mark.parametrize(("http", "restarts"), [(False, False), (True, True)])
def test_an_address_that_is_cut_three_times_loses_only_the_gaps(http, restarts, caplog):
    server = Server(PARTS, FLASHES, http=http, restarts=restarts)
    with caplog.at_level(logging.WARNING, "backtal"):
        events = watched(server.address, patience=3.0, give_up=1.0, longest=10.0)
    assert_in_place(events, FLASHES)
    assert caplog.text.count("it goes on; nothing is known from") == 3
    assert "nothing is known from 1.8 s to 2.4 s" in caplog.text


def test_a_file_that_grows_is_read_until_it_is_complete(tmp_path):
    path = tmp_path / "growing.ts"

    def write():
        with path.open("wb", buffering=0) as file:
            feed(file.write, FLASHES[:2], 0.0, 4.2, began=time.time())

    writer = threading.Thread(target=write)
    writer.start()
    while not path.exists() or path.stat().st_size < 1000:
        time.sleep(0.05)
    growing, events = [], []
    for event in light_model().watch(path, extractor=light_extractor(), patience=1.5, longest=5.0):
        growing.append(writer.is_alive())
        events.append(event)
    writer.join()
    assert_in_place(events, FLASHES[:2])
    assert growing[0]  # not only when it was complete
    whole = light_model().localize(path, extractor=light_extractor()).above(0.45)
    found = finals(events)
    assert found == [pytest.approx(row) for row in sorted((s.start, s.end, s.score) for s in whole)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a command of its own needs: a model, an extractor."""
    folder = tmp_path_factory.mktemp("run")
    light_model().save_pretrained(folder / "RUN")
    (folder / "mine.py").write_text(MINE)
    return folder


def command(run, *arguments):
    return ["watch", *map(str, arguments), "--model", str(run / "RUN"), "--extractor", f"{run / 'mine.py'}:build"]


def finished(run, *arguments, stdin=None):
    """A command of its own that ends well."""
    return processes.run(processes.command, *command(run, *arguments), stdin=stdin, check=True)


@contextlib.contextmanager
def feeding(*arguments):
    """The reading end of a pipe into which a process writes a stream in real time."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream:
        with os.fdopen(write, "wb") as out:
            feeder = processes.start(processes.script, live_streams.__file__, *arguments, stdout=out)
        yield stream
    feeder.kill()
    feeder.join()


@pytest.mark.slow
def test_a_pipe_is_read_while_it_is_written(run):
    with feeding("matroska", "5") as stream:
        done = finished(run, "-", stdin=stream)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = [(event["start"], event["end"]) for event in events if event["kind"] == "final"]
    assert found == [pytest.approx((1.0, 2.0), abs=HALF_A_STRIDE), pytest.approx((3.4, 4.4), abs=HALF_A_STRIDE)]
    assert set(events[0]) == {"kind", "number", "label", "start", "end", "score", "stream", "clock"}
    assert "a segment is final at most" in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_it_with_all_that_is_open(run):
    read, write = os.pipe()
    with feeding("mpegts", "60") as stream, os.fdopen(read) as printed:
        with os.fdopen(write, "w") as out:
            watch = processes.start(processes.command, *command(run, "-"), stdin=stream, stdout=out)
        first = json.loads(printed.readline())
        assert (first["kind"], first["end"]) == ("open", None)
        os.kill(watch.pid or 0, signal.SIGINT)
        rest = [json.loads(line) for line in printed]
        watch.join(20)
        assert watch.exitcode == 0
    assert rest[-1]["kind"] == "final"
    assert rest[-1]["number"] == first["number"]


def test_clips_hold_the_segment_and_what_is_around_it(film, tmp_path):
    watched(film, save=Saving(tmp_path / "clips", before=0.5, after=0.5))
    clips = sorted((tmp_path / "clips").iterdir())
    assert [clip.name.partition("-")[2] for clip in clips] == ["flash-1.mkv", "flash-2.mkv", "flash-3.mkv"]
    for clip in clips:
        video = Video(clip, fps=25)
        bright = [picture.mean() > 128 for picture in video]
        assert 0.5 <= sum(bright) / 25 <= 0.7
        assert not bright[-1]


def test_a_ring_keeps_the_last_seconds(film, tmp_path):
    ring, keys = Ring(1.0), []
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.size:
                packet.is_keyframe = len(keys) % 5 == 0
                keys.append(packet.is_keyframe)
                ring.take(packet, float(packet.pts * stream.time_base))
        kept = [one for group in ring._groups for one in group]
    assert 25 <= len(kept) <= 32
    assert kept[0].is_key
    assert ring._bytes == sum(len(one.content) for one in kept)
    assert ring.write(tmp_path / "last.mkv", 5.5, 9.0)
    assert not ring.write(tmp_path / "none.mkv", 1.0, 2.0)
    assert not (tmp_path / "none.mkv").exists()


@pytest.mark.slow
def test_a_full_disk_loses_the_clip_and_nothing_else(run, film, tmp_path):
    """Files may have 1000 bytes here, as if there were no more space."""
    ours = [sys.executable, "-m", "backtal", *command(run, film, "--save", tmp_path / "clips")]
    limited = f"ulimit -f 1; trap '' XFSZ; exec {' '.join(ours)}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert done.stdout.count('"final"') == 3
    assert done.stderr.count("no clip:") == 3
    assert list((tmp_path / "clips").iterdir()) == []
    finished(run, film, "--save", tmp_path / "clips")
    assert len(list((tmp_path / "clips").iterdir())) == 3


@pytest.mark.slow
def test_killed_while_it_writes_it_leaves_whole_clips_and_the_next_start_works(run, tmp_path):
    clips = tmp_path / "clips"
    film = write_video(
        tmp_path / "long.mp4", times_at(25, 60), lambda time: shown([(n, n + 0.6) for n in range(60)], time)
    )
    arguments = (film, "--save", clips, "--longest", "2")
    with (tmp_path / "printed.txt").open("w") as out:
        watch = processes.start(processes.command, *command(run, *arguments), stdout=out)
    while not clips.exists() or len(list(clips.glob("*.mkv"))) < 3:
        assert watch.exitcode is None
        time.sleep(0.005)
    watch.kill()
    watch.join()
    for clip in clips.glob("*.mkv"):
        assert sum(1 for _ in Video(clip, fps=25)) > 25
    stale = clips / ".left.tmp"
    stale.write_bytes(b"half")
    os.utime(stale, (0, 0))
    done = finished(run, *arguments)
    assert done.stdout.count('"final"') >= 19
    assert not stale.exists()


@pytest.mark.slow
def test_a_command_runs_for_each_final_segment(run, film, tmp_path):
    out = tmp_path / "told.txt"
    script = tmp_path / "tell.sh"
    script.write_text(f'#!/bin/sh\necho "$BACKTAL_LABEL $(cat)" >> {out}\necho printed\n')
    script.chmod(0o755)
    done = finished(run, film, "--exec", script)
    told = out.read_text().splitlines()
    assert len(told) == 3
    assert all(json.loads(line.partition(" ")[2])["kind"] == "final" for line in told)
    assert all(line.startswith("flash {") for line in told)
    assert [json.loads(line) for line in done.stdout.splitlines()]  # what it prints is not among it
    failed = finished(run, film, "--exec", "./missing.sh")
    assert failed.stderr.count("missing.sh") == 3


def test_what_comes_too_fast_is_left_out_and_said(caplog, monkeypatch):
    """An extractor that takes twice as long as the stream: it is never far behind."""
    monkeypatch.setattr("backtal.video.live._MOST_LATE", 0.5)
    extractor = light_extractor()
    quick, begin, late = extractor.network.forward, time.time(), []

    def slow(rgb):
        time.sleep(0.4 * len(rgb))
        return quick(rgb)

    monkeypatch.setattr(extractor.network, "forward", slow)
    server = Server([(0.0, 8.0), (0.0, 8.0), (0.0, 8.0), (0.0, 8.0)], [(1.0, 7.0)], http=False, restarts=False)
    with caplog.at_level(logging.WARNING, "backtal"):
        for event in light_model().watch(server.address, extractor=extractor, batch_size=1, patience=2.0, give_up=0.5):
            late.append(time.time() - begin - event.stream)
    assert "this machine is too slow for it" in caplog.text
    assert late
    assert max(late) < 6


def test_what_cannot_be_watched_is_said(run, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        watched(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    os.utime(tmp_path / "text.mp4", (0, 0))
    with pytest.raises(DataError, match="cannot be opened as a stream of video"):
        watched(tmp_path / "text.mp4")
    with pytest.raises(DataError, match="refused"):
        watched("tcp://127.0.0.1:9", patience=1.0)
    done = CliRunner().invoke(main, ["watch", "x.mp4", "--model", str(run / "RUN")])
    assert done.exit_code == 2
    assert "extractor 'light' is unknown" in done.output
