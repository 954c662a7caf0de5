"""The demosaicking networks of Gharbi et al., with their weights as shipped in the wheel `demosaicnet` (MIT).

"Deep Joint Demosaicking and Denoising" (2016): a colour filter array lets one of three colours through at every pixel,
and the network fills in the other two. Layer names are those of the wheel's `bayer.pth` and `xtrans.pth`. Only these
data files are read; the wheel's code is never imported.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from shortcutv2v.errors import InputError
from shortcutv2v.wheels import wheel_file

from .._checkpoints import load_into, read_state

__all__ = ["MOSAICS", "BayerNet", "XTransNet", "build_teacher", "load_pretrained"]

_ADVICE = "pip install --no-deps demosaicnet==0.0.14"


def _chain(channels: list[int]) -> OrderedDict[str, nn.Module]:
    """Return 3x3 convolutions `conv1`, `conv2`, ..., each with a ReLU after it; the size stays."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(itertools.pairwise(channels), 1):
        layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
    return layers


def _finish(channels: int, width: int) -> nn.Sequential:
    """Return the last layers, at full resolution: from mosaic and features to the picture."""
    return nn.Sequential(
        OrderedDict(
            post_conv=nn.Conv2d(channels, width, 3, padding=1), post_relu=nn.ReLU(), output=nn.Conv2d(width, 3, 1)
        )
    )


class BayerNet(nn.Module):
    """Network for Bayer mosaics: cells of 2x2 pixels become one position, `depth` convolutions follow.

    The last convolution makes features and their gates; the products give the full-resolution residual.

    Args:
        depth: number of 3x3 convolutions at half the resolution.
        width: their channels.

    Shape:
        mosaic (B, 3, H, W) in [0, 1], zero where the filter stops a colour; H and W even -> picture (B, 3, H, W).
    """

    def __init__(self, depth: int = 15, width: int = 64) -> None:
        super().__init__()
        self.width = width
        chain = _chain([4, *[width] * (depth - 1), 2 * width])
        self.main_processor = nn.Sequential(
            OrderedDict([("pack_mosaic", nn.Conv2d(3, 4, 2, stride=2)), *chain.items()])
        )
        self.residual_predictor = nn.Conv2d(width, 12, 1)
        self.upsampler = nn.ConvTranspose2d(12, 3, 2, stride=2, groups=3)
        self.fullres_processor = _finish(6, width)

    def forward(self, mosaic: Tensor) -> Tensor:
        """Return the picture of a mosaic."""
        features, gates = self.main_processor(mosaic).split(self.width, 1)
        coarse = self.upsampler(self.residual_predictor(features * gates))
        picture: Tensor = self.fullres_processor(torch.cat((mosaic, coarse), 1))
        return picture


class XTransNet(nn.Module):
    """Network for X-Trans mosaics: `depth` convolutions at full resolution.

    Args:
        depth: number of 3x3 convolutions before the last layers.
        width: their channels.

    Shape:
        mosaic (B, 3, H, W) in [0, 1], zero where the filter stops a colour -> picture (B, 3, H, W).
    """

    def __init__(self, depth: int = 11, width: int = 64) -> None:
        super().__init__()
        self.main_processor = nn.Sequential(_chain([3, *[width] * depth]))
        self.fullres_processor = _finish(3 + width, width)

    def forward(self, mosaic: Tensor) -> Tensor:
        """Return the picture of a mosaic."""
        picture: Tensor = self.fullres_processor(torch.cat((mosaic, self.main_processor(mosaic)), 1))
        return picture


MOSAICS: dict[str, Callable[..., nn.Module]] = {"bayer": BayerNet, "xtrans": XTransNet}
"""Colour filter arrays, and the network of each."""


def build_teacher(mosaic: str = "bayer", **sizes: int) -> nn.Module:
    """Return the network for a colour filter array, with fresh weights.

    Args:
        mosaic: a key of `MOSAICS`.
        sizes: `depth` and `width`; default: those of the published weights.

    Raises:
        InputError: there is no such array.

    Examples:
        >>> build_teacher("bayer", depth=3, width=4)(torch.rand(1, 3, 6, 8)).shape
        torch.Size([1, 3, 6, 8])
    """
    if mosaic not in MOSAICS:
        raise InputError(f"mosaic={mosaic!r}: expected one of {', '.join(MOSAICS)}")
    return MOSAICS[mosaic](**sizes)


def load_pretrained(mosaic: str = "bayer", checkpoint: str | None = None) -> nn.Module:
    """Return the network with the published weights, in eval mode.

    Args:
        mosaic: a key of `MOSAICS`.
        checkpoint: a file with other weights of this network, instead of the wheel's.

    Raises:
        InputError: there is no such array, or the wheel is not installed.
        CheckpointError: the weights do not fit.
    """
    teacher = build_teacher(mosaic)
    path = checkpoint or wheel_file("demosaicnet", f"{mosaic}.pth", _ADVICE)
    return load_into(teacher, read_state(path)).eval()
