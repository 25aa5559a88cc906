"""The settings of every network architecture that a checkpoint can name."""

from typing import Any, NamedTuple

from backtal.settings.config import LocalizationConfig, ModelConfig, NetworkConfig
from backtal.settings.detector import DetectionConfig, DetectorConfig


class Architecture(NamedTuple):
    """The dataclasses of an architecture's settings.

    Attributes:
        model: of the network.
        localization: of how its output becomes segments.
    """

    model: type[NetworkConfig]
    localization: type[Any]


ARCHITECTURES = {
    "backtal": Architecture(ModelConfig, LocalizationConfig),
    "detector": Architecture(DetectorConfig, DetectionConfig),
}
