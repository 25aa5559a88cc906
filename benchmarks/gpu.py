"""Speed and memory on a CUDA device, every figure beside the obvious alternative in the same run.

    python benchmarks/gpu.py [--json] [--only convolution training fit tiles] [--dry-run]
    python benchmarks/gpu.py --compile [--json]    what compilers say of the kernels; needs no GPU

Forms run in one process, in turn, on several sets of random inputs, timed with CUDA events; the medians are compared.
``tiles`` times each kernel with other tiles than `backtal.ops.forms.choose_tile` chooses. Without a GPU, `--dry-run`
runs all of it on tiny shapes, to see that it runs.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from backtal import AffinityConv1d, BackTALLoss, BackTALModel, affinity_conv1d
from backtal.demo import make_dataset
from backtal.settings import recipe
from backtal.training import TrainingSet, fit

DRY = "--dry-run" in sys.argv
DEVICE = "cpu" if DRY else "cuda"
KERNELS = not DRY or os.environ.get("TRITON_INTERPRET") == "1"
BATCH, WIDTH, LENGTH, TAPS = (2, 10, 20, 3) if DRY else (16, 2048, 750, 3)
REPEATS, SETS, MATRIX = (2, 2, 32) if DRY else (30, 3, 8192)
VIDEOS, EPOCHS = (4, 2) if DRY else (200, 100)
FLOPS = 2 * BATCH * LENGTH * WIDTH * WIDTH * TAPS


def alternate(forms, repeats=REPEATS):
    """Median milliseconds of each form, called with 0, 1, 2...; they take turns, after a round that does not count."""
    times = {name: [] for name in forms}
    for turn in range(repeats + 1):
        for name, form in forms.items():
            times[name].append(milliseconds(lambda form=form, turn=turn: form(turn)))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def milliseconds(run):
    if DEVICE == "cpu":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(4_000_000)  # some 2 ms, in which the host gets ahead: what counts is the device's time
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def peak_memory(run):
    """MiB that are allocated at most while it runs, beyond what is there already; 0 without a GPU."""
    if DEVICE == "cpu":
        run()
        return 0.0
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def matrix_rate():
    """TFLOP/s of a large bfloat16 matrix product on random data: what the device reaches."""
    a, b = (torch.randn(MATRIX, MATRIX, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * MATRIX**3 / alternate({"product": lambda _: a @ b})["product"] / 1e9


def convolution():
    """Bfloat16 forward, and forward + backward with all gradients, against cuDNN's conv1d and the unfold form."""
    torch.backends.cudnn.benchmark = True
    options = {"device": DEVICE, "dtype": torch.bfloat16}
    layer = AffinityConv1d(WIDTH, WIDTH, TAPS, bias=False, backend="triton" if KERNELS else "blas").to(**options)
    plain = torch.nn.Conv1d(WIDTH, WIDTH, TAPS, padding="same", bias=False).to(**options)
    weight = layer.weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    functions = {
        "conv1d": lambda x, a: plain(x),
        "backtal": layer,
        "unfold": lambda x, a: affinity_conv1d(x, weight, a, backend="reference"),
    }
    sets = [
        (
            torch.randn(BATCH, WIDTH, LENGTH, **options).requires_grad_(),
            torch.rand(BATCH, TAPS, LENGTH, **options).requires_grad_(),
            torch.randn(BATCH, WIDTH, LENGTH, **options),
        )
        for _ in range(SETS)
    ]
    parameters = {"conv1d": plain.weight, "backtal": layer.weight, "unfold": weight}
    errors = relative_errors(layer, *sets[0])
    print(f"relative errors of output and gradients of x, weight, affinity: {errors}", file=sys.stderr)

    def forward(name):
        def run(turn):
            x, affinity, _ = sets[turn % SETS]
            with torch.inference_mode():
                return functions[name](x, affinity)

        return run

    def both(name):
        def run(turn):
            x, affinity, gradient = sets[turn % SETS]
            inputs = [x, parameters[name]] + [affinity] * (name != "conv1d")
            return torch.autograd.grad(functions[name](x, affinity), inputs, gradient)

        return run

    rate, rows = matrix_rate(), []
    for title, form, flops in (("forward", forward, FLOPS), ("forward + backward", both, 3 * FLOPS)):
        times = alternate({name: form(name) for name in functions})
        memory = {name: peak_memory(lambda name=name, form=form: form(name)(0)) for name in functions}
        read = sets[0] if form is both else sets[0][:2]
        inputs = sum(t.numel() * t.element_size() for t in (*read, weight)) / 2**20
        rows += [
            {
                "pass": title,
                "form": name,
                "ms": times[name],
                "vs conv1d": times[name] / times["conv1d"],
                "vs unfold": times[name] / times["unfold"],
                "TFLOP/s": flops / times[name] / 1e9,
                "of the device's product": flops / times[name] / 1e9 / rate,
                "extra MiB": memory[name],
                "extra vs conv1d": memory[name] / memory["conv1d"] if memory["conv1d"] else 1.0,
                "with what it reads": (inputs + memory[name]) / (inputs + memory["conv1d"]),
            }
            for name in functions
        ]
    return [*rows, {"pass": "product", "form": f"{MATRIX} x {MATRIX}", "TFLOP/s": rate}]


