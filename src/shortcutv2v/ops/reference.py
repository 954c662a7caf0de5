"""The definition: every operator as `torchvision.ops.deform_conv2d` computes it.

torchvision supports float32 and float64 on every device. Other dtypes are computed in float32 and rounded once at the
end. On CUDA it supports float16, too, but computes positions in it: an error of a quarter of a pixel beyond column 256.

This module imports torchvision, and with it `torch._dynamo` and sympy, which takes a second. So nothing imports it
before its first use.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from shortcutv2v.ops import flops

__all__ = ["blend", "warp"]

flops.register()


def blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """AdaBD (`a` and `mask` given) or deformable convolution (both None), "same" padding; see `functions`."""
    dtype = _computed_in(f)
    pad = int(weight.shape[-1]) // 2
    at, w = _readable(offset, dtype), weight.to(dtype)
    if a is None or mask is None:
        out: Tensor = deform_conv2d(f.to(dtype), at, w, padding=pad)
    else:
        m = mask.to(dtype)
        moved: Tensor = deform_conv2d(f.to(dtype), at, w, padding=pad, mask=1 - m)
        out = moved + deform_conv2d(a.to(dtype), torch.zeros_like(at), w, padding=pad, mask=m)
    return _spoiled(out, offset).to(f.dtype)


def warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """`f` sampled at every position plus its offset: a depthwise 1x1 deformable convolution with weight one."""
    dtype = _computed_in(f)
    _, c, h, w = f.shape
    # Channels become groups of one: the product with the weight one is exact, so a zero offset changes no bit.
    one = torch.ones(c, 1, 1, 1, dtype=dtype, device=f.device)
    at = _readable(offset, dtype)
    if border:
        at = torch.nn.functional.pad(at, (border, border, border, border))
    out: Tensor = deform_conv2d(f.to(dtype), at, one)[:, :, border : h - border, border : w - border]
    return _spoiled(out, offset).to(f.dtype)


def _readable(offset: Tensor, dtype: torch.dtype) -> Tensor:
    """Offsets without NaN, which make torchvision's CPU kernel read outside its input and crash."""
    return offset.to(dtype).nan_to_num(nan=0.0)


def _spoiled(out: Tensor, offset: Tensor) -> Tensor:
    """NaN at every position with an offset that is not finite, as plain arithmetic gives it."""
    return out.masked_fill(~offset.isfinite().all(1, keepdim=True), float("nan"))


def _computed_in(f: Tensor) -> torch.dtype:
    return torch.float64 if f.dtype == torch.float64 else torch.float32
