"""Samples by `grid_sample`, for programs that are exported: every engine has this operator, and has it fast.

`plain` gathers each corner of each channel on its own, which engines do one number at a time. Here the coordinates
are normalised to [-1, 1] on the way, so that a sample at a whole pixel is exact to about 1e-5 pixels only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["blend", "warp"]


def blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """AdaBD (`a` and `mask` given) or deformable convolution (both None), "same" padding; see `functions`."""
    b, c, h, w = f.shape
    k = weight.shape[-1]
    taps = [(row - k // 2, column - k // 2) for row in range(k) for column in range(k)]
    moved = [offset[:, 2 * i : 2 * i + 2] + offset.new_tensor(tap).view(1, 2, 1, 1) for i, tap in enumerate(taps)]
    columns = _sample(f, torch.cat([_grid(f, at, 0) for at in moved], 1)).view(b, c, k * k, h, w)
    if a is not None and mask is not None:
        padded, share = F.pad(a, (k // 2,) * 4), mask.to(f.dtype).unsqueeze(1)
        still = [padded[..., row : row + h, column : column + w] for row in range(k) for column in range(k)]
        columns = columns + (torch.stack(still, 2) - columns) * share
    return F.conv2d(columns.reshape(b, c * k * k, h, w), weight.flatten(1)[:, :, None, None])


def warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """`f` sampled at every position plus its offset; see `functions.warp`."""
    return _sample(f, _grid(f, offset, border))


def _grid(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """(B, H, W, 2), (x, y) in [-1, 1], of every position plus its offset (B, 2, H, W)."""
    axes = []
    for axis, size in ((1, f.shape[3]), (0, f.shape[2])):
        length = offset.shape[2 + axis]
        here = torch.arange(length, dtype=offset.dtype, device=f.device).view((-1, 1) if axis == 0 else (1, -1))
        axes.append((offset[:, axis] * 2 + (here * 2 + (2 * border + 1))) / size - 1)  # no number made of a size
    return torch.stack(axes, -1)


def _sample(f: Tensor, grid: Tensor) -> Tensor:
    at_least = torch.promote_types(f.dtype, torch.float32)
    out = F.grid_sample(f.to(at_least), grid.to(at_least), mode="bilinear", padding_mode="zeros", align_corners=False)
    return out.to(f.dtype)
