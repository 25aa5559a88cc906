"""Every batch lasts a little longer or shorter: what is known stays where it belongs."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from backtal import ConfigError
from backtal.settings import recipe
from backtal.training.augment import stretched, varied
from backtal.training.examples import Batch

BACKGROUND = 2


def batch(clicks: list[list[int]], lengths: list[int] | None = None, **known: torch.Tensor) -> Batch:
    """Two channels: a ramp of one a snippet and its negative."""
    ramp = torch.arange(float(len(clicks[0]))).expand(len(clicks), 1, -1)
    features, count = torch.cat([ramp, -ramp], dim=1), torch.tensor(lengths or [len(row) for row in clicks])
    return Batch(features, count, torch.ones(len(clicks), 2), torch.tensor(clicks), **known)


def test_twice_as_slow_by_hand():
    taught = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    segments = torch.tensor([[[0.5, 1.5, 1.0, 0.75]]])
    given_ = batch([[0, BACKGROUND]], taught=taught, segments=segments, ignored=torch.tensor([[True, False]]))
    slow = stretched(given_, 2.0)
    assert slow.lengths.tolist() == [4]
    assert slow.clicks.tolist() == [[0, 0, BACKGROUND, BACKGROUND]]
    assert slow.features[0, 0].tolist() == [0, 0.25, 0.75, 1]  # middles at -0.25, 0.25, 0.75 and 1.25 of old snippets
    assert slow.taught[0, 2].tolist() == [0, 0.25, 0.75, 1]
    assert slow.segments.tolist() == [[[1.0, 3.0, 1.0, 0.75]]]
    assert slow.ignored.tolist() == [[True, True, False, False]]


def test_faster_keeps_each_click_and_background_wins():
    fast = stretched(batch([[-1, -1, 0, BACKGROUND, -1, 1, -1, -1]]), 0.625)
    # Old middles 0.3125, 0.9375, 1.5625, 2.1875, 2.8125, 3.4375, 4.0625 and 4.6875 in new snippets
    assert fast.clicks.tolist() == [[-1, 0, BACKGROUND, 1, -1]]
    assert fast.lengths.tolist() == [5]


def test_of_a_shorter_video_padding_is_never_read():
    ignored = torch.tensor([[False] * 4, [True, True, False, False]])
    taught = torch.ones(2, 3, 4)
    known = batch([[0, 0, 0, 0], [1, 1, -1, -1]], [4, 2], ignored=ignored, taught=taught)
    known.features[1, :, 2:] = math.nan
    for factor in (0.6, 0.9, 1.0, 1.1, 1.6):
        other = stretched(known, factor)
        real = torch.arange(other.clicks.shape[1]) < other.lengths[:, None]
        assert other.lengths.tolist() == [math.ceil(4 * factor), math.ceil(2 * factor)]
        assert other.features.isfinite().all()
        assert other.features[1].abs().max() <= 1
        assert (other.clicks[1] == torch.where(real[1], 1, -1)).all()
        assert (other.ignored[1] == real[1]).all()
        assert (other.taught[1] == real[1]).all()


@example([0], math.nextafter(1.0, 2.0))
@given(
    st.lists(st.integers(-1, BACKGROUND), min_size=1, max_size=30),
    st.floats(-0.5, 0.5).map(math.exp),
)
def test_no_click_is_lost_or_put_elsewhere(clicks: list[int], factor: float):
    found = stretched(batch([clicks]), factor)
    assert found.clicks.shape[1] == found.lengths[0] == found.features.shape[2]
    for place, known in enumerate(clicks):
        if known >= 0:
            cell = min(int((place + 0.5) * factor), found.clicks.shape[1] - 1)
            near = found.clicks[0, max(cell - 1, 0) : cell + 2]
            assert near.max() >= known
    for place, known in enumerate(found.clicks[0].tolist()):
        low, high = place / factor - 1, (place + 1) / factor + 1
        assert known == -1 or known in clicks[max(int(low), 0) : math.ceil(high)]


def test_as_it_was():
    given_ = batch([[0, -1, BACKGROUND], [1, -1, -1]], [3, 1], segments=torch.tensor([[[0.0, 1, 0, 1]]] * 2))
    same = stretched(given_, 1.0)
    real = (torch.arange(3) < given_.lengths[:, None])[:, None]
    assert (same.features * real == given_.features * real).all()
    assert (same.clicks == given_.clicks).all()
    assert (same.segments == given_.segments).all()
    assert varied(given_, 0.0) is given_


@pytest.mark.parametrize("value", [0.6, -0.1, math.nan])
def test_a_setting_that_makes_no_sense_is_named(value: float):
    with pytest.raises(ConfigError, match="stretch"):
        recipe("detector").with_settings([f"training.stretch={value}"])
