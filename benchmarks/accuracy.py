"""Accuracy on a dataset folder, as mean and spread over seeds and click files.

    python benchmarks/accuracy.py DATA --clicks A1.txt A2.txt A3.txt --seeds 0 1 2 --out runs/accuracy

Seed i goes with click file i (the last one for the rest). Every setting is a recipe with ``--set`` changes, given as
``--variant NAME [KEY=VALUE ...]``; without any: video labels only, and the recipe as it is. Nothing is chosen on the
test subset. Runs that are already there are not trained again.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from backtal.datasets import DatasetFolder, TrainingSet
from backtal.evaluate import evaluate
from backtal.model import BackTALModel
from backtal.presets import recipe, tiou_range, video_labels_only
from backtal.train import fit


def run(arguments, name, settings, seed, clicks):
    """Train, localize and evaluate once; returns the report as plain values."""
    out = arguments.out / f"{name}-seed{seed}"
    result = out / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    print(f"{out}: clicks {clicks}", file=sys.stderr)
    folder = DatasetFolder(arguments.data)
    chosen = recipe(arguments.recipe)
    if name == "video-labels":
        chosen, clicks = video_labels_only(chosen), None
    chosen = chosen.with_settings([*settings, f"seed={seed}"])
    tracks = None if clicks is None else folder.clicks(folder.click_files([clicks]))
    training_set = TrainingSet(
        folder, arguments.training_subset, tracks, chosen.model, allow_unclicked=chosen.training.allow_unclicked
    )
    began = time.monotonic()
    fit(training_set, chosen, out, resume=True)
    seconds = time.monotonic() - began
    model = BackTALModel.from_pretrained(out)
    videos = folder.annotations.subset(arguments.subset)
    found = [model.localize(folder.features(video)) for video in videos]
    report = evaluate(found, [v.ground_truth for v in videos], arguments.tiou, f1_score=arguments.f1_score)
    values = report.to_dict() | {"training_seconds": seconds, "clicks": clicks, "seed": seed}
    result.write_text(json.dumps(values, indent=1))
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clicks", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recipe", default="compact")
    parser.add_argument("--variant", nargs="+", action="append", metavar="NAME KEY=VALUE", default=[])
    parser.add_argument("--training-subset", default="training")
    parser.add_argument("--subset", default="test")
    parser.add_argument("--tiou", type=tiou_range, default=tiou_range("0.1:0.7:0.1"))
    parser.add_argument("--f1-score", type=float, default=0.45)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    variants = arguments.variant or [["video-labels"], [arguments.recipe]]
    table = {}
    for name, *settings in variants:
        table[name] = [
            run(arguments, name, settings, seed, arguments.clicks[min(i, len(arguments.clicks) - 1)])
            for i, seed in enumerate(arguments.seeds)
        ]
    if arguments.json:
        print(json.dumps(table, indent=1))
        return
    columns = [f"{t:g}" for t in arguments.tiou]
    print(f"| trained from | {' | '.join(columns)} | mean | spread | the runs | F1@0.5 | training, s |")
    print("|---" * (len(columns) + 6) + "|")
    for name, runs in table.items():
        cells = [f"{100 * statistics.mean(r['mAP'][c] for r in runs):.1f}" for c in columns]
        means = [100 * r["average"] for r in runs]
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        cells += [f"**{statistics.mean(means):.1f}**", f"{spread:.1f}", " ".join(f"{m:.1f}" for m in means)]
        cells.append(f"{100 * statistics.mean(r['f1'] for r in runs):.1f}")
        cells.append(f"{statistics.mean(r['training_seconds'] for r in runs):.0f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
