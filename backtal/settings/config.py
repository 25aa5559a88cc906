"""Settings as frozen dataclasses, checked when they are made; reading them from JSON and text."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union

from backtal.data.features import FeatureSpec
from backtal.errors import ConfigError
from backtal.files import note
from backtal.settings.checks import at_least, at_most, is_grid, is_name, require

Config = TypeVar("Config")
_DROPPING = frozenset({"nms_threshold", "nms_length_offset"})  # read where no soft suppression is set


@dataclass(frozen=True)
class NetworkConfig:
    """What the settings of every architecture say: labels, and the features the network reads.

    Args:
        feature_dim: feature channels D.
        labels: names of the C action classes; background is not among them.
        temporal_length: length T that every video is rescaled to; None keeps the native length.
        feature_spec: what the features must be.
    """

    feature_dim: int = 2048
    labels: tuple[str, ...] = ()
    temporal_length: int | None = None
    feature_spec: FeatureSpec | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "feature_dim", "temporal_length")
        at_most(self, 2**20, "feature_dim", "temporal_length")
        require(len(set(self.labels)) == len(self.labels), self, "labels", "all different")
        require(len(self.labels) <= 10_000, self, "labels", "at most 10,000")
        require(all(map(is_name, self.labels)), self, "labels", "names of 1 to 200 characters, none of them control")


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """Settings of BackTAL's network.

    Args:
        feature_dim: feature channels D.
        labels: names of the C action classes; background is not among them.
        temporal_length: length T that every video is rescaled to; None keeps the native length.
        feature_spec: what the features must be.
        hidden_dim: width of the trunk.
        num_layers: affinity convolutions in the trunk.
        kernel_size: taps of the trunk's convolutions and neighbours of the affinity (h), odd.
        filter_dim: width of the foreground filter.
        embedding_dim: embedding size E.
        embedding_hidden_dim: width of a first embedding convolution, or None for the paper's single one.
        affinity: weigh the taps by affinity; False gives plain convolutions (the paper's baseline).
        layout: ``"per_tap"`` (paper) or ``"channel_blocks"`` (released system).
        dropout: probability, before the classifier.
        input_dropout: probability, on the features.
        standardize: shift and scale each feature channel by its mean and deviation over the training
            snippets, which the checkpoint stores.
        clip: standardised features are clipped to this many deviations; None for the most that training saw, at least
            10, which the checkpoint stores.
        topk_ratio: video scores average the top ``max(1, int(topk_ratio * T))`` frames (eq. 1).
    """

    hidden_dim: int = 2048
    num_layers: int = 2
    kernel_size: int = 3
    filter_dim: int = 512
    embedding_dim: int = 32
    embedding_hidden_dim: int | None = None
    affinity: bool = True
    layout: Literal["per_tap", "channel_blocks"] = "per_tap"
    dropout: float = 0.7
    input_dropout: float = 0.0
    standardize: bool = False
    clip: float | None = None
    topk_ratio: float = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = ("hidden_dim", "filter_dim", "embedding_dim", "embedding_hidden_dim")
        at_least(self, 1, *widths, "num_layers", "kernel_size")
        at_most(self, 2**20, *widths)
        at_most(self, 100, "num_layers")
        at_most(self, 1000, "kernel_size")
        require(self.kernel_size % 2 == 1, self, "kernel_size", "an odd number")
        require(0 <= self.dropout < 1, self, "dropout", "in [0, 1)")
        require(0 <= self.input_dropout < 1, self, "input_dropout", "in [0, 1)")
        require(self.clip is None or self.clip > 0, self, "clip", "positive")
        require(0 < self.topk_ratio <= 1, self, "topk_ratio", "in (0, 1]")


@dataclass(frozen=True)
class LossConfig:
    """Weights and forms of the loss terms; a weight of 0 switches a term off.

    Args:
        frame: weight of the frame classification on clicks (eq. 3).
        frame_on: what clicks supervise: the ``"cas"`` (paper), the ``"foreground"`` weights or ``"both"`` (Table 8).
        mined_background: background frames mined for each action click of a video, as SF-Net does (Table 13).
        separation: weight lambda of the score separation (eq. 8).
        affinity: weight beta of the affinity loss (eq. 13).
        norm: weight of the L1 norm of the foreground weights.
        between: weight of the between-clicks term, on both streams; not part of the paper.
        between_ratio: fraction of each stretch between two clicks that must look like action.
        between_miss: probability that a stretch holds no action after all, as after a wrong click.
        teacher: weight of the agreement with the previous stage's network, from the second stage on; not part of the
            paper.
        frame_mean: average over the clicks of a ``"video"`` first (paper) or of the whole ``"batch"`` (released).
        separation_topk_ratio: top-k of the separation, where it differs from the model's.
        affinity_pairs: constrain the single ``"hardest"`` pair of each kind (paper) or the hardest
            partner of ``"each_frame"`` (released).
        tau_same: similarity that frames of one kind must reach.
        tau_diff: similarity that action and background must not exceed.
    """

    frame: float = 1.0
    frame_on: Literal["cas", "foreground", "both"] = "cas"
    mined_background: int = 0
    separation: float = 1.0
    affinity: float = 0.8
    norm: float = 1e-4
    between: float = 0.0
    between_ratio: float = 0.15
    between_miss: float = 0.05
    teacher: float = 1.0
    frame_mean: Literal["video", "batch"] = "video"
    separation_topk_ratio: float | None = None
    affinity_pairs: Literal["hardest", "each_frame"] = "hardest"
    tau_same: float = 0.5
    tau_diff: float = 0.1

    def __post_init__(self) -> None:
        at_least(self, 0, "frame", "mined_background", "separation", "affinity", "norm", "between", "teacher")
        require(0 < self.between_ratio <= 1, self, "between_ratio", "in (0, 1]")
        require(0 <= self.between_miss < 1, self, "between_miss", "in [0, 1)")
        ratio = self.separation_topk_ratio
        require(ratio is None or 0 < ratio <= 1, self, "separation_topk_ratio", "in (0, 1]")


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation on shuffled batches.

    Args:
        epochs: passes over the training videos.
        batch_size: videos per step and process.
        min_epoch_steps: with few videos, an epoch goes through them several times, until it has so many steps.
        learning_rate: of Adam.
        weight_decay: of Adam.
        decoupled: decay weights beside Adam's step (AdamW), not as a part of the gradient.
        schedule: ``"constant"``, or ``"cosine"`` down to zero over the whole training.
        warmup_epochs: over which the learning rate rises from zero.
        clip_norm: greatest norm of a step's gradient; None for no bound.
        averaging: decay of a running mean of the weights, which is what is kept; 0 keeps the last ones.
        stretch: each batch is stretched in time by a factor between ``exp(-stretch)`` and ``exp(stretch)``; 0 for none.
        stages: networks trained one after the other, each from scratch and taught by the one before; the last is kept.
        seed: of the initial weights, the order of the videos and dropout.
        checkpoint_every: epochs between two resumable checkpoints.
        held_out: fraction of the *training* videos kept aside; the epoch with the lowest loss on them
            is kept. 0 trains on all and keeps the last epoch.
        allow_unclicked: train on videos without any click too, from their labels alone.
        precision: of the network's products; weights, losses and Adam stay float32 (autocast).
        compile: run the network through ``torch.compile``.
        kernel_per_gap: the network's kernel size as a fraction of the median distance between two background clicks in
            snippets, between 5 and 15; None, or without clicks, as the model says: `backtal.training.for_dataset`.
    """

    epochs: int = 100
    batch_size: int = 16
    min_epoch_steps: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 5e-4
    decoupled: bool = False
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: int = 0
    clip_norm: float | None = None
    averaging: float = 0.0
    stretch: float = 0.0
    stages: int = 1
    seed: int = 0
    checkpoint_every: int = 10
    held_out: float = 0.0
    allow_unclicked: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    kernel_per_gap: float | None = None

    def __post_init__(self) -> None:
        require((self.kernel_per_gap or 1) > 0, self, "kernel_per_gap", "positive")
        at_least(self, 1, "epochs", "batch_size", "min_epoch_steps", "stages", "checkpoint_every")
        at_most(self, 10, "stages")
        at_least(self, 0, "weight_decay", "seed", "warmup_epochs")
        require(0 <= self.averaging < 1, self, "averaging", "in [0, 1)")
        require(0 <= self.stretch <= 0.5, self, "stretch", "in [0, 0.5]")
        require((self.clip_norm or 1) > 0, self, "clip_norm", "positive")
        require(self.learning_rate > 0, self, "learning_rate", "positive")
        require(0 <= self.held_out < 1, self, "held_out", "in [0, 1)")


@dataclass(frozen=True)
class LocalizationConfig:
    """From class activation sequence to segments (section 3.5).

    Args:
        frame_scores: what is thresholded: ``"softmax"`` over the classes of each frame, or ``"minmax"``, each
            class's activation scaled to [0, 1] over time (released).
        smoothing: deviation, in snippets, of a Gaussian that smooths the activations over time first; 0 for none.
        class_threshold: least video-level probability of a class (tau_cls).
        thresholds: (first, end, step) of the thresholds on the frame scores, end excluded.
        feature_thresholds: the same for the magnitude of the first layer's features; None for none.
        upsample: positions per snippet that the sequence is interpolated to; None for one per video frame.
        outer: width of the outer area on each side, as a fraction of the segment (outer-inner contrast).
        contrast_on: compute the contrast on the ``"raw"`` sequence or on the ``"thresholded"`` one (released).
        gamma: weight of the video-level probability in a segment's score.
        skip_first_frame: ignore a threshold whose only active position is the first (released).
        shrink: fraction of its length by which each end moves inwards.
        whole_video_score: score of an extra segment over the whole video for each class found; None for none.
        nms_threshold: temporal IoU at which a weaker segment is dropped; 1 keeps all but exact copies.
        soft_nms_sigma: instead of dropping, scale a weaker segment's score by ``exp(-tiou**2 / sigma)``; None for
            dropping.
        min_score: segments below are left out.
        nms_length_offset: seconds added to lengths in the suppression (the released system adds 1).
    """

    frame_scores: Literal["softmax", "minmax"] = "softmax"
    smoothing: float = 0.0
    class_threshold: float = 0.0
    thresholds: tuple[float, float, float] = (0.1, 1.0, 0.1)
    feature_thresholds: tuple[float, float, float] | None = None
    upsample: int | None = 4
    outer: float = 0.25
    contrast_on: Literal["raw", "thresholded"] = "raw"
    gamma: float = 0.2
    skip_first_frame: bool = False
    shrink: float = 0.0
    whole_video_score: float | None = None
    nms_threshold: float = 0.5
    soft_nms_sigma: float | None = None
    min_score: float | None = None
    nms_length_offset: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, 1, "upsample")
        at_least(self, 0, "smoothing", "outer", "gamma", "nms_length_offset", "class_threshold")
        at_most(self, 1000, "smoothing", "upsample", "outer")
        require(0 <= self.shrink < 0.5, self, "shrink", "in [0, 0.5)")
        require(0 < self.nms_threshold <= 1, self, "nms_threshold", "in (0, 1]")
        require(self.soft_nms_sigma is None or self.soft_nms_sigma > 0, self, "soft_nms_sigma", "positive")
        is_grid(self, "thresholds", "feature_thresholds")


