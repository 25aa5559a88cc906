"""Settings for a dataset of one's own, chosen without any start or end label.

The measure is what clicks and video labels can say of segments on held-out training videos (`click_precision`): every
stretch between two consecutive clicks should hold one segment of a label of the video, and no segment a click.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtal.clicks.clicks import BACKGROUND, ClickTrack
from backtal.data.datasets import VideoDataset
from backtal.data.features import TimeAxis
from backtal.errors import ConfigError, DataError, install
from backtal.files import progress
from backtal.nn.cas import BackTALOutput
from backtal.nn.localize import localize
from backtal.nn.pretrained import LocalizationModel
from backtal.segments.segments import Localization
from backtal.settings.config import LocalizationConfig, Recipe
from backtal.settings.detector import DetectionConfig
from backtal.training.examples import TrainingSet
from backtal.training.train import fit, for_dataset


class HeldOut(NamedTuple):
    """A training video that the network has not seen: what it says of it, and what is known of it."""

    video_id: str
    output: BackTALOutput
    axis: TimeAxis
    labels: frozenset[str]
    clicks: ClickTrack


Settings = LocalizationConfig | DetectionConfig


@dataclass(frozen=True)
class Tuned:
    """What `tune` found.

    Attributes:
        recipe: the settings to use; its localization and its kernel size may differ from those given.
        agreement: `click_precision` with them.
        before: `click_precision` with the localization settings given.
        trials: how many localization settings were tried.
        kernel_sizes: `click_precision` with each kernel size that was tried.
    """

    recipe: Recipe
    agreement: float
    before: float
    trials: int
    kernel_sizes: dict[int, float]


def click_precision(
    found: Sequence[Localization], clicks: Mapping[str, ClickTrack], labels: Mapping[str, frozenset[str]]
) -> float:
    """How well segments agree with background clicks and video labels: an average precision in [0, 1].

    In the order of their scores, a segment is right if its label is one of the video's, it holds no click, and its
    middle lies in a stretch between two consecutive clicks that no better segment has taken. The precisions at the
    right segments are summed and divided by the number of stretches.

    Args:
        found: segments, by video.
        clicks: background clicks, by video.
        labels: labels, by video.

    Raises:
        DataError: if no video has two clicks.

    Example:
        >>> from backtal import Click, Segment
        >>> found = Localization("v", 9.0, (Segment(2, 3, "run", 0.9), Segment(3, 6, "run", 0.5)))
        >>> track = ClickTrack("v", (Click(1.0), Click(5.0), Click(8.0)))
        >>> click_precision([found], {"v": track}, {"v": frozenset({"run"})})
        0.5
    """
    judged, stretches = [], 0
    for localization in found:
        name = localization.video_id
        times = np.array(sorted(c.time for c in clicks[name].clicks if c.label == BACKGROUND))
        stretches += max(0, len(times) - 1)
        taken = set[int]()
        for segment in sorted(localization, key=lambda s: -s.score):
            first, last = np.searchsorted(times, [segment.start, segment.end])
            right = segment.label in labels[name] and first == last and 0 < first < len(times) and first not in taken
            judged.append((segment.score, right))
            if right:
                taken.add(int(first))
    if stretches == 0:
        raise DataError("no held-out video has two background clicks: there is nothing to tune by")
    right = np.array([right for _, right in sorted(judged, key=lambda pair: -pair[0])], dtype=float)
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return float((precision * right).sum() / stretches)


def tune(
    dataset: VideoDataset,
    subset: str,
    clicks: Mapping[str, ClickTrack],
    recipe: Recipe,
    out: str | Path,
    *,
    folds: int = 2,
    trials: int = 100,
    kernel_sizes: Sequence[int] | None = None,
) -> Tuned:
    """Choose settings by cross-validation within the training videos, from weak labels alone.

    The recipe is trained once for each part of the training videos that is left out, in one stage with each kernel
    size, then as it is with the best. Localization settings are searched on what these last networks say of the videos
    they have not seen. Other settings than the recipe's are taken only if they agree better in every part. Stopped, it
    goes on where it was when called again.

    Args:
        dataset: with the training videos; start and end are not read.
        subset: name of the training subset.
        clicks: by video.
        recipe: all settings.
        out: folder for the networks and the trials.
        folds: parts that are left out in turn.
        trials: localization settings to try.
        kernel_sizes: to try beside the recipe's: how many snippets a frame looks at, which should follow the length of
            actions in snippets. About half and twice the recipe's where None, as far as every video is so long.

    Raises:
        ConfigError: if optuna is missing, or a kernel size is not odd.
        DataError: if there are fewer videos than folds, or no video with two clicks.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError:
        raise ConfigError(f"tuning needs the package optuna: {install('tune')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out = Path(out)
    allow = recipe.training.allow_unclicked
    training_set = TrainingSet(dataset, subset, clicks, recipe.model, allow_unclicked=allow)
    own = for_dataset(recipe, training_set).model.kernel_size
    recipe = _with_kernel(recipe, own)
    if kernel_sizes is None and recipe.architecture == "detector":
        kernel_sizes = ()  # its levels see every scale
    if kernel_sizes is None:
        kernel_sizes = [size for size in (own // 4 * 2 + 1, own * 2 - 1) if size <= training_set.shortest]
    # A detector's first stage finds no segments yet.
    stages = recipe.training.stages if recipe.architecture == "detector" else 1
    one_stage = replace(recipe, training=replace(recipe.training, stages=stages))
    by_kernel = {}
    for kernel_size in dict.fromkeys((own, *kernel_sizes) if kernel_sizes else ()):
        parts = held_out(
            dataset, subset, clicks, _with_kernel(one_stage, kernel_size), out / f"kernel{kernel_size}", folds
        )
        by_kernel[kernel_size] = [agreement(part, dataset.labels, recipe.localization) for part in parts]
    better = {k: np.mean(found) for k, found in by_kernel.items() if all(np.greater(found, by_kernel[own]))}
    recipe = _with_kernel(recipe, max(better, key=better.__getitem__, default=own))
    parts = held_out(dataset, subset, clicks, recipe, out, folds)

    def agreements(config: Settings) -> list[float]:
        return [agreement(part, dataset.labels, config) for part in parts]

    study = optuna.create_study(
        study_name=f"localization, kernel size {recipe.model.kernel_size}",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=recipe.training.seed),
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(out / "trials.log"))),
        load_if_exists=True,
    )
    finished = len([trial for trial in study.trials if trial.state.is_finished()])
    for _ in progress(range(finished, trials), desc="trying settings", unit="trial", initial=finished, total=trials):
        trial = study.ask()
        study.tell(trial, float(np.mean(agreements(suggest(trial, recipe.localization)))))
    before = agreements(recipe.localization)
    best = suggest(study.best_trial, recipe.localization)
    found = agreements(best)
    if all(np.greater(found, before)):
        recipe = replace(recipe, localization=best)
    else:
        found = before
    tried = {kernel_size: float(np.mean(values)) for kernel_size, values in by_kernel.items()}
    return Tuned(recipe, float(np.mean(found)), float(np.mean(before)), trials, tried)


