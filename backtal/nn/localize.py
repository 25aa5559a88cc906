"""From class activation sequence to segments (section 3.5): thresholds, outer-inner contrast, NMS."""

from collections.abc import Iterator, Sequence

import numpy as np

from backtal.data.features import TimeAxis
from backtal.nn.cas import BackTALOutput, smooth
from backtal.segments.segments import Localization, Segment, suppress, to_segments
from backtal.settings.config import LocalizationConfig
from backtal.settings.detector import DetectionConfig


def localize(
    output: BackTALOutput,
    axes: Sequence[TimeAxis],
    labels: Sequence[str],
    config: LocalizationConfig | DetectionConfig | None = None,
    video_ids: Sequence[str] | None = None,
) -> list[Localization]:
    """Find the segments of every video of a batch.

    Args:
        output: of the model.
        axes: one time axis per video; its length must be the video's in `output`.
        labels: names of the C classes.
        config: settings; the defaults suit videos with several classes. With a `DetectionConfig`, the segments are
            those at the points of a detector.
        video_ids: names for the results; the index in the batch where None.

    Returns:
        One `Localization` per video, its segments by descending score.
    """
    if isinstance(config, DetectionConfig):
        from backtal.nn.detector.fusion import localize_detector  # it reads this module

        return localize_detector(output, axes, labels, config, video_ids)
    config = config or LocalizationConfig()
    ids = [str(index) for index in range(len(axes))] if video_ids is None else video_ids
    return [
        Localization(video_id, axis.duration, to_segments(rows_of(output, index, axis, config), labels))
        for index, (video_id, axis) in enumerate(zip(ids, axes, strict=True))
    ]


def rows_of(output: BackTALOutput, index: int, axis: TimeAxis, config: LocalizationConfig) -> np.ndarray:
    """The segments of video `index` of a batch, class by class: ``[n, 4]`` start and end in seconds, class, score."""
    probabilities = output.scores[index].detach().float().softmax(0)[:-1].cpu().numpy()
    cas = smooth(output.cas[index, :, : axis.length].detach().float(), config.smoothing)
    scores = cas.softmax(0) if config.frame_scores == "softmax" else cas
    magnitude = output.first_layer[index, :, : axis.length].detach().float().norm(dim=0)
    return _rows(scores[:-1].cpu().numpy(), probabilities, magnitude.cpu().numpy(), axis, config)


def localize_arrays(
    frame_scores: np.ndarray,
    probabilities: np.ndarray,
    magnitude: np.ndarray,
    axis: TimeAxis,
    labels: Sequence[str],
    config: LocalizationConfig,
) -> list[Segment]:
    """Find the segments of one video, in plain arrays.

    Args:
        frame_scores: ``[C, T]``.
        probabilities: ``[C]`` video-level probabilities.
        magnitude: ``[T]`` feature magnitudes, read where `config.feature_thresholds` is set.
        axis: when each of the T snippets is.
        labels: names of the C classes.
        config: settings.
    """
    return list(to_segments(_rows(frame_scores, probabilities, magnitude, axis, config), labels))


def _rows(
    frame_scores: np.ndarray,
    probabilities: np.ndarray,
    magnitude: np.ndarray,
    axis: TimeAxis,
    config: LocalizationConfig,
) -> np.ndarray:
    classes = np.flatnonzero(probabilities >= config.class_threshold)
    count = config.upsample * axis.length if config.upsample else (axis.num_frames or axis.length)
    scores = frame_scores[classes].astype(np.float64)
    if config.frame_scores == "minmax":
        scores = minmax(scores)
    masks = []
    if config.feature_thresholds is not None:
        magnitude = resize(np.clip(minmax(magnitude[None]), 0, 1), count)[0]
        masks = [magnitude >= threshold for threshold in np.arange(*config.feature_thresholds)]
    fine = axis.rescaled(count)
    found: list[np.ndarray] = [np.empty((0, 4))]
    for class_index, row in zip(classes, scores, strict=True):
        # One class at a time: all of them at the rate of the frames would fill the memory for a day of video.
        sequence = resize(row[None], count)[0]
        runs, run_scores = _proposals(sequence, masks, config)
        if not len(runs):
            continue
        run_scores = run_scores + config.gamma * probabilities[class_index]
        intervals = fine.all_seconds(runs)
        intervals += (intervals[:, 1:] - intervals[:, :1]) * [config.shrink, -config.shrink]
        if config.whole_video_score is not None:
            intervals = np.vstack([intervals, [0.0, axis.duration]])
            run_scores = np.append(run_scores, config.whole_video_score)
        intervals, run_scores = suppress(
            intervals,
            run_scores,
            sigma=config.soft_nms_sigma,
            threshold=config.nms_threshold,
            min_score=config.min_score,
            length_offset=config.nms_length_offset,
        )
        found.append(np.column_stack([intervals, np.full(len(intervals), class_index), run_scores]))
    return np.concatenate(found)


def minmax(x: np.ndarray) -> np.ndarray:
    """Scale each row of ``[C, T]`` by its minimum and maximum, both clipped at 0 from below."""
    low = np.maximum(x.min(axis=1, keepdims=True), 0)
    span = np.maximum(x.max(axis=1, keepdims=True), 0) - low
    return (x - low) / np.where(span <= 0, 1, span)


def resize(x: np.ndarray, length: int) -> np.ndarray:
    """Interpolate ``[C, T]`` linearly to ``[C, length]``: half-pixel centres, edges clamped."""
    position = (np.arange(length) + 0.5) * (x.shape[1] / length) - 0.5
    return _interpolated(x, position, 0, x.shape[1])


