"""Temporal action localization from background clicks."""

from importlib.metadata import version

from backtal.cas import BackTALOutput
from backtal.click_files import read_clicks, write_clicks
from backtal.clicks import Click, ClickTrack, simulate_clicks
from backtal.config import LocalizationConfig, LossConfig, ModelConfig, Recipe, TrainingConfig
from backtal.errors import BackTALError, CheckpointError, ConfigError, DataError
from backtal.features import FeatureSpec, TimeAxis, VideoFeatures, read_features, write_features
from backtal.layers import AffinityConv1d, EmbeddingHead, ForegroundFilter
from backtal.localize import localize
from backtal.losses import AffinityLoss, BackTALLoss, FrameLoss, ScoreSeparationLoss
from backtal.model import BackTALModel
from backtal.ops import affinity_conv1d, local_affinity
from backtal.segments import (
    Localization,
    Segment,
    nms,
    read_predictions,
    temporal_iou,
    write_predictions,
)

__version__ = version("backtal")

__all__ = [
    "AffinityConv1d",
    "AffinityLoss",
    "BackTALError",
    "BackTALLoss",
    "BackTALModel",
    "BackTALOutput",
    "CheckpointError",
    "Click",
    "ClickTrack",
    "ConfigError",
    "DataError",
    "EmbeddingHead",
    "FeatureSpec",
    "ForegroundFilter",
    "FrameLoss",
    "Localization",
    "LocalizationConfig",
    "LossConfig",
    "ModelConfig",
    "Recipe",
    "ScoreSeparationLoss",
    "Segment",
    "TimeAxis",
    "TrainingConfig",
    "VideoFeatures",
    "affinity_conv1d",
    "local_affinity",
    "localize",
    "nms",
    "read_clicks",
    "read_features",
    "read_predictions",
    "simulate_clicks",
    "temporal_iou",
    "write_clicks",
    "write_features",
    "write_predictions",
]
