"""Pictures of a video of a dataset, seen by models."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backtal.clicks.clicks import ClickTrack
from backtal.data.annotations import Video
from backtal.data.datasets import VideoDataset
from backtal.data.features import VideoFeatures
from backtal.nn.pretrained import LocalizationModel
from backtal.ops import local_affinity
from backtal.plot.affinity import affinity_mask
from backtal.plot.timeline import Frames, timeline
from backtal.segments.segments import Localization

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def timeline_of_video(
    video: Video,
    dataset: VideoDataset,
    models: Mapping[str, LocalizationModel],
    *,
    title: str | None = None,
    **options: Any,
) -> "Figure":
    """Draw what models see and find in a video, as `timeline` does (Fig. 4 and 10).

    Args:
        video: of the dataset's annotations.
        dataset: which has its features.
        models: by the name to show.
        title: heading; the video's name where None.
        options: as for `timeline_of_features`.

    Raises:
        DataError: if the video has no features, or they do not fit a model.
    """
    title = video.video_id if title is None else title
    return timeline_of_features(
        dataset.features(video), models, labels=dataset.labels, truth=_truth(video), title=title, **options
    )


def _truth(video: Video) -> Localization | None:
    return video.ground_truth if video.ground_truth.segments or video.located else None


def timeline_of_features(
    features: VideoFeatures,
    models: Mapping[str, LocalizationModel],
    *,
    labels: Sequence[str] = (),
    truth: Localization | None = None,
    found: Mapping[str, Localization] | None = None,
    clicks: ClickTrack | None = None,
    frames: Frames | None = None,
    least_score: float = 0.2,
    title: str | None = None,
) -> "Figure":
    """Draw what models see and find in the features of a video, of which nothing else needs to be known.

    Args:
        features: of the video.
        models: by the name to show.
        labels: in the order of the models' classes; the first model's where there are none.
        truth: the true segments; None where they are not known.
        found: segments by the model's name; localized here where None.
        clicks: shown under the true segments.
        frames: pictures from the video, see `timeline`.
        least_score: found segments below are left out.
        title: heading; the features' name where None.

    Raises:
        DataError: if the features do not fit a model.
        ConfigError: if a model is not the paper's network.
    """
    outputs = {name: model.run(features) for name, model in models.items()}
    found = found or {name: model.localize(features) for name, model in models.items()}
    return timeline(
        truth,
        found,
        frame_scores={name: output.cas[0].softmax(0).cpu() for name, output in outputs.items()},
        foreground={name: output.foreground[0].cpu() for name, output in outputs.items()},
        labels=labels or next(iter(models.values())).config.labels,
        axis=features.axis,
        clicks=clicks,
        frames=frames,
        least_score=least_score,
        title=features.video_id if title is None else title,
    )


def affinity_of_video(
    video: Video,
    dataset: VideoDataset,
    model: LocalizationModel,
    seconds: Sequence[float] | None = None,
    *,
    neighbours: int | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw how alike the model finds chosen frames of a video and their neighbours, as `affinity_mask` does.

    Args:
        video: of the dataset's annotations.
        dataset: which has its features.
        model: whose embedding is compared.
        seconds: the frames to draw; see `affinity_mask`.
        neighbours: how many frames to compare with, odd; 31 where None, which is more than the network itself uses.
        title: heading; the video's name where None.
    """
    features = model.prepare(dataset.features(video))
    affinity = local_affinity(model.run(features).embedding, neighbours or 31)[0].cpu()
    heading = (
        title if title is not None else f"{video.video_id}; the network compares {model.config.kernel_size} frames"
    )
    return affinity_mask(affinity, seconds, truth=_truth(video), axis=features.axis, title=heading)
