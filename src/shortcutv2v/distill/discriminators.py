"""Discriminators of patches: of single pictures, and of pictures in time (sections 3.3 and C.2).

All take pictures in [-1, 1] and return maps of raw scores, higher for what looks real.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from shortcutv2v.blocks.loading import load_exactly
from shortcutv2v.errors import CheckpointError, InputError, check_number

__all__ = ["MultiScale", "PatchDiscriminator", "TemporalDiscriminator", "load_authors"]


class _Conv3d(nn.Conv3d):
    """Pads time by itself: oneDNN's gradient of bfloat16 weights is wrong for padded pairs (seen in torch 2.14)."""

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(F.pad(pictures, (0, 0, 0, 0, 1, 1)))


class PatchDiscriminator(nn.Module):
    """PatchGAN: scores overlapping patches of a picture, 16x16 pixels large with one strided layer.

    4x4 convolutions with padding 1 and LeakyReLU(0.2), no norm layers: `n_layers` of stride 2, one of stride 1, and one
    of stride 1 to the scores. Widths double from layer to layer up to 8 `width`.

    Args:
        in_channels: of the pictures.
        n_layers: strided layers; the authors use 1.
        width: channels after the first layer.
        score_channels: maps of scores; the authors' discriminators have 128, the mean over which is their score.
        spectral_norm: normalise all weights but the last, as the authors do.

    Shape:
        pictures (B, in_channels, H, W) in [-1, 1], at least 3 * 2^n_layers pixels high and wide, to scores
        (B, score_channels, H / 2^n_layers - 2, W / 2^n_layers - 2), rounded down.

    Raises:
        InputError: a number below 1, or too small a picture in a call.

    Examples:
        >>> import torch
        >>> PatchDiscriminator(width=8)(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 1, 14, 22])
    """

    _conv: type[nn.Module] = nn.Conv2d
    _kernel: tuple[int, ...] = (4, 4)
    _stride: tuple[int, ...] = (2, 2)
    _padding: tuple[int, ...] = (1, 1)

    def __init__(
        self,
        in_channels: int = 3,
        n_layers: int = 1,
        width: int = 64,
        *,
        score_channels: int = 1,
        spectral_norm: bool = True,
    ) -> None:
        super().__init__()
        check_number("n_layers, the strided layers of a discriminator,", n_layers, 1, whole=True)
        for name, count in (("in_channels", in_channels), ("width", width), ("score_channels", score_channels)):
            check_number(name, count, 1, whole=True)
        self.n_layers = n_layers
        normed: Callable[..., nn.Module] = parametrizations.spectral_norm if spectral_norm else lambda conv: conv
        layers: list[nn.Module] = []
        before = in_channels
        for number in range(n_layers + 1):
            after = width * min(2**number, 8)
            stride = self._stride if number < n_layers else 1
            # Only the first and the last convolution have a bias, as in the authors' checkpoints.
            layers.append(normed(self._conv(before, after, self._kernel, stride, self._padding, bias=number == 0)))
            layers.append(nn.LeakyReLU(0.2))
            before = after
        self.model = nn.Sequential(*layers, self._conv(before, score_channels, self._kernel, 1, self._padding))

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores of all patches."""
        height, width = pictures.shape[-2:]
        least = 3 * 2**self.n_layers
        if min(height, width) < least:
            raise InputError(
                f"pictures of {height}x{width} are too small for a discriminator with n_layers={self.n_layers}, which "
                f"needs {least}x{least}: train on larger crops, or with fewer layers or scales"
            )
        scores: Tensor = self.model(pictures)
        return scores


class TemporalDiscriminator(PatchDiscriminator):
    """PatchGAN of 3-D convolutions: scores patches of several pictures in a row, (reference, current) in the paper.

    As `PatchDiscriminator` with 3x4x4 convolutions, which keep the number of pictures.

    Shape:
        pictures (B, in_channels, T, H, W) in [-1, 1], any T, to scores (B, score_channels, T, H', W') with H' and W'
        as in `PatchDiscriminator`.

    Examples:
        >>> import torch
        >>> TemporalDiscriminator(width=8)(torch.zeros(1, 3, 2, 32, 48)).shape
        torch.Size([1, 1, 2, 14, 22])
    """

    _conv = _Conv3d
    _kernel = (3, 4, 4)
    _stride = (1, 2, 2)
    _padding = (0, 1, 1)


class MultiScale(nn.Module):
    """Several discriminators of one kind, each seeing pictures of half the size of those before.

    Args:
        make: builds one.
        scales: how many.

    Shape:
        pictures (B, C, H, W) or (B, C, T, H, W) to a list of `scales` score maps, finest first.

    Raises:
        InputError: `scales` is below 1.

    Examples:
        >>> import torch
        >>> [tuple(scores.shape) for scores in MultiScale(PatchDiscriminator, 2)(torch.zeros(1, 3, 32, 32))]
        [(1, 1, 14, 14), (1, 1, 6, 6)]
    """

    def __init__(self, make: Callable[[], nn.Module], scales: int = 1) -> None:
        super().__init__()
        check_number("scales", scales, 1, whole=True)
        self.scales = nn.ModuleList(make() for _ in range(scales))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Scores at every scale."""
        found = []
        for number, discriminator in enumerate(self.scales):
            pictures = _halved(pictures) if number else pictures
            found.append(discriminator(pictures))
        return found


def load_authors(state_dict: Mapping[str, Tensor]) -> PatchDiscriminator | TemporalDiscriminator:
    """A published discriminator; which of the two kinds, and its widths, follow from the shapes of the weights.

    The checkpoint names neither strides nor padding. Those here are PatchGAN's (4x4 kernels, padding 1, stride 2 in all
    but the last two layers), with kernels of 3, stride 1 and padding 1 in time.

    Args:
        state_dict: the content of `latest_net_D_A.pth` or `latest_net_D_T_A.pth`, with or without a `module.` prefix.

    Raises:
        CheckpointError: keys or shapes are not those of a published discriminator.

    Examples:
        >>> load_authors({})
        Traceback (most recent call last):
        shortcutv2v.errors.CheckpointError: not a published discriminator: it has no model.0.weight_orig
    """
    source = "published discriminator"
    state = {key.removeprefix("module."): value for key, value in state_dict.items()}
    normed = [key for key in state if key.endswith("weight_orig")]
    last = f"model.{2 * len(normed)}.weight"
    for key in ("model.0.weight_orig", last):
        if key not in state:
            raise CheckpointError(f"not a {source}: it has no {key}")
    width, in_channels, *kernel = state["model.0.weight_orig"].shape
    kind = TemporalDiscriminator if len(kernel) == 3 else PatchDiscriminator
    discriminator = kind(in_channels, max(1, len(normed) - 1), width, score_channels=len(state[last]))
    names = {key: re.sub(r"weight_\w+$", lambda found: _SPECTRAL.get(found[0], found[0]), key) for key in state}
    load_exactly(discriminator, {names[key]: value for key, value in state.items()}, source)
    return discriminator


_SPECTRAL = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}
"""Names of `torch.nn.utils.spectral_norm`, which wrote the checkpoints, in those of its parametrization."""


def _halved(pictures: Tensor) -> Tensor:
    """Height and width halved by 3x3 means, as pix2pixHD does; time is left alone."""
    # As 2-D pictures, because 3-D pooling lacks half precision on CPU.
    flat = F.avg_pool2d(pictures.flatten(1, -3), 3, 2, 1, count_include_pad=False)
    halved: Tensor = flat.unflatten(1, pictures.shape[1:-2])
    return halved
