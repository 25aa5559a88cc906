"""A detector's segments (not part of the paper): those at its points and those of its activations judge each other.

Where labels are many or exact, the points have the sharper edges; where they are few and weak, runs of the activations
above thresholds rank better. Each segment of one kind is scored by itself and by the best of the other kind that it
agrees with.
"""

from collections.abc import Sequence

import numpy as np

from backtal.data.features import TimeAxis
from backtal.errors import ConfigError
from backtal.nn.cas import BackTALOutput
from backtal.nn.detector.points import detections, in_seconds
from backtal.nn.localize import rows_of
from backtal.segments.segments import Localization, suppress, temporal_iou, to_segments
from backtal.settings.config import LocalizationConfig
from backtal.settings.detector import DetectionConfig

BLOCK = 1024  # segments that are compared with all near them at once


def localize_detector(
    output: BackTALOutput,
    axes: Sequence[TimeAxis],
    labels: Sequence[str],
    config: DetectionConfig,
    video_ids: Sequence[str] | None = None,
) -> list[Localization]:
    """The segments of every video of a batch; arguments as for `backtal.nn.localize`.

    Raises:
        ConfigError: if the output is not the detector's.
    """
    if output.points is None:
        raise ConfigError("DetectionConfig reads the points of a detector; this output has none")
    ids, results = [str(i) for i in range(len(axes))] if video_ids is None else video_ids, []
    for index, (video_id, axis) in enumerate(zip(ids, axes, strict=True)):
        rows = in_seconds(detections(output.points, index, axis.length, config), axis)
        if config.thresholds is not None:
            rows = fuse(rows, rows_of(output, index, axis, by_activations(config)), config)
        results.append(Localization(video_id, axis.duration, to_segments(rows, labels)))
    return results


def by_activations(config: DetectionConfig) -> LocalizationConfig:
    """How segments of the activations are found: as the paper's localization does, without its video-level scores."""
    assert config.thresholds is not None
    return LocalizationConfig(
        frame_scores="softmax",
        class_threshold=0.0,
        thresholds=config.thresholds,
        outer=config.outer,
        gamma=0.0,
        smoothing=config.smoothing,
        soft_nms_sigma=config.soft_nms_sigma,
        nms_threshold=config.nms_threshold,
        min_score=config.min_score,
    )


def fuse(points: np.ndarray, runs: np.ndarray, config: DetectionConfig) -> np.ndarray:
    """All segments of both kinds, scored by both, suppressed, class by class.

    With w the `point_weight`, a segment at a point has ``w score + (1 - w) agreement``, a run of activations
    ``(1 - w) score + w agreement``; the agreement of a segment is the greatest ``tiou**2 score`` over the segments
    of the other kind and the same class.

    Args:
        points: ``[n, 4]`` start, end, class, score.
        runs: ``[m, 4]``.
        config: settings.

    Returns:
        ``[k, 4]``.
    """
    fused = [np.empty((0, 4))]
    for index in np.union1d(points[:, 2], runs[:, 2]):
        at_points, of_runs = (_table(rows[rows[:, 2] == index]) for rows in (points, runs))
        weight = config.point_weight
        scores = np.concatenate(
            [
                weight * at_points[:, 2] + (1 - weight) * agreement(at_points, of_runs),
                (1 - weight) * of_runs[:, 2] + weight * agreement(of_runs, at_points),
            ]
        )
        intervals, scores = suppress(
            np.concatenate([at_points, of_runs])[:, :2],
            scores,
            sigma=config.soft_nms_sigma,
            threshold=config.nms_threshold,
            min_score=config.min_score,
        )
        fused.append(np.column_stack([intervals, np.full(len(intervals), index), scores]))
    return np.concatenate(fused)


def _table(rows: np.ndarray) -> np.ndarray:
    """``[n, 3]`` start, end, score of ``[n, 4]`` start, end, class, score; by start."""
    return rows[np.lexsort((rows[:, 3], rows[:, 1], rows[:, 0]))][:, [0, 1, 3]]


def agreement(segments: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of ``[n, 3]`` start, end, score, sorted by start: the greatest ``tiou**2 score`` among ``[m, 3]``.

    Example:
        >>> agreement(np.array([[0.0, 2.0, 0.1]]), np.array([[0.0, 4.0, 0.8], [5.0, 6.0, 1.0]]))
        array([0.2])
    """
    found = np.zeros(len(segments))
    for first in range(0, len(segments), BLOCK):
        block = segments[first : first + BLOCK]
        near = others[(others[:, 1] > block[0, 0]) & (others[:, 0] < block[:, 1].max())]
        if len(near):
            found[first : first + BLOCK] = (temporal_iou(block[:, :2], near[:, :2]) ** 2 * near[:, 2]).max(1)
    return found
