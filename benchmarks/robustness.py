"""How accuracy falls when clicks are missing or wrong, features noisy, or videos few.

    python benchmarks/robustness.py DATA --clicks A1.txt A2.txt A3.txt --out runs/robustness --jobs 2

Seed i goes with click file i. Every method sees the same damage. Dropped: each click with the given probability. Wrong:
each click moved into a random action of its video, with the given probability. Noise: Gaussian, as a multiple of each
channel's deviation, on training and test features. The damage is drawn from the seed; start and end of actions are read
for wrong clicks alone. Prints Markdown as it goes; runs that are already there are not made again.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from backtal.clicks import damage_clicks, write_clicks
from backtal.data import DatasetFolder, write_annotations, write_features
from backtal.settings import recipe
from backtal.training import Protocol, Run, measure_all

METHODS = {
    "plain convnet": ("compact", ("model.affinity=false", "loss.affinity=0", "separation=0")),
    "BackTAL": ("compact", ()),
    "between-clicks": ("between-clicks", ()),
}
CONDITIONS = {
    "as they are": {},
    "30 % of clicks dropped": {"drop": 0.3},
    "8 % of clicks wrong": {"wrong": 0.08},
    "50 % of clicks dropped": {"drop": 0.5},
    "half of the training videos": {"half": True},
    "feature noise, 0.5 deviations": {"noise": 0.5},
    "10 % of clicks dropped": {"drop": 0.1},
    "2 % of clicks wrong": {"wrong": 0.02},
}


def damaged_clicks(folder, path, out, rng, training, *, drop=0.0, wrong=0.0):
    """Write the clicks of a file with some of them missing or wrong; returns the new file."""
    tracks = []
    actions = {video.video_id: video for video in folder.annotations.truth(training)} if wrong else {}
    for name, track in folder.clicks(folder.click_files([path])).items():
        tracks.append(damage_clicks(track, actions.get(name, ()), rng, drop=drop, wrong=wrong))
    write_clicks(out, tracks, folder.labels)
    return str(out)


def damaged_folder(folder, out, rng, training, *, half=False, noise=0.0):
    """A dataset folder with noisy features, or with half of its training videos set aside; returns its path."""
    if (out / "annotations.json").exists():
        return out
    (out / "features").mkdir(parents=True, exist_ok=True)
    videos = dict(folder.annotations.videos)
    scale = 0.0
    if noise:
        values = torch.cat([folder.features(v).features.float() for v in folder.annotations.subset(training)], dim=1)
        scale = noise * values.std(dim=1, keepdim=True)
    for name, video in videos.items():
        target = out / "features" / f"{name}.npz"
        if noise:
            found = folder.features(video)
            added = torch.from_numpy(rng.standard_normal(found.features.shape)).float() * scale
            write_features(target, replace(found, features=found.features + added))
        elif not target.exists():
            target.symlink_to((folder.root / "features" / target.name).resolve())
    if half:
        names = [v.video_id for v in folder.annotations.subset(training)]
        for name in rng.permutation(names)[: len(names) // 2]:
            videos[str(name)] = replace(videos[str(name)], subset="unused")
    write_annotations(out / "annotations.json", replace(folder.annotations, videos=videos))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clicks", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--training-subset", default="training")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--set", dest="settings", nargs="+", metavar="KEY=VALUE", default=[], help="for every method")
    arguments = parser.parse_args()
    folder = DatasetFolder(arguments.data)
    print(f"| | {' | '.join(METHODS)} |\n|---{'|---' * len(METHODS)}|", flush=True)
    for name in arguments.only:
        runs = {
            (method, seed): condition(
                arguments, folder, name, recipe(base).with_settings([*settings, *arguments.settings]), seed
            )
            for method, (base, settings) in METHODS.items()
            for seed in range(arguments.seeds)
        }
        results = run_all(runs, arguments)
        cells = []
        for method in METHODS:
            values = [100 * results[method, seed]["average"] for seed in range(arguments.seeds)]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def condition(arguments, folder, name, chosen, seed):
    """The protocol and run of one method, condition and seed."""
    damage, rng = CONDITIONS[name], np.random.default_rng(1000 + seed)
    place = arguments.out / "data" / f"{'-'.join(f'{k}{v}' for k, v in damage.items()) or 'clean'}-seed{seed}"
    clicks = arguments.clicks[seed % len(arguments.clicks)]
    data = arguments.data
    if "drop" in damage or "wrong" in damage:
        place.mkdir(parents=True, exist_ok=True)
        clicks = damaged_clicks(folder, clicks, place / "clicks.txt", rng, arguments.training_subset, **damage)
    elif damage:
        clicks = str(folder.click_files([clicks])[0])
        data = damaged_folder(folder, place, rng, arguments.training_subset, **damage)
    protocol = Protocol(data, arguments.training_subset)
    return protocol, Run(chosen.with_settings([f"training.seed={seed}"]), clicks)


def run_all(runs, arguments):
    """Results of the runs; those on one dataset go together, `jobs` at a time."""
    results = {}
    for data in dict.fromkeys(protocol.data for protocol, _ in runs.values()):
        group = {key: run for key, (protocol, run) in runs.items() if protocol.data == data}
        protocol = Protocol(data, arguments.training_subset)
        out = arguments.out / "runs" / ("whole" if data == arguments.data else data.name)
        found = measure_all(protocol, list(group.values()), out, jobs=arguments.jobs)
        results |= dict(zip(group, found, strict=True))
    return results


if __name__ == "__main__":
    main()
