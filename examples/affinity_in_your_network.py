"""The affinity convolution inside a network that has nothing else of backtal: train, save, load with plain PyTorch."""

import io

import torch
from torch import nn
from torch.nn import functional as F

from backtal import AffinityConv1d, local_affinity


class FrameClassifier(nn.Module):
    """Features ``[B, 16, T]`` -> class scores per frame ``[B, 4, T]``, from a recurrent encoder of your own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(16, 32, batch_first=True)
        self.layers = nn.ModuleList([AffinityConv1d(32, 32, 5), AffinityConv1d(32, 32, 5, dilation=2)])
        self.head = nn.Conv1d(32, 4, 1)

    def forward(self, features):
        """Each layer weighs its taps by how similar the encoder finds the neighbouring frames."""
        x = self.encoder(features.transpose(1, 2))[0].transpose(1, 2)
        for layer in self.layers:
            x = x + F.relu(layer(x, local_affinity(x, 5, dilation=layer.dilation)))
        return self.head(x)


torch.manual_seed(0)
network = FrameClassifier()
features, classes = torch.randn(8, 16, 40), torch.randint(4, (8, 40))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
losses = []
for _ in range(20):
    loss = F.cross_entropy(network(features), classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

file = io.BytesIO()
torch.save(network.state_dict(), file)
file.seek(0)
loaded = FrameClassifier()
loaded.load_state_dict(torch.load(file, weights_only=True))

assert losses[-1] < losses[0]
assert torch.equal(loaded(features), network(features))
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; the loaded network gives the same scores")
