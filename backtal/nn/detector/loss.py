"""The detector's objective (not part of the paper): what is known of snippets, and the segments at the points."""

import torch
from torch import Tensor, nn

from backtal.nn.cas import BackTALOutput, frame_mask
from backtal.nn.detector.points import point_losses
from backtal.nn.detector.snippets import (
    between_loss,
    covered_loss,
    known_loss,
    pad_labels,
    place_loss,
    possible_loss,
    somewhere_loss,
    taught_loss,
)
from backtal.settings.detector import DetectorLossConfig


class DetectorLoss(nn.Module):
    """Every term by name, and their weighted sum as ``"total"``.

    Args:
        config: weights of the terms.
    """

    def __init__(self, config: DetectorLossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        output: BackTALOutput,
        labels: Tensor,
        clicks: Tensor,
        taught: Tensor | None = None,
        segments: Tensor | None = None,
        ignored: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms.

        Args:
            output: of the detector; the terms of its points are left out where it has none.
            labels: ``[B, C]`` multi-hot; all 0 for a video of which no label is known.
            clicks: ``[B, T]`` class index of a known snippet, C for background, -1 where not known.
            taught: ``[B, C+1, T]`` what the stage before says of each snippet; all 0 where it says nothing.
            segments: ``[B, M, 4]`` start, end, class and weight in snippets; those of no length are padding.
            ignored: ``[B, T]`` True where points cost nothing unless they answer for a segment.
        """
        config, cas = self.config, output.cas
        real = frame_mask(output.lengths, cas.shape[-1])
        log_probability = cas.log_softmax(1)
        probability = log_probability.exp()
        weighted = {
            "click": lambda: known_loss(log_probability, clicks),
            "possible": lambda: possible_loss(log_probability, pad_labels(labels), real),
            "somewhere": lambda: somewhere_loss(probability, labels, real),
            "between": lambda: between_loss(probability, labels, clicks, miss=config.between_miss),
            "place": lambda: place_loss(log_probability, labels, clicks, real),
        }
        if least := config.covered_least:
            weighted["covered"] = lambda: covered_loss(log_probability, labels, clicks, real, least=least)
        if taught is not None:
            weighted["teacher"] = lambda: taught_loss(log_probability, taught)
        terms = {name: term() for name, term in weighted.items() if getattr(config, name)}
        if output.points is not None and segments is not None:
            ignored = torch.zeros_like(real) if ignored is None else ignored
            classes, edges, weight = point_losses(output.points, segments, ignored, radius=config.radius)
            terms |= {"classes": classes / weight.clamp(min=1), "edges": edges / weight.clamp(min=1)}
        total = sum((getattr(config, name) * term for name, term in terms.items()), cas.new_zeros(()))
        return terms | {"total": total}
