"""The network, its losses, and what reads it: localization, in one piece or in chunks, of one network or several."""

from backtal.nn.beyond import ExtendedLoss, between_clicks_loss, taught_distribution, teacher_loss
from backtal.nn.cas import BackTALOutput, Points, join_outputs, topk_mean
from backtal.nn.detector.fusion import localize_detector
from backtal.nn.detector.loss import DetectorLoss
from backtal.nn.detector.model import DetectorModel
from backtal.nn.detector.points import decode
from backtal.nn.ensemble import localize_together
from backtal.nn.layers import AffinityConv1d, EmbeddingHead, ForegroundFilter
from backtal.nn.live.watch import Saving
from backtal.nn.live.watcher import Event, Latency, Watcher
from backtal.nn.localize import localize, localize_arrays, outer_inner_contrast
from backtal.nn.losses import (
    AffinityLoss,
    BackTALLoss,
    FrameLoss,
    ScoreSeparationLoss,
    affinity_loss,
    foreground_loss,
    frame_loss,
    mine_background,
    norm_loss,
    score_separation_loss,
    video_loss,
)
from backtal.nn.model import BackTALModel
from backtal.nn.pretrained import LocalizationModel
from backtal.nn.stream import Source, open_features, pieces, run_chunked

__all__ = [
    "AffinityConv1d",
    "AffinityLoss",
    "BackTALLoss",
    "BackTALModel",
    "BackTALOutput",
    "DetectorLoss",
    "DetectorModel",
    "EmbeddingHead",
    "Event",
    "ExtendedLoss",
    "ForegroundFilter",
    "FrameLoss",
    "Latency",
    "LocalizationModel",
    "Points",
    "Saving",
    "ScoreSeparationLoss",
    "Source",
    "Watcher",
    "affinity_loss",
    "between_clicks_loss",
    "decode",
    "foreground_loss",
    "frame_loss",
    "join_outputs",
    "localize",
    "localize_arrays",
    "localize_detector",
    "localize_together",
    "mine_background",
    "norm_loss",
    "open_features",
    "outer_inner_contrast",
    "pieces",
    "run_chunked",
    "score_separation_loss",
    "taught_distribution",
    "teacher_loss",
    "topk_mean",
    "video_loss",
]
