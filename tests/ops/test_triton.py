"""The Triton kernels against the specification: on a GPU, or by the interpreter (`test_ops.py` starts that)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backtal import AffinityConv1d, affinity_conv1d

if torch.cuda.is_available():
    DEVICE = "cuda"
elif os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
else:
    pytest.skip("needs a GPU or TRITON_INTERPRET=1; test_ops.py runs it", allow_module_level=True)

from backtal.ops import forms, operator, tf32_allowed
from backtal.ops import triton as kernels

LAYOUTS = ["per_tap", "channel_blocks"]
# On the whole result: half types round every product's operands, and the result once.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
SHAPES = [  # batch, channels, outputs, length, taps, dilation, streams
    (1, 1, 1, 1, 1, 1, 1),
    (2, 7, 4, 2, 5, 1, 2),
    (2, 19, 21, 17, 3, 1, 1),
    (2, 9, 18, 20, 3, 2, 2),
    (1, 5, 3, 31, 7, 2, 3),
    (2, 4, 9, 6, 3, 8, 1),
    (3, 3, 4, 35, 1, 1, 1),
    (1, 35, 3, 18, 3, 1, 4),
    (0, 4, 2, 9, 3, 1, 1),
]


def inputs(shape, dtype=torch.float32):
    """x, weight and affinity; some affinities are 0 or next to it."""
    batch, channels, outputs, length, taps, _, streams = shape
    x = torch.randn(batch, channels, length)
    weight = torch.randn(outputs, channels, taps)
    affinity = torch.randn(streams, batch, taps, length)
    affinity *= torch.tensor([1.0, 1.0, 0.0, 1e-7, -1e-30])[torch.randint(5, affinity.shape)]
    return [tensor.to(DEVICE, dtype) for tensor in (x, weight, affinity)]


def results(tensors, seed, **options):
    """The output and the gradients."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    out = affinity_conv1d(*tensors, **options)
    return [out.detach(), *torch.autograd.grad(out, tensors, seed.to(out))]


def assert_matches(tensors, **options):
    """Equal to the specification in float64; every element written."""
    streams, batch, _, length = tensors[2].shape
    seed = torch.randn(streams, batch, tensors[1].shape[0], length)
    found = results(tensors, seed, backend="triton", **options)
    expected = results([t.double() for t in tensors], seed.to(tensors[0]), backend="reference", **options)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == tensors[0].dtype
        assert one.shape == other.shape
        assert (one.double() - other).norm() <= TOLERANCE[one.dtype] * other.norm()


def allow_tf32(allowed):
    if hasattr(torch.backends.cudnn, "conv"):  # from PyTorch 2.9 on
        torch.backends.cudnn.conv.fp32_precision = "tf32" if allowed else "ieee"
    else:
        torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture(autouse=True)
