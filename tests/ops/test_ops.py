import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from backtal import AffinityConv1d, BackTALModel, ModelConfig, affinity_conv1d, local_affinity
from backtal.ops import BACKENDS, blas, operator, reference

FAST = [name for name in BACKENDS if name != "reference"]
LAYOUTS = ["per_tap", "channel_blocks"]
SHAPES = [  # batch, channels, outputs, length, taps, dilation
    (1, 1, 1, 1, 1, 1),
    (2, 3, 5, 1, 3, 1),
    (2, 7, 4, 2, 5, 1),
    (3, 8, 6, 17, 3, 1),
    (1, 5, 3, 31, 7, 2),
    (2, 4, 9, 6, 3, 8),
    (0, 4, 2, 9, 3, 1),
]


def inputs(shape, dtype=torch.float64):
    batch, channels, outputs, length, taps, _ = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(batch, channels, length, generator=generator, dtype=dtype)
    weight = torch.randn(outputs, channels, taps, generator=generator, dtype=dtype)
    affinity = torch.randn(batch, taps, length, generator=generator, dtype=dtype)
    bias = torch.randn(outputs, generator=generator, dtype=dtype)
    return x, weight, affinity, bias


@pytest.fixture(params=["one piece", "pieces"])
def pieces(request, monkeypatch):
    """The BLAS form goes through videos and channels in pieces, which tests are too small for."""
    if request.param == "pieces":
        monkeypatch.setattr(blas, "_BLOCK", 3)
        monkeypatch.setattr(blas, "_PRODUCT", 20)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", FAST)
def test_forward_and_gradients_equal_the_specification(backend, shape, layout):
    results = []
    for name in ("reference", backend):
        tensors = [tensor.requires_grad_() for tensor in inputs(shape)]
        out = affinity_conv1d(*tensors, dilation=shape[-1], layout=layout, backend=name)
        gradients = torch.autograd.grad(out, tensors, torch.linspace(-1, 1, out.numel()).view(out.shape).to(out))
        results.append([out.detach(), *gradients])
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_streams_are_separate_convolutions(backend, layout):
    x, weight, affinity, bias = inputs((2, 4, 3, 9, 5, 1))
    tensors = [t.requires_grad_() for t in (x, weight, torch.stack([affinity, affinity.flip(2), affinity**2]), bias)]
    together = affinity_conv1d(*tensors[:3], bias, layout=layout, backend=backend)
    apart = torch.stack(
        [affinity_conv1d(x, weight, one, bias, layout=layout, backend="reference") for one in tensors[2]]
    )
    torch.testing.assert_close(together, apart)
    seed = torch.randn_like(apart)
    for found, expected in zip(
        torch.autograd.grad(together, tensors, seed), torch.autograd.grad(apart, tensors, seed), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_gradients_only_where_they_are_wanted():
    for wanted in range(3):
        tensors = list(inputs((2, 4, 3, 9, 3, 1))[:3])
        for streams in (tensors[2], torch.stack([tensors[2]] * 2)):
            chosen = [*tensors[:2], streams]
            chosen[wanted] = chosen[wanted].clone().requires_grad_()
            found, expected = (
                torch.autograd.grad(affinity_conv1d(*chosen, backend=b).sum(), chosen[wanted])[0]
                for b in ("blas", "reference")
            )
            torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend, layout):
    x, weight, affinity, bias = (tensor.requires_grad_() for tensor in inputs((2, 4, 3, 6, 3, 2)))
    assert torch.autograd.gradcheck(
        lambda *tensors: affinity_conv1d(*tensors, dilation=2, layout=layout, backend=backend),
        (x, weight, affinity, bias),
    )


