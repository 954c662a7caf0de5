"""Heterogeneous convolution, the cheap layer of the offset generators (section C.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HetConv2d", "is_plain"]


class HetConv2d(nn.Module):
    """A 3x3 convolution that reads the neighbourhood of a pixel in 1/p of its input channels only.

    Each output channel reads one group of input channels through a 3x3 kernel and all others through a 1x1 kernel
    (Singh et al., "HetConv", 2019). As in the published block it is computed as

        y = conv3x3_grouped(x) + conv1x1(x) - conv1x1_grouped(x)

    where the last term removes the group's own channels from the full 1x1 convolution. In eval mode it is folded into
    the centre of the 3x3 kernel: the same numbers up to rounding, with one convolution and one sum less. On a GPU all
    three become one dense 3x3 convolution: more multiply-adds, but tensor cores do them in less time than it takes to
    start the others. The folded kernel is computed in each call and not stored, so weights may change at any time.
    Modified layers (hooks, pruning, parametrizations, adapters, quantised copies) are called as they are.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        p: wanted number of groups. If it does not divide both widths, the largest number below it that does is taken,
            down to 1 (a plain 3x3 convolution with a redundant centre).

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W)

    Examples:
        >>> import torch
        >>> HetConv2d(6, 10)(torch.rand(1, 6, 5, 7)).shape
        torch.Size([1, 10, 5, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, p: int = 4) -> None:
        super().__init__()
        common = math.gcd(in_channels, out_channels)
        self.groups = max(g for g in range(1, p + 1) if common % g == 0)
        self.grouped = nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=self.groups)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)
        self.grouped_pointwise = nn.Conv2d(in_channels, out_channels, 1, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; see the class."""
        if self.training or not (is_plain(self.grouped) and is_plain(self.grouped_pointwise)):
            y: Tensor = self.grouped(x) + self.pointwise(x) - self.grouped_pointwise(x)
            return y
        kernel = self.grouped.weight - F.pad(self.grouped_pointwise.weight, (1, 1, 1, 1))
        bias = _difference(self.grouped.bias, self.grouped_pointwise.bias)
        if x.is_cuda and is_plain(self.pointwise):
            return F.conv2d(x, self._dense(kernel), _sum(bias, self.pointwise.bias), padding=1)
        folded = F.conv2d(x, kernel, bias, padding=1, groups=self.groups)
        out: Tensor = folded + self.pointwise(x)
        return out

    def _dense(self, kernel: Tensor) -> Tensor:
        """Return the whole layer as one 3x3 kernel, given that of the groups."""
        g, (rows, columns) = self.groups, self.pointwise.weight.shape[:2]
        apart = torch.eye(g, dtype=kernel.dtype, device=kernel.device).view(g, 1, g, 1, 1, 1)
        grouped = kernel.view(g, rows // g, 1, columns // g, 3, 3) * apart
        return grouped.view(rows, columns, 3, 3) + F.pad(self.pointwise.weight, (1, 1, 1, 1))


def is_plain(layer: nn.Module, kind: type[nn.Module] = nn.Conv2d) -> bool:
    """True if a call of the layer uses its weight and bias, and does nothing else."""
    return type(layer) is kind and not layer._forward_pre_hooks and not layer._forward_hooks


def _difference(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a - b


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a + b
