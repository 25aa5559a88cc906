"""Everything that a report shows, measured."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backtal.data.datasets import VideoDataset
from backtal.data.truth import Truth
from backtal.errors import DataError
from backtal.evaluation.diagnose import Diagnosis, VideoScore, diagnose, rank_videos
from backtal.evaluation.evaluate import DetectionReport, evaluate
from backtal.evaluation.topk import measure_top_frames
from backtal.files import progress, read_json
from backtal.nn.pretrained import LocalizationModel
from backtal.plot.curves import read_log
from backtal.segments.segments import Localization, read_predictions
from backtal.training.folder import LOG_FILE, RECIPE_FILE

DEFAULT_TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True, eq=False)
class MeasuredRun:
    """One run: its model, what it finds, and how well.

    Attributes:
        name: what to call it.
        model: the network.
        found: by video, as far as it can be judged.
        report: against the ground truth.
        recipe: ``recipe.json`` of the run folder; None for a checkpoint that has none.
        log: rows of ``log.jsonl``; empty where there is none.
    """

    name: str
    model: LocalizationModel
    found: list[Localization]
    report: DetectionReport
    recipe: dict[str, Any] | None
    log: list[dict[str, float]]

    @property
    def seed(self) -> str:
        """The seed of the training, where known."""
        if self.recipe:
            return str(self.recipe["training"]["seed"])
        stated = re.search(r"\bseed (\d+)", self.model.facts.get("training", ""))
        return stated[1] if stated else "not known"


@dataclass(frozen=True, eq=False)
class Measured:
    """What a report shows. `diagnosis` and `ranked` are of the first run, the diagnosis at tIoU 0.5.

    Attributes:
        dataset: measured on.
        truth: what everything is compared with.
        runs: one or more.
        diagnosis: errors by kind, with the top-k frames.
        ranked: the videos that can be shown, the worst first.
        failed: by video, why its features cannot be used.
    """

    dataset: VideoDataset
    truth: Truth
    runs: list[MeasuredRun]
    diagnosis: Diagnosis
    ranked: list[VideoScore]
    failed: dict[str, str]

    @property
    def runs_differ_in_seed(self) -> bool:
        """Whether there are several runs of one recipe: then their mean and spread say something."""
        recipes = [run.recipe and _without_seed(run.recipe) for run in self.runs]
        return len(recipes) > 1 and recipes[0] is not None and all(recipe == recipes[0] for recipe in recipes)


def measure(
    names: Sequence[str],
    dataset: VideoDataset,
    *,
    subset: str = "test",
    predictions: str | Path | None = None,
    tiou: Sequence[float] = DEFAULT_TIOU,
    f1_score: float = 0.45,
) -> Measured:
    """Load runs, localize the videos of a subset, evaluate and diagnose.

    Args:
        names: run folders, or names as for `from_pretrained`; runs that differ in their seed, say.
        dataset: with features and ground truth.
        subset: its videos to measure on.
        predictions: a file of what the run found; localized anew where None.
        tiou: temporal IoU thresholds of the mAP.
        f1_score: least score of a segment to count for F1.

    Raises:
        DataError: if predictions are given for several runs, or nothing fits.
    """
    if predictions is not None and len(names) > 1:
        raise DataError("a predictions file belongs to one run; leave it out to compare several")
    truth = dataset.annotations.truth(subset)
    models = [LocalizationModel.from_pretrained(name) for name in names]
    failed = _unusable(models, dataset, truth)
    usable = replace(truth, videos=tuple(video for video in truth if video.video_id not in failed))
    durations, runs = {video.video_id: video.duration for video in truth}, []
    for name, shown, model in zip(names, _shown(names), models, strict=True):
        if predictions is not None:
            found = [replace(v, duration=durations.get(v.video_id, v.duration)) for v in read_predictions(predictions)]
        else:
            bar = progress(usable, desc=f"localizing with {shown}", unit="video", leave=False)
            found = [model.localize(dataset.features(dataset.annotations.video(video.video_id))) for video in bar]
        found = truth.judged(found)
        report = evaluate(found, truth, tiou, f1_score=f1_score)
        folder = Path(name)
        recipe = read_json(folder / RECIPE_FILE) if (folder / RECIPE_FILE).is_file() else None
        log = read_log(folder / LOG_FILE) if (folder / LOG_FILE).is_file() else []
        runs.append(MeasuredRun(shown, model, found, report, recipe, log))
    first = runs[0]
    diagnosis = replace(diagnose(first.found, truth), top_frames=measure_top_frames(first.model, dataset, usable))
    ranked = [v for v in rank_videos(first.found, truth, tiou, f1_score=f1_score) if v.video_id not in failed]
    return Measured(dataset, truth, runs, diagnosis, ranked, failed)


def _unusable(models: Sequence[LocalizationModel], dataset: VideoDataset, truth: Truth) -> dict[str, str]:
    """By video, why a model cannot take its features.

    Raises:
        DataError: if it is so of every video.
    """
    failed = {}
    for video in progress(truth, desc="reading features", unit="video", leave=False):
        try:
            features = dataset.features(dataset.annotations.video(video.video_id))
            for model in models:
                model.prepare(features)
        except DataError as failure:
            failed[video.video_id] = str(failure)
    if len(failed) == len(truth):
        raise DataError(f"none of the {len(truth)} videos can be used: {next(iter(failed.values()))}")
    return failed


def _without_seed(recipe: dict[str, Any]) -> dict[str, Any]:
    training = {name: value for name, value in recipe["training"].items() if name != "seed"}
    return {**recipe, "training": training, "data": None}


def _shown(names: Sequence[str]) -> list[str]:
    """Short names that tell the runs apart: the last part of each path, or all of it."""
    short = [Path(name).resolve().name if Path(name).is_dir() else name for name in names]
    return [short[i] if short.count(short[i]) == 1 else str(name) for i, name in enumerate(names)]
