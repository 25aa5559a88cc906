"""Named recipes and evaluation protocols, as data.

``NAME`` is the paper's method (TPAMI 2021, section 4.1); ``NAME-released`` is what the authors' released system
computes, which its checkpoints need. `sources` says of each value where it comes from.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from backtal.errors import ConfigError
from backtal.settings.config import LocalizationConfig, LossConfig, ModelConfig, Recipe, TrainingConfig
from backtal.settings.detector import DetectionConfig, DetectorConfig, DetectorLossConfig

PROTOCOLS: dict[str, tuple[float, ...]] = {
    "thumos14": (0.3, 0.4, 0.5, 0.6, 0.7),
    "activitynet": (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    "hacs": (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    "beoid": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
}

_THUMOS14 = Recipe(
    name="thumos14",
    model=ModelConfig(feature_dim=2048, temporal_length=750),
    loss=LossConfig(),
    training=TrainingConfig(epochs=100, batch_size=16, learning_rate=1e-4),
    localization=LocalizationConfig(
        frame_scores="minmax",
        class_threshold=0.25,
        thresholds=(0.0, 0.25, 0.025),
        feature_thresholds=(0.3, 0.8, 0.075),
        upsample=None,
        outer=0.25,
        gamma=0.2,
        nms_threshold=0.55,
    ),
    protocol="thumos14",
)
_ACTIVITYNET = Recipe(
    name="activitynet1.2",
    model=replace(_THUMOS14.model, temporal_length=100),
    loss=_THUMOS14.loss,
    training=TrainingConfig(epochs=25, batch_size=16, learning_rate=1e-4),
    localization=replace(
        _THUMOS14.localization,
        class_threshold=0.1,
        thresholds=(0.0, 0.15, 0.025),
        feature_thresholds=None,
        outer=20.0,
        gamma=0.6,
        shrink=0.02,
        whole_video_score=0.6,
        nms_threshold=0.7,
    ),
    protocol="activitynet",
)
_HACS = Recipe(
    name="hacs",
    model=replace(_THUMOS14.model, temporal_length=200),
    loss=_THUMOS14.loss,
    training=TrainingConfig(epochs=8, batch_size=16, learning_rate=1e-4),
    localization=replace(
        _ACTIVITYNET.localization,
        class_threshold=0.075,
        thresholds=(0.0, 0.2, 0.025),
        outer=200.0,
        nms_threshold=0.71,
    ),
    protocol="hacs",
)
_BEOID = replace(_THUMOS14, name="beoid", protocol="beoid")

_COMPACT = Recipe(
    name="compact",
    model=ModelConfig(
        hidden_dim=128,
        kernel_size=9,
        filter_dim=64,
        embedding_hidden_dim=64,
        dropout=0.5,
        input_dropout=0.3,
        standardize=True,
        topk_ratio=1 / 12,
    ),
    loss=LossConfig(separation=0.5, frame_mean="batch", affinity_pairs="each_frame"),
    training=TrainingConfig(
        epochs=40, batch_size=16, min_epoch_steps=8, learning_rate=1e-3, schedule="cosine", kernel_per_gap=0.3
    ),
    localization=LocalizationConfig(
        smoothing=1.0, thresholds=(0.05, 1.0, 0.05), outer=0.5, gamma=0.0, soft_nms_sigma=0.3, min_score=0.001
    ),
    protocol="beoid",
)

_BETWEEN_CLICKS = replace(
    _COMPACT,
    name="between-clicks",
    loss=replace(_COMPACT.loss, between=0.3),
    training=replace(_COMPACT.training, stages=2),
)

_DETECTOR = Recipe(
    name="detector",
    model=DetectorConfig(),
    loss=DetectorLossConfig(),
    training=TrainingConfig(
        epochs=20,
        batch_size=8,
        min_epoch_steps=15,
        learning_rate=1e-3,
        weight_decay=0.02,
        decoupled=True,
        schedule="cosine",
        warmup_epochs=2,
        clip_norm=1.0,
        averaging=0.99,
        stretch=0.3,
        stages=2,
    ),
    localization=DetectionConfig(),
    protocol="beoid",
    architecture="detector",
)


def _released(
    paper: Recipe, training: TrainingConfig, separation: float, topk: float, separation_topk: float | None
) -> Recipe:
    """The released variant of a recipe. Its separation weights are halved: see `LossConfig`, eq. 8."""
    return Recipe(
        name=f"{paper.name}-released",
        model=replace(paper.model, embedding_hidden_dim=512, layout="channel_blocks", topk_ratio=topk),
        loss=LossConfig(
            separation=separation,
            frame_mean="batch",
            separation_topk_ratio=separation_topk,
            affinity_pairs="each_frame",
        ),
        training=training,
        localization=replace(
            paper.localization, contrast_on="thresholded", skip_first_frame=True, nms_length_offset=1.0
        ),
        protocol=paper.protocol,
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _COMPACT,
        _BETWEEN_CLICKS,
        _DETECTOR,
        _THUMOS14,
        _released(_THUMOS14, TrainingConfig(epochs=40, batch_size=16, learning_rate=1e-4), 0.5, 0.125, None),
        _ACTIVITYNET,
        _released(_ACTIVITYNET, TrainingConfig(epochs=25, batch_size=128, learning_rate=2e-4), 0.05, 0.6, 0.2),
        _HACS,
        _released(_HACS, TrainingConfig(epochs=8, batch_size=64, learning_rate=1e-4), 0.05, 0.6, 0.2),
        _BEOID,
    )
}


_DATASET = "the dataset; training fills it in"
_RELEASED_CODE = "released system; the paper does not say"
_PAPER_SOURCES: Mapping[str, str] = {
    "model.feature_dim": "paper 4.1: I3D, RGB and flow of 1024 channels each",
    "model.labels": _DATASET,
    "model.hidden_dim": _RELEASED_CODE,
    "model.num_layers": "paper 3.2: three temporal convolutions, the last of which is the classifier",
    "model.kernel_size": "paper Table 9: h = 3",
    "model.filter_dim": _RELEASED_CODE,
    "model.embedding_dim": "paper 4.1 and Table 11: 32",
    "model.embedding_hidden_dim": "paper 3.4: one temporal convolution",
    "model.affinity": "paper 3.4",
    "model.layout": "paper eq. 14-16",
    "model.dropout": _RELEASED_CODE,
    "model.input_dropout": "ours: off, as in the released system",
    "model.standardize": "ours: off, as in the released system",
    "model.topk_ratio": "paper 4.1: k = floor(T / 8)",
    "model.temporal_length": "paper 4.1",
    "model.feature_spec": _DATASET,
    "loss.frame": "paper eq. 4",
    "loss.frame_on": "paper eq. 3 and Table 8: the CAS",
    "loss.mined_background": "paper Table 13: off",
    "loss.separation": "paper 4.1 and Table 12: lambda = 1",
    "loss.affinity": "paper 4.1 and Table 12: beta = 0.8",
    "loss.norm": _RELEASED_CODE,
    "loss.frame_mean": "paper eq. 3: mean within a video",
    "loss.separation_topk_ratio": "paper 4.1: the same k",
    "loss.affinity_pairs": "paper eq. 10-12: the hardest pair",
    "loss.tau_same": "paper 4.1: 0.5",
    "loss.tau_diff": "paper 4.1: 0.1",
    "training.epochs": "paper 4.1",
    "training.batch_size": "paper 4.1",
    "training.learning_rate": "paper 4.1",
    "training.weight_decay": "paper 4.1",
    "training.schedule": "released system; the paper names none",
    "training.held_out": "ours: off; the released system selects on the test set, which we never do",
    "localization.frame_scores": _RELEASED_CODE,
    "localization.class_threshold": "paper 4.1: tau_cls",
    "localization.thresholds": _RELEASED_CODE,
    "localization.feature_thresholds": _RELEASED_CODE,
    "localization.upsample": "released system: one position per video frame",
    "localization.outer": "released system; the paper (3.5) only names the outer-inner contrast",
    "localization.contrast_on": "ours: the sequence as it is; the released system takes the thresholded one",
    "localization.gamma": _RELEASED_CODE,
    "localization.skip_first_frame": "ours: off; a slip of the released system",
    "localization.shrink": _RELEASED_CODE,
    "localization.whole_video_score": _RELEASED_CODE,
    "localization.nms_threshold": _RELEASED_CODE,
    "localization.soft_nms_sigma": "ours: off, as in the released system",
    "localization.min_score": "ours: off, as in the released system",
    "localization.nms_length_offset": "ours: none; the released system adds 1 second",
    "protocol": "paper 4.1",
} | dict.fromkeys(
    (
        *("model.clip", "loss.between", "loss.between_ratio", "loss.between_miss", "loss.teacher"),
        "localization.smoothing",
        *("training.min_epoch_steps", "training.kernel_per_gap", "training.stages", "training.allow_unclicked"),
        *("training.seed", "training.checkpoint_every", "training.precision", "training.compile"),
        *("training.decoupled", "training.warmup_epochs", "training.clip_norm"),
        *("training.averaging", "training.stretch"),
    ),
    "ours: in neither the paper nor the released system",
)
_RELEASED_SOURCES = _PAPER_SOURCES | dict.fromkeys(
    (
        *("model.embedding_hidden_dim", "model.layout", "model.topk_ratio", "model.input_dropout", "model.standardize"),
        *("loss.frame_mean", "loss.separation_topk_ratio", "loss.affinity_pairs"),
        *("training.epochs", "training.batch_size", "training.learning_rate"),
        *("localization.contrast_on", "localization.skip_first_frame", "localization.nms_length_offset"),
        *("localization.soft_nms_sigma", "localization.min_score"),
    ),
    "released system",
)
_RELEASED_SOURCES |= {"loss.separation": "released system: its weight, halved (its term is half of eq. 8)"}
_ELSEWHERE = {"localization.class_threshold": "released system; the paper (4.1) has 0.25 and names no dataset"}
_LIKE_THUMOS14 = "ours: as thumos14; the paper gives no settings for BEOID"

_COMPACT_SOURCES = dict.fromkeys(_PAPER_SOURCES, "ours: for small models and any features (docs/explain/accuracy.md)")
_COMPACT_SOURCES |= dict.fromkeys(("model.feature_dim", "model.labels", "model.feature_spec"), _DATASET)

_DETECTOR_SOURCES = {
    f"{part}.{setting.name}": "ours: docs/explain/detector.md"
    for part in ("model", "loss", "training", "localization")
    for setting in fields(getattr(_DETECTOR, part))
} | {"protocol": "ours: docs/explain/detector.md"}
_DETECTOR_SOURCES |= dict.fromkeys(("model.feature_dim", "model.labels", "model.feature_spec"), _DATASET)

SOURCES: dict[str, Mapping[str, str]] = {
    "compact": _COMPACT_SOURCES,
    "between-clicks": _COMPACT_SOURCES,
    "detector": _DETECTOR_SOURCES,
    "thumos14": _PAPER_SOURCES,
    "thumos14-released": _RELEASED_SOURCES,
    "activitynet1.2": _PAPER_SOURCES | _ELSEWHERE,
    "activitynet1.2-released": _RELEASED_SOURCES | _ELSEWHERE,
    "hacs": _PAPER_SOURCES | _ELSEWHERE,
    "hacs-released": _RELEASED_SOURCES | _ELSEWHERE,
    "beoid": _PAPER_SOURCES
    | dict.fromkeys(("model.temporal_length", "training.epochs", "localization.class_threshold"), _LIKE_THUMOS14),
}


def sources(name: str) -> list[tuple[str, Any, str]]:
    """Every value of a recipe with where it comes from: ``(part.field, value, source)``.

    Raises:
        ConfigError: if there is no recipe of that name; the message lists them.

    Example:
        >>> [row for row in sources("thumos14") if row[0] == "loss.affinity"]
        [('loss.affinity', 0.8, 'paper 4.1 and Table 12: beta = 0.8')]
    """
    chosen = recipe(name)
    parts = {part: getattr(chosen, part) for part in ("model", "loss", "training", "localization")}
    values = {f"{part}.{f.name}": getattr(config, f.name) for part, config in parts.items() for f in fields(config)}
    values["protocol"] = chosen.protocol
    return [(field, value, SOURCES[name][field]) for field, value in values.items()]


def recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        ConfigError: if there is none of that name; the message lists them.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; known are {', '.join(RECIPES)}")
    return RECIPES[name]


def protocol(name: str) -> tuple[float, ...]:
    """The tIoU thresholds of a benchmark's evaluation protocol.

    Raises:
        ConfigError: if there is none of that name; the message lists them.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def video_labels_only(recipe: Recipe) -> Recipe:
    """The paper's baseline: the same network with plain convolutions, learning from video labels alone.

    The detector needs no other settings without clicks.
    """
    if recipe.architecture != "backtal":
        return recipe  # what it learns from clicks is nothing where there are none
    return replace(
        recipe,
        model=replace(recipe.model, affinity=False),
        loss=replace(recipe.loss, frame=0.0, separation=0.0, affinity=0.0, between=0.0),
        training=replace(recipe.training, stages=1),
    )


def tiou_range(text: str) -> tuple[float, ...]:
    """Thresholds from ``FIRST:LAST:STEP``, the last included where a step ends there, or from one number.

    Example:
        >>> tiou_range("0.1:0.3:0.1")
        (0.1, 0.2, 0.3)
    """
    try:
        parts = [float(part) for part in text.split(":")]
        first, last, step = parts if len(parts) == 3 else (*parts, *parts, 1.0)
        count = int((last - first) / step + 1e-9) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"thresholds must be FIRST:LAST:STEP, got {text!r}") from None
    if not (step > 0 and 0 < first <= last <= 1 and count <= 1000):
        raise ConfigError(f"thresholds must be FIRST:LAST:STEP within (0, 1], got {text!r}")
    return tuple(round(first + i * step, 10) for i in range(count))