@dataclass(frozen=True)
class Recipe:
    """A named set of all settings. `train` fills in the dataset's labels and feature dimension.

    Args:
        name: of the recipe.
        model: `ModelConfig` for the paper's network, `backtal.settings.DetectorConfig` for the detector.
        loss: `LossConfig`, or `backtal.settings.DetectorLossConfig`.
        training: optimisation.
        localization: `LocalizationConfig`, or `backtal.settings.DetectionConfig`.
        protocol: of the evaluation.
        architecture: of the model; a name in `backtal.settings.ARCHITECTURES`.
    """

    name: str = "custom"
    model: Any = field(default_factory=ModelConfig)
    loss: Any = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    localization: Any = field(default_factory=LocalizationConfig)
    protocol: str = "thumos14"
    architecture: str = "backtal"

    def with_settings(self, settings: Sequence[str]) -> "Recipe":
        """Apply ``key=value`` settings. A key is ``part.name``, or a bare name that only one part has.

        A kernel size that is set is taken as it is, whatever `TrainingConfig.kernel_per_gap` was.

        Example:
            >>> Recipe().with_settings(["epochs=5", "loss.frame=0.5"]).training.epochs
            5
        """
        parts: dict[str, dict[str, Any]] = {}
        for setting in settings:
            key, separator, text = setting.partition("=")
            if not separator:
                raise ConfigError(f"--set {setting}: expected key=value")
            part, name = self._locate(key.strip())
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                value = None if text.strip() == "None" else text.strip()
            parts.setdefault(part, {})[name] = value
        if "kernel_size" in parts.get("model", {}):
            parts.setdefault("training", {}).setdefault("kernel_per_gap", None)
        changed = {
            part: from_dict(type(getattr(self, part)), values, part, base=getattr(self, part))
            for part, values in parts.items()
        }
        recipe = dataclasses.replace(self, **changed)
        sigma = recipe.localization.soft_nms_sigma
        if sigma is not None and (idle := _DROPPING.intersection(parts.get("localization", {}))):
            note(
                f"localization.{' and '.join(sorted(idle))} has no effect while soft_nms_sigma={sigma:g} lowers the "
                "scores of overlapping segments; to drop them instead, set soft_nms_sigma=null as well"
            )
        return recipe

    def _locate(self, key: str) -> tuple[str, str]:
        owners = {
            part: [f.name for f in dataclasses.fields(getattr(self, part))]
            for part in ("model", "loss", "training", "localization")
        }
        part, dot, name = key.partition(".")
        if dot and name in owners.get(part, []):
            return part, name
        found = [part for part, names in owners.items() if key in names]
        if len(found) == 1:
            return found[0], key
        if found:
            raise ConfigError(f"setting {key!r} is ambiguous: write {' or '.join(f'{p}.{key}' for p in found)}")
        every = [f"{p}.{n}" for p, names in owners.items() for n in names]
        every += [n for names in owners.values() for n in names]
        raise ConfigError(f"unknown setting {key!r}{_suggestion(key, every)}")


