"""Accuracy on a dataset folder, as mean and spread over seeds and click files.

    python benchmarks/accuracy.py DATA --clicks A1.txt A2.txt A3.txt --seeds 0 1 2 --out runs/accuracy

Seed i goes with click file i (round and round), or, with ``--cross``, every seed with every click file. Rows are video
labels only and the recipe, or, with ``--variant NAME [KEY=VALUE ...]``, the recipe with changed settings;
``--ensemble`` adds the averaged probabilities of the runs of each click file. Nothing is chosen on the test
subset. Runs that are already there are not made again.
"""

import argparse
import json
import statistics
from pathlib import Path

from backtal import BackTALModel
from backtal.data import DatasetFolder
from backtal.evaluation import evaluate
from backtal.files import read_json
from backtal.nn import localize_together
from backtal.settings import recipe, tiou_range
from backtal.training import Protocol, Run, baseline_run, measure_all


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
    parser.add_argument("--cross", action="store_true")
    parser.add_argument("--ensemble", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    protocol = Protocol(arguments.data, arguments.training_subset, arguments.subset, arguments.tiou, arguments.f1_score)
    base = recipe(arguments.recipe)
    pairs = [(arguments.clicks[i % len(arguments.clicks)], seed) for i, seed in enumerate(arguments.seeds)]
    if arguments.cross:
        pairs = [(clicks, seed) for clicks in arguments.clicks for seed in arguments.seeds]
    rows = {} if arguments.variant else {"video labels only": [baseline_run(base, seed) for seed in arguments.seeds]}
    for name, *settings in arguments.variant or [[arguments.recipe]]:
        rows[name] = [Run(base.with_settings([*settings, f"training.seed={seed}"]), clicks) for clicks, seed in pairs]
    results = iter(
        measure_all(protocol, [run for runs in rows.values() for run in runs], arguments.out, jobs=arguments.jobs)
    )
    table = {name: [next(results) for _ in runs] for name, runs in rows.items()}
    if arguments.ensemble:
        for name, runs in [*rows.items()][-1:]:
            for size in range(2, len(arguments.seeds) + 1):
                table[f"{name}, {size} runs together"] = ensembles(protocol, runs, arguments.out, size)
    print(json.dumps(table, indent=1) if arguments.json else markdown(table, arguments.tiou))


def ensembles(protocol, runs, out, size):
    """Results of the first `size` runs of each click file, their probabilities averaged."""
    dataset, results = DatasetFolder(protocol.data), []
    truth = dataset.annotations.truth(protocol.test)
    videos = [dataset.annotations.video(video.video_id) for video in truth]
    for clicks in dict.fromkeys(run.background for run in runs):
        members = [run for run in runs if run.background == clicks][:size]
        models = [BackTALModel.from_pretrained(out / run.name()) for run in members]
        found = [localize_together(models, dataset.features(video)) for video in videos]
        report = evaluate(found, truth, protocol.tiou, f1_score=protocol.f1_score).to_dict()
        seconds = sum(read_json(out / run.name() / "result.json")["training_seconds"] for run in members)
        results.append(report | {"training_seconds": seconds})
    return results


def markdown(table, tiou):
    """Mean and spread as a Markdown table."""
    columns = [f"{t:g}" for t in tiou]
    lines = [
        f"| trained from | {' | '.join(columns)} | mean | spread | the runs | F1@0.5 | training, s |",
        "|---" * (len(columns) + 6) + "|",
    ]
    for name, runs in table.items():
        cells = [f"{100 * statistics.mean(r['mAP'][c] for r in runs):.1f}" for c in columns]
        means = [100 * r["average"] for r in runs]
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        cells += [f"**{statistics.mean(means):.1f}**", f"{spread:.1f}", " ".join(f"{m:.1f}" for m in means)]
        cells.append(f"{100 * statistics.mean(r['f1'] for r in runs):.1f}")
        cells.append(f"{statistics.mean(r['training_seconds'] for r in runs):.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
