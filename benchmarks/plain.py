"""A plain network, to compare with: three temporal convolutions that classify snippets by cross-entropy.

From start and end every snippet has its class. From clicks, the clicked snippets do; of the others the labels of the
video are known, through the mean of each class's strongest twelfth of the snippets (the paper's video loss with
`compact`'s k). Segments are found as `compact` finds them. Learning rate, decay, dropout and steps an epoch are
`compact`'s as well; 60 epochs are what others gave this network. Nothing was tuned.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from backtal.files import atomic_path
from backtal.nn import localize
from backtal.nn.cas import BackTALOutput, topk_mean
from backtal.nn.losses import frame_loss, video_loss
from backtal.settings import recipe
from backtal.training import collate

TOPK = 1 / 12


@dataclass(frozen=True)
class Plain:
    """Settings of the plain network."""

    kernel: int
    width: int = 128
    dropout: float = 0.5
    epochs: int = 60
    batch_size: int = 16
    min_epoch_steps: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    clip: float = 10.0


class PlainNetwork(nn.Module):
    """``[B, D, T] -> [B, C+1, T]``; features standardised, and clipped to so many deviations."""

    def __init__(self, settings, feature_dim, classes):
        super().__init__()
        self.clip, padding = settings.clip, settings.kernel // 2
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("deviation", torch.ones(feature_dim))
        sizes = [feature_dim, settings.width, settings.width, classes + 1]
        layers = []
        for before, after in pairwise(sizes):
            convolution = nn.Conv1d(before, after, settings.kernel, padding=padding)
            layers += [nn.Dropout(settings.dropout), convolution, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, features, lengths):
        """Padding is zero after standardising, as it is beyond a video's ends."""
        standard = (features - self.mean[:, None]) / (self.deviation[:, None] + 1e-4)
        real = torch.arange(features.shape[2]) < lengths[:, None, None]
        return self.layers(standard.clamp(-self.clip, self.clip) * real)


def fit(training_set, settings, out, seed):
    """The trained network; `out` keeps its weights, and a run that was killed begins again."""
    network = PlainNetwork(settings, training_set.feature_dim, len(training_set.folder.labels))
    path = out / "plain.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
        return network.eval()
    torch.manual_seed(seed)
    for module in network.layers:
        if isinstance(module, nn.Conv1d):
            module.reset_parameters()
    network.mean.copy_(training_set.mean)
    network.deviation.copy_(training_set.deviation)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    loader = DataLoader(training_set, batch_size=settings.batch_size, shuffle=True, collate_fn=collate)
    passes = math.ceil(settings.min_epoch_steps / len(loader))
    steps = settings.epochs * passes * len(loader)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(settings.epochs * passes):
        for batch in loader:
            cost = loss(network(batch.features, batch.lengths), batch)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
            schedule.step()
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(network.state_dict(), temporary)
    return network.eval()


def loss(cas, batch):
    """Cross-entropy of the known snippets; and of its labels, for each video of which not all snippets are known."""
    cost = frame_loss(cas, batch.clicks, mean="batch")
    if (vague := (batch.clicks >= 0).sum(1) < batch.lengths).any():
        scores = topk_mean(cas[vague], batch.lengths[vague], TOPK)
        cost = cost + video_loss(scores, batch.labels[vague], background=True)
    return cost


@torch.no_grad()
def find(network, video, labels):
    """The segments of a video's features."""
    lengths = torch.tensor([video.features.shape[1]])
    cas = network(video.features[None].float(), lengths)
    scores, nothing = topk_mean(cas, lengths, TOPK), cas.new_empty(1, 0, 0)
    output = BackTALOutput(scores, cas, nothing, nothing, F.relu(cas), lengths)
    return localize(output, [video.axis], labels, recipe("compact").localization, [video.video_id])[0]
