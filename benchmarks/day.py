"""24 hours of features in one pass: 135,000 snippets of 2048 channels through a network of the paper's size.

`python benchmarks/day.py` writes the features to a file (553 MB), localizes it, prints time and peak memory, and
compares the class activations of some stretches with those of the network on these stretches alone.
"""

import argparse
import json
import resource
import tempfile
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from backtal import BackTALModel, FeatureSpec, localize
from backtal.presets import recipe
from backtal.stream import halo, open_features, run_chunked


def write(path: Path, length: int, dim: int) -> None:
    """Features as an extractor would store them, written without ever being whole in memory."""
    spec = FeatureSpec("i3d", 25, 16, 16, dim=dim)
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f2", "fortran_order": True, "shape": (dim, length)}
            np.lib.format.write_array_header_2_0(file, header)
            for start in range(0, length, 1000):
                rows = generator.standard_normal((min(1000, length - start), dim), np.float32)
                file.write(np.abs(rows).astype(np.float16).tobytes())
        with archive.open("spec.npy", "w") as file:
            np.lib.format.write_array(file, np.array(json.dumps(asdict(spec))))


def main(hours: float, hidden: int | None, classes: int, chunk: int) -> None:
    length = round(hours * 5625)
    labels = tuple(f"class {n}" for n in range(classes))
    config = replace(recipe("thumos14").model, temporal_length=None, labels=labels)
    config = replace(config, hidden_dim=hidden or config.hidden_dim)
    model = BackTALModel(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.npz"
        write(path, length, config.feature_dim)

        def peak() -> float:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        print(
            f"{length} snippets x {config.feature_dim}, {path.stat().st_size / 2**20:.0f} MB; before: {peak():.0f} MB"
        )
        begin = time.perf_counter()
        with torch.inference_mode():
            summary = run_chunked(model, config, open_features(path).pieces, chunk=chunk)
        print(f"network: {time.perf_counter() - begin:.0f} s, peak {peak():.0f} MB")
        reach, worst = halo(config), 0.0
        with torch.inference_mode():
            for start in range(chunk - 100, length - 200, max(chunk * 4, 1)):
                stretch = list(_between(path, start - reach, start + 200 + reach))
                alone = model(torch.cat(stretch, dim=1)[None].float()).cas[0, :, reach:-reach]
                worst = max(worst, float((alone - summary.cas[:, start : start + 200]).abs().max()))
        print(f"largest difference to the network on stretches of it: {worst:.1e}")
        begin = time.perf_counter()
        model.localization = replace(model.localization, class_threshold=0.0, frame_scores="minmax")
        found = localize(summary.output(), [open_features(path).axis()], config.labels, model.localization, ["day"])[0]
        print(f"localization of all {classes} classes: {len(found)} segments, {time.perf_counter() - begin:.0f} s")
        print(f"peak memory in all: {peak():.0f} MB")


def _between(path: Path, start: int, end: int):
    at = 0
    for piece in open_features(path, size=1024).pieces:
        if at + piece.shape[1] > start and at < end:
            yield torch.as_tensor(piece[:, max(start - at, 0) : end - at])
        at += piece.shape[1]
        if at >= end:
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--hidden", type=int, help="width of the trunk [default: the paper's 2048]")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--chunk", type=int, default=4096)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    main(arguments.hours, arguments.hidden, arguments.classes, arguments.chunk)
