import math

import pytest
import torch
from torch.nn import functional as F

from backtal import (
    AffinityLoss,
    BackTALLoss,
    BackTALModel,
    ConfigError,
    FrameLoss,
    LossConfig,
    ModelConfig,
    ScoreSeparationLoss,
)
from backtal.nn.losses import (
    affinity_loss,
    foreground_loss,
    frame_loss,
    mine_background,
    score_separation_loss,
    video_loss,
)


def test_video_loss_by_hand():
    scores = torch.tensor([[1.0, 2.0, 0.5]])
    log = scores.log_softmax(1)[0]
    labels = torch.tensor([[1.0, 0.0]])
    assert float(video_loss(scores, labels, background=True)) == pytest.approx(-float(log[0] + log[2]) / 2)
    assert float(video_loss(scores, labels, background=False)) == pytest.approx(-float(log[0]))


def test_frame_loss_means():
    cas = torch.randn(2, 3, 5)
    clicks = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    loss = -cas.log_softmax(1)[:, 2]
    assert float(frame_loss(cas, clicks, mean="batch")) == pytest.approx(float(loss[clicks].mean()))
    by_video = (loss[0, :3].mean() + loss[1, 4]) / 2
    assert float(FrameLoss()(cas, clicks)) == pytest.approx(float(by_video))


def test_score_separation_is_equation_8():
    cas = torch.randn(1, 4, 16)
    labels, clicks = torch.tensor([[1.0, 0.0, 1.0]]), torch.zeros(1, 16, dtype=torch.bool)
    clicks[0, [3, 9]] = True
    expected = []
    for index in (0, 2):
        p_act, p_bg = cas[0, index].topk(2).values.mean(), cas[0, index, [3, 9]].mean()
        hat = F.softmax(torch.stack([p_act, p_bg]), 0)
        expected.append(-math.log(hat[0]) - math.log(1 - hat[1]))
    found = ScoreSeparationLoss()(cas, labels, clicks)
    assert float(found) == pytest.approx(sum(expected) / 2, rel=1e-5)


def literal_affinity(embedding, cas, labels, clicks, k, pairs, tau_same=0.5, tau_diff=0.1):
    """Both forms in loops over frames, written from the equations."""
    losses = []
    for e, s, y, b in zip(F.normalize(embedding, dim=1), cas, labels, clicks, strict=True):
        background = b.nonzero()[:, 0].tolist()
        if not background:
            continue
        action = [t for c in y.nonzero()[:, 0] for t in s[c].topk(k).indices.tolist()]

        def similarity(u, v, e=e):
            return float(e[:, u] @ e[:, v])

        if pairs == "hardest":
            same = [
                max([max(0.0, tau_same - similarity(u, v)) for u in kind for v in kind if u != v], default=0.0)
                for kind in (background, action)
            ]
            across = max(max(0.0, similarity(u, v) - tau_diff) for u in background for v in action)
            losses.append(sum(same) + across)
        else:
            total = 0.0
            for kind in (background, action):
                total += sum(max(0.0, tau_same - min(similarity(u, v) for v in kind)) for u in kind) / len(kind)
            for one, other in ((background, action), (action, background)):
                total += sum(max(0.0, max(similarity(u, v) for v in other) - tau_diff) for u in one) / len(one)
            losses.append(total)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("pairs", ["hardest", "each_frame"])
def test_affinity_loss_against_loops(pairs):
    embedding, cas = torch.randn(3, 4, 24), torch.randn(3, 4, 24)
    labels = torch.tensor([[1.0, 1, 0], [0, 0, 1], [1, 1, 1]])
    clicks = torch.zeros(3, 24, dtype=torch.bool)
    clicks[0, [1, 5, 20]] = clicks[1, 7] = True
    found = affinity_loss(embedding, cas, labels, clicks, topk_ratio=0.25, pairs=pairs)
    assert float(found) == pytest.approx(literal_affinity(embedding, cas, labels, clicks, 6, pairs), rel=1e-5)
    assert float(AffinityLoss(0.25, pairs=pairs)(embedding, cas, labels, clicks)) == pytest.approx(float(found))


