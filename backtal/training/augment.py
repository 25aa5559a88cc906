"""Training videos as others would have made them: slower or faster, in another place (not part of the paper)."""

import math

import torch
from torch import Tensor

from backtal.nn.cas import frame_mask
from backtal.training.examples import Batch


def varied(batch: Batch, stretch: float, shift: float, bounds: tuple[Tensor, Tensor] | None = None) -> Batch:
    """A batch of videos, each a little different every time.

    Args:
        batch: features ``[B, D, T]`` and what is known of them.
        stretch: all last longer by the same factor, the exponential of a number drawn from -`stretch` to `stretch`.
        shift: see `shifted`.
        bounds: ``[D, 1]`` each, what the network clips features to; of a video's mean nothing beyond counts.
    """
    if shift:
        batch = batch._replace(features=shifted(batch.features, batch.lengths, shift, bounds))
    if stretch:
        batch = stretched(batch, math.exp(stretch * (2 * torch.rand(()).item() - 1)))
    return batch


def shifted(features: Tensor, lengths: Tensor, deviation: float, bounds: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Each video moved by the difference between the mean features of two of the batch, times a random number.

    What tells one recording from another (a person, a place, a camera) stays the same all through it, and most of it
    lies in such differences. A network that sees them at random cannot rely on them.

    Args:
        features: ``[B, D, T]``.
        lengths: ``[B]``.
        deviation: of the random number, whose mean is 0.
        bounds: see `varied`.
    """
    batch, _, length = features.shape
    real = frame_mask(lengths, length)[:, None]
    within = features if bounds is None else features.clamp(*bounds)
    means = within.masked_fill(~real, 0.0).sum(2) / lengths[:, None]
    one, other = torch.randperm(batch).to(means.device), torch.randperm(batch).to(means.device)
    size = deviation * torch.randn(batch, 1).to(means)
    return features + (size * (means[one] - means[other]))[..., None]


def stretched(batch: Batch, factor: float) -> Batch:
    """Videos that last `factor` times as long at the same rate; a snippet becomes more or fewer snippets.

    Features and what a stage taught are interpolated linearly. A known snippet stays known: a new snippet takes the
    class of the old ones whose middle lies in it, or else of the one in which its own middle lies. Of two, background
    wins, and a class over what is not known.

    Args:
        batch: of any videos.
        factor: more than 0.5, so that at most two old middles lie in a new snippet.

    Example:
        >>> clicks = torch.tensor([[-1, 2, -1, 0]])
        >>> batch = Batch(torch.zeros(1, 5, 4), torch.tensor([4]), torch.ones(1, 2), clicks)
        >>> stretched(batch, 1.5).clicks.tolist(), stretched(batch, 0.75).clicks.tolist()
        ([[-1, 2, 2, -1, 0, 0]], [[-1, 2, 0]])
    """
    lengths = (batch.lengths * factor).ceil().long()
    longest = int((torch.tensor(batch.clicks.shape[1]) * factor).ceil())  # rounded as lengths are
    new = torch.arange(longest, device=lengths.device)
    middle = (new + 0.5) / factor

    def at(place: Tensor) -> Tensor:
        """``[B, N]``: places within each video."""
        return place.long().clamp(min=0)[None].minimum(batch.lengths[:, None] - 1)

    def between(values: Tensor) -> Tensor:
        low = (middle - 0.5).floor()
        one, other = (at(place)[:, None].expand(-1, values.shape[1], -1) for place in (low, low + 1))
        return values.gather(2, one).lerp(values.gather(2, other), (middle - 0.5 - low).to(values))

    first, last = (new / factor - 0.5).ceil(), ((new + 1) / factor - 0.5).ceil() - 1
    inside = last >= first
    sources = (first.where(inside, middle), last.where(inside, middle))
    clicks = torch.maximum(*(batch.clicks.gather(1, at(place)) for place in sources))
    beyond = ~frame_mask(lengths, longest)
    return Batch(
        between(batch.features),
        lengths,
        batch.labels,
        clicks.masked_fill(beyond, -1),
        None if batch.taught is None else between(batch.taught).masked_fill(beyond[:, None], 0.0),
        None
        if batch.segments is None
        else torch.cat([batch.segments[..., :2] * factor, batch.segments[..., 2:]], dim=2),
        None if batch.ignored is None else batch.ignored.gather(1, at(middle)) & ~beyond,
    )
