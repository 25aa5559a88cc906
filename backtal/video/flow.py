"""Optical flow between consecutive frames, in pixels, and as I3D reads it."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backtal.errors import ConfigError, install

FLOW_LIMIT = 20.0

FlowFunction = Callable[[np.ndarray], np.ndarray]


def flow_function(name: str, device: str | torch.device = "cpu") -> FlowFunction:
    """The optical flow of a name: ``"tvl1"``, or ``"raft_small"`` and ``"raft_large"`` with torchvision's weights.

    Returns:
        A function from frames ``[N, H, W, 3]`` (uint8, RGB) to flow ``[N-1, H, W, 2]`` (float32): how many pixels each
        point moves right and down until the next frame.

    Raises:
        ConfigError: for another name.
        ImportError: if OpenCV's contributed modules are missing (the extra `flow`).
    """
    if name == "tvl1":
        return tvl1()
    if name in ("raft_small", "raft_large"):
        return raft(name, device=device)
    raise ConfigError(f"optical flow {name!r} is unknown; there are tvl1, raft_small and raft_large")


def tvl1() -> FlowFunction:
    """OpenCV's dual TV-L1 with its defaults, as the benchmarks' I3D features use."""
    try:
        import cv2

        create = cv2.optflow.DualTVL1OpticalFlow_create  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        raise ImportError(f"TV-L1 needs OpenCV with its contributed modules: {install('flow')}") from None

    def flow(frames: np.ndarray) -> np.ndarray:
        algorithm = create()
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        return np.stack([algorithm.calc(a, b, None) for a, b in itertools.pairwise(grey)])

    return flow


def raft(name: str = "raft_small", *, weights: Any = "DEFAULT", device: str | torch.device = "cpu") -> FlowFunction:
    """RAFT from torchvision, with `weights` of its own download machinery; None leaves them random."""
    network = torchvision_models(f"flow {name}").get_model(name, weights=weights).eval().to(device)

    @torch.inference_mode()
    def flow(frames: np.ndarray) -> np.ndarray:
        pictures = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        height, width = pictures.shape[-2:]
        # RAFT halves three times, and its correlation needs 16 cells a side.
        padding = [0, max(128, -(-width // 8) * 8) - width, 0, max(128, -(-height // 8) * 8) - height]
        pictures = torch.nn.functional.pad(pictures, padding, mode="replicate")
        found = network(pictures[:-1], pictures[1:])[-1][..., :height, :width]
        return found.permute(0, 2, 3, 1).float().cpu().numpy()

    return flow


def torchvision_models(wanted_by: str) -> Any:
    """The module ``torchvision.models``.

    Raises:
        ImportError: if torchvision is missing.
    """
    try:
        from torchvision import models
    except ImportError:
        raise ImportError(f"{wanted_by} needs torchvision: {install('video')}") from None
    return models


def rescale_flow(flow: Tensor) -> Tensor:
    """Clip flow to +-20 pixels and scale it to [-1, 1], as I3D was trained.

    Example:
        >>> rescale_flow(torch.tensor([5.0, -50.0]))
        tensor([ 0.2500, -1.0000])
    """
    return flow.clamp(-FLOW_LIMIT, FLOW_LIMIT) / FLOW_LIMIT
