"""How much of what nobody clicked is action, as far as clicks and features tell (not part of the paper)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from backtal.nn.layers import feature_scale
from backtal.training.examples import TrainingSet
from backtal.training.teaching import FEWEST

FOLDS = 5


def least_action(training_set: TrainingSet, clip: float) -> float:
    """The share of the unclicked snippets that is action; rather too small than too large.

    Background clicks are background, the other snippets a mixture of background and action: positive and unlabelled
    data, of which any score tells at least how much of the mixture is not positive (Scott 2015, "A rate of convergence
    for mixture proportion estimation"). The score here is the projection on the difference of the two means, taken from
    other videos. Half of the clicks lie above their median, and so does half of all background; whatever action does
    not reach that far is missing in twice the share of unclicked snippets above it. Where features do not tell action
    from background, nothing is missing, and the result is near 0.

    Of videos of which every snippet is known, or no label, nothing is read.

    Args:
        training_set: the videos and what is known of them.
        clip: deviations to which standardised features are clipped.

    Returns:
        A share to two decimals; 0 where fewer than 20 clicks tell.
    """
    scale, background = feature_scale(training_set.deviation)[:, None], len(training_set.folder.labels)

    def parts() -> Iterator[tuple[int, int, Tensor]]:
        """Fold, 0 for clicked or 1 for unknown snippets, and their standardised features ``[D, n]``."""
        for index in range(training_set.known):
            example = training_set[index]
            clicked, unknown = example.clicks == background, example.clicks < 0
            if clicked.any() and unknown.any() and example.labels.any():
                values = ((example.features - training_set.mean[:, None]) * scale).clamp(-clip, clip).double()
                yield from ((index % FOLDS, kind, values[:, of]) for kind, of in enumerate((clicked, unknown)))

    totals = torch.zeros(FOLDS, 2, training_set.feature_dim, dtype=torch.float64)
    counts = torch.zeros(FOLDS, 2, 1, dtype=torch.float64)
    for fold, kind, values in parts():
        totals[fold, kind] += values.sum(1)
        counts[fold, kind] += values.shape[1]
    if counts[:, 0].sum() < FEWEST:
        return 0.0
    clicked_mean, unknown_mean = ((totals.sum(0) - totals) / (counts.sum(0) - counts).clamp(min=1)).unbind(1)
    scores: tuple[list[Tensor], list[Tensor]] = [], []
    for fold, kind, values in parts():
        scores[kind].append((clicked_mean - unknown_mean)[fold] @ values)
    median = torch.cat(scores[0]).quantile(0.5)
    background_share = 2 * float((torch.cat(scores[1]) >= median).double().mean())
    return round(max(0.0, 1 - background_share), 2)
