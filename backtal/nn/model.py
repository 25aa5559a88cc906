"""The BackTAL network (section 3): two streams over one trunk, sharing one embedding."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backtal.data.features import TimeAxis
from backtal.errors import ConfigError
from backtal.nn.cas import BackTALOutput, frame_mask, join_outputs, mean_probability, smooth, topk_mean
from backtal.nn.layers import NEGATIVE_SLOPE, AffinityConv1d, EmbeddingHead, ForegroundFilter, feature_scale
from backtal.nn.live.curves import CurveFollower, needs_whole
from backtal.nn.live.settle import Follower, Suppressed
from backtal.nn.live.stretch import RUNNING_FORM
from backtal.nn.localize import localize
from backtal.nn.pretrained import LocalizationModel
from backtal.ops import local_affinity, neighbours
from backtal.segments.segments import Localization
from backtal.settings.config import LocalizationConfig, ModelConfig


class BackTALModel(LocalizationModel[ModelConfig, LocalizationConfig, BackTALOutput]):
    """BackTAL: features in, class activation sequence and segments out.

    Args:
        config: architecture and labels.
        localization: how `localize` turns the sequence into segments.

    Example:
        >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
        >>> model(torch.randn(2, 16, 50)).cas.shape
        torch.Size([2, 3, 50])
    """

    architecture = "backtal"
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: ModelConfig, localization: LocalizationConfig | None = None) -> None:
        super().__init__(config, localization or LocalizationConfig())
        width = config.hidden_dim
        self.embedding_head = EmbeddingHead(config.feature_dim, config.embedding_dim, config.embedding_hidden_dim)
        self.foreground_filter = ForegroundFilter(config.feature_dim, config.filter_dim)
        self.trunk = nn.ModuleList(
            AffinityConv1d(inputs, width, config.kernel_size, bias=False, layout=config.layout)
            for inputs in [config.feature_dim] + [width] * (config.num_layers - 1)
        )
        self.input_dropout, self.dropout = nn.Dropout(config.input_dropout), nn.Dropout(config.dropout)
        self.classifier = nn.Conv1d(width, len(config.labels) + 1, 1, bias=False)
        if config.standardize:
            self.register_buffer("feature_mean", torch.zeros(config.feature_dim))
            self.register_buffer("feature_scale", torch.ones(config.feature_dim))

    def set_feature_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Standardise features by these ``[D]``; see `backtal.nn.layers.feature_scale`."""
        if not self.config.standardize:
            raise ConfigError("ModelConfig.standardize is False: the model takes no feature statistics")
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(feature_scale(deviation))

    @property
    def clip(self) -> float | None:
        """How many deviations standardised features are clipped to; None where they are not."""
        return self.config.clip if self.config.standardize else None

    def forward(
        self, features: Tensor, lengths: Tensor | None = None, *, base_stream: bool | None = None
    ) -> BackTALOutput:
        """Run the network on a batch.

        Args:
            features: ``[B, D, T]``. What lies beyond a video's length does not matter.
            lengths: ``[B]`` frames of each video; None where all fill T.
            base_stream: also run the unfiltered stream, which only the losses need; None does so in
                training mode.
        """
        if features.dim() != 3 or features.shape[1] != self.config.feature_dim:
            raise ValueError(f"features must be [B, {self.config.feature_dim}, T], got shape {tuple(features.shape)}")
        batch, _, length = features.shape
        if lengths is None:
            lengths = torch.full((batch,), length, device=features.device)
        mask = frame_mask(lengths, length)[:, None]
        if self.config.standardize:
            features = (features - self.feature_mean[:, None]) * self.feature_scale[:, None]
        if self.clip is not None:
            features = features.clamp(-self.clip, self.clip)
        features = self.input_dropout(features.masked_fill(~mask, 0.0))
        embedding = self.embedding_head(features, mask)
        affinity = self._affinity(embedding, mask)
        foreground = self.foreground_filter(features) * mask
        base_stream = self.training if base_stream is None else base_stream
        gains = torch.stack([foreground, mask.to(foreground)]) if base_stream else foreground[None]
        first = F.leaky_relu(self._first_layer(features, gains, affinity), NEGATIVE_SLOPE)
        x, affinity = first.flatten(0, 1), affinity.repeat(len(gains), 1, 1)
        for layer in self.trunk[1:]:
            x = F.leaky_relu(layer(x, affinity), NEGATIVE_SLOPE)
        cas = self.classifier(self.dropout(x))
        scores = topk_mean(cas, lengths.repeat(len(gains)), self.config.topk_ratio)
        cas, scores = cas.unflatten(0, first.shape[:2]), scores.unflatten(0, first.shape[:2])
        base = (scores[1], cas[1]) if base_stream else (None, None)
        return BackTALOutput(scores[0], cas[0], foreground, embedding, first[0], lengths, *base)

    def _affinity(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """``[B, K, T]``; without the affinity module, 1 between real frames: a plain convolution."""
        compared = embedding if self.config.affinity else mask.to(embedding.dtype)
        return local_affinity(compared, self.config.kernel_size)

    def _first_layer(self, x: Tensor, gains: Tensor, affinity: Tensor) -> Tensor:
        """``[S, B, H, T]``: the first layer on ``gain * x`` for the gain ``[B, 1, T]`` of each stream.

        A gain scales a frame as an affinity does, so in the paper's layout the streams share their products.
        """
        layer = self.trunk[0]
        if self.config.layout == "per_tap":
            return layer(x, affinity * neighbours(gains[:, :, 0], self.config.kernel_size))
        return torch.stack([layer(x * gain, affinity) for gain in gains])

    @property
    def reach(self) -> int:
        """How many snippets on either side a frame's class activation depends on.

        The embedding reaches one snippet for each of its convolutions, its affinity one kernel's half further, and each
        layer of the trunk another half; the first of them together with the affinity.

        Example:
            >>> BackTALModel(ModelConfig(feature_dim=8, labels=("jump",), kernel_size=3, num_layers=2)).reach
            3
        """
        embedding = 1 if self.config.embedding_hidden_dim is None else 2
        return embedding + self.config.num_layers * (self.config.kernel_size // 2)

    @property
    def shortest(self) -> int:
        """The fewest snippets that a video may have: those that one kernel spans."""
        return self.config.kernel_size

    def join(self, blocks: Iterable[tuple[BackTALOutput, slice]]) -> BackTALOutput:
        """See `LocalizationModel.join`; holds class activations and feature magnitudes."""
        return join_outputs(blocks, self.config.topk_ratio)

    def localize_output(
        self, output: BackTALOutput, axes: Sequence[TimeAxis], video_ids: Sequence[str] | None = None
    ) -> list[Localization]:
        """See `backtal.nn.localize`."""
        return localize(output, axes, self.config.labels, self.localization, video_ids)

    def follower(self, classes: Sequence[int], floor: float, longest: int, first: float = 0.0) -> Follower:
        """See `LocalizationModel.follower`."""
        if reasons := needs_whole(self.config, self.localization):
            raise ConfigError(f"these settings need the whole video: {', '.join(reasons)}; their {RUNNING_FORM}")
        return Suppressed(CurveFollower(self.localization, classes, floor, longest, first), len(classes))

    def combine(self, outputs: Sequence[BackTALOutput]) -> BackTALOutput:
        """The mean class probabilities of several networks, per frame and per video.

        Raises:
            ConfigError: if `self.localization` reads anything else than probabilities.
        """
        if self.localization.frame_scores != "softmax" or self.localization.feature_thresholds is not None:
            raise ConfigError("an ensemble averages probabilities: LocalizationConfig.frame_scores must be 'softmax'")
        return outputs[0]._replace(
            cas=mean_probability([output.cas for output in outputs]),
            scores=mean_probability([output.scores for output in outputs]),
        )

    @property
    def exports(self) -> tuple[str, ...]:
        """Names of the tensors that `exported` returns."""
        return "scores", "cas", "foreground", "magnitude"

    def exported(self, output: BackTALOutput) -> tuple[Tensor, ...]:
        """What an exported graph returns of an output."""
        return output.scores, output.cas, output.foreground, output.first_layer.norm(dim=1, keepdim=True)

    def frame_probabilities(self, output: BackTALOutput) -> Tensor:
        """See `LocalizationModel.frame_probabilities`."""
        return smooth(output.cas[0].float(), self.localization.smoothing).softmax(0)
