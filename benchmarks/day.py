"""24 hours of features in one pass: 135,000 snippets of 2048 channels through a network of the paper's size.

`python benchmarks/day.py` writes the features to a file (553 MB), localizes it, and prints time and peak memory; then
it runs the network on the whole at once, which needs several GB, and compares. `--recipe compact` for a small network,
`--no-whole` where memory is short.
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

from backtal import BackTALModel, BackTALOutput, FeatureSpec, Localization, localize, read_features
from backtal.nn import join_outputs, open_features, run_chunked
from backtal.settings import recipe


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


def main(hours: float, name: str, classes: int, chunk: int, whole: bool) -> None:
    length = round(hours * 5625)
    labels = tuple(f"class {n}" for n in range(classes))
    chosen = recipe(name)
    config = replace(chosen.model, feature_dim=2048, temporal_length=None, labels=labels)
    model = BackTALModel(config, replace(chosen.localization, class_threshold=0.0)).eval()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "day.npz"
        write(path, length, config.feature_dim)
        size = path.stat().st_size / 2**20
        print(
            f"{length} snippets x {config.feature_dim}, {size:.0f} MB; peak memory before: {peak():.0f} MB", flush=True
        )

        begin = time.perf_counter()
        blocks = run_chunked(model, model.reach, open_features(path).pieces, chunk=chunk)
        joined = join_outputs(blocks, config.topk_ratio)
        print(f"network ({name}): {time.perf_counter() - begin:.0f} s, peak memory {peak():.0f} MB", flush=True)
        begin = time.perf_counter()
        found = segments(model, joined, path)
        print(f"localization of {classes} classes: {len(found)} segments, {time.perf_counter() - begin:.0f} s")
        print(f"peak memory of all: {peak():.0f} MB", flush=True)
        if not whole:
            return

        begin = time.perf_counter()
        output = model(read_features(path).features[None])
        print(f"unchunked: {time.perf_counter() - begin:.0f} s, peak memory {peak():.0f} MB", flush=True)
        print(f"largest difference of a class activation: {float((output.cas - joined.cas).abs().max()):.1e}")
        print(f"largest difference of a video score: {float((output.scores - joined.scores).abs().max()):.1e}")
        there = {(s.label, s.start, s.end): s.score for s in segments(model, output, path)}
        here = {(s.label, s.start, s.end): s.score for s in found}
        both = here.keys() & there.keys()
        worst = max(abs(here[key] - there[key]) for key in both)
        print(f"distinct segments: {len(here)} and {len(there)}, {len(both)} in both, scores within {worst:.1e}")


def segments(model: BackTALModel, output: BackTALOutput, path: Path) -> Localization:
    axis = open_features(path).axis()
    return localize(output, [axis], model.config.labels, model.localization, ["day"])[0]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--recipe", default="thumos14")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--chunk", type=int, default=4096)
    parser.add_argument("--no-whole", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    main(arguments.hours, arguments.recipe, arguments.classes, arguments.chunk, not arguments.no_whole)
