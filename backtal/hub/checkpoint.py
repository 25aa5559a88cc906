"""Checkpoint folders: reading what is not trusted, and writing.

A checkpoint is ``config.json``, ``model.safetensors`` and a model card. Nothing in it is executed: the configuration is
checked field by field, the header of the weights is compared with the network that the configuration describes, and
only then is memory taken. Reading takes at most 64 MiB beyond the network itself and the mapped file, and no network
has more than `MAX_PARAMETERS`.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backtal.errors import CheckpointError, ConfigError, name_some
from backtal.files import atomic_path
from backtal.settings.architectures import ARCHITECTURES
from backtal.settings.config import NetworkConfig, from_dict

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, RECIPE_FILE = "config.json", "model.safetensors", "README.md", "recipe.json"
MAX_CONFIG, MAX_HEADER, MAX_PARAMETERS = 2**20, 2**20, 2**28

_FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class CheckpointConfig:
    """What ``config.json`` says.

    Args:
        architecture: a name in `backtal.settings.ARCHITECTURES`; files without one are of ``"backtal"``.
        model: architecture and labels.
        localization: localization settings.
        facts: further rows of the model card, such as data, command, metrics and ``license``.
    """

    architecture: str
    model: NetworkConfig
    localization: Any
    facts: dict[str, str]


def load_config(folder: str | Path) -> CheckpointConfig:
    """Read the configuration of a checkpoint folder, field by field.

    Raises:
        CheckpointError: if the file is missing or damaged, or a field is unknown, missing or wrong.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 (never raises)
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    path = Path(folder) / CONFIG_FILE
    content = _read_json(path)
    if not {"model", "localization"} <= set(content) <= {"architecture", "model", "localization", "facts"}:
        found = shorten(name_some(sorted(content)))
        raise CheckpointError(
            f"{path}: expected the keys 'architecture', 'model', 'localization' and 'facts', found {found}"
        )
    name, facts = content.get("architecture", "backtal"), content.get("facts", {})
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(map(repr, ARCHITECTURES))
        raise CheckpointError(
            f"{path}: architecture: this version of backtal knows {known}, found {shorten(repr(name), 60)}; "
            "another version may know it"
        )
    try:
        if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
            raise ConfigError("facts: must be an object of texts")
        model = from_dict(ARCHITECTURES[name].model, content["model"], "model")
        if not model.labels:
            raise ConfigError("model.labels: a model needs at least one label")
        localization = from_dict(ARCHITECTURES[name].localization, content["localization"], "localization")
        return CheckpointConfig(name, model, localization, facts)
    except (ConfigError, RecursionError) as failure:
        raise CheckpointError(f"{path}: {shorten(failure)}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """Read an untrusted JSON object of at most `MAX_CONFIG` bytes, without duplicate keys or broken Unicode."""
    try:
        if not path.is_file():  # a pipe or device would block or never end
            raise FileNotFoundError(2, "no such file")
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG + 1)
    except OSError as failure:
        raise CheckpointError(f"{path}: cannot be read: {failure.strerror}") from None
    if len(data) > MAX_CONFIG:
        raise CheckpointError(f"{path}: larger than {MAX_CONFIG:,} bytes")
    try:
        content = json.loads(data.decode(), object_pairs_hook=_unique)
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as failure:
        raise CheckpointError(f"{path}: not valid JSON: {shorten(failure)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def load_weights(folder: str | Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights of a checkpoint folder, after comparing the header of the file with the network.

    Args:
        folder: the checkpoint folder.
        expected: the state of the network, on the ``meta`` device: names, shapes, types and memory layout.

    Returns:
        New tensors on the default device, of the expected type, whatever float type the file stores.

    Raises:
        CheckpointError: if the file is missing or damaged, or a tensor is missing, unexpected, not finite, or of
            another shape.
    """
    path = Path(folder) / WEIGHTS_FILE
    _check_sizes(path, _count(expected, path))
    state = {}
    try:
        with safe_open(path, framework="pt") as file:
            header = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            _check_shapes({name: entry.get_shape() for name, entry in header.items()}, expected, str(path))
            for name, entry in header.items():
                if entry.get_dtype() not in _FLOATS:
                    raise CheckpointError(f"{path}: {name} has type {entry.get_dtype()}, expected floating point")
            for name, tensor in expected.items():
                state[name] = torch.empty_like(tensor, device=torch.get_default_device()).copy_(file.get_tensor(name))
                _check_finite(name, state[name], str(path))
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as failure:
        reason = shorten(failure)
        raise CheckpointError(f"{path}: not a readable safetensors file (truncated or damaged?): {reason}") from None
    return state


def _count(state: Mapping[str, Tensor], where: str | Path) -> int:
    count = sum(tensor.numel() for tensor in state.values())
    if count > MAX_PARAMETERS:
        raise CheckpointError(f"{where}: a network of {count:,} parameters; at most {MAX_PARAMETERS:,} are supported")
    return count


def _check_sizes(path: Path, parameters: int) -> None:
    """Bound what the safetensors library has to parse and map."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
    except OSError as failure:
        raise CheckpointError(f"{path}: cannot be read: {failure.strerror}") from None
    if header > MAX_HEADER or size > 8 + MAX_HEADER + 8 * parameters:
        raise CheckpointError(
            f"{path}: not a readable safetensors file: {size:,} bytes with a header of {header:,}, which do not fit a "
            f"network of {parameters:,} parameters"
        )


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError where `state` does not hold exactly the expected tensors, all finite."""
    _check_shapes({name: tensor.shape for name, tensor in state.items()}, expected, where)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{where}: {name} has type {tensor.dtype}, expected floating point")
        _check_finite(name, tensor, where)


def _check_shapes(shapes: Mapping[str, Sequence[int]], expected: Mapping[str, Tensor], where: str) -> None:
    if missing := sorted(set(expected) - set(shapes)):
        raise CheckpointError(f"{where}: missing tensor(s): {name_some(missing)}")
    if extra := sorted(set(shapes) - set(expected)):
        raise CheckpointError(f"{where}: unexpected tensor(s): {shorten(name_some(extra))}")
    for name, tensor in expected.items():
        if list(shapes[name]) != list(tensor.shape):
            raise CheckpointError(
                f"{where}: {name} has shape {shorten(list(shapes[name]))}, the configuration says {list(tensor.shape)}"
            )


def _check_finite(name: str, tensor: Tensor, where: str) -> None:
    if not tensor.isfinite().all():
        raise CheckpointError(f"{where}: {name} holds NaN or infinite values")


def save(folder: str | Path, config: CheckpointConfig, state: Mapping[str, Tensor], *, name: str | None = None) -> None:
    """Write a checkpoint folder; each file appears whole or not at all, the configuration last.

    Args:
        folder: where to; the settings of a training run that lie there become facts.
        config: what ``config.json`` is to say.
        state: the weights.
        name: what the card tells users to load; the folder by its name where None.

    Raises:
        CheckpointError: if the result could not be loaded: weights are not finite, or something exceeds the bounds.
    """
    folder = Path(folder)
    facts = run_facts(folder) | {str(key): str(value) for key, value in config.facts.items()}
    text = json.dumps(dataclasses.asdict(config) | {"facts": facts}, indent=1) + "\n"
    if len(text) > MAX_CONFIG:
        raise CheckpointError(f"{folder}: labels and facts exceed {MAX_CONFIG:,} bytes")
    _count(state, folder)
    check_state(state, state, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
    for filename, written in (
        (CARD_FILE, model_card(config.model, facts, name or f"./{folder.resolve().name}")),
        (CONFIG_FILE, text),
    ):
        with atomic_path(folder / filename) as temporary:
            temporary.write_text(written, encoding="utf-8")


def run_facts(folder: str | Path) -> dict[str, str]:
    """What a run folder says about the training of its model; empty where it is none."""
    path = Path(folder) / RECIPE_FILE
    recipe = _read_json(path) if path.is_file() else {}
    training = recipe.get("training")
    if not isinstance(training, dict):
        return {}
    settings = ", ".join(f"{key} {value}" for key, value in training.items())
    return {"recipe": str(recipe.get("name")), "training": settings}


def model_card(model: NetworkConfig, facts: Mapping[str, str] | None = None, name: str = "FOLDER") -> str:
    """A model card: what the checkpoint knows, where it comes from, how to load and cite it.

    Args:
        model: architecture, labels and feature spec.
        facts: further rows, such as data, recipe and metrics; ``license`` also goes into the card's metadata.
        name: what `from_pretrained` takes to load it.

    Example:
        >>> from backtal import ModelConfig
        >>> print(model_card(ModelConfig(8, ("jump",)), {"data": "A1 clicks"}).splitlines()[12])
        | data | A1 clicks |
    """
    facts = facts or {}
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in describe(model, facts).items())
    license_row = f"license: {json.dumps(facts['license'])}\n" if "license" in facts else ""
    return f"""---
library_name: backtal
{license_row}tags: [temporal-action-localization, weakly-supervised]
---
# BackTAL checkpoint

Temporal action localization learnt from video labels and background clicks.

| | |
|---|---|
{table}

```python
from backtal import BackTALModel

model = BackTALModel.from_pretrained({name!r})
found = model.localize("features/video.npz")
```

Method: Yang et al., "Background-Click Supervision for Temporal Action Localization", TPAMI 2021.

```bibtex
@article{{yang2021backtal,
  title   = {{Background-Click Supervision for Temporal Action Localization}},
  author  = {{Yang, Le and Han, Junwei and Zhao, Tao and Lin, Tianwei and Zhang, Dingwen and Chen, Jianxin}},
  journal = {{IEEE Transactions on Pattern Analysis and Machine Intelligence}},
  year    = {{2021}}
}}
```
"""


def describe(model: NetworkConfig, facts: Mapping[str, str]) -> dict[str, str]:
    """What there is to say of a checkpoint, as rows of a table."""
    return {"labels": ", ".join(model.labels), "features": _features(model), **facts}


def _features(model: NetworkConfig) -> str:
    known = {} if model.feature_spec is None else dataclasses.asdict(model.feature_spec)
    known |= {"dim": model.feature_dim}
    return ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def shorten(text: object, limit: int = 400) -> str:
    """Text of unknown origin for a message: bounded, and without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[:limit])
