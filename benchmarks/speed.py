"""Speed and memory on this machine, every figure as a ratio to the obvious alternative in the same run.

    python benchmarks/speed.py [--json] [--only convolution training video evaluator import]
    python benchmarks/speed.py --only trained --runs DATASET CHECKPOINT YARDSTICK

Pairs run in one process, in turn, and the medians are compared. Memory is the growth of the process's peak in a fresh
process. Run it on an otherwise idle machine. For a GPU: benchmarks/gpu.py.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import literal
import numpy as np
import torch

from backtal import AffinityConv1d, BackTALLoss, BackTALModel, Localization, Segment, TimeAxis, affinity_conv1d
from backtal.data import VideoFeatures, read_features
from backtal.evaluation import evaluate
from backtal.nn import LocalizationModel, localize
from backtal.settings import recipe

WIDTH, LENGTH = 2048, 750


def alternate(forms, repeats):
    """Median seconds of each form; the forms take turns, after one round that does not count."""
    seconds = {name: [] for name in forms}
    for turn in range(repeats + 1):
        for name, form in forms.items():
            began = time.perf_counter()
            form()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def convolution_forms(batch, backward, width=WIDTH):
    """The library's layer, a plain convolution and the unfold form, of one shape."""
    torch.manual_seed(0)
    layer = AffinityConv1d(width, width, 3, bias=False)
    plain = torch.nn.Conv1d(width, width, 3, padding=1, bias=False)
    x, affinity, gradient = (
        torch.randn(batch, width, LENGTH),
        torch.rand(batch, 3, LENGTH),
        torch.randn(batch, width, LENGTH),
    )
    contiguous = layer.weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    functions = {
        "conv1d": lambda x, a: plain(x),
        "backtal": layer,
        "backtal, weight [O, D, K]": lambda x, a: affinity_conv1d(x, contiguous, a),
        "unfold": lambda x, a: affinity_conv1d(x, contiguous, a, backend="reference"),
    }

    def run(function):
        if not backward:
            with torch.inference_mode():
                return function(x, affinity)
        a, b = x.detach().requires_grad_(), affinity.detach().requires_grad_()
        return function(a, b).backward(gradient)

    return {name: (lambda f=function: run(f)) for name, function in functions.items()}


def convolution():
    """Seconds and ratios, forward and forward + backward, B = 1 and 16; memory of a fresh process."""
    rows = []
    for batch, repeats in ((1, 11), (16, 3)):
        for backward in (False, True):
            seconds = alternate(convolution_forms(batch, backward), repeats)
            for name, value in seconds.items():
                command = [sys.executable, __file__, "--memory-of", name, str(batch), str(int(backward))]
                peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                rows.append(
                    {
                        "batch": batch,
                        "pass": "forward + backward" if backward else "forward",
                        "form": name,
                        "seconds": value,
                        "vs conv1d": value / seconds["conv1d"],
                        "vs unfold": value / seconds["unfold"],
                        "extra MiB": peak,
                        "beyond its results": peak - results_size(batch, backward),
                    }
                )
    return rows


def results_size(batch, backward):
    """MiB of what every form returns: its output, and backward the gradients of x and weight as well."""
    sequence, weight = 4 * batch * WIDTH * LENGTH, 4 * WIDTH * WIDTH * 3
    return (2 * sequence + weight if backward else sequence) >> 20


def memory_of(name, batch, backward):
    """Growth of this process's peak memory by one run of a form, in MiB (Linux)."""
    form = convolution_forms(batch, backward)[name]
    convolution_forms(1, backward, width=8)[name]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = peak_memory()
    form()
    return (peak_memory() - before) // 1024


def peak_memory():
    """Peak resident memory of this process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def thumos14_sized(width=WIDTH):
    """A network, a batch and settings of THUMOS14's shapes, on random features."""
    torch.manual_seed(0)
    chosen = recipe("thumos14-released")
    labels = tuple(f"class{i:02d}" for i in range(20))
    config = replace(chosen.model, labels=labels, layout="per_tap", dropout=0.0, hidden_dim=width, feature_dim=width)
    model = BackTALModel(config, recipe("thumos14").localization)
    x = torch.randn(16, width, LENGTH).relu()
    targets = torch.zeros(16, 20).scatter_(1, torch.randint(20, (16, 2)), 1)
    clicks = torch.zeros(16, LENGTH, dtype=torch.bool).scatter_(1, torch.randint(LENGTH, (16, 11)), True)
    return model, chosen.loss, x, targets, clicks


def training():
    """One step (forward, losses, backward, Adam) against the literal implementation."""
    model, config, x, labels, clicks = thumos14_sized()
    criterion = BackTALLoss(config, model.config.topk_ratio)
    targets = torch.where(clicks, 20, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)

    def step(loss):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    def ours(half):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            output = model.train()(x)
        if half:
            output = type(output)(*(t.float() if t.is_floating_point() else t for t in output))
        return criterion(output, labels, targets)["total"]

    forms = {
        "backtal": lambda: step(lambda: ours(False)),
        "backtal, bfloat16": lambda: step(lambda: ours(True)),
        "literal": lambda: step(lambda: literal.loss(model, config, x, labels, clicks)),
    }
    a, b = forms["backtal"](), forms["literal"]()
    assert abs(a - b) < 1e-4 * abs(b), f"the two implementations differ: {a} and {b}"
    return compare(alternate(forms, 2), "literal")


