"""The BackTAL network (section 3): two streams over one trunk, sharing one embedding."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backtal.data.features import FeatureSpec, TimeAxis, VideoFeatures, check_fit, check_length, read_features
from backtal.errors import ConfigError
from backtal.hub import checkpoint, hub
from backtal.nn.cas import BackTALOutput, frame_mask, topk_mean
from backtal.nn.layers import NEGATIVE_SLOPE, AffinityConv1d, EmbeddingHead, ForegroundFilter
from backtal.nn.localize import localize
from backtal.nn.stream import Source, Summary, open_features, run_chunked
from backtal.ops import local_affinity, neighbours
from backtal.segments.segments import Localization
from backtal.settings.config import LocalizationConfig, ModelConfig

if TYPE_CHECKING:
    from backtal.video import Extractor


class BackTALModel(nn.Module):
    """BackTAL: features in, class activation sequence and segments out.

    Args:
        config: architecture and labels.
        localization: how `localize` turns the sequence into segments.

    Attributes:
        facts: what the model card says of the weights besides labels and features: data, recipe, metrics. Loading and
            saving keep them; change them when you change the weights.

    Example:
        >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
        >>> model(torch.randn(2, 16, 50)).cas.shape
        torch.Size([2, 3, 50])
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: ModelConfig, localization: LocalizationConfig | None = None) -> None:
        super().__init__()
        if not config.labels:
            raise ConfigError("ModelConfig.labels: a model needs at least one label")
        self.config = config
        self.localization = localization or LocalizationConfig()
        self.facts: dict[str, str] = {}
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
        """Standardise features by these ``[D]``.

        A deviation below a twentieth of the average one counts as that, so that a channel that hardly varies in
        training is not blown up in a new video.
        """
        if not self.config.standardize:
            raise ConfigError("ModelConfig.standardize is False: the model takes no feature statistics")
        self.feature_mean.copy_(mean)
        floor = deviation.mean() / 20
        self.feature_scale.copy_(1 / deviation.clamp(min=float(floor) or 1.0))

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

    def prepare(self, video: VideoFeatures | str | Path, *, ignore_spec: Collection[str] = ()) -> VideoFeatures:
        """Read, check and rescale the features of a video as this network needs them; arguments as in `localize`.

        Raises:
            DataError: if the features do not fit the network.
        """
        if not isinstance(video, VideoFeatures):
            video = read_features(video)
        video.check(self.config.feature_dim, self.config.kernel_size, self.config.feature_spec, ignore_spec)
        return video.rescaled(self.config.temporal_length)

    @torch.inference_mode()
    def run(self, video: VideoFeatures | str | Path, *, ignore_spec: Collection[str] = ()) -> BackTALOutput:
        """What the network, in evaluation mode, makes of one video: a batch of one.

        Args:
            video: features, or the path of a feature file that `read_features` reads.
            ignore_spec: as in `localize`.

        Raises:
            DataError: if the features do not fit the network.

        Example:
            >>> from backtal import TimeAxis
            >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
            >>> model.run(VideoFeatures("v", torch.randn(16, 50), TimeAxis.even(50, 10.0))).cas.shape
            torch.Size([1, 3, 50])
        """
        training = self.training
        self.eval()
        try:
            return self(self.prepare(video, ignore_spec=ignore_spec).features[None].to(self.classifier.weight))
        finally:
            self.train(training)

    @torch.inference_mode()
    def localize(
        self,
        video: VideoFeatures | str | Path,
        *,
        ignore_spec: Collection[str] = (),
        extractor: "Extractor | None" = None,
        **options: Any,
    ) -> Localization:
        """Find the segments of one video, however long: features go through the network in chunks.

        Args:
            video: features, the path of a feature file that `read_features` reads, or the path of a video.
            ignore_spec: fields of the feature spec that may differ from the model's, such as ``"fps"``.
            extractor: of a video's features; `self.extractor()` where None.
            options: for a video, as for `backtal.video.FeatureStream`.

        Raises:
            DataError: if the features do not fit the network, or the video is damaged.
            ConfigError: if a video is given and the checkpoint names no extractor.

        Example:
            >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
            >>> from backtal import TimeAxis
            >>> model.localize(VideoFeatures("v", torch.randn(16, 50), TimeAxis.even(50, duration=25.0))).video_id
            'v'
        """
        if isinstance(video, VideoFeatures):
            return self._localize(Source.of(video), ignore_spec)
        from backtal.video import is_video

        if not is_video(video):
            return self._localize(open_features(video), ignore_spec)
        from backtal.video import FeatureStream

        stream = FeatureStream(video, extractor or self.extractor(), **{"device": self._device, **options})
        spec = stream.extractor.spec
        source = Source(Path(video).stem, int(spec.dim or 0), None, spec, stream, lambda: stream.axis)
        return self._localize(source, ignore_spec)

    @property
    def _device(self) -> torch.device:
        return self.classifier.weight.device

    def extractor(self, name: str | None = None, weights: Sequence[str | Path] = ()) -> "Extractor":
        """What extracts the features of videos for this model.

        Args:
            name: as for `backtal.video.chosen_extractor`; the one the checkpoint names where None.
            weights: its files, where they cannot be downloaded.

        Raises:
            ConfigError: if there is no name, or no extractor of that name.
        """
        from backtal.video import chosen_extractor, load_extractor

        spec = self.config.feature_spec or FeatureSpec()
        settings: dict[str, Any] = {"fps": spec.fps, "window": spec.window, "stride": spec.stride, "flow": spec.flow}
        settings |= {"weights": tuple(weights), "device": self._device}
        if name is not None:
            return chosen_extractor(name, **settings)
        if spec.extractor is None:
            raise ConfigError(
                "the checkpoint does not say what extracted its features; name the extractor that made those it was "
                "trained on (--extractor, in Python extractor=)"
            )
        return load_extractor(spec.extractor, **settings)

    def _localize(self, source: Source, ignore_spec: Collection[str]) -> Localization:
        summary, axis = self.summarize(source, ignore_spec)
        return localize(summary.output(), [axis], self.config.labels, self.localization, [source.video_id])[0]

    @torch.inference_mode()
    def summarize(self, source: Source, ignore_spec: Collection[str] = ()) -> tuple[Summary, TimeAxis]:
        """The class activation sequence of one video, however long, and when each of its snippets is.

        Args:
            source: features piece by piece, for example `backtal.nn.open_features`.
            ignore_spec: as in `localize`.

        Raises:
            DataError: if the features do not fit the network.
        """
        config = self.config
        check_fit(
            source.video_id,
            source.dim,
            source.spec,
            config.feature_dim,
            config.feature_spec,
            ignore_spec,
            source.length,
        )
        if source.length is not None:
            check_length(source.video_id, source.length, config.kernel_size)
        training = self.training
        self.eval()
        try:
            parts = source.pieces if config.temporal_length is None else [source.rescaled(config.temporal_length)]
            summary = run_chunked(self, config, parts, device=self._device, dtype=self.classifier.weight.dtype)
        finally:
            self.train(training)
        axis = source.axis()
        check_length(source.video_id, axis.length, config.kernel_size)
        return summary, axis.rescaled(config.temporal_length or axis.length)

    def save_pretrained(
        self, folder: str | Path, *, facts: Mapping[str, str] | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Write ``config.json``, ``model.safetensors`` and a model card to `folder`.

        Args:
            folder: where to.
            facts: rows for the model card, such as data, recipe and metrics; added to `self.facts`.
            dtype: type to store the parameters in, for example ``torch.float16``; loading restores float32.

        Raises:
            CheckpointError: if the weights are not finite, or labels or sizes exceed what can be loaded.

        Example:
            >>> import tempfile
            >>> folder = tempfile.mkdtemp()
            >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
            >>> model.save_pretrained(folder, facts={"data": "my videos"}, dtype=torch.float16)
            >>> BackTALModel.from_pretrained(folder).facts
            {'data': 'my videos'}
        """
        checkpoint.save(
            folder, self.config, self.localization, self._stored(dtype), facts=self.facts | dict(facts or {})
        )

    def _stored(self, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """The state with its parameters, but not the feature statistics, in `dtype`."""
        parameters = dict(self.named_parameters())
        return {name: t.to(dtype) if name in parameters else t for name, t in self.state_dict().items()}

    def push_to_hub(
        self,
        repository: str,
        *,
        facts: Mapping[str, str] | None = None,
        dtype: torch.dtype | None = None,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Checkpoint of backtal",
        create_pr: bool = False,
    ) -> str:
        """Publish the model with its card in a repository of the Hugging Face Hub.

        Args:
            repository: ``owner/name``, or ``name`` for one of your own; made where it does not exist.
            facts: rows for the model card, as in `save_pretrained`.
            dtype: type to store the parameters in, as in `save_pretrained`.
            token: with write access; the one of ``hf auth login`` where None.
            private: whether a new repository is private.
            revision: branch to push to, made where it does not exist.
            commit_message: of the commit.
            create_pr: open a pull request instead.

        Returns:
            ``owner/name@commit``, which `from_pretrained` loads: always these weights, whatever is pushed later.

        Raises:
            CheckpointError: if the Hub refuses or cannot be reached.
        """
        return hub.push(
            repository,
            self.config,
            self.localization,
            self._stored(dtype),
            facts=self.facts | dict(facts or {}),
            token=token,
            private=private,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a checkpoint, in evaluation mode.

        Nothing of a checkpoint is executed, and no memory is taken for weights before file and configuration are
        known to agree (see `backtal.hub.checkpoint`). The weights come in torch's default type, float32, however they
        are stored. Called on a model, ``model.from_pretrained("thumos14")`` leaves that model alone and also returns a
        new one.

        Args:
            name_or_path: ``"thumos14"``, ``"activitynet1.2"``, ``"hacs"``, ``"beoid"`` or ``"shrec22"`` (which comes
                with the package); ``"owner/name"`` or ``"owner/name@revision"`` on the Hugging Face Hub; or a folder.
                A folder called like one of the names is loaded as ``"./thumos14"``.
            revision: branch, tag or commit.
            cache_dir: where downloads are kept; huggingface_hub's cache where None.
            token: of a private or gated repository; the one of ``hf auth login`` where None.
            local_files_only: make no request; so does the environment variable ``HF_HUB_OFFLINE=1``.

        Raises:
            CheckpointError: if there is nothing of that name, it cannot be downloaded, a file is missing or damaged,
                or a tensor is missing, unexpected or of another shape than the configuration says.

        Example:
            >>> import tempfile
            >>> folder = tempfile.mkdtemp()
            >>> BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32)).save_pretrained(folder)
            >>> BackTALModel.from_pretrained(folder).config.labels
            ('jump', 'run')
        """
        folder = hub.fetch(
            name_or_path, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        config, localization, facts = checkpoint.load_config(folder)
        with torch.device("meta"):
            model = cls(config, localization)
        model.load_state_dict(checkpoint.load_weights(folder, model.state_dict()), assign=True)
        model.facts = facts
        return model.eval()
