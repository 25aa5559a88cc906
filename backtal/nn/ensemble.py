"""Several networks together: their probabilities, averaged, localize better than any one of them."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backtal.data.features import VideoFeatures
from backtal.errors import ConfigError, DataError
from backtal.nn.pretrained import LocalizationModel
from backtal.segments.segments import Localization
from backtal.settings.config import Recipe

if TYPE_CHECKING:
    from backtal.video import Extractor


@torch.inference_mode()
def localize_together(
    models: Sequence[LocalizationModel],
    video: VideoFeatures | str | Path,
    *,
    ignore_spec: Collection[str] = (),
    extractor: "Extractor | None" = None,
    **options: Any,
) -> Localization:
    """Find the segments of one video with the mean class probabilities of several models, per frame and per video.

    Args:
        models: of the same labels and the same temporal length; the first one's localization settings count.
        video: features, or the path of a feature file or a video.
        ignore_spec: fields of the feature spec that may differ from the models'.
        extractor: of a video's features; the first model's where None.
        options: for a video, as for `backtal.video.FeatureStream`.

    Raises:
        ConfigError: if the models do not fit together.
        DataError: if the features do not fit a model.

    Example:
        >>> from backtal import BackTALModel, ModelConfig, TimeAxis
        >>> config = ModelConfig(feature_dim=4, labels=("jump",), hidden_dim=8)
        >>> video = VideoFeatures("v", torch.randn(4, 30), TimeAxis.even(30, 12.0))
        >>> localize_together([BackTALModel(config), BackTALModel(config)], video).video_id
        'v'
    """
    check_together(models)
    if len(models) == 1:
        return models[0].localize(video, ignore_spec=ignore_spec, extractor=extractor, **options)
    first = models[0]
    if not isinstance(video, VideoFeatures):
        from backtal.video import extract_file, opens_as_video

        if opens_as_video(video):
            video = extract_file(video, extractor or models[0].extractor(), **options)
    video = first.prepare(video, ignore_spec=ignore_spec)
    together = first.combine([model.run(video, ignore_spec=ignore_spec) for model in models])
    return first.localize_output(together, [video.axis], [video.video_id])[0]


def check_together(models: Sequence[LocalizationModel]) -> None:
    """Raise ConfigError where models cannot localize together."""
    if not models:
        raise ConfigError("an ensemble needs at least one model")
    first = models[0]
    for model in models[1:]:
        for field in ("labels", "temporal_length"):
            a, b = getattr(first.config, field), getattr(model.config, field)
            if a != b:
                raise ConfigError(f"the models of an ensemble differ in {field}: {a} and {b}")
        if model.grid != first.grid:
            raise ConfigError(f"the models of an ensemble differ in what they predict: {first.grid} and {model.grid}")


def with_localization(model: LocalizationModel, settings: Sequence[str]) -> LocalizationModel:
    """The model, with localization settings changed as `Recipe.with_settings` changes them.

    Raises:
        DataError: if they change the network.
    """
    changed = Recipe(model=model.config, localization=model.localization).with_settings(settings)
    if changed.model != model.config:
        raise DataError("--set: only localization settings can change here; the network is the checkpoint's")
    model.localization = changed.localization
    return model