def video():
    """Features to segments of one video (T = 750, 6000 frames) with 2 or all 20 classes likely enough."""
    model, _, x, _, _ = thumos14_sized()
    model.eval()
    half = copy.deepcopy(model).bfloat16()
    axis = TimeAxis.even(LENGTH, 200.0, 6000)
    labels = model.config.labels
    with torch.inference_mode():
        likely = model(x[:1]).scores.softmax(1)[0, :-1].sort(descending=True).values
    rows = []
    for classes in (2, 20):
        threshold = float(likely[classes - 1]) - 1e-3
        config = replace(model.localization, class_threshold=threshold, feature_thresholds=None)
        rows += [{"classes": classes, **row} for row in one_video(model, half, x, axis, labels, config)]
    return rows


def one_video(model, half, x, axis, labels, config):
    """The network and `localize`, against the literal forms."""

    def fast(network=model):
        with torch.inference_mode():
            return localize(network(x[:1].to(network.classifier.weight)), [axis], labels, config)

    def slow():
        with torch.inference_mode():
            streams, *_ = literal.forward(model, x[:1])
            scores, cas = streams[1]
            return literal.localize(cas[0, :-1].numpy(), scores.softmax(1)[0, :-1].numpy(), axis, labels, config)

    assert abs(len(fast()[0]) - len(slow())) <= 0.02 * len(slow()), "the two implementations differ"
    return compare(alternate({"backtal": fast, "backtal, bfloat16": lambda: fast(half), "literal": slow}, 5), "literal")


def trained(dataset, *checkpoints):
    """Features to segments of videos of 750 snippets, a dataset's own joined, by each checkpoint; against the last."""
    files = sorted(Path(dataset, "features").glob("*.npz"))
    features = torch.cat([read_features(path, duration=1.0).features for path in files], dim=1)
    videos = [
        VideoFeatures(f"video {start}", features[:, start : start + LENGTH], TimeAxis.even(LENGTH, 150.0, 4 * LENGTH))
        for start in range(0, 5 * LENGTH, LENGTH)
    ]
    models = {checkpoint: LocalizationModel.from_pretrained(checkpoint) for checkpoint in checkpoints}
    forms = {name: lambda m=model: [m.localize(video) for video in videos] for name, model in models.items()}
    found = {name: sum(map(len, form())) / len(videos) for name, form in forms.items()}
    networks = {name: lambda m=model: [m.run(video) for video in videos] for name, model in models.items()}
    network = alternate(networks, 5)
    rows = compare({name: value / len(videos) for name, value in alternate(forms, 5).items()}, checkpoints[-1])
    return [
        {**row, "network alone": network[row["form"]] / len(videos), "segments": found[row["form"]]} for row in rows
    ]


def predictions(count, truth, rng):
    """Random predictions: half near an instance, half anywhere."""
    found = {v.video_id: [] for v in truth}
    durations = {v.video_id: v.duration for v in truth}
    instances = [(v.video_id, s) for v in truth for s in v]
    labels = sorted({s.label for _, s in instances})
    for _ in range(count // 2):
        name, s = instances[rng.integers(len(instances))]
        start, end = np.sort([s.start + rng.normal(0, 1), s.end + rng.normal(0, 1)])
        found[name].append(Segment(start, end, s.label, rng.uniform()))
    names = list(found)
    for _ in range(count - count // 2):
        name = names[rng.integers(len(names))]
        start, end = np.sort(rng.uniform(0, durations[name], 2))
        found[name].append(Segment(start, end, labels[rng.integers(len(labels))], rng.uniform()))
    return [Localization(name, durations[name], tuple(segments)) for name, segments in found.items()]


def evaluator():
    """Seconds for growing numbers of predictions on a ground truth of THUMOS14's size (210 videos, 20 classes)."""
    rng = np.random.default_rng(0)
    truth = []
    for index in range(210):
        starts = np.sort(rng.uniform(0, 200, 16))
        label = f"class{rng.integers(20):02d}"
        truth.append(Localization(f"v{index}", 220.0, tuple(Segment(s, s + 4, label) for s in starts)))
    rows = []
    for count in (42_000, 250_000, 1_000_000):
        found = predictions(count, truth, rng)
        seconds = alternate({"backtal": lambda f=found: evaluate(f, truth, np.arange(1, 10) / 10)}, 3)["backtal"]
        rows.append({"predictions": count, "seconds": seconds, "microseconds each": 1e6 * seconds / count})
    return rows


def import_time():
    """Seconds to import the package, against torch alone, each in a fresh process."""

    def fresh(name):
        return lambda: subprocess.run([sys.executable, "-c", f"import {name}"], check=True)

    return compare(alternate({"backtal": fresh("backtal"), "torch": fresh("torch")}, 7), "torch")


def compare(seconds, yardstick):
    return [
        {"form": name, "seconds": value, f"vs {yardstick}": value / seconds[yardstick]}
        for name, value in seconds.items()
    ]


TABLES = {
    "convolution": convolution,
    "training": training,
    "video": video,
    "trained": trained,
    "evaluator": evaluator,
    "import": import_time,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=[name for name in TABLES if name != "trained"])
    parser.add_argument("--runs", nargs="+", metavar="PATH", help="of `trained`: a dataset, then checkpoints")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if "trained" in arguments.only and len(arguments.runs or ()) < 2:
        parser.error("trained needs --runs DATASET CHECKPOINT [CHECKPOINT ...]")
    if arguments.memory_of:
        name, batch, backward = arguments.memory_of
        print(memory_of(name, int(batch), bool(int(backward))))
        return
    results = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    for name in arguments.only:
        print(f"measuring {name}", file=sys.stderr)
        results[name] = rows = TABLES[name](*(arguments.runs if name == "trained" else ()))
        if not arguments.json:
            print(f"\n### {name}\n\n| {' | '.join(rows[0])} |\n{'|---' * len(rows[0])}|")
            for row in rows:
                cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
                print(f"| {' | '.join(cells)} |")
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
