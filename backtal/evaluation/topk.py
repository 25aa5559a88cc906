"""Where the top-k frames lie, from which video scores are made (eq. 1): the paper's Fig. 2 (b)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from backtal.data.datasets import VideoDataset
from backtal.data.truth import Truth
from backtal.files import progress
from backtal.nn.cas import topk_count
from backtal.nn.pretrained import LocalizationModel
from backtal.segments.segments import Localization

PAPER_RATIO = 1 / 8  # section 4.1


@dataclass(frozen=True)
class TopFrames:
    """Shares of frames that lie inside actions, in [0, 1].

    Attributes:
        own: of the top-k frames, those inside an instance of the class that they score for.
        any: inside an instance of any class.
        chance_own: of *all* frames, those inside an instance of the class: what k random frames reach.
        chance_any: inside an instance of any class.
        frames: top-k frames measured.
    """

    own: float
    any: float
    chance_own: float
    chance_any: float
    frames: int

    def __str__(self) -> str:
        own, any_, chance_own, chance_any = (f"{100 * v:.1f} %" for v in list(vars(self).values())[:4])
        return (
            f"top-k frames inside an instance of their class: {own} (by chance {chance_own}); "
            f"of any class: {any_} (by chance {chance_any})"
        )


def measure_top_frames(model: LocalizationModel, dataset: VideoDataset, truth: Truth) -> TopFrames:
    """How many of the k frames that make a video's score lie inside actions.

    For every video and each of its labels, the k frames of the highest activation; k is the model's, or, for an
    architecture that takes no top k, the paper's: from `backtal.nn.cas.topk_count`.

    Args:
        model: whose activations.
        dataset: with the features.
        truth: of the videos to measure, from `Annotations.truth`.

    Raises:
        DataError: if a video has no features or they do not fit the network.
    """
    ratio = getattr(model.config, "topk_ratio", PAPER_RATIO)
    inside = np.zeros((4, 2))
    for video in progress(truth, desc="top-k frames", unit="video", leave=False):
        features = model.prepare(dataset.features(dataset.annotations.video(video.video_id)))
        cas = model.run(features).cas[0]
        count = int(topk_count(torch.tensor([features.axis.length]), ratio))
        rows = dict(zip(model.config.labels, cas.cpu().numpy(), strict=False))
        inside += count_inside(rows, features.axis.middles(), video, count)
    shares = (inside[:, 0] / np.maximum(inside[:, 1], 1)).tolist()
    return TopFrames(*shares, frames=int(inside[0, 1]))


def count_inside(
    activations: Mapping[str, np.ndarray], times: np.ndarray, truth: Localization, count: int
) -> np.ndarray:
    """Count frames inside actions in one video, for each of its labels.

    Args:
        activations: by class ``[T]``; a label of the video that is missing here is left out.
        times: ``[T]`` the second that stands for each frame.
        truth: the true segments.
        count: k.

    Returns:
        ``[4, 2]``: how many frames lie inside, and of how many: the top k inside their own class and inside any, all
        frames inside the class and inside any.

    Example:
        >>> from backtal import Segment
        >>> truth = Localization("v", 4.0, (Segment(1, 3, "jump"),))
        >>> count_inside({"jump": np.array([0, 5, 1, 4])}, np.arange(4) + 0.5, truth, count=2)[0].tolist()
        [1.0, 2.0]
    """
    within = {label: np.zeros(len(times), dtype=bool) for label in {segment.label for segment in truth}}
    for segment in truth:
        within[segment.label] |= (times >= segment.start) & (times < segment.end)
    anywhere = np.any(list(within.values()), axis=0) if within else np.zeros(len(times), dtype=bool)
    counts = np.zeros((4, 2))
    for label in sorted(within.keys() & activations.keys()):
        top = np.argsort(-activations[label], kind="stable")[:count]
        for row, chosen in enumerate((within[label][top], anywhere[top], within[label], anywhere)):
            counts[row] += chosen.sum(), len(chosen)
    return counts
