"""The settings of every network architecture that a checkpoint can name."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from backtal.errors import ConfigError
from backtal.settings.config import (
    LocalizationConfig,
    LossConfig,
    ModelConfig,
    NetworkConfig,
    Recipe,
    TrainingConfig,
    from_dict,
)
from backtal.settings.detector import DetectionConfig, DetectorConfig, DetectorLossConfig


class Architecture(NamedTuple):
    """The dataclasses of an architecture's settings.

    Attributes:
        model: of the network.
        loss: of its training.
        localization: of how its output becomes segments.
    """

    model: type[NetworkConfig]
    loss: type[Any]
    localization: type[Any]


ARCHITECTURES = {
    "backtal": Architecture(ModelConfig, LossConfig, LocalizationConfig),
    "detector": Architecture(DetectorConfig, DetectorLossConfig, DetectionConfig),
}


def read_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Make a recipe of plain values, as JSON gives them; its architecture says what its parts are.

    Args:
        values: the fields of a `Recipe`.
        where: what they describe, for messages.

    Raises:
        ConfigError: for an unknown architecture or field, or a value of the wrong type or out of range.

    Example:
        >>> read_recipe({"architecture": "detector", "model": {"levels": 3}}, "settings").model.levels
        3
    """
    name = values.get("architecture", "backtal")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ConfigError(f"{where}: unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    kinds = ARCHITECTURES[name]._asdict() | {"training": TrainingConfig}
    parts: dict[str, Any] = {
        part: from_dict(kind, values.get(part, {}), f"{where}.{part}") for part, kind in kinds.items()
    }
    return from_dict(
        Recipe, {name: value for name, value in values.items() if name not in parts}, where, Recipe(**parts)
    )