def relative_errors(layer, x, affinity, gradient):
    """Of the output and of the gradients, against the specification in float32."""
    tensors = (x, layer.weight, affinity)
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    out, expected = layer(x, affinity), affinity_conv1d(*exact, backend="reference")
    found = [out, *torch.autograd.grad(out, tensors, gradient)]
    wanted = [expected, *torch.autograd.grad(expected, exact, gradient.float())]
    errors = [float(((a - b).norm() / b.norm()).detach()) for a, b in zip(found, wanted, strict=True)]
    assert max(errors) < 0.02, f"the kernels are wrong: relative errors {errors}"
    return [f"{error:.1e}" for error in errors]


def settings():
    chosen = recipe("thumos14").with_settings([f"epochs={EPOCHS}"])
    small = ["hidden_dim=8", "filter_dim=4", "embedding_dim=4", "temporal_length=20", "batch_size=2"]
    return chosen.with_settings(small) if DRY else chosen


def training():
    """One step of THUMOS14's shapes, data on the device: forward, losses, backward and Adam, with autocast."""
    chosen, labels = settings(), tuple(f"class{i:02d}" for i in range(20))
    model = BackTALModel(replace(chosen.model, labels=labels, feature_dim=WIDTH)).to(DEVICE).train()
    criterion = BackTALLoss(chosen.loss, model.config.topk_ratio)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    x = torch.randn(BATCH, WIDTH, LENGTH, device=DEVICE).relu()
    targets = torch.zeros(BATCH, 20, device=DEVICE)
    targets[:, 0] = 1
    clicks = torch.full((BATCH, LENGTH), -1, device=DEVICE)
    clicks[:, ::70] = 20

    def step(network):
        def run(turn):
            optimizer.zero_grad()
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                output = network(x)
            output = type(output)(*(t.float() if t is not None and t.is_floating_point() else t for t in output))
            criterion(output, targets, clicks)["total"].backward()
            optimizer.step()

        return run

    compiled = torch.compile(model, fullgraph=True, backend="eager" if DRY else "inductor")
    forms = {"backtal": step(model), "backtal, torch.compile": step(compiled)}
    return [{"form": name, "ms": value} for name, value in alternate(forms).items()]


