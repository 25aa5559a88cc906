"""What every architecture can do: load, save and publish itself, read features and videos, localize.

An architecture is a subclass of `LocalizationModel` with a name, the one that its checkpoints bear; the classes of its
settings stand under the same name in `backtal.settings.ARCHITECTURES`.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from backtal.data.features import FeatureSpec, TimeAxis, VideoFeatures, check_fit, check_length, read_features
from backtal.errors import ConfigError
from backtal.files import note
from backtal.hub import checkpoint, hub
from backtal.hub.checkpoint import CheckpointConfig
from backtal.nn.live.settle import Follower
from backtal.nn.live.stretch import RUNNING_FORM
from backtal.nn.live.watch import watch
from backtal.nn.live.watcher import Event, Watcher
from backtal.nn.stream import Source, open_features, run_chunked
from backtal.segments.segments import Localization
from backtal.settings.config import NetworkConfig

if TYPE_CHECKING:
    from backtal.video import Extractor

Config = TypeVar("Config", bound=NetworkConfig)
Settings = TypeVar("Settings")
Output = TypeVar("Output")

MODELS: dict[str, type["LocalizationModel"]] = {}


class LocalizationModel(ABC, nn.Module, Generic[Config, Settings, Output]):
    """A network that finds segments: features in, `Output` and from that a `Localization` out.

    A subclass with an `architecture` of its own is made from its two settings, returns an `Output` from
    ``forward(features [B, D, T], lengths [B] | None)``, and has the five abstract members below.

    Args:
        config: architecture and labels.
        localization: how the output becomes segments.

    Attributes:
        architecture: name in checkpoints.
        facts: what the model card says of the weights besides labels and features: data, recipe, metrics. Loading and
            saving keep them; change them when you change the weights.
    """

    architecture: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "architecture" in vars(cls):
            MODELS[cls.architecture] = cls

    def __init__(self, config: Config, localization: Settings) -> None:
        super().__init__()
        if not config.labels:
            raise ConfigError(f"{type(config).__name__}.labels: a model needs at least one label")
        self.config, self.localization = config, localization
        self.facts: dict[str, str] = {}
        self._said_clipped = False

    @property
    @abstractmethod
    def reach(self) -> int:
        """How many snippets on either side a snippet's output depends on."""

    @property
    @abstractmethod
    def shortest(self) -> int:
        """The fewest snippets that a video may have."""

    @property
    def clip(self) -> float | None:
        """How many deviations of the training features the network clips features to; None where it does not."""
        return None

    @abstractmethod
    def join(self, blocks: Iterable[tuple[Output, slice]]) -> Output:
        """The output for a whole video, from those for consecutive blocks of it.

        Args:
            blocks: output for a batch of one, and which of its snippets are the block's own, as
                `backtal.nn.run_chunked` yields them.

        Returns:
            The output for a batch of one, as far as `localize_output` and `frame_probabilities` read it.

        Raises:
            DataError: if there is no block.
        """

    @abstractmethod
    def localize_output(
        self, output: Output, axes: Sequence[TimeAxis], video_ids: Sequence[str] | None = None
    ) -> list[Localization]:
        """The segments of every video of a batch, by `self.localization`; arguments as for `backtal.nn.localize`."""

    @abstractmethod
    def frame_probabilities(self, output: Output) -> Tensor:
        """``[C+1, T]``: how probable each class, and last the background, is at each snippet of a batch of one."""

    @property
    def grid(self) -> tuple[Any, ...]:
        """What has to be equal for the outputs of two networks to be combined, beside their labels."""
        return (self.architecture,)

    def combine(self, outputs: Sequence[Output]) -> Output:
        """The mean opinion of several networks of this architecture on the same batch, as `localize_output` reads it.

        Raises:
            ConfigError: if there is no such mean, or `self.localization` cannot read it.
        """
        raise ConfigError(f"an ensemble of the architecture {self.architecture!r} is not possible")

    def follower(self, classes: Sequence[int], floor: float, longest: int, first: float = 0.0) -> Follower:
        """What tells the candidates of a stream as they become known; see `backtal.nn.live`.

        Args:
            classes: indices of those looked at.
            floor: candidates below this score do not count.
            longest: snippets after which an action is closed.
            first: where the stream begins, in snippets.

        Raises:
            ConfigError: if the settings need the whole video; the message names them.
        """
        raise ConfigError(f"the architecture {self.architecture!r} needs the whole video; its {RUNNING_FORM}")

    @property
    def exports(self) -> tuple[str, ...]:
        """Names of the tensors that `exported` returns.

        Raises:
            ConfigError: if the architecture has no exported form.
        """
        raise ConfigError(f"an exported graph of the architecture {self.architecture!r} is not possible")

    @property
    def multiple(self) -> int:
        """What the length of a padded batch must be a multiple of, in an exported graph."""
        return 1

    def exported(self, output: Output) -> tuple[Tensor, ...]:
        """What an exported graph returns of an output: tensors, in the order of `exports`."""
        raise NotImplementedError

    def prepare(self, video: VideoFeatures | str | Path, *, ignore_spec: Collection[str] = ()) -> VideoFeatures:
        """Read, check and rescale the features of a video as this network needs them; arguments as in `localize`.

        Raises:
            DataError: if the features do not fit the network.
        """
        if not isinstance(video, VideoFeatures):
            video = read_features(video)
        video.check(self.config.feature_dim, self.shortest, self.config.feature_spec, ignore_spec)
        _say_misfit(video.video_id, video.axis)
        return video.rescaled(self.config.temporal_length)

    @torch.inference_mode()
    def run(self, video: VideoFeatures | str | Path, *, ignore_spec: Collection[str] = ()) -> Output:
        """What the network, in evaluation mode, makes of one video: a batch of one.

        Args:
            video: features, or the path of a feature file that `read_features` reads.
            ignore_spec: as in `localize`.

        Raises:
            DataError: if the features do not fit the network.

        Example:
            >>> from backtal import BackTALModel, ModelConfig, TimeAxis
            >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
            >>> model.run(VideoFeatures("v", torch.randn(16, 50), TimeAxis.even(50, 10.0))).cas.shape
            torch.Size([1, 3, 50])
        """
        video = self.prepare(video, ignore_spec=ignore_spec)
        self._say_clipped(video.video_id, video.features)
        with _evaluating(self):
            return self(video.features[None].to(self._weight))

    @torch.inference_mode()
    def run_batch(self, videos: Sequence[VideoFeatures]) -> Output:
        """As `run`, for several videos in one padded batch.

        Args:
            videos: each as `prepare` returns it.

        Example:
            >>> from backtal import BackTALModel, ModelConfig, TimeAxis
            >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
            >>> videos = [VideoFeatures("v", torch.randn(16, n), TimeAxis.even(n, 10.0)) for n in (50, 40)]
            >>> model.run_batch(videos).cas.shape
            torch.Size([2, 3, 50])
        """
        lengths = [self._say_clipped(video.video_id, video.features).shape[1] for video in videos]
        features = torch.zeros(len(videos), self.config.feature_dim, max(lengths))
        for row, video, length in zip(features, videos, lengths, strict=True):
            row[:, :length] = video.features
        with _evaluating(self):
            return self(features.to(self._weight), torch.tensor(lengths, device=self._weight.device))

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
            >>> from backtal import BackTALModel, ModelConfig, TimeAxis
            >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
            >>> model.localize(VideoFeatures("v", torch.randn(16, 50), TimeAxis.even(50, duration=25.0))).video_id
            'v'
        """
        if isinstance(video, VideoFeatures):
            return self._localize(Source.of(video), ignore_spec)
        from backtal.video import FeatureStream, opens_as_video

        if not opens_as_video(video):
            return self._localize(open_features(video), ignore_spec)
        stream = FeatureStream(video, extractor or self.extractor(), **{"device": self._weight.device, **options})
        spec = stream.extractor.spec
        source = Source(Path(video).stem, int(spec.dim or 0), None, spec, stream, lambda: stream.axis)
        return self._localize(source, ignore_spec)

    def watcher(self, spec: FeatureSpec | None = None, **options: Any) -> Watcher:
        """What finds segments in a stream of features while they are pushed.

        Args:
            spec: of the features, with their `fps` and `stride`; the checkpoint's where None.
            options: as for `backtal.nn.Watcher`.

        Raises:
            ConfigError: if the localization settings need the whole video and `running` is not given.
        """
        return Watcher(self, spec, **options)

    def watch(self, source: str | Path, **options: Any) -> Iterator[Event]:
        """Find segments in a video while it goes on: events as they come, until the source ends.

        Args:
            source: a camera (``"0"``, ``"/dev/video0"``), an address (``rtsp://``, ``http://``, ``tcp://``, ``udp://``),
                a pipe (``"-"``, standard input) or a file, which may still be written. Cameras and addresses that are
                cut off are connected to again.
            options: as for `backtal.nn.Watcher`, without `spec`; and `extractor` of its features; `save`, a folder for
                clips of final segments; `batch_size` and `bf16` as for `backtal.video.FeatureStream`; `patience`,
                seconds without anything after which an address counts as cut off and a file as complete; `give_up`,
                seconds without a connection after which the stream has ended; `stop`, a `threading.Event` that ends
                it, with all that is open.

        Raises:
            DataError: if the source cannot be opened at first or holds no video.
            ConfigError: as for `watcher`; or if the checkpoint names no extractor.
        """
        return watch(self, source, **options)

    def _say_clipped(self, video_id: str, features: Tensor) -> Tensor:
        """The features ``[D, n]`` themselves; where the network clips some of them, that is said, once of a model."""
        if self.clip is None or self._said_clipped:
            return features
        mean, scale = self.get_buffer("feature_mean").cpu(), self.get_buffer("feature_scale").cpu()
        values = features.cpu().float().numpy()
        low, high = (torch.from_numpy(extreme(axis=1)) - mean for extreme in (values.min, values.max))
        if not bool((torch.maximum(-low, high) * scale > self.clip).any()):
            return features
        self._said_clipped = True
        far = ((features.cpu() - mean[:, None]) * scale[:, None]).abs() > self.clip
        note(
            f"video {video_id}: {int(far.sum())} value(s) of its features, in {int(far.any(1).sum())} channel(s), "
            f"lie more than {self.clip:g} deviations from the mean of those trained on, and are clipped to that; "
            "said once, other videos may have some too"
        )
        return features

    @property
    def _weight(self) -> Tensor:
        """A parameter, for its device and type."""
        return next(self.parameters())

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
        settings |= {"weights": tuple(weights), "device": self._weight.device}
        if name is not None:
            return chosen_extractor(name, **settings)
        if spec.extractor is None:
            raise ConfigError(
                "the checkpoint does not say what extracted its features; name the extractor that made those it was "
                "trained on (--extractor, in Python extractor=)"
            )
        return load_extractor(spec.extractor, **settings)

    def _localize(self, source: Source, ignore_spec: Collection[str]) -> Localization:
        output, axis = self.summarize(source, ignore_spec)
        return self.localize_output(output, [axis], [source.video_id])[0]

    @torch.inference_mode()
    def summarize(self, source: Source, ignore_spec: Collection[str] = ()) -> tuple[Output, TimeAxis]:
        """What the network makes of one video, however long, and when each of its snippets is.

        Args:
            source: features piece by piece, for example `backtal.nn.open_features`.
            ignore_spec: as in `localize`.

        Returns:
            The output for a batch of one, of which only what `localize_output` and `frame_probabilities` read is
            there, and its time axis.

        Raises:
            DataError: if the features do not fit the network.
        """
        config = self.config
        wanted = config.feature_dim, config.feature_spec, ignore_spec
        check_fit(source.video_id, source.dim, source.spec, *wanted, source.length)
        if source.length is not None:
            check_length(source.video_id, source.length, self.shortest)
        parts = source.pieces if config.temporal_length is None else [source.rescaled(config.temporal_length)]
        parts = (self._say_clipped(source.video_id, torch.as_tensor(part)) for part in parts)
        with _evaluating(self):
            output = self.join(
                run_chunked(self, self.reach, parts, device=self._weight.device, dtype=self._weight.dtype)
            )
        axis = source.axis()
        check_length(source.video_id, axis.length, self.shortest)
        _say_misfit(source.video_id, axis)
        return output, axis.rescaled(config.temporal_length or axis.length)

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
            >>> from backtal import BackTALModel, ModelConfig
            >>> folder = tempfile.mkdtemp()
            >>> model = BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32))
            >>> model.save_pretrained(folder, facts={"data": "my videos"}, dtype=torch.float16)
            >>> BackTALModel.from_pretrained(folder).facts
            {'data': 'my videos'}
        """
        checkpoint.save(folder, self._described(facts), self._stored(dtype))

    def _described(self, facts: Mapping[str, str] | None) -> CheckpointConfig:
        return CheckpointConfig(self.architecture, self.config, self.localization, self.facts | dict(facts or {}))

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
            self._described(facts),
            self._stored(dtype),
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
    ) -> "LocalizationModel":
        """Load a checkpoint, in evaluation mode, as the architecture that it names, whatever class this is called on.

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
            >>> from backtal import BackTALModel, ModelConfig
            >>> folder = tempfile.mkdtemp()
            >>> BackTALModel(ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32)).save_pretrained(folder)
            >>> BackTALModel.from_pretrained(folder).config.labels
            ('jump', 'run')
        """
        folder = hub.fetch(
            name_or_path, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        stored = checkpoint.load_config(folder)
        with torch.device("meta"):
            model = network(stored, cls)
        model.load_state_dict(checkpoint.load_weights(folder, model.state_dict()), assign=True)
        return model.eval()


def network(config: CheckpointConfig, wanted: type[LocalizationModel] = LocalizationModel) -> LocalizationModel:
    """A network of the architecture that `config` names, with new weights; `wanted` itself, if it is that one."""
    named: type[LocalizationModel] = MODELS[config.architecture]
    model = (wanted if issubclass(wanted, named) else named)(config.model, config.localization)
    model.facts = dict(config.facts)
    return model


def _say_misfit(video_id: str, axis: TimeAxis) -> None:
    if axis.misfit:
        note(f"video {video_id}: {axis.misfit}: the duration, or the fps or stride of its features, is wrong")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
