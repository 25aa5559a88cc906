"""Streams: the same segments as for recordings, a day in bounded memory, how many cameras a core keeps up with.

`python benchmarks/watch.py --model shrec22 --data DATA` streams twenty recordings of the test subset of a dataset
folder in pieces of random sizes, one by one and all as one stream, and prints the largest differences from `localize`
and the latencies. Then it pushes `--hours` of features at 10 a second, those recordings again and again, as fast as
they are taken, and prints memory by the hour. `--videos FOLDER` streams twenty videos instead, over TCP in pieces
of up to 20000 bytes. `--extractor torchvision/r2plus1d_18` alone measures an extractor, with random weights, on one
thread.
"""

import argparse
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from backtal import FeatureSpec, TimeAxis, VideoFeatures
from backtal.data import DatasetFolder
from backtal.nn import LocalizationModel

HEADER = "| stream | segments | start, s | end, s | score | latency, s | promised, s | exact |\n" + "|---" * 8 + "|"


def main(model_name: str, data: Path, hours: float, piece: int, floor: float, longest: float) -> None:
    model, folder = LocalizationModel.from_pretrained(model_name), DatasetFolder(data)
    stored = [folder.features(video) for video in folder.annotations.subset("test")[:20]]
    spec = model.config.feature_spec or FeatureSpec(fps=stored[0].axis.length / stored[0].axis.duration, stride=1)
    assert spec.fps
    assert spec.stride
    videos = []
    for video in stored:
        length = video.features.shape[1]
        axis = TimeAxis.of(length, video.axis.duration, None, spec)
        videos.append(VideoFeatures(video.video_id, video.features, axis, spec))
    joined = torch.cat([video.features for video in videos], dim=1)
    axis = TimeAxis.of(joined.shape[1], joined.shape[1] * spec.stride / spec.fps, None, spec)
    print(HEADER)
    rng, rows = np.random.default_rng(0), []
    for video in videos:
        rows.append(compare(model, video, rng, floor, longest))
        show(video.video_id, rows[-1])
    show_all(rows)
    show("as one stream", compare(model, VideoFeatures("all", joined, axis, spec), rng, floor, longest))
    if hours:
        day(model, joined, hours, piece, floor, longest)


def show_all(rows: list[tuple]) -> None:
    most = np.max(rows, axis=0)
    show(f"all {len(rows)}, one by one", (sum(row[0] for row in rows), *most[1:6], all(row[6] for row in rows)))


def show(name: str, row: tuple) -> None:
    differences = " | ".join(f"{value:.0e}" for value in row[1:4])
    print(f"| {name} | {row[0]} | {differences} | {row[4]:.1f} | {row[5]:.1f} | {bool(row[6])} |", flush=True)


def compare(model, video: VideoFeatures, rng: np.random.Generator, floor: float, longest: float) -> tuple:
    """A row, see `apart`, of features pushed in pieces of random sizes."""
    whole = model.localize(video).above(floor)
    watcher, start, found, late = model.watcher(video.spec, least_score=floor, longest=longest), 0, [], 0.0
    while start < video.axis.length:
        size = int(rng.integers(1, 40))
        for event in watcher.push(video.features[:, start : start + size]):
            if event.kind == "final":
                found.append(event)
                late = max(late, event.stream - event.end - size * video.axis.step)
        start += size
    found += [event for event in watcher.close(video.axis.duration) if event.kind == "final"]
    return apart(video.video_id, found, whole, late, watcher)


def apart(name: str, found: list, whole, late: float, watcher) -> tuple:
    """Segments, largest difference of starts, ends and scores, largest latency, the one promised, whether exact."""
    rows = sorted((e.label, e.start, e.end, e.score) for e in found)
    wanted = sorted((s.label, s.start, s.end, s.score) for s in whole if s.end > s.start)
    assert [row[0] for row in rows] == [row[0] for row in wanted], (
        f"{name}: {len(rows)} and {len(wanted)} segments, exact: {watcher.exact}"
    )
    differences = [np.abs(np.subtract(a[1:], b[1:])) for a, b in zip(rows, wanted, strict=True)]
    return len(rows), *np.max(differences or [np.zeros(3)], axis=0), late, watcher.latency.most, watcher.exact