def test_specification_against_the_equation_in_loops():
    x, weight, affinity, _ = inputs((2, 3, 4, 7, 3, 2))
    expected = torch.zeros(2, 4, 7, dtype=x.dtype)
    for t in range(7):
        for tap in range(3):
            source = t + (tap - 1) * 2
            if 0 <= source < 7:
                expected[:, :, t] += (x[:, :, source] * affinity[:, tap, t, None]) @ weight[:, :, tap].T
    torch.testing.assert_close(reference.affinity_conv1d(x, weight, affinity[None], 2, "per_tap")[0], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_affinity_one_is_a_plain_convolution(backend, layout):
    x, weight, affinity, bias = inputs((2, 6, 5, 20, 5, 2))
    out = affinity_conv1d(x, weight, torch.ones_like(affinity), bias, dilation=2, layout=layout, backend=backend)
    torch.testing.assert_close(out, F.conv1d(x, weight, bias, padding=4, dilation=2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types_and_strides(backend, dtype):
    x, weight, affinity, bias = inputs((2, 16, 8, 30, 3, 1))
    expected = affinity_conv1d(x, weight, affinity, bias, backend="reference")
    strided = x.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
    out = affinity_conv1d(strided, weight.to(dtype), affinity.to(dtype), bias.to(dtype), backend=backend)
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=20 * tolerance)


def test_affinity_is_the_cosine():
    embedding = torch.randn(2, 4, 9, dtype=torch.float64)
    affinity = local_affinity(embedding, 5, dilation=2)
    for tap in range(5):
        for t in range(9):
            other = t + (tap - 2) * 2
            cosine = F.cosine_similarity(embedding[:, :, t], embedding[:, :, other], dim=1) if 0 <= other < 9 else 0.0
            torch.testing.assert_close(affinity[:, tap, t], torch.as_tensor(cosine).expand(2).to(affinity))
    assert torch.autograd.gradcheck(lambda e: local_affinity(e, 3), embedding.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_zero_embedding_is_like_no_frame(dtype):
    embedding = torch.randn(1, 4, 6).to(dtype)
    embedding[..., 3:] = 0
    embedding.requires_grad_()
    affinity = local_affinity(embedding, 3)
    affinity.sum().backward()
    assert (affinity[..., 3:] == 0).all()
    assert (affinity[:, 1, :3] > 0.99).all()
    assert embedding.grad.abs().max() < 100


def test_errors_say_what_was_found():
    x, weight, affinity, bias = inputs((2, 3, 4, 7, 3, 1))
    with pytest.raises(ValueError, match=r"bias must be \[O\] = \(4,\), got \(1,\)"):
        affinity_conv1d(x, weight, affinity, bias[:1])
    with pytest.raises(ValueError, match=r"one dtype, got .*float64, torch.float32"):
        affinity_conv1d(x, weight, affinity, bias.float())
    for empty in (
        (x[:, :0], weight[:, :0], affinity),
        (x, weight[:0], affinity),
        (x[..., :0], weight, affinity[..., :0]),
    ):
        for backend in BACKENDS:
            with pytest.raises(ValueError, match="x needs a channel and a frame, weight a row, affinity a stream"):
                affinity_conv1d(*empty, backend=backend)
    with pytest.raises(ValueError, match="odd and positive, got 4"):
        AffinityConv1d(3, 4, 4)
    with pytest.raises(ValueError, match="expects 3 input channels, x has 2"):
        affinity_conv1d(x[:, :2], weight, affinity)
    with pytest.raises(ValueError, match=r"affinity must be \[B, K, T\] = \(2, 3, 7\), got \(2, 3, 6\)"):
        affinity_conv1d(x, weight, affinity[..., :6])
    with pytest.raises(ValueError, match="odd and positive, got 2"):
        affinity_conv1d(x, weight[..., :2], affinity[:, :2])
    with pytest.raises(ValueError, match="dilation must be at least 1"):
        affinity_conv1d(x, weight, affinity, dilation=0)
    with pytest.raises(ValueError, match="got shapes"):
        affinity_conv1d(x[0], weight, affinity)
    with pytest.raises(ValueError, match="layout must be"):
        affinity_conv1d(x, weight, affinity, layout="blocks")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"backend must be one of \['blas', 'reference', 'triton'\] or None, got 'cuda'"
    ):
        affinity_conv1d(x, weight, affinity, backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one dtype, got torch.float64, torch.float32, torch.float64"):
        affinity_conv1d(x, weight.float(), affinity)
    with pytest.raises(ValueError, match="one device, got cpu, cpu, meta"):
        affinity_conv1d(x, weight, affinity.to("meta"))
    with pytest.raises(ValueError, match=r"must be \[B, E, T\]"):
        local_affinity(x[0], 3)


def test_layer_is_a_drop_in_for_conv1d():
    layer, plain = AffinityConv1d(6, 4, 3, dilation=2), torch.nn.Conv1d(6, 4, 3, dilation=2, padding="same")
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 15)
    torch.testing.assert_close(layer(x, torch.ones(2, 3, 15)), plain(x))
    assert "6, 4, kernel_size=3, dilation=2, bias=True" in repr(layer)


def test_triton_says_why_it_cannot_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, weight, affinity, _ = inputs((2, 3, 4, 7, 3, 1), torch.float32)
    with pytest.raises(ValueError, match=r"'triton' needs CUDA tensors \(or TRITON_INTERPRET=1\); x is on cpu"):
        affinity_conv1d(x, weight, affinity, backend="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match=r"'triton' takes float32, float16 and bfloat16; x is torch.float64"):
        affinity_conv1d(x.double(), weight.double(), affinity.double(), backend="triton")
    monkeypatch.setattr("backtal.ops._HAS_TRITON", False)
    with pytest.raises(ValueError, match=r"'triton' needs the package triton, 3.4 or newer, which"):
        affinity_conv1d(x, weight, affinity, backend="triton")


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="test_triton.py runs by itself on a GPU")
def test_triton_under_the_interpreter():
    """The interpreter must be chosen before Triton is imported: in a process of its own."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(Path(__file__).with_name("test_triton.py"))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def assert_same_results(one, other, inputs):
    """Values and gradients of two functions agree."""
    found, expected = ([t for t in function(*inputs) if t is not None] for function in (one, other))
    torch.testing.assert_close(found, expected)
    wanted = [t for t in inputs if t.requires_grad]
    if wanted:
        sums = [sum(t.square().sum() for t in tensors if t.requires_grad) for tensors in (found, expected)]
        torch.testing.assert_close(*(torch.autograd.grad(total, wanted) for total in sums))


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("wanted", [(0, 1, 2), (1,), (0, 2)], ids=str)
def test_operator_is_registered_properly(wanted):
    x, weight, affinity, _ = inputs((2, 4, 3, 9, 5, 1))
    tensors = [x.transpose(1, 2).contiguous().transpose(1, 2), weight, torch.stack([affinity, affinity**2])]
    for index in wanted:
        tensors[index].requires_grad_()
    torch.library.opcheck(operator.per_tap, (*tensors, 2, "blas"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_compiles_as_one_graph(backend, layout):
    torch.compiler.reset()
    layer = AffinityConv1d(4, 3, 3, layout=layout, backend=backend)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for batch, length in ((2, 9), (3, 14), (4, 15)):
        x, affinity = torch.randn(batch, 4, length), torch.randn(2, batch, 3, length)
        assert_same_results(compiled, layer, (x.requires_grad_(), affinity.requires_grad_()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exports_for_any_batch_and_length(layout):
    layer = AffinityConv1d(4, 3, 3, layout=layout)
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=4096)
    shapes = ({0: batch, 2: length}, {0: batch, 2: length})
    program = torch.export.export(layer, (torch.randn(2, 4, 9), torch.randn(2, 3, 9)), dynamic_shapes=shapes)
    assert_same_results(program.module(), layer, (torch.randn(5, 4, 40), torch.randn(5, 3, 40)))


@pytest.fixture
def model():
    sizes = {"hidden_dim": 8, "filter_dim": 4, "embedding_dim": 4, "embedding_hidden_dim": 4}
    return BackTALModel(ModelConfig(feature_dim=6, labels=("a", "b"), dropout=0.0, input_dropout=0.0, **sizes))


@pytest.mark.parametrize("training", [False, True])
def test_model_compiles_as_one_graph(model, training):
    torch.compiler.reset()
    compiled = torch.compile(model.train(training), fullgraph=True, backend="aot_eager")
    for batch, length in ((2, 20), (3, 27)):
        features, lengths = torch.randn(batch, 6, length), torch.arange(length, length - batch, -1)
        assert_same_results(compiled, model, (features.requires_grad_(), lengths))


def test_model_exports_for_any_batch(model):
    batch = torch.export.Dim("batch", min=1, max=64)
    features, lengths = torch.randn(2, 6, 20), torch.tensor([20, 13])
    program = torch.export.export(model.eval(), (features, lengths), dynamic_shapes=({0: batch}, {0: batch}))
    assert_same_results(program.module(), model, (torch.randn(3, 6, 20), torch.tensor([20, 13, 7])))


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_as_in_a_convolution(backend):
    x, weight, affinity, bias = (t.float().requires_grad_() for t in inputs((2, 16, 8, 30, 3, 1)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = affinity_conv1d(x, weight, affinity, bias, backend=backend)
    assert out.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.sum(), (x, weight, affinity, bias)))
    torch.testing.assert_close(out.float(), affinity_conv1d(x, weight, affinity, bias), rtol=0.1, atol=1.0)
