"""Makes example.npz: 40 s of features that nobody recorded, for the checkpoint `shrec22`.

Beginning with noise, the features are changed until the network sees the gestures below, as smoothly as it lets them.
So this shows what a result looks like, and nothing about how good it is.
"""

from pathlib import Path

import torch
from torch.nn import functional as F

from backtal import BackTALModel, Segment, TimeAxis, VideoFeatures, write_features

SECONDS, RATE = 40, 5
GESTURES = [Segment(4, 7, "CIRCLE"), Segment(12, 14, "V"), Segment(20, 24, "WAVE"), Segment(31, 33, "GRAB")]


def made_up(steps: int = 150) -> VideoFeatures:
    """Features ``[372, 200]``."""
    torch.manual_seed(0)
    model = BackTALModel.from_pretrained("shrec22").eval().requires_grad_(requires_grad=False)
    labels = model.config.labels
    wanted = torch.full((1, SECONDS * RATE), len(labels))
    for gesture in GESTURES:
        wanted[0, int(gesture.start * RATE) : int(gesture.end * RATE)] = labels.index(gesture.label)
    features = (0.3 * torch.randn(1, model.config.feature_dim, SECONDS * RATE)).requires_grad_()
    optimizer = torch.optim.Adam([features], lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        rough = features.diff(dim=2).square().mean() + 0.1 * features.square().mean()
        loss = F.cross_entropy(model(features).cas, wanted) + rough
        loss.backward()
        optimizer.step()
    axis = TimeAxis.even(SECONDS * RATE, float(SECONDS))
    return VideoFeatures("made up", features.detach()[0], axis, model.config.feature_spec)


if __name__ == "__main__":
    write_features(Path(__file__).with_name("example.npz"), made_up())
