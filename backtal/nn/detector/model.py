"""The detector (not part of the paper): features to segments whose edges are regressed at every time scale."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backtal.data.features import TimeAxis
from backtal.errors import ConfigError, DataError
from backtal.nn.cas import BackTALOutput, Points, frame_mask, mean_probability
from backtal.nn.detector.follow import PointFollower
from backtal.nn.detector.follow_fused import FusedFollower
from backtal.nn.detector.fusion import localize_detector
from backtal.nn.detector.points import intervals
from backtal.nn.detector.pyramid import PointHeads, Pyramid, points, reach
from backtal.nn.detector.snippets import share
from backtal.nn.layers import feature_scale
from backtal.nn.live.settle import Follower, Suppressed
from backtal.nn.live.stretch import RUNNING_FORM
from backtal.nn.pretrained import LocalizationModel
from backtal.ops.operator import exporting
from backtal.segments.segments import Localization
from backtal.settings.detector import DetectionConfig, DetectorConfig


class DetectorModel(LocalizationModel[DetectorConfig, DetectionConfig, BackTALOutput]):
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
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: DetectorConfig, localization: DetectionConfig | None = None) -> None:
        super().__init__(config, localization or DetectionConfig())
        self.pyramid, self.heads = Pyramid(config), PointHeads(config)
        self.input_dropout, self.dropout = nn.Dropout(config.input_dropout), nn.Dropout(config.head_dropout)
        self.classifier = nn.Conv1d(config.width, len(config.labels) + 1, 1)
        self.register_buffer("feature_mean", torch.zeros(config.feature_dim))
        self.register_buffer("feature_scale", torch.ones(config.feature_dim))

    def set_feature_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Standardise features by these ``[D]``; see `backtal.nn.layers.feature_scale`."""
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(feature_scale(deviation))

    @property
    def clip(self) -> float:
        """How many deviations standardised features are clipped to."""
        return self.config.clip

    @property
    def reach(self) -> int:
        """Snippets on either side that a snippet's output depends on, rounded up to the highest stride."""
        top = self._top
        return -(-reach(self.config) // top) * top

    @property
    def shortest(self) -> int:
        """The least number of snippets of a video."""
        return 1

    @property
    def multiple(self) -> int:
        """An exported graph takes numbers of snippets that are a multiple of the highest stride."""
        return self._top

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
        # An exported graph takes lengths that need no padding: see `multiple`.
        padded = length if exporting() else (length + self._top - 1) // self._top * self._top
        real = frame_mask(lengths, padded)
        mask = real[:, None].to(features.dtype)
        x = (features - self.feature_mean[:, None]) * self.feature_scale[:, None]
        x = nn.functional.pad(x.clamp(-self.config.clip, self.config.clip), (0, padded - length))
        maps, masks, embedding = self.pyramid(self.input_dropout(x.masked_fill(~real[:, None], 0.0)), mask)
        cas = (self.classifier(self.dropout(maps[0])) * mask)[..., :length]
        probability = cas.softmax(1)
        scores = video_scores(cas, lengths)
        found = None
        if detect:
            classes, distances = self.heads(maps, masks)
            # In float32 whatever the type of the network: bfloat16 knows only every second snippet from 256 on.
            placed = points(padded, self.config.levels).to(features.device)
            found = Points(classes, distances, placed, torch.cat(masks, dim=2)[:, 0] > 0)
        foreground = (1 - probability[:, -1:]) * mask[..., :length]
        return BackTALOutput(
            scores, cas, foreground, embedding[..., :length], maps[0][..., :length], lengths, points=found
        )

    def join(self, blocks: Iterable[tuple[BackTALOutput, slice]]) -> BackTALOutput:
        """The class activations of a whole video, and those of its points that may become a segment.

        Raises:
            DataError: if there is no block.
        """
        sequences, classes, distances, places, used = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor](), 0
        for output, own in blocks:
            found = output.points
            assert found is not None
            position = found.places[:, 0]
            kept = found.real[0] & (position >= own.start) & (position < own.stop)
            kept &= found.classes[0].sigmoid().amax(0) >= self.localization.min_score
            sequences.append(output.cas[0, :, own].float().cpu())
            classes.append(found.classes[0][:, kept].float().cpu())
            distances.append(found.distances[0][:, kept].float().cpu())
            places.append((found.places[kept] + found.places.new_tensor([used - own.start, 0])).float().cpu())
            used += own.stop - own.start
        if not used:
            raise DataError("features: not one snippet")
        cas = torch.cat(sequences, dim=1)[None]
        place = torch.cat(places)
        real = torch.ones(1, len(place), dtype=torch.bool)
        together = Points(torch.cat(classes, dim=1)[None], torch.cat(distances, dim=1)[None], place, real)
        nothing, lengths = cas.new_empty(1, 0, 0), torch.tensor([used])
        return BackTALOutput(video_scores(cas, lengths), cas, nothing, nothing, nothing, lengths, points=together)

    def localize_output(
        self, output: BackTALOutput, axes: Sequence[TimeAxis], video_ids: Sequence[str] | None = None
    ) -> list[Localization]:
        """The segments of every video of a batch; arguments as for `backtal.nn.localize`."""
        return localize_detector(output, axes, self.config.labels, self.localization, video_ids)

    def follower(self, classes: Sequence[int], floor: float, longest: int, first: float = 0.0) -> Follower:
        """See `LocalizationModel.follower`."""
        if self.config.temporal_length is not None:
            raise ConfigError(
                f"model.temporal_length = {self.config.temporal_length} needs the whole video; its {RUNNING_FORM}"
            )
        if self.localization.thresholds is not None:
            return FusedFollower(self.localization, classes, floor, longest, first)
        return Suppressed(PointFollower(self.localization, classes, floor, longest), len(classes))

    @property
    def grid(self) -> tuple[Any, ...]:
        """Detectors are combined point by point."""
        return self.architecture, self.config.levels

    def combine(self, outputs: Sequence[BackTALOutput]) -> BackTALOutput:
        """The mean class probabilities of several detectors, per snippet and point, and the mean edges at each."""
        found = [output.points for output in outputs if output.points is not None]
        classes = torch.stack([points.classes.float().sigmoid() for points in found]).mean(0).logit(eps=1e-6)
        distances = torch.stack([points.distances.float() for points in found]).mean(0)
        return outputs[0]._replace(
            cas=mean_probability([output.cas for output in outputs]),
            scores=mean_probability([output.scores for output in outputs]),
            points=found[0]._replace(classes=classes, distances=distances),
        )

    @property
    def exports(self) -> tuple[str, ...]:
        """Names of the tensors that `exported` returns."""
        return "scores", "cas", "classes", "intervals"

    def exported(self, output: BackTALOutput) -> tuple[Tensor, ...]:
        """What an exported graph returns of an output."""
        assert output.points is not None
        classes = output.points.classes.sigmoid() * output.points.real[:, None]
        return output.scores, output.cas, classes, intervals(output.points)

    def frame_probabilities(self, output: BackTALOutput) -> Tensor:
        """``[C+1, T]``: how probable each class, and last the background, is at each snippet of a batch of one."""
        return output.cas[0].softmax(0)


def video_scores(cas: Tensor, lengths: Tensor) -> Tensor:
    """``[B, C+1]``: the log of each class's share (`backtal.nn.detector.snippets.share`), in place of eq. 1."""
    return share(cas.softmax(1), frame_mask(lengths, cas.shape[-1])[:, None]).clamp(min=1e-6).log()
