"""The detector (not part of the paper): features to segments whose edges are regressed at every time scale."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from backtal.data.features import TimeAxis
from backtal.errors import ConfigError
from backtal.nn.cas import BackTALOutput, Points, frame_mask
from backtal.nn.detection import decode, to_segments
from backtal.nn.pretrained import LocalizationModel
from backtal.nn.pyramid import PointHeads, Pyramid, points, reach
from backtal.nn.snippets import share
from backtal.nn.stream import CHUNK, blocks
from backtal.segments.segments import Localization
from backtal.settings.detector import DetectionConfig, DetectorConfig


class DetectorModel(LocalizationModel):
    """A temporal feature pyramid of affinity convolutions; at every point of it the classes and a segment's two edges.

    Args:
        config: architecture and labels.
        localization: how `localize` turns points into segments.

    Example:
        >>> model = DetectorModel(DetectorConfig(feature_dim=16, labels=("jump", "run"), width=32)).eval()
        >>> model(torch.randn(2, 16, 50)).cas.shape
        torch.Size([2, 3, 50])
    """

    architecture = "detector"
    config: DetectorConfig
    localization: DetectionConfig
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: DetectorConfig, localization: DetectionConfig | None = None) -> None:
        super().__init__(config, localization or DetectionConfig())
        self.pyramid, self.heads = Pyramid(config), PointHeads(config)
        self.input_dropout, self.dropout = nn.Dropout(config.input_dropout), nn.Dropout(config.head_dropout)
        self.classifier = nn.Conv1d(config.width, len(config.labels) + 1, 1)
        self.register_buffer("feature_mean", torch.zeros(config.feature_dim))
        self.register_buffer("feature_scale", torch.ones(config.feature_dim))

    @property
    def reach(self) -> int:
        """Snippets on either side that what is said of a snippet depends on, a multiple of the highest stride."""
        top = self._top
        return -(-reach(self.config) // top) * top

    @property
    def shortest(self) -> int:
        """The least number of snippets of a video."""
        return 1

    @property
    def _top(self) -> int:
        return 2 ** (self.config.levels - 1)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor | None = None,
        *,
        base_stream: bool | None = None,
        detect: bool = True,
    ) -> BackTALOutput:
        """Run the network on a batch.

        Args:
            features: ``[B, D, T]``. What lies beyond a video's length does not matter.
            lengths: ``[B]`` snippets of each video; None where all fill T.
            base_stream: of the paper's network; there is none here, and it is not read.
            detect: also run the heads at the points; the first stage of training needs the class activations alone.

        Returns:
            ``cas`` at stride 1, ``scores`` the log of each class's share of the video, ``foreground`` one minus the
            probability of background, ``first_layer`` the map at stride 1, and ``points``.
        """
        if features.dim() != 3 or features.shape[1] != self.config.feature_dim:
            raise ValueError(f"features must be [B, {self.config.feature_dim}, T], got shape {tuple(features.shape)}")
        batch, _, length = features.shape
        if lengths is None:
            lengths = torch.full((batch,), length, device=features.device)
        padded = (length + self._top - 1) // self._top * self._top
        real = frame_mask(lengths, padded)
        mask = real[:, None].to(features.dtype)
        x = (features - self.feature_mean[:, None]) * self.feature_scale[:, None]
        x = nn.functional.pad(x.clamp(-self.config.clip, self.config.clip), (0, padded - length))
        maps, masks, embedding = self.pyramid(self.input_dropout(x.masked_fill(~real[:, None], 0.0)), mask)
        cas = (self.classifier(self.dropout(maps[0])) * mask)[..., :length]
        probability = cas.softmax(1)
        scores = share(probability, real[:, None, :length]).clamp(min=1e-6).log()
        found = None
        if detect:
            classes, distances = self.heads(maps, masks)
            placed = points(padded, self.config.levels).to(features)
            found = Points(classes, distances, placed, torch.cat(masks, dim=2)[:, 0] > 0)
        foreground = (1 - probability[:, -1:]) * mask[..., :length]
        return BackTALOutput(
            scores, cas, foreground, embedding[..., :length], maps[0][..., :length], lengths, points=found
        )


class PointSummary:
    """What localization reads of a whole video: class activations, and the points worth keeping, chunk by chunk.

    Attributes:
        cas: ``[C+1, T]``.
        classes: ``[C, N]`` probabilities at the points kept.
        intervals: ``[N, 2]`` their segments, in snippets of the whole video.
    """

    def __init__(self, cas: Tensor, classes: np.ndarray, intervals: np.ndarray) -> None:
        self.cas, self.classes, self.intervals = cas, classes, intervals
