"""The detector's network (not part of the paper): a pyramid of affinity convolutions over time, with two heads."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backtal.nn.layers import AffinityConv1d, EmbeddingHead
from backtal.ops import local_affinity
from backtal.settings.detector import DetectorConfig

PRIOR = 0.01  # probability of a class at a point, at the start: nearly all points are background


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each snippet of ``[B, W, T]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, W, T]`` -> ``[B, W, T]``."""
        return F.layer_norm(x.transpose(1, 2), self.weight.shape, self.weight, self.bias).transpose(1, 2)


class Block(nn.Module):
    """``x + project(gelu(affinity_conv(norm(x))))``: a snippet mixes with neighbours that are like it."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width = config.width
        self.norm, self.mix = ChannelNorm(width), AffinityConv1d(width, width, config.kernel_size)
        self.project, self.dropout = nn.Conv1d(width, width, 1), nn.Dropout(config.dropout)

    def forward(self, x: Tensor, affinity: Tensor, mask: Tensor) -> Tensor:
        """``[B, W, T]``, ``[B, K, T]``, ``[B, 1, T]`` -> ``[B, W, T]``."""
        return (x + self.dropout(self.project(F.gelu(self.mix(self.norm(x), affinity))))) * mask


class Pyramid(nn.Module):
    """Features ``[B, D, T]`` -> one map ``[B, W, T / 2**i]`` for each level i, and what they were made of.

    Going up, each level halves the one below by the maximum of two snippets; coming down, each level adds the one
    above. The affinity of a level compares embeddings averaged over its stride.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        width, above = config.width, config.levels - 1
        self.embedding_head = EmbeddingHead(config.feature_dim, config.embedding_dim, config.embedding_hidden_dim)
        self.input = nn.Conv1d(config.feature_dim, width, 3, padding=1)
        self.stem = nn.ModuleList(Block(config) for _ in range(config.stem_blocks))
        self.up = nn.ModuleList(Block(config) for _ in range(above))
        self.down = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(above))
        self.norm = ChannelNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Maps, masks ``[B, 1, T / 2**i]`` and the embedding ``[B, E, T]``; T is a multiple of the highest stride."""
        embedding = self.embedding_head(x, mask) if self.config.affinity else mask
        compared, x = embedding, self.input(x) * mask
        affinity = local_affinity(compared, self.config.kernel_size)
        for block in self.stem:
            x = block(x, affinity, mask)
        maps, masks = [x], [mask]
        for block in self.up:
            mask, compared = halved(mask), F.avg_pool1d(compared, 2)
            x = block(halved(x) * mask, local_affinity(compared, self.config.kernel_size), mask)
            maps.append(x)
            masks.append(mask)
        for level in reversed(range(len(self.down))):
            maps[level] = maps[level] + doubled(self.down[level](maps[level + 1])) * masks[level]
        return [self.norm(m) * mask for m, mask in zip(maps, masks, strict=True)], masks, embedding


def halved(x: Tensor) -> Tensor:
    """The maximum of every two snippets; as ``F.max_pool1d``, which an exported graph would tie to one length."""
    return x.unflatten(2, (-1, 2)).amax(3)


def doubled(x: Tensor) -> Tensor:
    """Every snippet twice."""
    return x[..., None].expand(-1, -1, -1, 2).flatten(2)


class Tower(nn.Module):
    """Convolutions shared by all levels, before a head."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(layers))
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``[B, W, T]`` -> ``[B, W, T]``."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x))) * mask
        return x


class PointHeads(nn.Module):
    """At every point of every level: the classes, and the distances to the two edges of a segment around it."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width, classes = config.width, len(config.labels)
        self.class_tower, self.edge_tower = Tower(width, config.head_layers), Tower(width, config.head_layers)
        self.classes, self.edges = nn.Conv1d(width, classes, 3, padding=1), nn.Conv1d(width, 2, 3, padding=1)
        self.scale, self.dropout = nn.Parameter(torch.ones(config.levels)), nn.Dropout(config.head_dropout)
        assert self.classes.bias is not None
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits ``[B, C, N]`` and distances ``[B, 2, N]`` in snippets, at the N points of all levels."""
        classes, distances = [], []
        for level, (x, mask) in enumerate(zip(maps, masks, strict=True)):
            classes.append(self.classes(self.dropout(self.class_tower(x, mask))))
            edges = self.edges(self.edge_tower(x, mask))
            distances.append(F.softplus(edges * self.scale[level]) * 2**level)
        return torch.cat(classes, dim=2), torch.cat(distances, dim=2)


def points(length: int, levels: int) -> Tensor:
    """``[N, 2]``: position and stride, in snippets, of every point of a pyramid over `length` snippets.

    Example:
        >>> points(4, 2).tolist()
        [[0.5, 1.0], [1.5, 1.0], [2.5, 1.0], [3.5, 1.0], [1.0, 2.0], [3.0, 2.0]]
    """
    placed = []
    for level in range(levels):
        stride = 2**level
        position = (torch.arange(length // stride) + 0.5) * stride
        placed.append(torch.stack([position, torch.full_like(position, stride)], dim=1))
    return torch.cat(placed)


def reach(config: DetectorConfig) -> int:
    """How many snippets on either side anything that the network says of a snippet depends on.

    Example:
        >>> reach(DetectorConfig(feature_dim=8, labels=("jump",), levels=1, stem_blocks=1, head_layers=0))
        4
    """
    half, top = config.kernel_size // 2, 2 ** (config.levels - 1)
    embedding = (1 if config.embedding_hidden_dim is None else 2) if config.affinity else 0
    found = max(1, embedding) + config.stem_blocks * half
    for level in range(1, config.levels):
        found += half * 2**level
    return found + (config.head_layers + 1) * top + top - 1


__all__ = ["Block", "ChannelNorm", "PointHeads", "Pyramid", "Tower", "points", "reach"]
