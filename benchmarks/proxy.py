"""How well the agreement with clicks, by which `backtal tune` chooses, tracks the test mAP.

    python benchmarks/proxy.py DATA --clicks A1.txt --out runs/proxy

Trains a recipe once, and without each half of the training videos in turn. Random localization settings are measured
by agreement with the clicks of the halves left out, as in `backtal tune`, and by mAP on the test subset, where start
and end are read. Then the same for kernel sizes, in one stage. Prints Spearman's rank correlations as Markdown, and
what choosing by agreement would have brought. Nothing that the library does depends on these numbers.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from backtal.data import DatasetFolder
from backtal.evaluation import evaluate
from backtal.files import progress
from backtal.nn import localize
from backtal.settings import recipe, tiou_range
from backtal.training import TrainingSet, agreement, fit, held_out, suggest


class Draw:
    """Stands for an optuna trial: independent random values."""

    def __init__(self, rng):
        self.rng = rng

    def suggest_float(self, name, low, high, log=False):
        """Uniform, or uniform in the logarithm."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))) if log else self.rng.uniform(low, high))

    def suggest_categorical(self, name, choices):
        """One of the choices."""
        return choices[self.rng.integers(len(choices))]


def ranks(values):
    """Ranks of different values."""
    return np.argsort(np.argsort(values))


def spearman(a, b):
    """Rank correlation."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clicks", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="between-clicks")
    parser.add_argument("--set", dest="settings", nargs="+", metavar="KEY=VALUE", default=[])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--kernel-sizes", nargs="*", type=int, default=[3, 5, 9, 17])
    parser.add_argument("--subset", default="test")
    arguments = parser.parse_args()
    folder, base = DatasetFolder(arguments.data), recipe(arguments.recipe).with_settings(arguments.settings)
    clicks = folder.clicks(folder.click_files([arguments.clicks]))
    truth = folder.annotations.truth(arguments.subset)
    test = [folder.annotations.video(video.video_id) for video in truth]

    def networks(chosen, place):
        parts = held_out(folder, "training", clicks, chosen, place, 2)
        return parts, fit(TrainingSet(folder, "training", clicks, chosen.model), chosen, place / "whole", resume=True)

    def outputs(model):
        prepared = [model.prepare(folder.features(video)) for video in test]
        return [(video.video_id, model.run(video), video.axis) for video in prepared]

    def test_map(looks, config):
        found = [localize(output, [axis], folder.labels, config, [name])[0] for name, output, axis in looks]
        return evaluate(found, truth, tiou_range("0.1:0.7:0.1")).average

    def agreed(parts, config):
        return float(np.mean([agreement(part, folder.labels, config) for part in parts]))

    print("| what differs | settings | Spearman | mAP of the recipe's own | chosen by agreement | best | worst |")
    print("|---|---|---|---|---|---|---|")

    def row(name, proxy, truth, own):
        cells = (own, truth[int(np.argmax(proxy))], max(truth), min(truth))
        shown = " | ".join(f"{100 * cell:.1f}" for cell in cells)
        print(f"| {name} | {len(proxy)} | {spearman(proxy, truth):.2f} | {shown} |", flush=True)

    parts, model = networks(base, arguments.out / "own")
    looks, rng = outputs(model), np.random.default_rng(0)
    own = test_map(looks, base.localization)
    settings = [suggest(Draw(rng), base.localization) for _ in range(arguments.trials)]
    pairs = [(agreed(parts, s), test_map(looks, s)) for s in progress(settings, desc="settings", unit="setting")]
    row("localization settings", *zip(*pairs, strict=True), own)
    if arguments.kernel_sizes:
        one_stage, pairs = replace(base, training=replace(base.training, stages=1)), []
        for size in arguments.kernel_sizes:
            chosen = one_stage.with_settings([f"kernel_size={size}"])
            parts, model = networks(chosen, arguments.out / f"kernel{size}")
            pairs.append((agreed(parts, base.localization), test_map(outputs(model), base.localization)))
        own = pairs[arguments.kernel_sizes.index(base.model.kernel_size)][1]
        row("kernel size, one stage", *zip(*pairs, strict=True), own)


if __name__ == "__main__":
    main()
