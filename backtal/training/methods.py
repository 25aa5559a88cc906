"""How each architecture is trained: its model, what a batch costs, and what one stage teaches the next."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backtal.nn.beyond import ExtendedLoss, taught_distribution
from backtal.nn.detector.loss import DetectorLoss
from backtal.nn.detector.model import DetectorModel
from backtal.nn.detector.points import detections as found_in
from backtal.nn.detector.snippets import pad_labels
from backtal.nn.model import BackTALModel
from backtal.settings.config import Recipe
from backtal.training.examples import Batch, Example, TrainingSet, collate, on
from backtal.training.teaching import Opinion, Taught, teach

Network = Callable[..., Any]
LEAST_CLIP = 10.0  # deviations that a network reads as they are, even where training saw none so far out


class BackTALMethod:
    """The paper's network and losses, and the terms beyond it; a later stage agrees with the one before.

    Args:
        recipe: all settings.
        training_set: what it is trained on.
    """

    def __init__(self, recipe: Recipe, training_set: TrainingSet) -> None:
        self.recipe, self._set = recipe, training_set
        self._loss = ExtendedLoss(recipe.loss, recipe.model.topk_ratio)

    def model(self) -> BackTALModel:
        """A fresh network."""
        config = self.recipe.model
        if config.standardize and config.clip is None:
            config = replace(config, clip=max(LEAST_CLIP, math.ceil(self._set.farthest().max())))
        model = BackTALModel(config, self.recipe.localization)
        if config.standardize:
            model.set_feature_statistics(self._set.mean, self._set.deviation)
        return model

    def run(self, network: Network, batch: Batch) -> Any:
        """The network's output for a batch, as the losses need it."""
        return network(batch.features, batch.lengths, base_stream=True)

    def terms(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Every loss term by name, and their weighted sum as ``"total"``."""
        return self._loss(output, batch.labels, batch.clicks, batch.taught)

    def teach(self, teacher: Any) -> list[Taught]:
        """What a trained network says of every snippet of the training videos."""

        def one(example: Example) -> Taught:
            batch = on(teacher.classifier.weight.device, collate([example]))
            output = self.run(teacher, batch)
            distribution = taught_distribution(output, batch.labels, batch.clicks).cpu()
            nothing = torch.zeros_like(example.clicks, dtype=torch.bool)
            return Taught(distribution, distribution.new_zeros(0, 4), nothing)

        return [one(self._set[index]) for index in range(len(self._set))]


class DetectorMethod:
    """The detector. The first stage classifies snippets, by whatever is known of them; what it says teaches segments.

    Where start and end of all videos are known there is but one stage.

    Args:
        recipe: all settings; `TrainingConfig.stages` says which stage this is.
        training_set: what it is trained on.
    """

    def __init__(self, recipe: Recipe, training_set: TrainingSet) -> None:
        self.recipe, self._set = recipe, training_set
        self._loss = DetectorLoss(recipe.loss)
        self._detects = recipe.training.stages > 1 or training_set.all_located

    def model(self) -> DetectorModel:
        """A fresh network."""
        model = DetectorModel(self.recipe.model, self.recipe.localization)
        model.set_feature_statistics(self._set.mean, self._set.deviation)
        return model

    def run(self, network: Network, batch: Batch) -> Any:
        """The network's output for a batch; of its points only where there are segments to learn from."""
        return network(batch.features, batch.lengths, detect=self._detects)

    def terms(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Every loss term by name, and their weighted sum as ``"total"``."""
        return self._loss(output, batch.labels, batch.clicks, batch.taught, batch.segments, batch.ignored)

    def teach(self, teacher: Any) -> list[Taught]:
        """What a trained network says of the training videos: of every snippet, and of segments."""
        opinions, detections = list[Opinion](), []
        device = teacher.classifier.weight.device
        for index in range(len(self._set)):
            example = self._set[index]
            output = self.run(teacher, on(device, collate([example])))
            opinions.append(Opinion(output.cas[0].float().cpu(), pad_labels(example.labels[None])[0], example.clicks))
            if self._detects:
                detections.append(found_in(output.points, 0, len(example.clicks), teacher.localization))
        return teach(opinions, detections or None)


METHODS = {"backtal": BackTALMethod, "detector": DetectorMethod}


def method_of(recipe: Recipe, training_set: TrainingSet) -> BackTALMethod | DetectorMethod:
    """The method that trains a recipe's architecture."""
    return METHODS[recipe.architecture](recipe, training_set)