def resize_part(x: np.ndarray, first: int, total: int, factor: int, start: int, end: int) -> np.ndarray:
    """Positions `start` to `end` of what `resize` to `factor` times the length gives, from a part of the snippets.

    Args:
        x: ``[n]``, snippet `first` and those after it.
        first: number of the first snippet in `x`.
        total: snippets in all, as far as that matters for these positions.
        factor: positions per snippet.
        start: first position.
        end: the one after the last.

    Example:
        >>> x = np.array([0.0, 1.0, 4.0, 2.0])
        >>> np.array_equal(resize_part(x[1:], 1, 4, 2, 4, 8), resize(x[None], 8)[0, 4:])
        True
    """
    position = (np.arange(start, end) + 0.5) * (total / (factor * total)) - 0.5
    return _interpolated(x[None], position, first, total)[0]


def _interpolated(x: np.ndarray, position: np.ndarray, first: int, total: int) -> np.ndarray:
    position = np.clip(position, 0, total - 1)
    left = np.minimum(position.astype(np.int64), max(total - 2, 0))
    right = np.minimum(left + 1, total - 1)
    fraction = position - left
    return x[:, left - first] * (1 - fraction) + x[:, right - first] * fraction


def runs_of(active: np.ndarray) -> np.ndarray:
    """``[n, 2]``: the half-open runs of True in a boolean array.

    Example:
        >>> runs_of(np.array([True, True, False, True])).tolist()
        [[0, 2], [3, 4]]
    """
    edges = np.diff(active.astype(np.int8), prepend=0, append=0)
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def _proposals(
    sequence: np.ndarray, masks: list[np.ndarray], config: LocalizationConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Runs ``[n, 2]`` of one class from all thresholds, and their outer-inner contrast ``[n]``."""
    runs, scores = [np.empty((0, 2), dtype=np.int64)], [np.empty(0)]
    for found, scored in _runs(sequence, masks, config):
        runs.append(found)
        scores.append(outer_inner_contrast(scored, found, config.outer))
    return np.concatenate(runs), np.concatenate(scores)


def _runs(
    sequence: np.ndarray, masks: list[np.ndarray], config: LocalizationConfig
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs ``[n, 2]``, and the sequence that their contrast reads."""
    if config.contrast_on == "raw":  # every threshold reads the same sequence: all runs at once
        reached = np.searchsorted(np.arange(*config.thresholds), sequence, side="right") * (sequence > 0)
        if config.skip_first_frame:
            reached = reached.clip(max=reached[1:].max(initial=0))
        yield runs_above(reached), sequence
        rest = ((active, sequence) for active in masks)
    else:
        rest = activities(sequence, masks, config)
    for active, scored in rest:
        if active[1:].any() or not config.skip_first_frame:
            yield runs_of(active), scored


def runs_above(levels: np.ndarray) -> np.ndarray:
    """``[n, 2]``: the half-open runs in which ``[T]`` numbers are above 0, those above 1, and so on.

    Example:
        >>> runs_above(np.array([1, 2, 2, 0, 1])).tolist()
        [[0, 3], [4, 5], [1, 3]]
    """
    padded = np.concatenate([[0], levels, [0]])
    start, above = _crossed(padded[:-1], padded[1:])
    end, fallen = _crossed(padded[1:], padded[:-1])
    # Of each level, the runs that begin and those that end alternate: in the order of time they are pairs.
    return np.stack([start[np.argsort(above, kind="stable")], end[np.argsort(fallen, kind="stable")]], axis=1)


def _crossed(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where `high` is above `low`, once for every level from one to the other, and these levels."""
    where = np.flatnonzero(high > low)
    count = high[where] - low[where]
    first = np.repeat(low[where] - np.cumsum(count) + count, count)
    return np.repeat(where, count), first + np.arange(len(first))


def activities(
    sequence: np.ndarray, masks: list[np.ndarray], config: LocalizationConfig
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What of ``[T]`` is active at each threshold and in each mask, and the sequence that its contrast reads."""
    for threshold in np.arange(*config.thresholds):
        active = (sequence >= threshold) & (sequence > 0)
        yield active, np.where(active, sequence, 0) if config.contrast_on == "thresholded" else sequence
    for active in masks:
        yield active, sequence


def outer_inner_contrast(sequence: np.ndarray, runs: np.ndarray, outer: float) -> np.ndarray:
    """Mean inside a run minus mean of the areas before and after it (AutoLoc's contrast).

    Args:
        sequence: ``[T]``.
        runs: ``[n, 2]`` half-open runs.
        outer: width of each outer area, as a fraction of the run; cut off at the ends of the sequence.

    Returns:
        ``[n]``. An empty outer area counts 0.
    """
    total = np.concatenate([[0.0], np.cumsum(sequence, dtype=np.float64)])
    start, end = runs[:, 0], runs[:, 1]
    reach = outer * (end - start)
    low = np.maximum(0, (start - reach).astype(np.int64))
    high = np.maximum(end, np.minimum(len(sequence), (end - 1 + reach).astype(np.int64)))
    inner = (total[end] - total[start]) / (end - start)
    width = (start - low) + (high - end)
    outside = (total[start] - total[low]) + (total[high] - total[end])
    return inner - np.divide(outside, width, out=np.zeros_like(outside), where=width > 0)
