"""Inflated 3D Inception-v1 (Carreira & Zisserman, 2017), with the parameter names of the widespread PyTorch weights."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Output channels of the four branches of each Inception block: 1x1; 1x1 then 3x3; 1x1 then 3x3; pool then 1x1.
_MIXED = {
    "Mixed_3b": (64, (96, 128), (16, 32), 32),
    "Mixed_3c": (128, (128, 192), (32, 96), 64),
    "Mixed_4b": (192, (96, 208), (16, 48), 64),
    "Mixed_4c": (160, (112, 224), (24, 64), 64),
    "Mixed_4d": (128, (128, 256), (24, 64), 64),
    "Mixed_4e": (112, (144, 288), (32, 64), 64),
    "Mixed_4f": (256, (160, 320), (32, 128), 128),
    "Mixed_5b": (256, (160, 320), (32, 128), 128),
    "Mixed_5c": (384, (192, 384), (48, 128), 128),
}
FEATURE_DIM = 1024

Triple = tuple[int, int, int]


def pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Pad ``[B, C, T, H, W]`` with zeros as TensorFlow's "same" does: ``ceil(n / stride)`` outputs, odd zeros last.

    Example:
        >>> pad_same(torch.ones(1, 1, 16, 224, 224), (7, 7, 7), (2, 2, 2)).shape
        torch.Size([1, 1, 21, 229, 229])
    """
    padding: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max((math.ceil(size / s) - 1) * s + k - size, 0)
        padding = [missing // 2, missing - missing // 2, *padding]
    return F.pad(x, padding)


class Unit3D(nn.Module):
    """Convolution with "same" padding, batch norm and ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple = (1, 1, 1), stride: Triple = (1, 1, 1), *, plain: bool = False
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=plain)
        self.bn = None if plain else nn.BatchNorm3d(outputs, eps=0.001, momentum=0.01)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, O, T', H', W']``."""
        x = self.conv3d(pad_same(x, self.kernel, self.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class MaxPoolSame(nn.Module):
    """Max pooling over zero-padded input (activations are never negative)."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, C, T', H', W']``."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class InceptionBlock(nn.Module):
    """Four branches side by side, their channels stacked."""

    def __init__(self, inputs: int, first: int, second: tuple[int, int], third: tuple[int, int], fourth: int) -> None:
        super().__init__()
        self.b0 = Unit3D(inputs, first)
        self.b1a, self.b1b = Unit3D(inputs, second[0]), Unit3D(*second, (3, 3, 3))
        self.b2a, self.b2b = Unit3D(inputs, third[0]), Unit3D(*third, (3, 3, 3))
        self.b3a, self.b3b = MaxPoolSame((3, 3, 3), (1, 1, 1)), Unit3D(inputs, fourth)
        self.outputs = first + second[1] + third[1] + fourth

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, O, T, H, W]``."""
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class InceptionI3d(nn.Module):
    """I3D: clips in, 1024 features of each out.

    Args:
        in_channels: 3 for RGB, 2 for optical flow, both in [-1, 1].
        num_classes: of the head ``logits``, which `forward` does not use; None leaves it out.

    Example:
        >>> sum(p.numel() for p in InceptionI3d(num_classes=None).parameters())
        12287264
    """

    def __init__(self, in_channels: int = 3, num_classes: int | None = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3D(in_channels, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = MaxPoolSame((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = MaxPoolSame((1, 3, 3), (1, 2, 2))
        width = 192
        for name, branches in _MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = MaxPoolSame((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = MaxPoolSame((2, 2, 2), (2, 2, 2))
            block = InceptionBlock(width, *branches)
            self.add_module(name, block)
            width = block.outputs
        if num_classes is not None:
            self.logits = Unit3D(width, num_classes, plain=True)

    def forward(self, clips: Tensor) -> Tensor:
        """``clips [B, C, T, 224, 224]``, 16 frames or more -> ``[B, 1024]``, averaged over space and time.

        Space and time are averaged as the network's own 2x7x7 pooling does, and the positions it gives then.
        """
        x = clips
        for name, layer in self.named_children():
            if name != "logits":
                x = layer(x)
        x = F.avg_pool3d(x, (min(2, x.shape[2]), min(7, x.shape[3]), min(7, x.shape[4])), stride=1)
        return x.mean(dim=(2, 3, 4))
