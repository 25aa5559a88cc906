"""Several networks together: their probabilities, averaged, localize better than any one of them."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from backtal.data.features import VideoFeatures
from backtal.errors import ConfigError
from backtal.nn.localize import localize
from backtal.nn.model import require_backtal
from backtal.nn.pretrained import LocalizationModel
from backtal.segments.segments import Localization

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
    if not models:
        raise ConfigError("an ensemble needs at least one model")
    if len(models) == 1:
        return models[0].localize(video, ignore_spec=ignore_spec, extractor=extractor, **options)
    networks = [require_backtal(model, "an ensemble") for model in models]
    first, settings = networks[0].config, networks[0].localization
    if settings.frame_scores != "softmax" or settings.feature_thresholds is not None:
        raise ConfigError("an ensemble averages probabilities: LocalizationConfig.frame_scores must be 'softmax'")
    for model in networks[1:]:
        for field in ("labels", "temporal_length"):
            a, b = getattr(first, field), getattr(model.config, field)
            if a != b:
                raise ConfigError(f"the models of an ensemble differ in {field}: {a} and {b}")
    if not isinstance(video, VideoFeatures):
        from backtal.video import extract_file, is_video

        if is_video(video):
            video = extract_file(video, extractor or models[0].extractor(), **options)
    video = models[0].prepare(video, ignore_spec=ignore_spec)
    outputs = [model.run(video, ignore_spec=ignore_spec) for model in networks]
    together = outputs[0]._replace(
        cas=_mean_probability([output.cas for output in outputs]),
        scores=_mean_probability([output.scores for output in outputs]),
    )
    return localize(together, [video.axis], first.labels, settings, [video.video_id])[0]


def _mean_probability(activations: Sequence[Tensor]) -> Tensor:
    """Log of the mean of the softmax over the classes."""
    return (
        torch.stack([a.float().log_softmax(1) for a in activations]).logsumexp(0) - torch.tensor(len(activations)).log()
    )
