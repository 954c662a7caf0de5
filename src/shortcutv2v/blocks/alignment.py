"""Coarse-to-fine alignment: the two offset generators and the coarse step (section 3.2, C.1; equation 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v import ops
from shortcutv2v.blocks.hetconv import HetConv2d
from shortcutv2v.ops.tables import format_of

__all__ = [
    "GlobalAlignment",
    "OffsetGenerator",
    "axis_of",
    "channels_last",
    "enlarge_offset",
    "half_size",
    "laid_out_like",
    "positions",
    "resize",
]


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return half of (H, W), rounded up, so that odd and one-pixel maps work.

    >>> half_size((5, 8))
    (3, 4)
    """
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) to `size` bilinearly, with pixel centres aligned as in the published block."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def channels_last(x: Tensor) -> Tensor:
    """Return the same map with its channels next to each other in memory: faster for sampling and convolutions."""
    return x.contiguous(memory_format=torch.channels_last)


def laid_out_like(x: Tensor, like: Tensor) -> Tensor:
    """Return `x` in the memory format of `like`, so that the teacher's tail gets the format of its head."""
    return x.contiguous(memory_format=format_of(like))


def enlarge_offset(offset: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge a map of offsets, and the offsets by the same factors.

    Args:
        offset: (B, 2, h, w), (dy, dx) in pixels of the small map.
        size: (H, W) of the large map.

    Returns:
        (B, 2, H, W), (dy, dx) in pixels of the large map, in float32 at least. Zero offsets stay exactly zero.

    Examples:
        >>> enlarge_offset(torch.ones(1, 2, 2, 3), (4, 6)).unique()
        tensor([2.])
    """
    large = resize(positions(offset), size)
    dy, dx = size[0] / offset.shape[-2], size[1] / offset.shape[-1]
    # Made on the device: a tensor of two factors would be copied from the host, and no CUDA graph can record that.
    return large * (dy + (dx - dy) * axis_of(large))


def axis_of(offset: Tensor) -> Tensor:
    """Return (1, 2, 1, 1): 0 for the channel dy, 1 for dx. So both are computed in one map.

    Taken apart and stacked again, they make Inductor stop for GPUs ("Expected a number but got Mul"; torch 2.11, 2.14).
    """
    return torch.arange(2, dtype=offset.dtype, device=offset.device).view(1, 2, 1, 1)


def positions(offset: Tensor) -> Tensor:
    """Return offsets in float32 at least: bfloat16 has no 257, and resolves values near 20 to 1/8 only."""
    return offset.to(torch.promote_types(offset.dtype, torch.float32))


class OffsetGenerator(nn.Module):
    """Predict offsets (and mask logits) from two feature maps: `depth` times HetConv + ReLU, then a 1x1 convolution.

    The last layer starts at zero: offsets are zero, and the mask is sigmoid(0) = 0.5 (section C.3).

    Args:
        in_channels: channels of the two concatenated maps.
        channels: hidden width h.
        out_channels: 2 for the global generator, 27 (9 offsets, 9 mask logits) for the local one.
        depth: number of HetConv layers: 2 in the global generator, 3 in the local one.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W)
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in [in_channels] + [channels] * (depth - 1):
            layers += [HetConv2d(width, channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels, out_channels, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """Compare the two maps; see the class. Their order is that of the published checkpoints."""
        out: Tensor = self.head(self.layers(torch.cat((current, reference), 1)))
        return out


class GlobalAlignment(nn.Module):
    """The coarse step: one offset per position at half resolution, applied to every tap of a 3x3 kernel.

        f_ref'(p) = up( sum_k w_g(k) f_ref_down(p + k + dp_g(p)) )        (equation 4)

    The same offsets and the same kernel `w_g` (no bias, no modulation) align the reduced `f_ref` and `a_ref`.

    Args:
        a_channels: channels of the unreduced encoder features that the generator compares.
        channels: reduced width h.
    """

    def __init__(self, a_channels: int, channels: int) -> None:
        super().__init__()
        self.generator = OffsetGenerator(2 * a_channels, channels, 2, depth=2)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def offsets(self, a_t_down: Tensor, a_ref_down: Tensor) -> Tensor:
        """Return `dp_g` (B, 2, h, w) in half-resolution pixels, from the halved encoder features (B, C_a, h, w)."""
        offset: Tensor = self.generator(a_t_down, a_ref_down)
        return offset

    def prepare(self, reduced_down: Tensor) -> Tensor:
        """Compute the part of the step that depends on the reference alone; `forward` takes it as `reduced_down`.

        One offset serves all taps and interpolation is linear, so the kernel may be applied first (see `ops.align`).
        In eval mode this method applies it, once per refresh; in training it does nothing.

        Args:
            reduced_down: (B, h, H/2, W/2).

        Returns:
            (B, h, H/2 + 2, W/2 + 2), the convolved map with one pixel more on each side, or `reduced_down` itself.
        """
        return reduced_down if self.training else F.conv2d(reduced_down, self.weight, padding=2)

    def forward(self, reduced_down: Tensor, offset: Tensor, size: tuple[int, int]) -> Tensor:
        """Align halved, reduced reference features.

        Args:
            reduced_down: (B, h, H/2, W/2), or the result of `prepare`.
            offset: `dp_g`, (B, 2, H/2, W/2).
            size: (H, W) of the result.

        Returns:
            (B, h, H, W)
        """
        if reduced_down.shape[-2:] == offset.shape[-2:]:
            return resize(ops.align(reduced_down, offset, self.weight), size)
        return resize(ops.warp(reduced_down, offset, border=1), size)