@pytest.mark.parametrize("pairs", ["hardest", "each_frame"])
def test_without_any_click_the_terms_are_zero_and_trainable(pairs):
    model = BackTALModel(ModelConfig(feature_dim=4, labels=("a", "b"), hidden_dim=8)).train()
    config = LossConfig(affinity_pairs=pairs)
    terms = BackTALLoss(config)(model(torch.randn(2, 4, 20)), torch.ones(2, 2), torch.full((2, 20), -1))
    assert terms["frame"] == terms["separation"] == terms["affinity"] == 0
    terms["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_video_without_a_click_does_not_count():
    cas, labels = torch.randn(2, 3, 12), torch.ones(2, 2)
    clicks = torch.zeros(2, 12, dtype=torch.bool)
    clicks[0, 4] = True
    for loss in (lambda c, y, b: frame_loss(c, b), score_separation_loss):
        torch.testing.assert_close(loss(cas, labels, clicks), loss(cas[:1], labels[:1], clicks[:1]))


def test_action_clicks_are_not_background():
    model = BackTALModel(ModelConfig(feature_dim=4, labels=("a", "b"), hidden_dim=8)).eval()
    output = model(torch.randn(1, 4, 20), base_stream=True)
    clicks = torch.full((1, 20), -1)
    clicks[0, 3] = 1
    terms = BackTALLoss(LossConfig())(output, torch.ones(1, 2), clicks)
    assert terms["frame"] > 0
    assert terms["separation"] == terms["affinity"] == 0


def test_a_term_with_weight_zero_is_left_out():
    model = BackTALModel(ModelConfig(feature_dim=4, labels=("a",), hidden_dim=8)).train()
    output = model(torch.randn(1, 4, 20))
    terms = BackTALLoss(LossConfig(affinity=0.0, norm=0.0))(output, torch.ones(1, 1), torch.zeros(1, 20).long() + 1)
    assert set(terms) == {"video_base", "video_suppressed", "frame", "separation", "total"}
    with pytest.raises(ValueError, match="need the base stream"):
        BackTALLoss(LossConfig())(model.eval()(torch.randn(1, 4, 20)), torch.ones(1, 1), torch.zeros(1, 20).long())


def test_action_clicks_are_classified_as_their_class():
    cas, clicks = torch.randn(1, 4, 6), torch.tensor([[-1, 2, -1, 3, -1, 0]])
    log = cas.log_softmax(1)[0]
    expected = -(log[2, 1] + log[3, 3] + log[0, 5]) / 3
    torch.testing.assert_close(frame_loss(cas, clicks), expected)


def test_foreground_loss_is_binary_classification():
    foreground, clicks = torch.tensor([[[0.9, 0.2, 0.5]]]), torch.tensor([[1, 0, -1]])
    expected = -(math.log(1 - 0.9) + math.log(0.2)) / 2
    assert float(foreground_loss(foreground, clicks, num_classes=1)) == pytest.approx(expected)


def test_mined_background_is_what_looks_most_like_it():
    cas = torch.zeros(2, 3, 8)
    cas[0, 2] = torch.tensor([0.0, 5, 1, 9, 2, 3, 9, 9])
    clicks = torch.full((2, 8), -1)
    clicks[0, [0, 3]] = torch.tensor([1, 2])
    mined = mine_background(cas, clicks, torch.tensor([6, 8]), per_click=2)
    assert mined[0].tolist() == [1, 2, -1, 2, -1, 2, -1, -1]
    assert (mined[1] == -1).all()


@pytest.mark.parametrize("frame_on", ["cas", "foreground", "both"])
def test_where_the_frame_loss_acts(frame_on):
    model = BackTALModel(ModelConfig(feature_dim=4, labels=("a", "b"), hidden_dim=8)).train()
    clicks = torch.full((1, 20), -1)
    clicks[0, 3] = 2
    config = LossConfig(frame_on=frame_on, separation=0.0, affinity=0.0, norm=0.0)
    terms = BackTALLoss(config)(model(torch.randn(1, 4, 20)), torch.ones(1, 2), clicks)
    reached = torch.autograd.grad(
        terms["frame"], [model.classifier.weight, model.foreground_filter.conv_2.weight], allow_unused=True
    )
    assert [gradient is not None and bool(gradient.any()) for gradient in reached] == [
        frame_on != "foreground",
        frame_on != "cas",
    ]


def test_the_papers_objective_takes_no_other_term():
    with pytest.raises(ConfigError, match=r"LossConfig.between=0.5 is not of the paper's objective: use ExtendedLoss"):
        BackTALLoss(LossConfig(between=0.5))
