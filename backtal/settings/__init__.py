"""Settings: what can be set, checked when it is made, and the recipes and protocols that set it."""

from backtal.settings.architectures import ARCHITECTURES, Architecture, read_recipe
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
from backtal.settings.presets import PROTOCOLS, RECIPES, protocol, recipe, sources, tiou_range, video_labels_only

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "DetectionConfig",
    "DetectorConfig",
    "DetectorLossConfig",
    "LocalizationConfig",
    "LossConfig",
    "ModelConfig",
    "NetworkConfig",
    "PROTOCOLS",
    "RECIPES",
    "Recipe",
    "TrainingConfig",
    "from_dict",
    "protocol",
    "read_recipe",
    "recipe",
    "sources",
    "tiou_range",
    "video_labels_only",
]