def videos(model_name: str, folder: Path, extractor_name: str | None, floor: float, longest: float) -> None:
    """Twenty videos, each as MPEG-TS over TCP in pieces of random sizes."""
    import av

    from backtal.video import videos_in

    model = LocalizationModel.from_pretrained(model_name)
    extractor, rng, rows = model.extractor(extractor_name), np.random.default_rng(0), []
    print(HEADER)
    for path in list(videos_in([folder]))[:20]:
        with tempfile.TemporaryDirectory() as place:
            recorded = Path(place) / "recorded.ts"
            with av.open(str(path)) as source, av.open(str(recorded), "w") as target:
                copied = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(source.streams.video[0]):
                    if packet.size:
                        packet.stream = copied
                        target.mux(packet)
            whole = model.localize(recorded, extractor=extractor).above(floor)
            rows.append(sent(model, extractor, path.name, recorded.read_bytes(), whole, rng, floor, longest))
        show(path.name, rows[-1])
    show_all(rows)


def sent(model, extractor, name: str, content: bytes, whole, rng, floor: float, longest: float) -> tuple:
    """A row, see `apart`, of bytes sent over TCP."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as client:
            place = 0
            while place < len(content):
                size = int(rng.integers(1, 20_000))
                client.sendall(content[place : place + size])
                place += size

    threading.Thread(target=serve, daemon=True).start()
    watchers, found, late = [], [], 0.0
    for event in model.watch(
        f"tcp://127.0.0.1:{server.getsockname()[1]}", extractor=extractor, batch_size=1, least_score=floor,
        longest=longest, give_up=0.0, started=watchers.append,
    ):  # fmt: skip
        if event.kind == "final":
            found.append(event)
            late = max(late, event.stream - event.end)
    return apart(name, found, whole, late, watchers[0])


def day(model, features: torch.Tensor, hours: float, piece: int, floor: float, longest: float) -> None:
    ignored = ("fps", "stride", "window", "extractor")
    spec = FeatureSpec(fps=10, stride=1)
    watcher = model.watcher(spec, least_score=floor, longest=longest, ignore_spec=ignored)
    print(f"\n{hours:g} hours at 10 snippets a second, {piece} at a time; {watcher.latency}", flush=True)
    begin, finals, place, resident = time.perf_counter(), 0, 0, []
    for hour in range(1, round(hours) + 1):
        for _ in range(36_000 // piece):
            found = features[:, place : place + piece]
            place = (place + piece) % (features.shape[1] - piece)
            finals += sum(event.kind == "final" for event in watcher.push(found))
        resident.append(memory())
        spent = time.perf_counter() - begin
        print(
            f"hour {hour}: {resident[-1]:.1f} MB, {finals} segments, {hour * 36_000 / spent:.0f} snippets/s", flush=True
        )
    print(f"first hour to last: {resident[-1] - resident[0]:+.1f} MB; most {max(resident):.1f} MB")


def memory() -> float:
    """Resident memory in MB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def cameras(name: str) -> None:
    """How many streams one thread extracts."""
    from torchvision.models import get_model

    from backtal.video import load_extractor
    from backtal.video.extract import Engine

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.pt"
        torch.save(get_model(name.removeprefix("torchvision/"), weights=None).state_dict(), weights)
        extractor = load_extractor(name, weights=weights)
    spec, engine = extractor.spec, Engine(extractor, "cpu")
    window = (np.zeros((spec.window, extractor.crop, extractor.crop, 3), np.uint8),)
    engine([window])
    begin, spent = time.perf_counter(), time.process_time()
    for _ in range(10):
        engine([window])
    wall, cpu = (time.perf_counter() - begin) / 10, (time.process_time() - spent) / 10
    needed = spec.fps / spec.stride
    print(f"{name}: {cpu:.3f} s of processor ({wall:.3f} s by the clock) a snippet; {needed:.2f} snippets a second of")
    print(f"stream, so one core keeps up with {1 / cpu / needed:.2f} cameras")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="shrec22")
    parser.add_argument("--data", type=Path, default=Path("shrec22"))
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--piece", type=int, default=100)
    parser.add_argument("--least-score", type=float, default=0.1)
    parser.add_argument("--longest", type=float, default=60.0)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--extractor")
    given = parser.parse_args()
    if given.videos:
        videos(given.model, given.videos, given.extractor, given.least_score, given.longest)
    elif given.extractor:
        cameras(given.extractor)
    else:
        main(given.model, given.data, given.hours, given.piece, given.least_score, given.longest)