def from_dict(cls: type[Config], values: Mapping[str, Any], where: str, base: Config | None = None) -> Config:
    """Build a config dataclass from plain values, strictly.

    Args:
        cls: the dataclass.
        values: its fields, as JSON gives them (lists for tuples, objects for nested dataclasses).
        where: what the values describe, for messages.
        base: keeps its fields where `values` has none.

    Raises:
        ConfigError: for an unknown field, a value of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected an object, found {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ConfigError(f"{where}: unknown field {name!r}{_suggestion(str(name), list(hints))}")
    checked = {name: _convert(value, hints[name], f"{where}.{name}") for name, value in values.items()}
    return cls(**checked) if base is None else dataclasses.replace(base, **checked)  # type: ignore[type-var]


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [a for a in arguments if a is not type(None)]
        return _convert(value, hint, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where}: must be one of {', '.join(map(repr, arguments))}, got {value!r}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: must be a list, got {value!r}")
        hints = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        if len(hints) != len(value):
            raise ConfigError(f"{where}: must have {len(hints)} values, got {value!r}")
        return tuple(_convert(v, h, where) for v, h in zip(value, hints, strict=True))
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)  # type: ignore[arg-type]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    if hint is float and is_number:
        return float(value)
    if hint is int and is_number and value == int(value):
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise ConfigError(f"{where}: must be {hint.__name__}, got {value!r}")


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(set(known)))}"
