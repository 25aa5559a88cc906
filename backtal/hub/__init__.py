"""Checkpoints: their folders, read with suspicion, and their names, in the package and on the Hub."""

from backtal.hub.checkpoint import CheckpointConfig, load_config, load_weights, model_card
from backtal.hub.hub import BUNDLED, PUBLISHED, fetch, push

__all__ = [
    "BUNDLED",
    "CheckpointConfig",
    "PUBLISHED",
    "fetch",
    "load_config",
    "load_weights",
    "model_card",
    "push",
]
