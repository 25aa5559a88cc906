import itertools
import math

import pytest
import torch

from backtal import BackTALLoss, BackTALModel, LossConfig, ModelConfig
from backtal.nn.beyond import ExtendedLoss, between_clicks_loss, taught_distribution, teacher_loss


@pytest.mark.parametrize(("ratio", "miss"), [(0.01, 0.0), (0.35, 0.05), (0.2, 0.5)])
def test_between_clicks_against_loops(ratio, miss):
    cas, lengths = torch.randn(3, 4, 30), torch.tensor([30, 22, 30])
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    background = torch.zeros(3, 30, dtype=torch.bool)
    background[0, [2, 3, 9, 12, 25]] = background[1, [5, 20]] = background[2, 4] = True
    action = (cas.softmax(1)[:, :3] * labels[:, :, None]).sum(1)
    values = []
    for video in range(3):
        clicked = background[video].nonzero()[:, 0].tolist()
        for first, last in itertools.pairwise(clicked):
            stretch = action[video, first + 1 : last]
            if len(stretch) >= 3:
                top = stretch.topk(math.ceil(ratio * len(stretch))).values
                values.append(-(miss + (1 - miss) * top.mean()).log())
    found = between_clicks_loss(cas, labels, background, lengths, ratio=ratio, miss=miss)
    torch.testing.assert_close(found, torch.stack(values).mean())


def test_a_teacher_says_only_what_is_possible():
    model = BackTALModel(ModelConfig(feature_dim=4, labels=("a", "b", "c"), hidden_dim=8)).eval()
    labels, clicks = torch.tensor([[1.0, 0, 1]]), torch.full((1, 20), -1)
    clicks[0, [3, 9]] = torch.tensor([3, 2])
    taught = taught_distribution(model(torch.randn(1, 4, 20), base_stream=True), labels, clicks)
    torch.testing.assert_close(taught.sum(0), torch.ones(20))
    assert (taught[1] == 0).all()
    assert taught[3, 3] == taught[2, 9] == 1
    assert (taught[0].sort().values[2:] > 0).all()


def test_the_teacher_loss_is_least_for_what_it_says():
    lengths, taught = torch.tensor([10, 6]), torch.rand(2, 3, 10).softmax(1)
    taught[1, :, 6:] = 0
    agreeing = taught.clamp(min=1e-9).log()[None]
    least = teacher_loss(agreeing, taught, lengths)
    entropy = -(taught * taught.clamp(min=1e-9).log()).sum() / 16
    torch.testing.assert_close(least, entropy)
    other = torch.randn(1, 2, 3, 10)
    assert teacher_loss(other, taught, lengths) > least
    both = teacher_loss(torch.cat([agreeing, other]), taught, lengths)
    torch.testing.assert_close(both, (least + teacher_loss(other, taught, lengths)) / 2)


def test_between_clicks_needs_two_of_them():
    cas = torch.randn(2, 3, 12, requires_grad=True)
    background = torch.zeros(2, 12, dtype=torch.bool)
    background[0, 4] = True
    loss = between_clicks_loss(cas, torch.ones(2, 2), background)
    loss.backward()
    assert loss == 0
    assert cas.grad is not None
    assert cas.grad.abs().max() == 0


@pytest.mark.parametrize("mined", [0, 2])
def test_the_extended_loss_is_the_papers_and_what_is_added(mined):
    model = BackTALModel(ModelConfig(feature_dim=4, labels=("a", "b"), hidden_dim=8)).eval()
    output, labels, clicks = model(torch.randn(2, 4, 20), base_stream=True), torch.ones(2, 2), torch.full((2, 20), -1)
    clicks[0, [3, 9, 15]] = torch.tensor([2, 2, 0])
    taught = torch.rand(2, 3, 20).softmax(1)
    config = LossConfig(between=0.5, teacher=0.25, mined_background=mined, between_ratio=0.5, between_miss=0.1)
    terms = ExtendedLoss(config)(output, labels, clicks, taught)
    paper = BackTALLoss(LossConfig(mined_background=mined))
    expected, background = paper(output, labels, clicks), paper.with_mined(output.base_cas, clicks, output.lengths) == 2
    assert background.sum() == 2 + mined
    between = [between_clicks_loss(c, labels, background, ratio=0.5, miss=0.1) for c in (output.base_cas, output.cas)]
    teacher = teacher_loss(torch.stack([output.base_cas, output.cas]), taught, output.lengths)
    torch.testing.assert_close(terms["between"], sum(between))
    torch.testing.assert_close(terms["teacher"], teacher)
    torch.testing.assert_close(terms["total"], expected["total"] + 0.5 * sum(between) + 0.25 * teacher)
    assert list(terms) == [*(name for name in expected if name != "total"), "between", "teacher", "total"]
    assert ExtendedLoss(LossConfig(mined_background=mined))(output, labels, clicks) == expected
