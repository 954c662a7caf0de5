"""The layers that vid2vid's networks are made of, and the norms that can look at one frame at a time.

The authors never put their networks in eval mode: a frame is normalised with its own statistics.
`frame_statistics(net)` gives this whatever mode the network is in, frame by frame even in a batch, and without
touching the running averages. Without it the norms follow `train()` and `eval()` as usual.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "NORMS",
    "BatchNorm",
    "InstanceNorm",
    "Norm",
    "ResnetBlock",
    "blocks",
    "downs",
    "final",
    "frame_statistics",
    "stem",
    "ups",
    "widths_of",
]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that can use each frame's own statistics, in any mode and without side effects.

    `num_batches_tracked` is kept for the files' sake and never counted up.
    """

    per_frame = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class's name)
        """Normalise (B, C, H, W): per frame, or as `nn.BatchNorm2d` does in the current mode."""
        if self.per_frame:
            return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)
        momentum = 0.0 if self.momentum is None else self.momentum
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum, self.eps
        )


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm without weights but with running averages (`norm: instance` of vid2vid)."""

    per_frame = False

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False, track_running_stats=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class's name)
        """Normalise (B, C, H, W): per frame, or as `nn.InstanceNorm2d` does in the current mode."""
        if self.per_frame:
            return F.instance_norm(input, eps=self.eps)
        return F.instance_norm(input, self.running_mean, self.running_var, use_input_stats=self.training, eps=self.eps)


Network = TypeVar("Network", bound=nn.Module)
Norm = Callable[[int], nn.Module]
NORMS: dict[str, Norm] = {"batch": BatchNorm, "instance": InstanceNorm}


def frame_statistics(net: Network, on: bool = True) -> Network:
    """Make every norm of `net` use the frame's own statistics (`on`), or follow train and eval mode again."""
    for module in net.modules():
        if isinstance(module, (BatchNorm, InstanceNorm)):
            module.per_frame = on
    return net


class ResnetBlock(nn.Module):
    """`x + conv_block(x)`: two 3x3 convolutions with reflection padding and a norm each."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = x + self.conv_block(x)
        return out


def stem(channels: int, ngf: int, norm: Norm) -> list[nn.Module]:
    """Reflection padding, 7x7 convolution, norm, ReLU: layers 0 to 3 of every encoder."""
    return [nn.ReflectionPad2d(3), nn.Conv2d(channels, ngf, 7), norm(ngf), nn.ReLU()]


def downs(widths: Sequence[int], norm: Norm) -> list[nn.Module]:
    """Convolutions of stride 2, norm, ReLU, from each width to the next."""
    layers: list[nn.Module] = []
    for narrow, wide in itertools.pairwise(widths):
        layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), norm(wide), nn.ReLU()]
    return layers


def ups(widths: Sequence[int], norm: Norm, extra: int = 0) -> list[nn.Module]:
    """Transposed convolutions, norm, ReLU, from the last width back to the first; `extra` more channels come in."""
    layers: list[nn.Module] = []
    for narrow, wide in zip(widths[-2::-1], widths[:0:-1], strict=True):
        up = nn.ConvTranspose2d(wide + extra, narrow, 3, stride=2, padding=1, output_padding=1)
        layers += [up, norm(narrow), nn.ReLU()]
        extra = 0  # only the first upsampling sees the features
    return layers


def blocks(count: int, channels: int, norm: Norm) -> list[nn.Module]:
    """A row of residual blocks."""
    return [ResnetBlock(channels, norm) for _ in range(count)]


def final(ngf: int, channels: int, *activation: nn.Module) -> list[nn.Module]:
    """Reflection padding, 7x7 convolution to `channels`, and what follows."""
    return [nn.ReflectionPad2d(3), nn.Conv2d(ngf, channels, 7), *activation]


def widths_of(ngf: int, n_downsampling: int, widest: int | None = None) -> list[int]:
    """Channels after each halving, at most `widest`."""
    widths = [ngf * 2**i for i in range(n_downsampling + 1)]
    return widths if widest is None else [min(width, widest) for width in widths]
