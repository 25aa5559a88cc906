"""The building blocks of the network, each usable in any other network."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backtal.ops import Backend, Layout, affinity_conv1d, check_kernel, unit_vectors

NEGATIVE_SLOPE = 0.01


class AffinityConv1d(nn.Module):
    """Affinity convolution (eq. 14-16), a drop-in for ``nn.Conv1d(padding="same")``.

    The affinity ``[B, K, T]`` comes from `local_affinity` and may be shared by many layers. Weights
    are named, shaped and initialised as in ``nn.Conv1d``.

    Example:
        >>> from backtal import local_affinity
        >>> x = torch.randn(2, 16, 50)
        >>> AffinityConv1d(16, 8, kernel_size=3)(x, local_affinity(x, 3)).shape
        torch.Size([2, 8, 50])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        bias: bool = True,
        layout: Layout = "per_tap",
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        check_kernel(kernel_size, dilation)
        self.dilation = dilation
        self.layout: Layout = layout
        self.backend: Backend | None = backend
        # [O, D, K] in shape, but each tap's matrix is one piece of memory: nothing to copy before its product.
        self.weight = nn.Parameter(torch.empty(kernel_size, out_channels, in_channels).permute(1, 2, 0))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as ``nn.Conv1d`` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, affinity: Tensor) -> Tensor:
        """``x [B, D, T]``, ``affinity [B, K, T]`` -> ``[B, O, T]``; see `affinity_conv1d` for several streams."""
        return affinity_conv1d(
            x,
            self.weight,
            affinity,
            self.bias,
            dilation=self.dilation,
            layout=self.layout,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        out_channels, in_channels, kernel_size = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size={kernel_size}, dilation={self.dilation}, "
            f"bias={self.bias is not None}, layout={self.layout!r}"
        )


class EmbeddingHead(nn.Module):
    """Temporal convolutions that embed each frame on the unit sphere (section 3.4).

    Args:
        in_channels: feature channels D.
        embedding_dim: embedding size E.
        hidden_dim: width of a first convolution as in the released network; None for the paper's
            single convolution.
        kernel_size: of each convolution.

    Example:
        >>> EmbeddingHead(16, 8)(torch.randn(2, 16, 50)).norm(dim=1).allclose(torch.ones(2, 50))
        True
    """

    def __init__(
        self, in_channels: int, embedding_dim: int, hidden_dim: int | None = None, kernel_size: int = 3
    ) -> None:
        super().__init__()
        widths = [in_channels, *([] if hidden_dim is None else [hidden_dim]), embedding_dim]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel_size, padding="same") for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x [B, D, T]``, ``mask [B, 1, T]`` (1 on real frames) -> ``[B, E, T]``, zero where masked."""
        for index, conv in enumerate(self.convs):
            x = conv(x if index == 0 else F.leaky_relu(x, NEGATIVE_SLOPE))
            x = x if mask is None else x * mask
        return unit_vectors(x)


class ForegroundFilter(nn.Module):
    """Class-agnostic weight of each frame, in [0, 1]: the suppressed stream sees ``weight * x``.

    Example:
        >>> ForegroundFilter(16, 8)(torch.randn(2, 16, 50)).shape
        torch.Size([2, 1, 50])
    """

    def __init__(self, in_channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv1d(in_channels, hidden_dim, 1)
        self.conv_2 = nn.Conv1d(hidden_dim, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``x [B, D, T]`` -> ``[B, 1, T]``."""
        return torch.sigmoid(self.conv_2(F.leaky_relu(self.conv_1(x), NEGATIVE_SLOPE)))


def feature_scale(deviation: Tensor) -> Tensor:
    """``[D]``: what standardised features are multiplied by.

    A deviation below a twentieth of the average one counts as that, so that a channel that hardly varies in training is
    not blown up in a new video.
    """
    floor = deviation.mean() / 20
    return 1 / deviation.clamp(min=float(floor) or 1.0)
