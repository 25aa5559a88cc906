"""How fast videos become features, and in how much memory.

`python benchmarks/extraction.py` makes its own videos, then prints Markdown. For small pictures, where the network is
what takes time, and for large ones, where decoding does: the seconds of decoding alone, of the network alone, of both
in two processes that have nothing to do with each other, which is the best that this machine can do, and of extraction,
each on one thread. Then the peak memory of `backtal extract` for 1, 10 and 60 minutes. `--minutes` without a number
leaves the memory out, `--videos 0` the speed.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from backtal.cli.command import keep_freed_memory


def make_video(path: Path, seconds: float, size: tuple[int, int] = (240, 320), fps: int = 25) -> Path:
    import av

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (size[0] // 8 + 40, size[1] // 8 + 40, 3), dtype=np.uint8)
    texture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for index in range(round(seconds * fps)):
            top, left = index % 160, (index * 2) % 300
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(texture[top : top + size[0], left : left + size[1]]), format="rgb24"
            )
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def load(weights: Path):
    """ResNet-18, 4 pictures a second."""
    import torch
    from torchvision.models import resnet18

    from backtal.video import load_extractor

    if not weights.exists():
        torch.save(resnet18(weights=None).state_dict(), weights)
    return load_extractor("torchvision/resnet18", weights=weights)


def decode(paths: list[Path], weights: Path, go=None) -> float:
    """Seconds of decoding alone, on one core."""
    from backtal.video import Video
    from backtal.video.windows import windows

    extractor = load(weights)
    if go:
        go.wait()
    begin = time.perf_counter()
    for path in paths:
        for _ in windows(Video(path, extractor.spec.fps, size=extractor.size, threads=1), extractor):
            pass
    return time.perf_counter() - begin


def throughput(folder: Path, size: tuple[int, int], seconds: float, videos: int) -> None:
    import torch

    from backtal.video import Video, extract_files
    from backtal.video.extract import Engine
    from backtal.video.windows import windows

    torch.set_num_threads(1)
    weights = folder / "weights.pt"
    extractor = load(weights)
    paths = [make_video(folder / f"{index}.mp4", seconds, size) for index in range(videos)]
    some = list(windows(Video(paths[0], extractor.spec.fps, size=extractor.size), extractor))
    batches = [some[i : i + 8] for i in range(0, len(some), 8)]

    def network() -> float:
        engine = Engine(extractor)
        begin = time.perf_counter()
        for _ in paths:
            for batch in batches:
                engine(batch)
        return time.perf_counter() - begin

    def apart() -> float:
        context = multiprocessing.get_context("spawn")
        go = context.Barrier(2)
        other = context.Process(target=decode, args=(paths, weights, go))
        other.start()
        go.wait()
        begin = time.perf_counter()
        network()
        other.join()
        return time.perf_counter() - begin

    def together(number: int) -> float:
        begin = time.perf_counter()
        extract_files(paths, extractor, folder / f"{size[0]}-{number}", workers=1)
        return time.perf_counter() - begin

    network()
    rows = [(decode(paths, weights), network(), apart(), together(number)) for number in range(3)]
    names = ("decoding alone", "network alone", "both, in two processes", "`backtal extract`")
    footage, least = seconds * videos, [min(row[i] for row in rows) for i in range(4)]
    print(f"\n| {videos} videos of {size[1]} x {size[0]}, {footage:g} s | seconds | times real time |\n|---|---|---|")
    for name, taken in zip(names, least, strict=True):
        print(f"| {name} | {taken:.1f} | {footage / taken:.0f} |")
    print(f"\nextract / both: {least[3] / least[2]:.2f}", flush=True)


def memory(folder: Path, minutes: list[float]) -> None:
    print("\n| minutes of video | peak memory, MB | seconds |\n|---|---|---|")
    weights = folder / "weights.pt"
    load(weights)
    for length in minutes:
        path = make_video(folder / f"{length}.mp4", 60 * length)
        options = ["--extractor", "torchvision/resnet18", "--weights", weights, "--workers", "1"]
        command = [sys.executable, "-m", "backtal", "extract", path, *options, "--out", folder / f"{length}"]
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        print(f"| {length:g} | {usage.ru_maxrss / 1024:.0f} | {time.perf_counter() - begin:.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 10, 60])
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.videos:
            for size in ((240, 320), (1080, 1920)):
                throughput(Path(scratch), size, arguments.seconds, arguments.videos)
        if arguments.minutes:
            memory(Path(scratch), arguments.minutes)
