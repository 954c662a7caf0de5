"""The parts of StyleGAN2 that VToonify is made of, in plain torch.

Layers keep their weights unscaled, as the published files hold them, and scale them when they run ("equalised"
learning rate, StyleGAN2, arXiv 1912.04958). Activations are leaky ReLUs of slope 0.2 times the square root of 2.
Up- and downsampling filters are depthwise convolutions with the 4x4 kernel kept as a buffer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Blur",
    "EqualConv2d",
    "EqualLinear",
    "FusedLeakyReLU",
    "Generator",
    "ModulatedConv2d",
    "PixelNorm",
    "StyledConv",
    "ToRGB",
    "Upsample",
    "stylegan_channels",
]


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class FusedLeakyReLU(nn.Module):
    """Bias, leaky ReLU, and a factor that keeps the variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Activate (B, C, H, W)."""
        return _activate(x + self.bias.view(-1, 1, 1))


class PixelNorm(nn.Module):
    """Scale every row of (N, C) to a mean square of 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise along dimension 1."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate.

    Args:
        inputs: features in.
        outputs: features out.
        bias: first value of the bias.
        rate: factor on weight and bias (the style network learns at a hundredth of the rate).
        activate: whether the activation follows.
    """

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0, activate: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale, self.rate, self.activate = rate / math.sqrt(inputs), rate, activate

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs) to (N, outputs)."""
        if self.activate:
            return _activate(F.linear(x, self.weight * self.scale) + self.bias * self.rate)
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv2d(nn.Module):
    """3x3 convolution with equalised learning rate, no bias, "same" padding for its dilation."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.scale, self.dilation = 1 / math.sqrt(9 * channels), dilation

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.conv2d(x, self.weight * self.scale, padding=self.dilation, dilation=self.dilation)


def _kernel(gain: float) -> Tensor:
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(line, line) * (gain / 64.0)


class Blur(nn.Module):
    """The 4x4 filter behind a transposed convolution of stride 2: (B, C, 2H+1, 2W+1) to (B, C, 2H, 2W)."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("kernel", _kernel(4.0))

    def forward(self, x: Tensor) -> Tensor:
        """Filter every channel."""
        kernel = self.kernel.flip(0, 1).expand(self.channels, 1, 4, 4)
        return F.conv2d(x, kernel, padding=1, groups=self.channels)


class Upsample(nn.Module):
    """Double the size of an RGB picture with the 4x4 filter: (B, 3, H, W) to (B, 3, 2H, 2W)."""

    kernel: Tensor

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("kernel", _kernel(4.0))

    def forward(self, x: Tensor) -> Tensor:
        """Filter every channel; the same as putting zeros between the pixels and filtering."""
        kernel = self.kernel.expand(self.channels, 1, 4, 4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=self.channels)


class ModulatedConv2d(nn.Module):
    """Convolution whose weights are scaled by the style, one set of weights per sample (StyleGAN2, section 2.2).

    Args:
        inputs: channels in.
        outputs: channels out.
        size: kernel size, odd.
        style: features of the style code.
        demodulate: whether each output channel's weights are scaled to length 1 afterwards.
        upsample: whether the size doubles (transposed convolution and blur).
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, style: int, demodulate: bool = True, upsample: bool = False
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.size = inputs, outputs, size
        self.demodulate, self.upsample = demodulate, upsample
        self.scale = 1 / math.sqrt(inputs * size**2)
        if upsample:
            self.blur = Blur(outputs)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size))
        self.modulation = EqualLinear(style, inputs, bias=1.0)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Convolve (B, inputs, H, W) by the weights that `style` (B, style) chooses."""
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        chosen = self.modulation(style).view(batch, 1, self.inputs, 1, 1)
        weight = self.scale * self.weight * chosen
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        # One group per sample: the batch moves into the channels for the convolution.
        x = x.reshape(1, batch * self.inputs, height, width)
        if self.upsample:
            weight = weight.transpose(1, 2).reshape(batch * self.inputs, self.outputs, self.size, self.size)
            out = F.conv_transpose2d(x, weight, stride=2, groups=batch)
            wide: Tensor = self.blur(out.view(batch, self.outputs, 2 * height + 1, 2 * width + 1))
            return wide
        weight = weight.reshape(batch * self.outputs, self.inputs, self.size, self.size)
        out = F.conv2d(x, weight, padding=self.size // 2, groups=batch)
        return out.view(batch, self.outputs, height, width)


class _NoNoise(nn.Module):
    """Holds the noise strength of the files. VToonify multiplies the noise by 0, so there is nothing to run."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class StyledConv(nn.Module):
    """Modulated 3x3 convolution and activation; with `upsample` the size doubles."""

    def __init__(self, inputs: int, outputs: int, style: int, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style, upsample=upsample)
        self.noise = _NoNoise()
        self.activate = FusedLeakyReLU(outputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map (B, inputs, H, W) and (B, style) to (B, outputs, H or 2H, W or 2W)."""
        out: Tensor = self.activate(self.conv(x, style))
        return out


class ToRGB(nn.Module):
    """What a level adds to the picture: a modulated 1x1 convolution plus the enlarged picture so far."""

    def __init__(self, inputs: int, style: int, upsample: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if upsample:
            self.upsample = Upsample()
        self.conv = ModulatedConv2d(inputs, 3, 1, style, demodulate=False)

    def forward(self, x: Tensor, style: Tensor, skip: Tensor) -> Tensor:
        """Add to `skip` (B, 3, H/2, W/2); x (B, inputs, H, W), style (B, style) -> (B, 3, H, W)."""
        enlarged: Tensor = self.upsample(skip)
        added: Tensor = self.conv(x, style)
        return added + self.bias + enlarged


def stylegan_channels(multiplier: int = 2) -> dict[int, int]:
    """Channels of StyleGAN2 per picture size.

    >>> stylegan_channels()[256]
    128
    """
    small = dict.fromkeys((4, 8, 16, 32), 512)
    return small | {size: 16384 * multiplier // size for size in (64, 128, 256, 512, 1024)}


class Generator(nn.Module):
    """The layers of a StyleGAN2 generator under their published names. VToonify runs those from 64x64 on.

    Args:
        size: of the picture it was trained for, a power of 2.
        style: features of the style code.
        mlps: layers of the style network.
        channels: channels per picture size, for 4, 8, ..., `size`.
    """

    def __init__(self, size: int, style: int, mlps: int, channels: dict[int, int]) -> None:
        super().__init__()
        levels = int(math.log2(size))
        self.n_latent = 2 * levels - 2
        layers = [EqualLinear(style, style, rate=0.01, activate=True) for _ in range(mlps)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = nn.Module()
        self.input.register_parameter("input", nn.Parameter(torch.randn(1, channels[4], 4, 4)))
        self.conv1 = StyledConv(channels[4], channels[4], style)
        self.to_rgb1 = ToRGB(channels[4], style, upsample=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for level in range(3, levels + 1):
            narrow = channels[2**level]
            self.convs.append(StyledConv(channels[2 ** (level - 1)], narrow, style, upsample=True))
            self.convs.append(StyledConv(narrow, narrow, style))
            self.to_rgbs.append(ToRGB(narrow, style))
        for index in range(2 * levels - 3):
            side = 2 ** ((index + 5) // 2)
            self.noises.register_buffer(f"noise_{index}", torch.randn(1, 1, side, side))
