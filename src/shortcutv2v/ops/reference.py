"""The definition: every operator as `torchvision.ops.deform_conv2d` computes it.

torchvision knows float32 and float64 on every device and float16 on CUDA; other dtypes are computed in float32 and
rounded once at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

__all__ = ["blend", "warp"]


def blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """AdaBD (`a` and `mask` given) or deformable convolution (both None), "same" padding; see `functions`."""
    dtype = _computed_in(f)
    pad = weight.shape[-1] // 2
    at, w = _readable(offset, dtype), weight.to(dtype)
    if a is None or mask is None:
        out: Tensor = deform_conv2d(f.to(dtype), at, w, padding=pad)
        return out.to(f.dtype)
    m = mask.to(dtype)
    moved: Tensor = deform_conv2d(f.to(dtype), at, w, padding=pad, mask=1 - m)
    still: Tensor = deform_conv2d(a.to(dtype), torch.zeros_like(at), w, padding=pad, mask=m)
    return (moved + still).to(f.dtype)


def warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """`f` sampled at every position plus its offset: a depthwise 1x1 deformable convolution with weight one."""
    dtype = _computed_in(f)
    _, c, h, w = f.shape
    # Channels become groups of one: the product with the weight one is exact, so a zero offset changes no bit.
    one = torch.ones(c, 1, 1, 1, dtype=dtype, device=f.device)
    at = _readable(offset, dtype)
    if border:
        at = torch.nn.functional.pad(at, (border, border, border, border))
    out: Tensor = deform_conv2d(f.to(dtype), at, one)
    return out.to(f.dtype)[:, :, border : h - border, border : w - border]


def _readable(offset: Tensor, dtype: torch.dtype) -> Tensor:
    """Offsets without NaN, which make torchvision's CPU kernel read outside its input and crash; they sample zero."""
    return offset.to(dtype).nan_to_num(nan=torch.finfo(dtype).max)


def _computed_in(f: Tensor) -> torch.dtype:
    half_on_cuda = f.dtype == torch.float16 and f.is_cuda
    return f.dtype if half_on_cuda or f.dtype in (torch.float32, torch.float64) else torch.float32
