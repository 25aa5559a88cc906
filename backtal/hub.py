"""Checkpoint folders: ``config.json``, ``model.safetensors`` and a model card."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from backtal.config import LocalizationConfig, ModelConfig, from_dict
from backtal.errors import CheckpointError, ConfigError, name_some
from backtal.files import atomic_path, read_json, write_json

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"


def save(
    folder: str | Path,
    model: ModelConfig,
    localization: LocalizationConfig,
    state: Mapping[str, Tensor],
    card: str | None = None,
) -> None:
    """Write a checkpoint folder; each file appears whole or not at all, the configuration last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
    with atomic_path(folder / CARD_FILE) as temporary:
        temporary.write_text(card or model_card(model), encoding="utf-8")
    content = {"model": dataclasses.asdict(model), "localization": dataclasses.asdict(localization)}
    write_json(folder / CONFIG_FILE, content)


def load_config(folder: str | Path) -> tuple[ModelConfig, LocalizationConfig]:
    """Read the configuration of a checkpoint folder, field by field.

    Raises:
        CheckpointError: if the file is missing or a field is unknown, missing or wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    path = folder / CONFIG_FILE
    content = read_json(path, CheckpointError)
    if set(content) != {"model", "localization"}:
        raise CheckpointError(f"{path}: expected the keys 'model' and 'localization', found {sorted(content)}")
    try:
        return (
            from_dict(ModelConfig, content["model"], "model"),
            from_dict(LocalizationConfig, content["localization"], "localization"),
        )
    except ConfigError as failure:
        raise CheckpointError(f"{path}: {failure}") from None


def load_weights(folder: str | Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights of a checkpoint folder and check them against the network's own.

    Raises:
        CheckpointError: if the file is missing or damaged, or a tensor is missing, unexpected, not
            finite, or of another shape.
    """
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as failure:
        raise CheckpointError(f"{path}: not a readable safetensors file (truncated or damaged?): {failure}") from None
    check_state(state, expected, str(path))
    return {name: state[name].to(expected[name].dtype) for name in expected}


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError where `state` does not hold exactly the expected tensors, all finite."""
    if missing := sorted(set(expected) - set(state)):
        raise CheckpointError(f"{where}: missing tensor(s): {name_some(missing)}")
    if extra := sorted(set(state) - set(expected)):
        raise CheckpointError(f"{where}: unexpected tensor(s): {name_some(extra)}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: {name} has shape {list(state[name].shape)}, the configuration says {list(tensor.shape)}"
            )
        if not state[name].is_floating_point():
            raise CheckpointError(f"{where}: {name} has type {state[name].dtype}, expected floating point")
        if not state[name].isfinite().all():
            raise CheckpointError(f"{where}: {name} holds NaN or infinite values")


def model_card(model: ModelConfig, facts: Mapping[str, str] | None = None) -> str:
    """A model card: what the checkpoint knows, where it comes from, how to cite it."""
    rows = {
        "labels": ", ".join(model.labels),
        "features": str(model.feature_spec or f"{model.feature_dim} channels, not specified further"),
    } | dict(facts or {})
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
library_name: backtal
license: apache-2.0
tags: [temporal-action-localization, weakly-supervised]
---
# BackTAL checkpoint

Temporal action localization learnt from video labels and background clicks.

| | |
|---|---|
{table}

```python
from backtal import BackTALModel
model = BackTALModel.from_pretrained("this folder")
```

Method: Yang et al., "Background-Click Supervision for Temporal Action Localization", TPAMI 2021.
"""