def whole_fit():
    """Seconds of `fit` on a dataset of THUMOS14's size, from files to a checkpoint, after one epoch that compiles."""
    rows = []
    for precision in ("float32", "bfloat16"):
        chosen = settings().with_settings([f"precision={precision}"])
        with tempfile.TemporaryDirectory() as root:
            folder = make_dataset(Path(root) / "data", num_training=VIDEOS, num_test=1, dim=WIDTH)
            for epochs in (1, EPOCHS):
                began = time.perf_counter()
                training_set = TrainingSet(folder, "training", folder.clicks(folder.click_files()), chosen.model)
                limited = chosen.with_settings([f"epochs={epochs}"])
                fit(training_set, limited, Path(root) / f"run{epochs}", device="cpu" if DRY else None)
                seconds = time.perf_counter() - began
        rows.append({"videos": VIDEOS, "epochs": EPOCHS, "precision": precision, "seconds": seconds})
    return rows


def tiles():
    """Milliseconds of each kernel with each tile; ``chosen`` marks what the library takes."""
    if not KERNELS:
        return [{"kernel": "none", "note": "needs CUDA or TRITON_INTERPRET=1"}]
    from backtal.ops import triton as kernels

    options = {"device": DEVICE, "dtype": torch.bfloat16}
    x, grad = torch.randn(BATCH, WIDTH, LENGTH, **options), torch.randn(1, BATCH, WIDTH, LENGTH, **options)
    weight = torch.randn(TAPS, WIDTH, WIDTH, **options).permute(1, 2, 0)
    affinity = torch.rand(1, BATCH, TAPS, LENGTH, **options)
    forms = {
        "forward": lambda _: kernels.forward(x, weight, affinity, 1),
        "gradients of x and affinity": lambda _: kernels.backward(grad, x, weight, affinity, 1, (True, False, True)),
        "gradient of weight": lambda _: kernels.backward(grad, x, weight, affinity, 1, (False, True, False)),
    }
    shapes = [(128, 256, 8), (256, 128, 8), (128, 128, 8), (128, 128, 4), (64, 256, 4), (64, 128, 4)]
    candidates = [
        kernels.Tile(height, width, depth, warps, stages)
        for height, width, warps in shapes
        for depth, stages in ((64, 3), (64, 4), (128, 2))
    ]
    choose, rows = kernels._tile, []
    for name, form in forms.items():
        for tile in [None, *([kernels.Tile(16, 32, 16, 1, 1)] if DRY else candidates)]:
            kernels._tile = choose if tile is None else lambda *args, tile=tile, **kwargs: tile
            try:
                value = alternate({"": form}, 2 if DRY else 10)[""]
            except Exception as failure:
                value = type(failure).__name__
            rows.append({"kernel": name, "tile": "chosen" if tile is None else str(tuple(tile)), "ms": value})
    kernels._tile = choose
    return rows


def as_markdown(rows):
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        cells = [row.get(column, "") for column in rows[0]]
        lines.append(f"| {' | '.join(f'{v:.3g}' if isinstance(v, float) else str(v) for v in cells)} |")
    return "\n".join(lines)


TABLES = {"convolution": convolution, "training": training, "fit": whole_fit, "tiles": tiles}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=["convolution", "training", "fit"])
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; the figures mean nothing")
    parser.add_argument("--compile", action="store_true", help="compile every kernel for every generation, run none")
    arguments = parser.parse_args()
    if arguments.compile:
        from compiled import table

        rows = table()
        print(json.dumps(rows, indent=1) if arguments.json else as_markdown(rows))
        return
    if not arguments.dry_run and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: no CUDA device here; --dry-run runs it on tiny shapes on the CPU")
    name = "dry run" if arguments.dry_run else torch.cuda.get_device_name()
    results = {"device": name, "torch": torch.__version__}
    if not arguments.json:
        print(f"{name}, PyTorch {torch.__version__}, bfloat16, B = {BATCH}, T = {LENGTH}, {WIDTH} -> {WIDTH}")
    for table in arguments.only:
        print(f"measuring {table}", file=sys.stderr)
        results[table] = rows = TABLES[table]()
        if not arguments.json:
            print(f"\n### {table}\n\n{as_markdown(rows)}")
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