def _exact():
    """float32 is multiplied as such, not rounded to TF32, as convolutions on CUDA are by default."""
    before = tf32_allowed()
    allow_tf32(False)
    yield
    allow_tf32(before)


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """Fill new memory with NaN: an element that is not written, or padding that is read, shows."""
    new_empty, empty_like = torch.Tensor.new_empty, torch.empty_like

    def poisoned(tensor):
        return tensor.fill_(torch.nan) if tensor.is_floating_point() and type(tensor) is torch.Tensor else tensor

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *args, **kwargs: poisoned(new_empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poisoned(empty_like(*args, **kwargs)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_specification(shape, layout):
    assert_matches(inputs(shape), dilation=shape[5], layout=layout)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
def test_half_types(shape, dtype):
    assert_matches(inputs(shape, dtype), dilation=shape[5])


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU has one way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [*SHAPES[1:4], (2, 32, 16, 20, 3, 1, 2)], ids=str)
def test_plain_copies(shape, dtype, monkeypatch):
    """As on Ampere and Ada, through pointers."""
    monkeypatch.setattr(kernels, "_card", lambda x: (forms.FORMS[8, 0], 4))
    assert_matches(inputs(shape, dtype), dilation=shape[5])


@pytest.mark.skipif(DEVICE == "cpu", reason="large tiles are for a GPU")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_large_shapes(dtype, layout):
    for shape in ((4, 520, 392, 301, 3, 1, 2), (16, 1024, 1024, 750, 3, 1, 1), (1, 264, 1032, 333, 5, 2, 1)):
        assert_matches(inputs(shape, dtype), dilation=shape[5], layout=layout)


def test_any_strides():
    x, weight, affinity = inputs((2, 16, 12, 20, 3, 1, 2))
    time_major = x.transpose(1, 2).contiguous().transpose(1, 2)
    tap_major = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    everywhere = affinity[:, :, 1:2].expand_as(affinity)
    for tensors in ((time_major, tap_major, affinity), (x[:, ::2], weight[:, 1::2], affinity), (x, weight, everywhere)):
        assert_matches(tensors)
    out = affinity_conv1d(x, weight, affinity, backend="triton")
    torch.testing.assert_close(affinity_conv1d(time_major, tap_major, affinity, backend="triton"), out, rtol=0, atol=0)
    x.requires_grad_()
    ones = torch.ones((), device=DEVICE).expand_as(out)
    found, expected = (
        torch.autograd.grad(affinity_conv1d(x, weight, affinity, backend=name), x, ones)[0]
        for name in ("triton", "reference")
    )
    torch.testing.assert_close(found, expected)


def test_only_the_gradients_that_are_wanted():
    tensors = inputs((2, 7, 5, 18, 3, 1, 2))
    for wanted in range(3):
        chosen = [tensor.detach().requires_grad_(index == wanted) for index, tensor in enumerate(tensors)]
        found, expected = (
            torch.autograd.grad(affinity_conv1d(*chosen, backend=name).sum(), chosen[wanted])[0]
            for name in ("triton", "reference")
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_videos_do_not_touch_each_other():
    x, weight, affinity = inputs((3, 6, 5, 18, 3, 2, 1))
    seed = torch.randn(1, 3, 5, 18)
    clean = results((x, weight, affinity), seed, dilation=2, backend="triton")
    x[::2], affinity[:, ::2], seed[:, ::2] = torch.nan, torch.nan, torch.nan
    out, grad_x, _, grad_affinity = results((x, weight, affinity), seed, dilation=2, backend="triton")
    for found, expected in (
        (out[:, 1], clean[0][:, 1]),
        (grad_x[1], clean[1][1]),
        (grad_affinity[:, 1], clean[3][:, 1]),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert out[:, ::2].isnan().all()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_no_affinity_gives_zero_and_invalid_values_show():
    x, weight, affinity = inputs((1, 6, 5, 18, 3, 1, 1))
    affinity = torch.rand_like(affinity) + 0.5
    affinity[..., 4] = 0
    affinity[..., 1, 9], affinity[..., 2, 11] = torch.nan, torch.inf
    out = affinity_conv1d(x, weight, affinity, backend="triton")[0, 0]
    assert (out[:, 4] == 0).all()
    assert out[:, 9].isnan().all()
    assert not out[:, 11].isfinite().any()
    assert out[:, [*range(9), 10, *range(12, 18)]].isfinite().all()


def test_the_same_bits_every_time():
    tensors, seed = inputs((3, 9, 7, 35, 1, 1, 1)), torch.randn(1, 3, 7, 35)
    for one, other in zip(*(results(tensors, seed, backend="triton") for _ in range(2)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_operator_is_registered_properly(monkeypatch):
    monkeypatch.undo()  # opcheck makes tensors of its own
    x, weight, affinity = inputs((2, 5, 4, 9, 3, 1, 2))
    for tensors in ((x, weight, affinity), (x.transpose(1, 2).contiguous().transpose(1, 2), weight, affinity)):
        torch.library.opcheck(operator.per_tap, (*(t.detach().requires_grad_() for t in tensors), 2, "triton"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiles_as_one_graph(layout, monkeypatch):
    monkeypatch.undo()
    layer = AffinityConv1d(6, 3, 3, layout=layout, backend="triton").to(DEVICE)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for batch, length in ((2, 9), (3, 14)):
        x, affinity = (torch.randn(batch, n, length, device=DEVICE, requires_grad=True) for n in (6, 3))
        found, expected = (function(x, affinity) for function in (compiled, layer))
        torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad(out.square().sum(), (x, affinity, layer.weight)) for out in (found, expected)]
        torch.testing.assert_close(*gradients)


@pytest.mark.skipif(DEVICE == "cpu", reason="the choice for CUDA tensors")
def test_chosen_on_ampere_and_newer(monkeypatch):
    tensors = inputs((2, 8, 4, 9, 3, 1, 1))
    calls = []
    monkeypatch.setattr(operator, "triton_form", lambda *args: calls.append(args) or args[0])
    ampere = torch.cuda.get_device_capability() >= (8, 0)
    for dtype, tf32, expected in (
        (torch.bfloat16, False, ampere),
        (torch.float32, True, ampere),
        (torch.float32, False, False),
        (torch.float64, True, False),
    ):
        allow_tf32(tf32)
        affinity_conv1d(*(tensor.to(dtype) for tensor in tensors))
        assert len(calls) == expected
        calls.clear()


@pytest.mark.skipif(DEVICE == "cuda", reason="the dry run is for machines without a GPU")
def test_benchmark_runs_dry():
    command = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "gpu.py")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "no CUDA device here" in refused.stderr
    command += ["--dry-run", "--json", "--only", "convolution", "training", "fit", "tiles"]
    tables = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {row["form"] for row in tables["convolution"]} > {"conv1d", "backtal", "unfold"}
    assert [row["form"] for row in tables["training"]] == ["backtal", "backtal, torch.compile"]
    assert tables["fit"][0]["seconds"] > 0
    assert all(isinstance(row["ms"], float) for row in tables["tiles"])
