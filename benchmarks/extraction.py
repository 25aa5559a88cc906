"""How fast videos become features, and in how much memory.

`python benchmarks/extraction.py` makes its own videos, then prints Markdown: decoding alone, the network alone, both
together (at best as slow as the slower one, where the cores suffice), and the peak memory for 1, 10 and 60 minutes.
`--minutes` without a number leaves the memory out, `--videos 0` the speed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np


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
    """ResNet-18, 4 pictures a second: a network about as slow as decoding is on one core."""
    import torch
    from torchvision.models import resnet18

    from backtal.video import load_extractor

    if not weights.exists():
        torch.save(resnet18(weights=None).state_dict(), weights)
    return load_extractor("torchvision/resnet18", weights=weights)


def throughput(folder: Path, seconds: float, videos: int) -> None:
    import torch

    from backtal.video import Video, extract_files
    from backtal.video.extract import Engine
    from backtal.video.windows import windows

    torch.set_num_threads(1)
    extractor = load(folder / "weights.pt")
    paths = [make_video(folder / f"{index}.mp4", seconds) for index in range(videos)]

    def decoding() -> float:
        begin = time.perf_counter()
        for path in paths:
            for _ in windows(Video(path, extractor.spec.fps, size=extractor.size, threads=1), extractor):
                pass
        return time.perf_counter() - begin

    def network() -> float:
        engine = Engine(extractor)
        some = list(windows(Video(paths[0], extractor.spec.fps, size=extractor.size), extractor))
        batches = [some[i : i + 8] for i in range(0, len(some), 8)]
        begin = time.perf_counter()
        for _ in paths:
            for batch in batches:
                engine(batch)
        return time.perf_counter() - begin

    def both(number: int) -> float:
        begin = time.perf_counter()
        extract_files(paths, extractor, folder / f"out{number}", workers=1)
        return time.perf_counter() - begin

    network()
    rows = [(decoding(), network(), both(number)) for number in range(3)]
    decode, run, together = (min(row[i] for row in rows) for i in range(3))
    footage = seconds * videos
    print("\n| | seconds | times real time |\n|---|---|---|")
    for name, taken in (("decoding alone", decode), ("network alone", run), ("`backtal extract`", together)):
        print(f"| {name} | {taken:.1f} | {footage / taken:.0f} |")
    print(f"\nextract / slower of the two: {together / max(decode, run):.2f}")


def memory(folder: Path, minutes: list[float]) -> None:
    print("\n| minutes of video | peak memory, MB | seconds |\n|---|---|---|")
    load(folder / "weights.pt")
    for length in minutes:
        path = make_video(folder / "long.mp4", 60 * length)
        command = [sys.executable, __file__, "--one", str(path), "--folder", str(folder)]
        peak, taken = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"| {length:g} | {peak:.0f} | {taken:.0f} |", flush=True)


def one(folder: Path, path: Path) -> None:
    import torch

    from backtal.video import extract_files

    torch.set_num_threads(1)
    extractor = load(folder / "weights.pt")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        assert not extract_files([path], extractor, out, workers=1).failed
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - begin]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 10, 60])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.folder, arguments.one)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            if arguments.videos:
                throughput(Path(scratch), arguments.seconds, arguments.videos)
            memory(Path(scratch), arguments.minutes)
