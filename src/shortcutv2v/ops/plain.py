"""Plain differentiable torch: slower than `rows`, but it runs on every device and under every transform of autograd.

Each sample gathers four corners; one matrix product follows. Gradients of gradients, `torch.func` and export to formats
without custom operators work. The columns take K times the memory of a feature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["blend", "warp"]

_EDGE = 2  # width of the zero border; positions far outside are clamped to it


def blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """AdaBD (`a` and `mask` given) or deformable convolution (both None), "same" padding; see `functions`."""
    b, _, h, w = f.shape
    k = weight.shape[-1]
    tap = torch.arange(k * k, device=f.device)
    shift = torch.stack([tap // k - k // 2, tap % k - k // 2], 1).view(1, k * k, 2, 1, 1)
    columns = _sample(f, offset.reshape(b, k * k, 2, h, w), shift, 0)
    if a is not None and mask is not None:
        share = mask.to(f.dtype).flatten(2).unsqueeze(1)
        still = F.unfold(a, k, padding=k // 2).view(b, f.shape[1], k * k, h * w)
        columns = columns * (1 - share) + still * share
    out = weight.flatten(1) @ columns.flatten(1, 2)
    return out.view(b, weight.shape[0], h, w)


def warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """`f` sampled at every position plus its offset; see `functions.warp`."""
    none = torch.zeros(1, 1, 2, 1, 1, dtype=torch.long, device=f.device)
    b, _, h, w = offset.shape
    return _sample(f, offset.unsqueeze(1), none, border).view(b, f.shape[1], h, w)


def _sample(f: Tensor, offset: Tensor, shift: Tensor, border: int) -> Tensor:
    """Sample `f` (B, C, .., ..) at position + shift + offset, with offset (B, K, 2, H, W), to (B, C, K, H * W)."""
    b, c, height, width = f.shape
    taps, h, w = offset.shape[1], *offset.shape[3:]
    at = offset.to(torch.promote_types(f.dtype, torch.float32))
    y = at[:, :, 0] + (shift[:, :, 0] + torch.arange(h, device=f.device).view(-1, 1) + border)
    x = at[:, :, 1] + (shift[:, :, 1] + torch.arange(w, device=f.device) + border)
    top, left = y.floor(), x.floor()
    down, right = (y - top).to(f.dtype), (x - left).to(f.dtype)
    padded = F.pad(f, (_EDGE,) * 4).flatten(2)
    row = top.long().clamp(-_EDGE, height) + _EDGE
    corner = row * (width + 2 * _EDGE) + left.long().clamp(-_EDGE, width) + _EDGE
    total = torch.zeros(b, c, taps * h * w, dtype=f.dtype, device=f.device)
    for step, share in (
        (0, (1 - down) * (1 - right)),
        (1, (1 - down) * right),
        (width + 2 * _EDGE, down * (1 - right)),
        (width + 2 * _EDGE + 1, down * right),
    ):
        index = (corner + step).reshape(b, 1, taps * h * w).expand(-1, c, -1)
        total = total + padded.gather(2, index) * share.reshape(b, 1, taps * h * w)
    return total.view(b, c, taps, h * w)
