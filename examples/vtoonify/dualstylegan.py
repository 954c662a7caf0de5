"""DualStyleGAN's layers under their published names: StyleGAN2 and the extrinsic style path (CVPR 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .stylegan import EqualConv2d, EqualLinear, FusedLeakyReLU, Generator, PixelNorm

__all__ = ["AdaptiveInstanceNorm", "DualStyleGAN", "ModRes"]

_MODRES = 6  # levels up to 32x32 have residual blocks; the rest has linear layers


class AdaptiveInstanceNorm(nn.Module):
    """Instance norm whose scale and shift a linear layer reads off a style code."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels, affine=False)
        self.style = nn.Linear(style, 2 * channels)
        with torch.no_grad():
            self.style.bias[:channels] = 1
            self.style.bias[channels:] = 0

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with the style (B, style)."""
        gamma, beta = self.style(style).unsqueeze(-1).unsqueeze(-1).chunk(2, 1)
        out: Tensor = gamma * self.norm(x) + beta
        return out


class ModRes(nn.Module):
    """DualStyleGAN's modulative residual block: what the extrinsic style adds to a feature map.

    Args:
        channels: channels in and out.
        style: features of the style code.
        dilation: of both convolutions; VToonify dilates the blocks that stood at 8x8 and 16x16.
    """

    def __init__(self, channels: int, style: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(EqualConv2d(channels, dilation), FusedLeakyReLU(channels))
        self.conv2 = nn.Sequential(EqualConv2d(channels, dilation), FusedLeakyReLU(channels))
        self.norm = AdaptiveInstanceNorm(channels, style)
        self.norm2 = AdaptiveInstanceNorm(channels, style)
        with torch.no_grad():  # starts as a small residual
            for layer in (self.conv, self.conv2):
                next(layer.parameters()).mul_(0.01)

    def forward(self, x: Tensor, style: Tensor, degree: Tensor) -> Tensor:
        """`x` (B, C, H, W) plus `degree` (B or 1, 1) times the residual that `style` (B, style) asks for."""
        residual: Tensor = self.conv2(self.norm2(self.conv(self.norm(x, style)), style))
        return residual * degree.unsqueeze(-1).unsqueeze(-1) + x


class DualStyleGAN(nn.Module):
    """The layers of DualStyleGAN under their published names: StyleGAN2 and the extrinsic style path."""

    def __init__(self, size: int, style: int, mlps: int, channels: dict[int, int]) -> None:
        super().__init__()
        layers = [EqualLinear(style, style, rate=0.01, activate=True) for _ in range(mlps - 6)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.generator = Generator(size, style, mlps, channels)
        blocks: list[nn.Module] = [ModRes(channels[4], style)]
        for index in range(_MODRES):
            blocks.append(ModRes(channels[2 ** (3 + index // 2)], style))
        while len(blocks) < self.generator.n_latent:
            blocks.append(_near_identity(style))
        self.res = nn.ModuleList(blocks)
        self.n_latent = self.generator.n_latent


def _near_identity(style: int) -> EqualLinear:
    layer = EqualLinear(style, style)
    layer.weight = nn.Parameter(torch.eye(style) * math.sqrt(style) + 0.01 * torch.randn(style, style))
    return layer
