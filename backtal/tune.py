"""Localization settings for a dataset of one's own, chosen without any start or end label.

The measure is what clicks and video labels can say of segments on held-out training videos (`click_precision`): every
stretch between two consecutive clicks should hold one segment of a label of the video, and no segment a click.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtal.cas import BackTALOutput
from backtal.clicks import BACKGROUND, ClickTrack
from backtal.config import LocalizationConfig, Recipe
from backtal.datasets import TrainingSet, VideoDataset
from backtal.errors import ConfigError, DataError
from backtal.features import TimeAxis
from backtal.files import progress
from backtal.localize import localize
from backtal.model import BackTALModel
from backtal.segments import Localization
from backtal.train import fit


class HeldOut(NamedTuple):
    """A training video that the network has not seen: what it says of it, and what is known of it."""

    video_id: str
    output: BackTALOutput
    axis: TimeAxis
    labels: frozenset[str]
    clicks: ClickTrack


@dataclass(frozen=True)
class Tuned:
    """What `tune` found.

    Attributes:
        localization: the settings to use.
        agreement: `click_precision` with them.
        before: `click_precision` with the recipe's own.
        trials: how many settings were tried.
    """

    localization: LocalizationConfig
    agreement: float
    before: float
    trials: int


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
) -> Tuned:
    """Choose localization settings by cross-validation within the training videos, from weak labels alone.

    The recipe is trained once for each part of the training videos that is left out; then settings are searched on what
    these networks say of the videos they have not seen. New settings are taken only if they agree better in every part.
    Stopped, it goes on where it was when called again.

    Args:
        dataset: with the training videos; start and end are not read.
        subset: name of the training subset.
        clicks: by video.
        recipe: all settings.
        out: folder for the networks and the trials.
        folds: parts that are left out in turn.
        trials: settings to try.

    Raises:
        ConfigError: if optuna is missing.
        DataError: if there are fewer videos than folds, or no video with two clicks.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError:
        raise ConfigError("tuning needs the package optuna: pip install 'backtal[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out = Path(out)
    parts = [list(part) for part in _held_out(dataset, subset, clicks, recipe, out, folds)]

    def agreements(config: LocalizationConfig) -> list[float]:
        return [_agreement(part, dataset.labels, config) for part in parts]

    study = optuna.create_study(
        study_name="localization",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=recipe.training.seed),
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(out / "trials.log"))),
        load_if_exists=True,
    )
    finished = len([trial for trial in study.trials if trial.state.is_finished()])
    for _ in progress(range(finished, trials), desc="trying settings", unit="trial", initial=finished, total=trials):
        trial = study.ask()
        study.tell(trial, float(np.mean(agreements(_suggest(trial, recipe.localization)))))
    own = agreements(recipe.localization)
    best = _suggest(study.best_trial, recipe.localization)
    found = agreements(best)
    if any(b < a for a, b in zip(own, found, strict=True)):
        best, found = recipe.localization, own
    return Tuned(best, float(np.mean(found)), float(np.mean(own)), trials)


def _suggest(trial: Any, base: LocalizationConfig) -> LocalizationConfig:
    """The search space: what depends on a dataset's snippets, labels and density of actions."""
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


def _agreement(videos: Sequence[HeldOut], labels: Sequence[str], config: LocalizationConfig) -> float:
    found = [localize(v.output, [v.axis], labels, config, [v.video_id])[0] for v in videos]
    return click_precision(found, {v.video_id: v.clicks for v in videos}, {v.video_id: v.labels for v in videos})


def _held_out(
    dataset: VideoDataset, subset: str, clicks: Mapping[str, ClickTrack], recipe: Recipe, out: Path, folds: int
) -> Iterator[Iterator[HeldOut]]:
    names = [video.video_id for video in dataset.annotations.subset(subset)]
    if not 2 <= folds <= len(names):
        raise DataError(f"{len(names)} training videos cannot be divided into {folds} folds")
    size = math.ceil(len(names) / folds)
    for fold in range(folds):
        left_out = set(names[fold * size : (fold + 1) * size])
        videos = {
            name: replace(video, subset="held out") if name in left_out else video
            for name, video in dataset.annotations.videos.items()
        }
        part = copy.copy(dataset)
        part.annotations = replace(dataset.annotations, videos=videos)
        training_set = TrainingSet(part, subset, clicks, recipe.model, allow_unclicked=recipe.training.allow_unclicked)
        model = fit(training_set, recipe, out / f"fold{fold + 1}", resume=True)
        yield (_look(model, part, name, clicks) for name in sorted(left_out))


def _look(model: BackTALModel, dataset: VideoDataset, name: str, clicks: Mapping[str, ClickTrack]) -> HeldOut:
    video = dataset.annotations.videos[name]
    prepared = model.prepare(dataset.features(video))
    return HeldOut(
        name, model.run(prepared), prepared.axis, frozenset(video.labels), clicks.get(name, ClickTrack(name, ()))
    )
