"""Released BackTAL checkpoints (``.pth``) into ours."""

import dataclasses
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backtal.errors import CheckpointError, ConfigError, name_some
from backtal.hub.checkpoint import MAX_PARAMETERS, check_state, shorten
from backtal.nn.model import BackTALModel
from backtal.settings.config import Recipe
from backtal.settings.presets import RECIPES

RELEASED_NAMES = {
    "filter_module.conv_1.0.weight": "foreground_filter.conv_1.weight",
    "filter_module.conv_1.0.bias": "foreground_filter.conv_1.bias",
    "filter_module.conv_2.0.weight": "foreground_filter.conv_2.weight",
    "filter_module.conv_2.0.bias": "foreground_filter.conv_2.bias",
    "base_module.conv_1.weight": "trunk.0.weight",
    "base_module.conv_2.weight": "trunk.1.weight",
    "classifier_module.conv.weight": "classifier.weight",
    "embedding_module.conv_1.weight": "embedding_head.convs.0.weight",
    "embedding_module.conv_1.bias": "embedding_head.convs.0.bias",
    "embedding_module.conv_2.weight": "embedding_head.convs.1.weight",
    "embedding_module.conv_2.bias": "embedding_head.convs.1.bias",
}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def convert_released(path: str | Path, recipe: Recipe, labels: tuple[str, ...] | None = None) -> BackTALModel:
    """Read a released checkpoint into a model; widths and dimensions come from its tensors.

    The model's facts name the recipe and the file.

    Args:
        path: the ``.pth`` file, ``{"epoch": int, "state_dict": {...}}``. Only tensors are unpickled.
        recipe: the released variant of the dataset's recipe.
        labels: names of the classes; the recipe's where None, else ``class000`` and so on.

    Raises:
        CheckpointError: if the file is damaged, holds anything but tensors, or a tensor is missing,
            unexpected or of a shape that fits no network.
        ConfigError: if the recipe is not one of the released system.
    """
    if recipe.architecture != "backtal" or recipe.model.layout != "channel_blocks" or recipe.model.standardize:
        known = ", ".join(name for name in RECIPES if name.endswith("-released"))
        raise ConfigError(f"{path}: recipe {recipe.name!r} is not of the released system; choose one of {known}")
    state = _released_state(Path(path))
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wrong := [name for name, shape in shapes.items() if len(shape) != (1 if name.endswith("bias") else 3)]:
        raise CheckpointError(f"{path}: {wrong[0]} has shape {list(shapes[wrong[0]])}, not that of a convolution")
    hidden, feature_dim, kernel_size = shapes["base_module.conv_1.weight"]
    num_classes = shapes["classifier_module.conv.weight"][0] - 1
    if num_classes < 1 or kernel_size % 2 == 0:
        raise CheckpointError(f"{path}: {num_classes} classes and kernel size {kernel_size} fit no BackTAL network")
    names: Sequence[str] = labels or recipe.model.labels or [f"class{i:03d}" for i in range(num_classes)]
    if len(names) != num_classes:
        raise CheckpointError(f"{path}: {num_classes} classes, but {len(names)} labels were given")
    try:
        config = dataclasses.replace(
            recipe.model,
            feature_dim=feature_dim,
            labels=tuple(names),
            hidden_dim=hidden,
            num_layers=2,
            kernel_size=kernel_size,
            filter_dim=shapes["filter_module.conv_1.0.weight"][0],
            embedding_hidden_dim=shapes["embedding_module.conv_1.weight"][0],
            embedding_dim=shapes["embedding_module.conv_2.weight"][0],
        )
    except ConfigError as failure:
        raise CheckpointError(f"{path}: {failure}") from None
    with torch.device("meta"):
        expected = BackTALModel(config).state_dict()
    check_state(state, {name: expected[RELEASED_NAMES[name]] for name in state}, str(path))
    model = BackTALModel(config, recipe.localization)
    model.load_state_dict({RELEASED_NAMES[name]: tensor for name, tensor in state.items()})
    model.facts = {"recipe": recipe.name, "converted from": shorten(Path(path).name)}
    return model.eval()


def _released_state(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by their released names, all of which are there and no other."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():  # PyTorch does not compare the checksums
                    raise CheckpointError(f"{path}: damaged: the checksum of {damaged} is wrong")
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except CheckpointError:
        raise
    except pickle.UnpicklingError as failure:
        # PyTorch's own message goes on to recommend loading the file unsafely.
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(failure))
        reason = f"it wants to load {unsafe[1]}, which is no tensor" if unsafe else "damaged, or no PyTorch file"
        raise CheckpointError(f"{path}: refused: {reason}") from None
    except Exception as failure:  # a damaged pickle raises anything
        raise CheckpointError(f"{path}: not a readable PyTorch file (truncated?): {shorten(failure)}") from None
    released = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(released, dict) or not all(isinstance(t, Tensor) for t in released.values()):
        raise CheckpointError(f"{path}: expected {{'epoch': ..., 'state_dict': {{name: tensor}}}}")
    released = {str(name).removeprefix("module."): tensor for name, tensor in released.items()}
    if missing := sorted(set(RELEASED_NAMES) - set(released)):
        raise CheckpointError(f"{path}: missing tensor(s): {name_some(missing)}")
    if extra := sorted(set(released) - set(RELEASED_NAMES)):
        raise CheckpointError(f"{path}: unexpected tensor(s): {shorten(name_some(extra))}")
    for name, tensor in released.items():
        _check_stored(tensor, f"{path}: {name}")
    if (count := sum(tensor.numel() for tensor in released.values())) > MAX_PARAMETERS:
        raise CheckpointError(f"{path}: {count:,} parameters; at most {MAX_PARAMETERS:,} are supported")
    return released


def _check_stored(tensor: Tensor, where: str) -> None:
    """Raise CheckpointError where the file does not hold every number of a tensor, as plain floats."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"{where} is sparse, nested or without content, expected a plain tensor")
    if tensor.dtype not in _FLOATS:
        raise CheckpointError(f"{where} has type {tensor.dtype}, expected floating point of 16, 32 or 64 bits")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{where} has shape {list(tensor.shape)}, but the file holds fewer numbers")
