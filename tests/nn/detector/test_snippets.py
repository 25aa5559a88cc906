"""Loss terms on snippets: values worked out by hand, and whatever is known of a video stays finite and its own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal.nn.cas import BackTALOutput, frame_mask
from backtal.nn.detector.loss import DetectorLoss
from backtal.nn.detector.snippets import (
    between_loss,
    between_weights,
    covered_loss,
    known_loss,
    pad_labels,
    place_loss,
    possible_loss,
    share,
    somewhere_loss,
    taught_loss,
)
from backtal.settings.detector import DetectorLossConfig

BACKGROUND = 2  # of two classes


def uniform(batch: int = 1, length: int = 6) -> torch.Tensor:
    """Log-probabilities of a third for every class."""
    return torch.full((batch, 3, length), 1 / 3).log()


def known(*clicks: int) -> torch.Tensor:
    return torch.tensor([clicks])


def test_share_is_a_mean_in_which_the_value_is_the_weight():
    real = torch.ones(4, dtype=torch.bool)
    assert share(torch.tensor([0.8, 0.2, 0.0, 0.0]), real).item() == pytest.approx((0.64 + 0.04) / 1.0)
    assert share(torch.tensor([0.8, 0.2, 0.9, 0.9]), real & torch.tensor([True, True, False, False])).item() == (
        pytest.approx(0.68)
    )
    assert share(torch.zeros(4), real).item() == 0


def test_share_pushes_up_what_is_above_half_of_it_and_down_what_is_below():
    probability = torch.tensor([0.9, 0.5, 0.3, 0.1], requires_grad=True)
    value = share(probability, torch.ones(4, dtype=torch.bool))
    value.backward()
    assert ((probability.grad > 0) == (probability.detach() > value.detach() / 2)).all()


def test_known_snippets_count_by_video_first():
    log_probability = uniform(batch=2)
    log_probability[1] = torch.tensor([0.5, 0.25, 0.25]).log()[:, None]
    clicks = torch.tensor([[2, 2, 2, 2, -1, -1], [0, -1, -1, -1, -1, -1]])
    assert known_loss(log_probability, clicks).item() == pytest.approx((math.log(3) + math.log(2)) / 2)


def test_possible_classes_are_those_of_the_video_and_background():
    real = torch.ones(1, 6, dtype=torch.bool)
    labels = torch.tensor([[1.0, 0.0]])
    assert possible_loss(uniform(), pad_labels(labels), real).item() == pytest.approx(-math.log(2 / 3))


def test_a_video_of_which_no_label_is_known_may_show_anything():
    real = torch.ones(1, 6, dtype=torch.bool)
    assert possible_loss(uniform(), pad_labels(torch.zeros(1, 2)), real).item() == pytest.approx(0, abs=1e-6)


def test_every_label_occurs_somewhere():
    probability = torch.zeros(1, 3, 4)
    probability[0, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    probability[0, 1] = 0.5
    real = torch.ones(1, 4, dtype=torch.bool)
    assert somewhere_loss(probability, torch.tensor([[1.0, 1.0]]), real).item() == pytest.approx(-math.log(0.5) / 2)


def test_something_occurs_between_two_background_clicks_and_nowhere_else():
    probability = torch.zeros(1, 3, 8)
    probability[0, 0] = torch.tensor([0.9, 0.0, 0.5, 0.5, 0.0, 0.9, 0.9, 0.9])
    clicks = known(-1, 2, -1, -1, 2, -1, -1, -1)
    labels = torch.tensor([[1.0, 0.0]])
    assert between_loss(probability, labels, clicks, miss=0.0).item() == pytest.approx(-math.log(0.5))
    assert between_loss(probability, labels, clicks, miss=0.1).item() == pytest.approx(-math.log(0.1 + 0.9 * 0.5))
    assert between_loss(probability, labels, known(-1, 2, -1, 2, -1, -1, -1, -1), miss=0.0).item() == 0


def test_what_is_known_between_two_clicks_needs_no_guess():
    probability = torch.zeros(1, 3, 6)
    labels = torch.tensor([[1.0, 0.0]])
    assert between_loss(probability, labels, known(2, -1, -1, -1, -1, 2), miss=0.05).item() > 2
    assert between_loss(probability, labels, known(2, 0, 0, 0, 0, 2), miss=0.05).item() == 0


def test_place_between_clicks_says_action_half_way_and_background_near_a_click():
    action, background = between_weights(
        torch.tensor([[False, True, False, False, False, True, False]]), torch.tensor([[7]])
    )
    assert action[0].tolist() == pytest.approx([0.25, 0, 0.375, 0.5, 0.375, 0, 0.25])
    assert background[0].tolist() == pytest.approx([0.25, 1, 0.25, 0, 0.25, 1, 0.25])


def test_place_ends_with_the_video_and_not_with_its_padding():
    clicked = torch.tensor([[True, False, False, False, False, False]])
    action, _ = between_weights(clicked, torch.tensor([[4]]))
    assert action[0, :4].tolist() == pytest.approx([0, 0.125, 0.25, 0.375])


def test_place_counts_where_background_is_clicked_and_nothing_else_known():
    real, labels = torch.ones(1, 6, dtype=torch.bool), torch.tensor([[1.0, 0.0]])
    assert place_loss(uniform(), labels, known(-1, -1, -1, -1, -1, -1), real).item() == 0
    assert place_loss(uniform(), labels, known(2, 0, 0, 0, 0, 2), real).item() == 0
    # Quarters of the way: 3/8 + 1/4, 1/2 and 3/8 + 1/4; behind the last click the end of the video.
    found = place_loss(uniform(length=5), labels, known(2, -1, -1, -1, 2), torch.ones(1, 5, dtype=torch.bool))
    assert found.item() == pytest.approx(math.log(3) * (0.625 + 0.5 + 0.625) / 3)


def test_covered_costs_until_enough_of_the_unclicked_is_action():
    real, labels = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[1.0, 0.0]])
    log_probability = torch.tensor([[0.1, 0.6, 0.2, 0.3], [0.2] * 4, [0.7, 0.2, 0.6, 0.5]]).log()[None].requires_grad_()
    cost = covered_loss(log_probability, labels, known(2, -1, -1, 2), real, least=0.5)
    assert cost.item() == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6))
    cost.backward()
    assert (log_probability.grad[0, 0, 1:3] < 0).all()
    assert not log_probability.grad[0, :, [0, 3]].any()
    assert covered_loss(log_probability, labels, known(2, -1, -1, 2), real, least=0.3).item() == pytest.approx(0)


def test_covered_counts_where_background_is_clicked_and_something_unknown():
    real, labels = torch.ones(1, 6, dtype=torch.bool), torch.tensor([[1.0, 0.0]])
    for clicks in (known(-1, -1, -1, -1, -1, -1), known(2, 0, 0, 0, 0, 2)):
        assert covered_loss(uniform(), labels, clicks, real, least=0.5).item() == 0
    assert covered_loss(uniform(), 0 * labels, known(2, -1, -1, -1, -1, 2), real, least=0.5).item() == 0


def test_nothing_taught_costs_nothing():
    taught = torch.zeros(2, 3, 6)
    taught[0, 1] = 1
    assert taught_loss(uniform(batch=2), taught).item() == pytest.approx(math.log(3))
    assert taught_loss(uniform(batch=2), torch.zeros(2, 3, 6)).item() == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_mix_of_knowledge_has_finite_losses_and_gradients(data: st.DataObject):
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    numbers = st.lists(st.sampled_from([-1, -1, -1, 0, 1, BACKGROUND]), min_size=length, max_size=length)
    clicks = torch.tensor(data.draw(st.lists(numbers, min_size=batch, max_size=batch)))
    labels = torch.tensor(
        data.draw(st.lists(st.sampled_from([[0.0, 0], [1.0, 0], [1.0, 1]]), min_size=batch, max_size=batch))
    )
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, length), min_size=batch, max_size=batch)))
    real = frame_mask(lengths, length)
    clicks = torch.where(real, clicks, -1)
    taught = (torch.rand(batch, 3, length).softmax(1) * real[:, None]) if data.draw(st.booleans()) else None
    cas = torch.randn(batch, 3, length, generator=torch.Generator().manual_seed(0)) * data.draw(
        st.sampled_from([1, 100])
    )
    cas.requires_grad_()
    nothing = torch.empty(0)
    output = BackTALOutput(nothing, cas, nothing, nothing, nothing, lengths)
    terms = DetectorLoss(DetectorLossConfig(covered_least=0.3))(output, labels, clicks, taught)
    assert "covered" in terms
    terms["total"].backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert torch.isfinite(cas.grad).all()
    assert cas.grad.abs().amax(1)[~real].sum() == 0


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_known_of_one_video_says_nothing_of_another(data: st.DataObject):
    """The gradient of a video does not change direction with the labels and clicks of the video beside it."""
    length = 8
    numbers = st.lists(st.sampled_from([-1, 0, 1, BACKGROUND]), min_size=length, max_size=length)
    own, others = data.draw(numbers), [data.draw(numbers) for _ in range(2)]
    config = DetectorLossConfig(click=0, between=0, place=0, covered=0)  # means over what a batch has share their count

    def gradient(other: list[int], label: float) -> torch.Tensor:
        cas = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(1)).requires_grad_()
        nothing = torch.empty(0)
        output = BackTALOutput(nothing, cas, nothing, nothing, nothing, torch.tensor([length, length]))
        labels = torch.tensor([[1.0, 0.0], [label, 1 - label]])
        DetectorLoss(config)(output, labels, torch.tensor([own, other]))["total"].backward()
        assert cas.grad is not None
        return cas.grad[0]

    torch.testing.assert_close(gradient(others[0], 1.0), gradient(others[1], 0.0))
