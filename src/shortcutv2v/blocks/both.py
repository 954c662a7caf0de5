"""One prediction from two references, before and after a frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.blocks.base import Prediction

__all__ = ["from_both"]

_CELL, _STRIDE, _LEAST = 8, 2, 1e-12
"""Pixels of a cell; every so many-th pixel is looked at; added to a cell's correction, so that none weighs 0 / 0."""


def from_both(first: Prediction, second: Prediction) -> Prediction:
    """Mix two predictions of one frame, each weighted by the inverse of what its reference left unexplained there.

    The weights change smoothly: they come from the mean square of `f_hat - f_star` in cells of 8x8 pixels and their
    neighbours, which tells where a prediction is wrong, see `Prediction.unexplained`.

    Args:
        first: predicted from one reference.
        second: predicted from the other.

    Returns:
        `first` with `f_hat` of both.

    Examples:
        >>> f = torch.rand(1, 2, 9, 9)
        >>> right, wrong = (Prediction(f + change, f, f, f, None) for change in (0.0, 1.0))
        >>> torch.allclose(from_both(right, wrong).f_hat, f)
        True
    """
    left, right = _wrong(first), _wrong(second)
    size = (first.f_hat.shape[-2], first.f_hat.shape[-1])
    share = F.interpolate(left / (left + right), size=size, mode="bilinear", align_corners=False)
    return first._replace(f_hat=torch.lerp(first.f_hat, second.f_hat, share.to(first.f_hat.dtype)))


def _wrong(prediction: Prediction) -> Tensor:
    """The correction's mean square around every cell, (B, 1, H / 8, W / 8)."""
    some = (prediction.f_hat - prediction.f_star)[..., ::_STRIDE, ::_STRIDE].float()
    square = some.square().mean(1, keepdim=True)
    cells = F.avg_pool2d(square, _CELL // _STRIDE, ceil_mode=True)
    return F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False) + _LEAST
