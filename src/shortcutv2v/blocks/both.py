"""Weights of two references, before and after a frame, by what each leaves unexplained."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["share_of_second"]

_STRIDE, _LEAST = 2, 1e-12
"""Every so many-th pixel is looked at; added to what is unexplained in a cell, so that none weighs 0 / 0."""


def share_of_second(first: Tensor, second: Tensor, cell: int) -> Tensor:
    """Return how much the second of two references counts at every cell, in [0, 1].

    Each counts by the inverse of what it leaves unexplained, as a mean square over the cell and its neighbours, so that
    shares change smoothly. That tells where a prediction is wrong, see `Prediction.unexplained`.

    Args:
        first: what the first leaves unexplained, (B, C, H, W).
        second: what the second leaves, (B, C, H, W).
        cell: pixels of a cell, an even number.

    Returns:
        (B, 1, H / cell, W / cell), rounded up; `resize()` enlarges it.

    Examples:
        >>> import torch
        >>> right, wrong = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
        >>> share_of_second(right, wrong, cell=8).item() < 1e-6, share_of_second(wrong, wrong, cell=8).item()
        (True, 0.5)
    """
    left, right = (_smooth(x[..., ::_STRIDE, ::_STRIDE], cell // _STRIDE) for x in (first, second))
    return (left / (left + right)).to(first.dtype)


def _smooth(left: Tensor, cell: int) -> Tensor:
    cells = F.avg_pool2d(left.float().square().mean(1, keepdim=True), cell, ceil_mode=True)
    return F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False) + _LEAST
