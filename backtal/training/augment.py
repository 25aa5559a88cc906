"""Training videos as others would have made them: slower or faster (not part of the paper)."""

import math

import torch
from torch import Tensor

from backtal.nn.cas import frame_mask
from backtal.training.examples import Batch


def varied(batch: Batch, stretch: float) -> Batch:
    """A batch that lasts longer by the exponential of a number drawn from -`stretch` to `stretch`."""
    return stretched(batch, math.exp(stretch * (2 * torch.rand(()).item() - 1))) if stretch else batch


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
