"""The score separation loss alone: a few background clicks improve a plain video-label classifier of your own."""

import torch
from torch import nn
from torch.nn import functional as F

from backtal import ScoreSeparationLoss

torch.manual_seed(0)
labels = torch.eye(2).repeat(8, 1)  # [B, C]: each video shows one of two actions
features = torch.randn(16, 6, 60)  # [B, D, T]
background = torch.zeros(16, 60, dtype=torch.bool)  # [B, T]
for video, action in enumerate(labels.argmax(1)):
    features[video, action, 20:30] += 3.0
    features[video, 2 + action, 35:55] += 5.0  # background that only comes with this action, and is easier to see
    background[video, torch.randint(35, 55, ())] = True  # one click on it


def train(weight: float) -> float:
    """Learn from video labels and, with this weight, from the clicks; return how often action beats background."""
    torch.manual_seed(1)
    network = nn.Conv1d(6, 3, 3, padding="same")  # [B, C+1, T], background last
    separation = ScoreSeparationLoss(topk_ratio=0.125)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(100):
        cas = network(features)
        video_scores = cas[:, :-1].topk(7, dim=2).values.mean(2)
        loss = F.binary_cross_entropy_with_logits(video_scores, labels) + weight * separation(cas, labels, background)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    own = (cas[:, :-1] * labels[..., None]).sum(1)
    return (own[:, 20:30].mean(1) > own[:, 35:55].mean(1)).float().mean().item()


without, with_clicks = train(0.0), train(1.0)
assert with_clicks > without
print(f"action above background in {without:.0%} of the videos without clicks, in {with_clicks:.0%} with them")
