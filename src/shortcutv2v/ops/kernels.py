"""CUDA implementation: two Triton kernels, sampled and blended columns and their gradient; the product is `matmul`'s.

The forward kernel reads the four corners of each tap once, blends them with the current feature and writes one column;
torchvision's does so twice and takes two matrix products. The backward kernel recomputes the corners and adds the
features' gradients atomically, as torchvision's does, so their last bits vary from run to run.

CHECKED BY TRITON'S INTERPRETER ONLY, forward and gradient, against the reference: no GPU was at hand when it was
written. It is therefore not the default anywhere; ask for it with `implementation="triton"` or `ops.use("triton")`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    _jit: Any = triton.jit
except ImportError:  # torch's CPU wheels come without Triton: `selection` passes this module by
    _jit = staticmethod

__all__ = ["blend", "warp"]

_BLOCK_P = 32  # positions per program
_BLOCK_C = 64  # channels per step, at most


@_jit  # type: ignore[untyped-decorator]
def _corners(offset_ptr, p, live, tap, P, W, KERNEL: tl.constexpr, border):  # type: ignore[no-untyped-def] # noqa: N803
    """Upper left corner and fractions of one tap at positions p; offset_ptr is at its (dy, dx) planes."""
    dy = tl.load(offset_ptr + p, mask=live, other=0.0)
    dx = tl.load(offset_ptr + P + p, mask=live, other=0.0)
    y = dy + (p // W + tap // KERNEL - KERNEL // 2 + border).to(dy.dtype)
    x = dx + (p % W + tap % KERNEL - KERNEL // 2 + border).to(dx.dtype)
    top = tl.floor(y)
    left = tl.floor(x)
    return top, left, y - top, x - left


@_jit  # type: ignore[untyped-decorator]
def _place(P, KERNEL: tl.constexpr, BLOCK_P: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Tap, picture and positions of this program; one axis of the grid, since the others end at 65535."""
    taps = KERNEL * KERNEL
    blocks = tl.cdiv(P, BLOCK_P)
    tap = tl.program_id(0) % taps  # neighbours read the same pixels
    block = tl.program_id(0) // taps
    return tap, (block // blocks).to(tl.int64), block % blocks * BLOCK_P + tl.arange(0, BLOCK_P)


@_jit  # type: ignore[untyped-decorator]
def _columns_kernel(  # type: ignore[no-untyped-def]
    f_ptr,
    a_ptr,
    offset_ptr,
    mask_ptr,
    out_ptr,
    h,
    w,
    P,  # noqa: N803
    W,  # noqa: N803
    C,  # noqa: N803
    border,
    KERNEL: tl.constexpr,  # noqa: N803
    BLEND: tl.constexpr,  # noqa: N803
    BLOCK_P: tl.constexpr,  # noqa: N803
    BLOCK_C: tl.constexpr,  # noqa: N803
):
    """One tap of BLOCK_P positions of one picture: features (B, h, w, C) to columns (B, P, K, C)."""
    taps = KERNEL * KERNEL
    tap, n, p = _place(P, KERNEL, BLOCK_P)
    live = p < P
    top, left, down, right = _corners(offset_ptr + (n * taps + tap) * 2 * P, p, live, tap, P, W, KERNEL, border)
    share = tl.zeros([BLOCK_P], dtype=down.dtype)
    if BLEND:
        share = tl.load(mask_ptr + (n * taps + tap) * P + p, mask=live, other=0.0)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        inside = c < C
        total = tl.zeros([BLOCK_P, BLOCK_C], dtype=down.dtype)
        for corner in tl.static_range(4):
            row = top + corner // 2
            column = left + corner % 2
            ok = live & (row >= 0) & (row < h) & (column >= 0) & (column < w)
            at = tl.where(ok, row.to(tl.int32) * w + column.to(tl.int32), 0)
            weight = (down if corner // 2 else 1 - down) * (right if corner % 2 else 1 - right)
            value = tl.load(
                f_ptr + (n * h * w + at)[:, None] * C + c[None, :], mask=ok[:, None] & inside[None, :], other=0.0
            )
            total += value.to(down.dtype) * (weight * (1 - share))[:, None]
        if BLEND:
            row = p // W + tap // KERNEL - KERNEL // 2
            column = p % W + tap % KERNEL - KERNEL // 2
            ok = live & (row >= 0) & (row < h) & (column >= 0) & (column < w)
            value = tl.load(
                a_ptr + (n * h * w + tl.where(ok, row * w + column, 0))[:, None] * C + c[None, :],
                mask=ok[:, None] & inside[None, :],
                other=0.0,
            )
            total += value.to(down.dtype) * share[:, None]
        out = out_ptr + ((n * P + p) * taps + tap)[:, None] * C + c[None, :]
        tl.store(out, total.to(out_ptr.dtype.element_ty), mask=live[:, None] & inside[None, :])


@_jit  # type: ignore[untyped-decorator]
def _gradient_kernel(  # type: ignore[no-untyped-def]
    grad_ptr,
    f_ptr,
    a_ptr,
    offset_ptr,
    mask_ptr,
    d_f_ptr,
    d_a_ptr,
    d_offset_ptr,
    d_mask_ptr,
    h,
    w,
    P,  # noqa: N803
    W,  # noqa: N803
    C,  # noqa: N803
    border,
    KERNEL: tl.constexpr,  # noqa: N803
    BLEND: tl.constexpr,  # noqa: N803
    BLOCK_P: tl.constexpr,  # noqa: N803
    BLOCK_C: tl.constexpr,  # noqa: N803
):
    """The gradient of `_columns_kernel`, on the same grid; d_f and d_a start at zero."""
    taps = KERNEL * KERNEL
    tap, n, p = _place(P, KERNEL, BLOCK_P)
    live = p < P
    top, left, down, right = _corners(offset_ptr + (n * taps + tap) * 2 * P, p, live, tap, P, W, KERNEL, border)
    share = tl.zeros([BLOCK_P], dtype=down.dtype)
    if BLEND:
        share = tl.load(mask_ptr + (n * taps + tap) * P + p, mask=live, other=0.0)
    d_down = tl.zeros([BLOCK_P], dtype=down.dtype)
    d_right = tl.zeros([BLOCK_P], dtype=down.dtype)
    d_share = tl.zeros([BLOCK_P], dtype=down.dtype)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        inside = c < C
        grad = tl.load(
            grad_ptr + ((n * P + p) * taps + tap)[:, None] * C + c[None, :],
            mask=live[:, None] & inside[None, :],
            other=0.0,
        ).to(down.dtype)
        for corner in tl.static_range(4):
            row = top + corner // 2
            column = left + corner % 2
            ok = live & (row >= 0) & (row < h) & (column >= 0) & (column < w)
            at = (n * h * w + tl.where(ok, row.to(tl.int32) * w + column.to(tl.int32), 0))[:, None] * C + c[None, :]
            both = ok[:, None] & inside[None, :]
            vertical = down if corner // 2 else 1 - down
            horizontal = right if corner % 2 else 1 - right
            dot = tl.sum(tl.load(f_ptr + at, mask=both, other=0.0).to(down.dtype) * grad, axis=1)
            d_down += dot * horizontal * (1 if corner // 2 else -1)
            d_right += dot * vertical * (1 if corner % 2 else -1)
            d_share -= dot * vertical * horizontal
            tl.atomic_add(d_f_ptr + at, grad * (vertical * horizontal * (1 - share))[:, None], mask=both)
        if BLEND:
            row = p // W + tap // KERNEL - KERNEL // 2
            column = p % W + tap % KERNEL - KERNEL // 2
            ok = live & (row >= 0) & (row < h) & (column >= 0) & (column < w)
            at = (n * h * w + tl.where(ok, row * w + column, 0))[:, None] * C + c[None, :]
            both = ok[:, None] & inside[None, :]
            d_share += tl.sum(tl.load(a_ptr + at, mask=both, other=0.0).to(down.dtype) * grad, axis=1)
            tl.atomic_add(d_a_ptr + at, grad * share[:, None], mask=both)
    plane = d_offset_ptr + (n * taps + tap) * 2 * P
    tl.store(plane + p, d_down * (1 - share), mask=live)
    tl.store(plane + P + p, d_right * (1 - share), mask=live)
    if BLEND:
        tl.store(d_mask_ptr + (n * taps + tap) * P + p, d_share, mask=live)


def _launch(f: Tensor, offset: Tensor, kernel: int) -> tuple[tuple[int, ...], dict[str, int]]:
    """Grid and block sizes for features (B, h, w, C) and offsets (B, 2*K, H, W)."""
    pixels = offset.shape[2] * offset.shape[3]
    block_c = min(_BLOCK_C, max(16, triton.next_power_of_2(f.shape[3])))
    return (triton.cdiv(pixels, _BLOCK_P) * kernel**2 * f.shape[0],), {"BLOCK_P": _BLOCK_P, "BLOCK_C": block_c}


@torch.library.custom_op("shortcutv2v::triton_columns", mutates_args=())
def _columns(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, kernel: int, border: int) -> Tensor:
    """Columns (B, P, K, C) of contiguous features (B, h, w, C), offset (B, 2*K, H, W), mask (B, K, H, W) or None."""
    b, h, w, c = f.shape
    width, pixels = offset.shape[3], offset.shape[2] * offset.shape[3]
    out = f.new_empty(b, pixels, kernel**2, c)
    if out.numel():
        grid, blocks = _launch(f, offset, kernel)
        with torch.cuda.device_of(f):  # Triton launches on the current device
            _columns_kernel[grid](
                *(f, f if a is None else a, offset, offset if mask is None else mask, out),
                *(h, w, pixels, width, c, border),
                KERNEL=kernel,
                BLEND=a is not None,
                **blocks,
            )
    return out


@_columns.register_fake
def _(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, kernel: int, border: int) -> Tensor:
    return f.new_empty(f.shape[0], offset.shape[2] * offset.shape[3], kernel**2, f.shape[3])


@torch.library.custom_op("shortcutv2v::triton_columns_backward", mutates_args=())
def _columns_backward(
    grad: Tensor, f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, kernel: int, border: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of f, a, offset and mask, in the dtype of the offsets; those of an absent a and mask are empty."""
    d_f = torch.zeros_like(f, dtype=offset.dtype)
    d_a = torch.zeros_like(f if a is not None else f[:0], dtype=offset.dtype)
    d_offset = torch.empty_like(offset)
    d_mask = offset.new_empty(0) if mask is None else torch.empty_like(mask)
    if grad.numel():
        grid, blocks = _launch(f, offset, kernel)
        with torch.cuda.device_of(f):
            _gradient_kernel[grid](
                *(grad, f, f if a is None else a, offset, offset if mask is None else mask, d_f, d_a, d_offset, d_mask),
                *(f.shape[1], f.shape[2], offset.shape[2] * offset.shape[3], offset.shape[3], f.shape[3], border),
                KERNEL=kernel,
                BLEND=a is not None,
                **blocks,
            )
    return d_f, d_a, d_offset, d_mask


@_columns_backward.register_fake
def _(
    grad: Tensor, f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, kernel: int, border: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_f = torch.empty_like(f, dtype=offset.dtype)
    d_a = torch.empty_like(f if a is not None else f[:0], dtype=offset.dtype)
    return d_f, d_a, torch.empty_like(offset), offset.new_empty(0) if mask is None else torch.empty_like(mask)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    f, a, offset, mask, ctx.kernel, ctx.border = inputs
    ctx.save_for_backward(f, a, offset, mask)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    f, a, offset, mask = ctx.saved_tensors
    d_f, d_a, d_offset, d_mask = _columns_backward(grad.contiguous(), f, a, offset, mask, ctx.kernel, ctx.border)
    d_f = d_f.to(f.dtype)
    return d_f, None if a is None else d_a.to(f.dtype), d_offset, None if mask is None else d_mask, None, None


_columns.register_autograd(_gradients, setup_context=_save)


def _sampled(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, kernel: int, border: int) -> Tensor:
    precise = torch.promote_types(f.dtype, torch.float32)
    last = [None if x is None else x.permute(0, 2, 3, 1).contiguous() for x in (f, a)]
    share = None if mask is None else mask.to(precise).contiguous()
    columns: Tensor = _columns(last[0], last[1], offset.to(precise).contiguous(), share, kernel, border)
    return columns


def blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """AdaBD (`a` and `mask` given) or deformable convolution (both None), "same" padding; see `functions`."""
    h, w = f.shape[2:]
    columns = _sampled(f, a, offset, mask, weight.shape[-1], 0)
    out = columns.flatten(2) @ weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1).t()
    return _as_map(out, f, h, w)


def warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """`f` sampled at every position plus its offset; see `functions.warp`."""
    columns = _sampled(f, None, offset, None, 1, border)
    return _as_map(columns.squeeze(2), f, offset.shape[2], offset.shape[3])


def _as_map(rows: Tensor, f: Tensor, height: int, width: int) -> Tensor:
    """Rows (B, P, C) as (B, C, height, width), in the memory format of `f`."""
    out = rows.reshape(f.shape[0], height, width, rows.shape[2]).permute(0, 3, 1, 2)
    last = f.is_contiguous(memory_format=torch.channels_last) and not f.is_contiguous()
    return out.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
