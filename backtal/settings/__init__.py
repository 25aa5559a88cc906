"""Settings: what can be set, checked when it is made, and the recipes and protocols that set it."""

from backtal.settings.architectures import ARCHITECTURES, Architecture
from backtal.settings.config import (
    LocalizationConfig,
    LossConfig,
    ModelConfig,
    NetworkConfig,
    Recipe,
    TrainingConfig,
    from_dict,
)
from backtal.settings.presets import PROTOCOLS, RECIPES, protocol, recipe, sources, tiou_range, video_labels_only

__all__ = [
    "ARCHITECTURES",
    "Architecture",
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
    "recipe",
    "sources",
    "tiou_range",
    "video_labels_only",
]