def _with_kernel(recipe: Recipe, kernel_size: int) -> Recipe:
    model, training = replace(recipe.model, kernel_size=kernel_size), replace(recipe.training, kernel_per_gap=None)
    return replace(recipe, model=model, training=training)


def suggest(trial: Any, base: Settings) -> Settings:
    """The search space, for an optuna trial: what depends on a dataset's snippets, labels and density of actions."""
    if isinstance(base, DetectionConfig):
        return replace(base, soft_nms_sigma=trial.suggest_float("soft_nms_sigma", 0.05, 1.0, log=True))
    values = {
        "smoothing": trial.suggest_float("smoothing", 0.0, 3.0),
        "outer": trial.suggest_float("outer", 0.05, 1.0),
        "gamma": trial.suggest_float("gamma", 0.0, 0.5),
        "class_threshold": trial.suggest_categorical("class_threshold", [0.0, 0.01, 0.03, 0.1]),
    }
    if base.soft_nms_sigma is None:
        values["nms_threshold"] = trial.suggest_float("nms_threshold", 0.2, 0.8)
    else:
        values["soft_nms_sigma"] = trial.suggest_float("soft_nms_sigma", 0.05, 1.0, log=True)
    return replace(base, **values)


def agreement(videos: Sequence[HeldOut], labels: Sequence[str], config: Settings) -> float:
    """`click_precision` of held-out videos, localized with these settings."""
    found = [localize(v.output, [v.axis], labels, config, [v.video_id])[0] for v in videos]
    return click_precision(found, {v.video_id: v.clicks for v in videos}, {v.video_id: v.labels for v in videos})


def held_out(
    dataset: VideoDataset, subset: str, clicks: Mapping[str, ClickTrack], recipe: Recipe, out: Path, folds: int
) -> list[list[HeldOut]]:
    """Train the recipe without each part of the training videos in turn; what each network says of its part.

    Args:
        dataset: with the training videos.
        subset: name of the training subset.
        clicks: by video.
        recipe: all settings.
        out: folder for the networks; those that are there are not trained again.
        folds: number of parts, each of consecutive videos.

    Raises:
        DataError: if there are fewer videos than folds.
    """
    names = [video.video_id for video in dataset.annotations.subset(subset)]
    if not 2 <= folds <= len(names):
        raise DataError(f"{len(names)} training videos cannot be divided into {folds} folds")
    size, parts = math.ceil(len(names) / folds), []
    for fold in range(folds):
        left_out = set(names[fold * size : (fold + 1) * size])
        videos = {
            name: replace(video, subset="held out") if name in left_out else video
            for name, video in dataset.annotations.videos.items()
        }
        rest = copy.copy(dataset)
        rest.annotations = replace(dataset.annotations, videos=videos)
        training_set = TrainingSet(rest, subset, clicks, recipe.model, allow_unclicked=recipe.training.allow_unclicked)
        model = fit(training_set, recipe, out / f"fold{fold + 1}", resume=True)
        parts.append([_look(model, rest, name, clicks) for name in sorted(left_out)])
    return parts


def _look(model: LocalizationModel, dataset: VideoDataset, name: str, clicks: Mapping[str, ClickTrack]) -> HeldOut:
    video = dataset.annotations.videos[name]
    prepared = model.prepare(dataset.features(video))
    return HeldOut(
        name, model.run(prepared), prepared.axis, frozenset(video.labels), clicks.get(name, ClickTrack(name, ()))
    )
