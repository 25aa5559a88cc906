"""How fast training and localization are fed, the network replaced by nothing or kept narrow, on the CPU.

    python benchmarks/feeding.py [--old CHECKOUT] [--only read hand-out localize train] [--videos 1000] [--rounds 3]

Every figure is of a process of its own. With `--old`, a checkout of another commit is measured in turn with this one,
and the best of each round's figures are compared; so they survive a machine that others use.

- read: seconds to read and check feature files (2048 x 200, float16), and the peak of memory, in units of the files.
- hand-out: videos a second in batches of 16 from memory, at 2048 x 200 and, of fewer files, 2048 x 750.
- localize: videos a second of `backtal localize` with the network of `thumos14` narrowed to width 256.
- train: seconds of an epoch of the recipe `compact`, the best of three, on the dataset folder `--data`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DIM, LABELS = 2048, 20


def make(root, videos, length):
    """A dataset folder of random features, and clicks."""
    numbers = np.random.default_rng(0)
    (root / "features").mkdir(parents=True)
    (root / "clicks").mkdir()
    labels = [f"class{index:02d}" for index in range(LABELS)]
    database, clicks = {}, []
    base = numbers.standard_normal((DIM, length + 64)).astype(np.float16)
    for index in range(videos):
        name = f"v{index:05d}"
        features = np.roll(base, index, axis=0)[:, index % 64 : index % 64 + length]
        np.savez(root / "features" / f"{name}.npz", features=np.maximum(features, 0), duration=float(length))
        annotation = {"label": labels[index % LABELS], "segment": [10.0, 20.0]}
        about = {"duration": float(length), "fps": 25.0, "num_frames": 25 * length, "annotations": [annotation]}
        database[name] = {"subset": "training", **about}
        clicks += [f"{name},{second},background" for second in (2.5, 30.5)]
    (root / "annotations.json").write_text(json.dumps({"labels": labels, "database": database}))
    (root / "clicks" / "A.txt").write_text("\n".join(clicks) + "\n")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def training_set(root):
    from backtal.data import DatasetFolder
    from backtal.settings import recipe
    from backtal.training import TrainingSet

    folder, chosen = DatasetFolder(root), recipe("compact")
    clicks = folder.clicks(folder.click_files())
    before, began = peak(), time.perf_counter()
    found = TrainingSet(folder, "training", clicks, chosen.model)
    return found, time.perf_counter() - began, peak() - before


def read(root):
    """Of this process and checkout: seconds and memory."""
    found, seconds, memory = training_set(root)
    stored = sum(path.stat().st_size for path in (Path(root) / "features").iterdir())
    return {"seconds per 1000": 1000 * seconds / len(found), "memory / stored": memory / stored}


def hand_out(root):
    """Of this process and checkout: videos a second, and what a bare gather into a buffer reaches."""
    import torch
    from torch.utils.data import DataLoader

    from backtal.training import collate

    found, *_ = training_set(root)
    if hasattr(found, "batches"):
        batches = lambda: found.batches(16)  # noqa: E731
    else:
        batches = lambda: DataLoader(found, batch_size=16, shuffle=False, collate_fn=collate)  # noqa: E731
    rates = []
    for _ in range(4):
        began, count = time.perf_counter(), 0
        for batch in batches():
            count += len(batch.lengths)
        rates.append(count / (time.perf_counter() - began))
    stored = [torch.from_numpy(np.load(path)["features"]) for path in sorted((Path(root) / "features").iterdir())]
    buffer, gathers = torch.empty(16, *stored[0].shape, dtype=torch.float16), []
    for _ in range(4):
        began = time.perf_counter()
        for index, features in enumerate(stored):
            buffer[index % 16].copy_(features)
        gathers.append(len(stored) / (time.perf_counter() - began))
    return {"videos / s": max(rates[1:]), "of the bare gather": max(rates[1:]) / max(gathers[1:])}


def localize(root, jobs):
    """Of this process and checkout: videos a second of the command, from its start to its end, and memory."""
    from click.testing import CliRunner

    from backtal.cli import main

    out = Path(root).parent / f"found{os.getpid()}.json"
    arguments = ["localize", str(Path(root) / "features"), "--model", str(Path(root).parent / "run"), "--out", str(out)]
    began = time.perf_counter()
    done = CliRunner().invoke(main, [*arguments, *(["--jobs", str(jobs)] if jobs else [])])
    assert done.exit_code == 0, done.output[-1000:]
    seconds, count = time.perf_counter() - began, len(json.loads(out.read_text())["results"])
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"videos / s": count / seconds, "peak MiB": peak() / 2**20, "largest process MiB": children / 2**20}


def train(root):
    """Of this process and checkout: seconds of an epoch, the best of three."""
    from backtal.data import DatasetFolder
    from backtal.settings import recipe
    from backtal.training import TrainingSet, fit

    folder, chosen = DatasetFolder(root), recipe("compact").with_settings(["training.epochs=3"])
    found = TrainingSet(folder, "training", folder.clicks(folder.click_paths()[:1]), chosen.model)
    with tempfile.TemporaryDirectory() as place:
        fit(found, chosen, Path(place) / "run", device="cpu")
        log = [json.loads(line) for line in (Path(place) / "run" / "log.jsonl").read_text().splitlines()]
    return {"seconds": min(entry["seconds"] for entry in log)}


def make_run(folder):
    """An untrained network of the recipe thumos14, 256 wide."""
    from dataclasses import replace

    from backtal import BackTALModel
    from backtal.settings import recipe

    chosen = recipe("thumos14").with_settings(["hidden_dim=256", "temporal_length=null"])
    labels = tuple(f"class{index:02d}" for index in range(LABELS))
    model = BackTALModel(replace(chosen.model, labels=labels, feature_dim=DIM), chosen.localization)
    model.save_pretrained(folder)


MEASURED = {"read": read, "hand-out": hand_out, "localize": localize, "train": train}


def measure(checkout, what, *arguments):
    """A function of this file, in a process of its own that imports a checkout."""
    command = [sys.executable, __file__, "--measure", what, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="a checkout of another commit, to be measured in turn")
    parser.add_argument("--only", nargs="+", choices=list(MEASURED), default=["read", "hand-out"])
    parser.add_argument("--data", type=Path, help="for train: a dataset folder")
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, *arguments = options.measure
        if what == "localize":
            arguments[1] = int(arguments[1])
        print(json.dumps(MEASURED[what](*arguments)))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = {"old": options.old.resolve()} if options.old else {}
    checkouts["this"] = here
    with tempfile.TemporaryDirectory() as place:
        cases = [("train", options.data.resolve(), "")] if "train" in options.only else []
        if {*options.only} - {"train"}:
            make(Path(place) / "short", options.videos, 200)
        if "read" in options.only:
            cases.append(("read", Path(place) / "short", ""))
        if "hand-out" in options.only:
            make(Path(place) / "long", max(64, options.videos // 8), 750)
            cases += [("hand-out", Path(place) / name, "") for name in ("short", "long")]
        if "localize" in options.only:
            make_run(Path(place) / "run")
            cases += [("localize", Path(place) / "short", jobs) for jobs in (1, 2)]
        for what, root, jobs in cases:
            found = {name: [] for name in checkouts}
            for _ in range(options.rounds):
                for name, checkout in checkouts.items():
                    given = [] if what != "localize" else [0 if name == "old" else jobs]
                    found[name].append(measure(checkout, what, root, *given))
            title = f"{what}, {root.name}" + (f", --jobs {jobs}" if jobs else "")
            for name, figures in found.items():
                best = {
                    key: (max if "/ s" in key or "gather" in key else min)(one[key] for one in figures)
                    for key in figures[0]
                }
                print(
                    f"{title:24}{name:6}" + "  ".join(f"{key} {value:.4g}" for key, value in best.items()), flush=True
                )


if __name__ == "__main__":
    main()
