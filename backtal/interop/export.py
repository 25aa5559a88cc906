"""Export a network as a graph that runs without backtal: ONNX, or PyTorch's own ``torch.export`` form.

The graph takes ``features [B, D, T]`` (float32, not standardised: the graph does that) and ``lengths [B]`` (int64, the
frames of each video; T where all fill it) for any batch size and any T of at least the kernel size (of a detector: any
multiple of the highest stride, 16 for five levels, from twice that on; pad with anything), and returns

- ``scores [B, C+1]``: video-level scores before softmax (eq. 1),
- ``cas [B, C+1, T]``: class activation sequence before softmax, background last, zero beyond a video's length,

and for the paper's network

- ``foreground [B, 1, T]``: weights in [0, 1],
- ``magnitude [B, 1, T]``: norm of the first layer's activations, which the released systems' localization reads,

for the detector, at its N points (1.94 T for five levels and T a multiple of 16),

- ``classes [B, C, N]``: probability of each class, 0 beyond a video's length,
- ``intervals [B, N, 2]``: start and end of the segment around each point, in snippets.

Reading features, rescaling them to a fixed `temporal_length` and turning the sequence into segments are not part of the
graph; what they need (labels, feature spec, settings) is stored with it as JSON.
"""

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from backtal.errors import ConfigError, install
from backtal.files import atomic_path
from backtal.nn.pretrained import LocalizationModel

FORMATS = ("onnx", "torch")
INPUTS = ("features", "lengths")
METADATA = "backtal"


class Graph(nn.Module):
    """What is exported: the network in evaluation mode on the CPU, returning tensors alone."""

    def __init__(self, model: LocalizationModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        for parameter in self.model.parameters():
            parameter.data = parameter.data.contiguous()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """``[B, D, T]``, ``[B]`` -> the model's `exports`."""
        return self.model.exported(self.model(features, lengths))


class Exported(NamedTuple):
    """The file, and its greatest difference from PyTorch on random videos; None where it was not run."""

    path: Path
    difference: float | None


def export(model: LocalizationModel, path: str | Path, format: str = "onnx", *, check: int = 5) -> Exported:
    """Write a network as a graph, run the file on random videos and compare it with the model.

    Args:
        model: the network; it stays as it is.
        path: the file, ``.onnx`` or ``.pt2``.
        format: ``"onnx"`` (needs the extra ``export``) or ``"torch"``.
        check: random shapes to compare on; 0 for none.

    Raises:
        ConfigError: for an unknown format.
        ImportError: if onnx, onnxscript or onnxruntime are not installed.

    Example:
        >>> import tempfile
        >>> from backtal import BackTALModel, ModelConfig
        >>> model = BackTALModel(ModelConfig(feature_dim=8, labels=("jump", "run"), hidden_dim=8))
        >>> export(model, Path(tempfile.mkdtemp()) / "model.pt2", "torch").difference < 1e-4
        True
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if format == "onnx" and missing:
        raise ImportError(f"ONNX export needs {', '.join(missing)}: {install('export')}")
    names, path, graph = model.exports, Path(path), Graph(model)
    described = {"architecture": model.architecture, "model": asdict(model.config)}
    metadata = json.dumps(described | {"localization": asdict(model.localization)})
    with atomic_path(path) as temporary:
        if format == "onnx":
            _write_onnx(_program(graph), temporary, metadata, names)
        else:
            buffer = io.BytesIO()
            torch.export.save(_program(graph), buffer, extra_files={METADATA: metadata})
            temporary.write_bytes(buffer.getvalue())
    run = open_onnx(path) if format == "onnx" else open_torch(path)
    return Exported(path, max((_difference(graph, run, seed) for seed in range(check)), default=None))


# Without a largest size, PyTorch 2.6 minds that a size could be the largest integer.
_LARGEST = 2**31 - 1


def _program(graph: Graph) -> torch.export.ExportedProgram:
    config = graph.model.config
    model, multiple = graph.model, graph.model.multiple
    # Divided into blocks, the length of a batch is known to be a multiple; a small one would be taken for a constant.
    length = multiple * 5 if multiple > 1 else model.shortest + 20
    name, least = ("blocks", 2) if multiple > 1 else ("length", model.shortest)
    blocks = torch.export.Dim(name, min=least, max=_LARGEST)
    sizes = {0: torch.export.Dim("batch", min=1, max=_LARGEST), 2: multiple * blocks if multiple > 1 else blocks}
    example = (torch.zeros(2, config.feature_dim, length), torch.tensor([length, length - 3]))
    return torch.export.export(graph, example, dynamic_shapes=(sizes, {0: sizes[0]}), strict=False)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: str, names: Sequence[str]) -> None:
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of the exporter's own making: its dependencies deprecate what it uses.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            exported = torch.onnx.export(
                program, dynamo=True, input_names=INPUTS, output_names=names, verbose=False, optimize=True
            )
            assert exported is not None
            exported.model.metadata_props[METADATA] = metadata
            exported.save(path)
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


Runner = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]


def open_onnx(path: str | Path) -> Runner:
    """A function ``(features, lengths) -> [...]``, the model's `exports`, that runs an ONNX file.

    Raises:
        ImportError: if onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(f"running ONNX files needs onnxruntime: {install('export')}") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(features: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(output) for output in session.run(None, {"features": features, "lengths": lengths})]

    return run


def open_torch(path: str | Path) -> Runner:
    """A function ``(features, lengths) -> [...]``, the model's `exports`, that runs a ``.pt2`` file."""
    module = torch.export.load(path).module()

    def run(features: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in module(torch.from_numpy(features), torch.from_numpy(lengths))]

    return run


def _difference(graph: Graph, run: Runner, seed: int) -> float:
    """Greatest absolute difference on a random batch of videos."""
    rng, config = np.random.default_rng(seed), graph.model.config
    model = graph.model
    least = max(model.shortest, 2 * model.multiple)
    batch, length = int(rng.integers(1, 5)), int(rng.integers(least, max(300, 2 * least)))
    length = length // model.multiple * model.multiple
    features = rng.standard_normal((batch, config.feature_dim, length)).astype(np.float32)
    lengths = rng.integers(1, length + 1, batch)
    with torch.inference_mode():
        expected = graph(torch.from_numpy(features), torch.from_numpy(lengths))
    found = run(features, lengths)
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))
