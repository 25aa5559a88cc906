"""Temporal action localization from background clicks."""

from importlib.metadata import version

from backtal.clicks import Click, ClickTrack, read_clicks, simulate_clicks, write_clicks
from backtal.data import FeatureSpec, TimeAxis, VideoFeatures, read_features, write_features
from backtal.errors import BackTALError, CheckpointError, ConfigError, DataError
from backtal.nn import (
    AffinityConv1d,
    AffinityLoss,
    BackTALLoss,
    BackTALModel,
    BackTALOutput,
    EmbeddingHead,
    ForegroundFilter,
    FrameLoss,
    ScoreSeparationLoss,
    localize,
)
from backtal.ops import affinity_conv1d, local_affinity
from backtal.segments import Localization, Segment, nms, read_predictions, temporal_iou, write_predictions
from backtal.settings import LocalizationConfig, LossConfig, ModelConfig, Recipe, TrainingConfig

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
