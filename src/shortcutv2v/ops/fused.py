"""For GPUs: the warp as one Triton kernel; deformable convolutions by torchvision, or in plain torch.

torchvision has no kernel for a warp of many channels by one offset. As a depthwise deformable convolution it launches
one matrix product per channel, which takes longer than a whole teacher. `benchmarks/results/gpu/` has the figures. The
kernel computes no gradients: where they are needed, and for float64, the warp runs in plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shortcutv2v.ops import plain
from shortcutv2v.ops.tables import format_of

try:
    import triton
    import triton.language as tl
except ImportError:  # Windows, macOS
    triton = None

__all__ = ["blend", "warp"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """AdaBD (`a` and `mask` given) or deformable convolution (both None), "same" padding; see `functions`."""
    if _torchvision_is_unsafe(f.device):
        return plain.blend(f, a, offset, mask, weight)
    from shortcutv2v.ops import reference  # imports torchvision, which takes a second

    return reference.blend(f, a, offset, mask, weight)


def warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """`f` sampled at every position plus its offset; see `functions.warp`."""
    learns = torch.is_grad_enabled() and (f.requires_grad or offset.requires_grad)
    if triton is None or learns or f.dtype not in _DTYPES:
        return plain.warp(f, offset, border)
    out: Tensor = _warp(f, offset, border)
    return out


def _torchvision_is_unsafe(device: torch.device) -> bool:
    """True if torchvision's CUDA kernels could race with other work, or would break a request for determinism.

    They always run on CUDA's default stream. Other streams do not wait for it, and a CUDA graph cannot record it;
    compiled code may become part of such a graph. Their gradients are summed in no fixed order.
    """
    if torch.compiler.is_compiling() or torch.are_deterministic_algorithms_enabled():
        return True
    return bool(torch.cuda.current_stream(device) != torch.cuda.default_stream(device))


@torch.library.custom_op("shortcutv2v::fused_warp", mutates_args=(), device_types="cuda")
def _warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    with torch.cuda.device_of(f):
        return launch(f, offset, border)


@_warp.register_fake
def _(f: Tensor, offset: Tensor, border: int) -> Tensor:
    return f.new_empty(*f.shape[:2], *offset.shape[2:]).contiguous(memory_format=format_of(f))


def launch(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """Run the kernel; see `warp`. The output has the memory format of `f`."""
    (b, c, height, width), (h, w), layout = f.shape, offset.shape[2:], format_of(f)
    out = torch.empty(b, c, h, w, dtype=f.dtype, device=f.device, memory_format=layout)
    # Neighbouring threads read neighbouring memory: channels of a position, or positions of a channel. Measured.
    positions, channels = (16, min(64, triton.next_power_of_2(c))) if f.stride(1) == 1 else (128, 8)
    if out.numel():
        sizes = (height, width, h, w, c, border)
        grid = (triton.cdiv(h * w, positions), b)
        _kernel[grid](f, offset.contiguous(), out, *f.stride(), *out.stride(), *sizes, positions, channels)
    return out


def _kernel_source(  # type: ignore[no-untyped-def]
    f,
    offset,
    out,
    f_b,
    f_c,
    f_h,
    f_w,
    out_b,
    out_c,
    out_h,
    out_w,
    height,
    width,
    h,
    w,
    channels,
    border,
    POSITIONS: tl.constexpr,  # noqa: N803  (Triton's convention for constants)
    CHANNELS: tl.constexpr,  # noqa: N803
):
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    batch = tl.program_id(1).to(tl.int64)
    inside = position < h * w
    row, column = position // w, position % w
    at = offset + batch * 2 * h * w + position
    y = tl.load(at, inside, 0.0).to(tl.float32) + (row + border)
    x = tl.load(at + h * w, inside, 0.0).to(tl.float32) + (column + border)
    broken = (y - y != 0) | (x - x != 0)  # infinite, or not a number
    y, x = tl.where(broken, 0.0, y), tl.where(broken, 0.0, x)
    top, left = tl.floor(y), tl.floor(x)
    down, right = y - top, x - left
    # Far outside every weight is zero: clamp before the conversion, which would overflow.
    r = tl.minimum(tl.maximum(top, -2.0), height + 0.0).to(tl.int32)
    q = tl.minimum(tl.maximum(left, -2.0), width + 0.0).to(tl.int32)
    upper, lower = inside & (r >= 0) & (r < height), inside & (r >= -1) & (r + 1 < height)
    first, second = (q >= 0) & (q < width), (q >= -1) & (q + 1 < width)
    corner = f + batch * f_b + r.to(tl.int64) * f_h + q.to(tl.int64) * f_w
    target = out + batch * out_b + row.to(tl.int64) * out_h + column.to(tl.int64) * out_w
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        some, step = (channel < channels)[None, :], channel.to(tl.int64)[None, :]
        source = corner[:, None] + step * f_c
        total = (
            tl.load(source, (upper & first)[:, None] & some, 0.0).to(tl.float32) * ((1 - down) * (1 - right))[:, None]
        )
        total += (
            tl.load(source + f_w, (upper & second)[:, None] & some, 0.0).to(tl.float32) * ((1 - down) * right)[:, None]
        )
        total += (
            tl.load(source + f_h, (lower & first)[:, None] & some, 0.0).to(tl.float32) * (down * (1 - right))[:, None]
        )
        total += (
            tl.load(source + f_h + f_w, (lower & second)[:, None] & some, 0.0).to(tl.float32) * (down * right)[:, None]
        )
        total = tl.where(broken[:, None], float("nan"), total)
        tl.store(target[:, None] + step * out_c, total.to(out.dtype.element_ty), inside[:, None] & some)


_kernel: Any = None if triton is None else triton.jit(_kernel_source)
