"""Fast CPU implementation: `embedding_bag` over a channels-last table, then one matrix product per chunk.

torchvision's CPU kernel is scalar. Here the vectorised `embedding_bag` kernel does the sampling, the two terms of AdaBD
are blended in the same sum (they share the weight), and the product runs over chunks of positions whose columns stay in
the cache. The backward pass recomputes the columns chunk by chunk instead of storing K times the feature. Both passes
are custom operators, so torch.compile and torch.export see one node each. A gradient of a gradient needs the `plain`
implementation.

float32 and bfloat16 features are summed in their own dtype, float16 features in float32. Gradients and positions are
computed in float32 at least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from shortcutv2v.errors import InputError
from shortcutv2v.ops import private
from shortcutv2v.ops.tables import Bags, Frame, Grid, bags, corners, feature_of, format_of, table_of

__all__ = ["blend", "warp"]

_CHUNK = 1_000_000  # column elements per chunk: 4 MB in float32, which stays in the cache; measured


@dataclass(frozen=True)
class _Item:
    """One picture of the batch: offset is (K, 2, P), mask (K, P) or None, table (rows, C)."""

    frame: Frame
    grid: Grid
    table: Tensor
    offset: Tensor
    mask: Tensor | None

    def chunks(self) -> Iterator[tuple[slice, Bags]]:
        """Yield positions and their bags, in chunks whose columns stay in the cache."""
        size = max(64, _CHUNK // max(1, self.frame.taps * self.table.shape[1]))
        for start in range(0, self.frame.pixels, size):
            stop = min(start + size, self.frame.pixels)
            yield slice(start, stop), self.bags(start, stop)

    def bags(self, start: int, stop: int) -> Bags:
        """Return the bags of the positions from start to stop."""
        return bags(self.frame, self.grid, self.offset, self.mask, start, stop)


class _Grads(NamedTuple):
    """The gradients of one item, with the shapes of `_Item`."""

    table: Tensor
    offset: Tensor
    mask: Tensor | None


def _items(
    frame: Frame, f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> Iterator[_Item]:
    """Yield the pictures of the batch one by one, to keep memory low, their tables in `dtype`."""
    precise = torch.promote_types(dtype, torch.float32)
    grid = Grid.of(frame, precise)
    at = offset.to(precise).reshape(f.shape[0], frame.taps, 2, frame.pixels)
    share = None if mask is None else mask.to(precise).reshape(f.shape[0], frame.taps, frame.pixels)
    for n in range(f.shape[0]):
        table = table_of(frame, [f[n]] if a is None else [f[n], a[n]], dtype)
        yield _Item(frame, grid, table, at[n], None if share is None else share[n])


def _sum(table: Tensor, row: Tensor, weight: Tensor, parts: int = 4) -> Tensor:
    """Return one weighted sum of `parts` rows per sample, of shape (n * K, C)."""
    starts = torch.arange(0, row.numel(), parts, dtype=torch.int32)
    return torch.embedding_bag(table, row, starts, mode=0, per_sample_weights=weight.to(table.dtype))[0]


def _matrix_of(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the kernel (C_out, C, k, k) as a matrix (C_out, K*C)."""
    return weight.to(dtype).permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _empty_like(f: Tensor) -> Tensor:
    """Return memory for a gradient of `f`, dense and in its memory format."""
    return torch.empty_like(f, memory_format=format_of(f))


def _add_gradients(item: _Item, at: slice, chunk: Bags, d_columns: Tensor, grads: _Grads) -> None:
    """Add the gradients of table, offsets and mask to `grads`, given those of a chunk's samples, (n * K, C)."""
    samples, parts = d_columns.shape[0], chunk.parts
    dots = private.dots(d_columns, item.table, chunk.row, parts)
    dots = dots.view(-1, item.frame.taps * parts).t().contiguous().view(item.frame.taps, parts, -1)
    upper, lower = dots[:, 1] - dots[:, 0], dots[:, 3] - dots[:, 2]
    top, bottom = torch.addcmul(dots[:, 0], chunk.right, upper), torch.addcmul(dots[:, 2], chunk.right, lower)
    down = bottom - top
    right = torch.addcmul(upper, chunk.down, lower - upper)
    if item.mask is not None and grads.mask is not None:
        torch.sub(dots[:, 4], torch.addcmul(top, chunk.down, down), out=grads.mask[:, at])
        kept = 1 - item.mask[:, at]
        down, right = down * kept, right * kept
    grads.offset[:, 0, at], grads.offset[:, 1, at] = down, right
    # One index_add per corner: faster than the dense backward of embedding_bag, which sorts all rows first.
    index = chunk.row.view(samples, parts).t().contiguous().long()
    weight = chunk.weight.view(samples, parts, 1)
    for part in range(parts):
        grads.table.index_add_(0, index[part], d_columns * weight[:, part])


@torch.library.custom_op("shortcutv2v::rows_blend", mutates_args=(), device_types="cpu")
def _blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    b, _, h, w = f.shape
    frame = Frame(h, w, weight.shape[-1])
    dtype = torch.float32 if f.dtype == torch.float16 else f.dtype
    matrix = _matrix_of(weight, dtype)
    out = f.new_empty(b, frame.pixels, weight.shape[0])
    for item, target in zip(_items(frame, f, a, offset, mask, dtype), out, strict=True):
        for at, chunk in item.chunks():
            columns = _sum(item.table, chunk.row, chunk.weight, chunk.parts).view(at.stop - at.start, -1)
            target[at] = private.product(columns, matrix)
    return out.view(b, h, w, weight.shape[0]).permute(0, 3, 1, 2).contiguous(memory_format=format_of(f))


@_blend.register_fake
def _(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    return f.new_empty(f.shape[0], weight.shape[0], *f.shape[2:]).contiguous(memory_format=format_of(f))


@torch.library.custom_op("shortcutv2v::rows_blend_backward", mutates_args=(), device_types="cpu")
def _blend_backward(
    grad: Tensor, f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of f, a, offset, mask and weight; those of an absent a and mask are empty."""
    b, c, h, w = f.shape
    frame = Frame(h, w, weight.shape[-1])
    dtype = torch.promote_types(f.dtype, torch.float32)
    across = _matrix_of(weight, dtype).t().contiguous()
    d_matrix = torch.zeros_like(across)
    d_table = torch.zeros(b, 1 if a is None else 2, *frame.rows, c, dtype=dtype)
    d_offset = torch.empty(b, frame.taps, 2, frame.pixels, dtype=dtype)
    d_mask = torch.empty(b, frame.taps, frame.pixels, dtype=dtype) if mask is not None else None
    rows = grad.to(dtype).permute(0, 2, 3, 1).reshape(b, frame.pixels, grad.shape[1])
    for n, item in enumerate(_items(frame, f, a, offset, mask, dtype)):
        grads = _Grads(d_table[n].view(-1, c), d_offset[n], None if d_mask is None else d_mask[n])
        for at, chunk in item.chunks():
            columns = _sum(item.table, chunk.row, chunk.weight, chunk.parts).view(at.stop - at.start, -1)
            d_matrix += torch.mm(columns.t(), rows[n, at])
            _add_gradients(item, at, chunk, private.product(rows[n, at], across).view(-1, c), grads)
    d_f, *d_a = (_empty_like(f).copy_(feature) for feature in feature_of(d_table))
    d_weight = d_matrix.view(frame.kernel, frame.kernel, c, weight.shape[0]).permute(3, 2, 0, 1)
    return (
        d_f,
        d_a[0] if d_a else f.new_empty(0),
        d_offset.view(offset.shape).to(offset.dtype),
        f.new_empty(0) if d_mask is None or mask is None else d_mask.view(mask.shape).to(mask.dtype),
        d_weight.to(weight.dtype).contiguous(),
    )


@_blend_backward.register_fake
def _(
    grad: Tensor, f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = torch.contiguous_format
    return (
        _empty_like(f),
        f.new_empty(0) if a is None else _empty_like(f),
        torch.empty_like(offset, memory_format=like),
        f.new_empty(0) if mask is None else torch.empty_like(mask, memory_format=like),
        torch.empty_like(weight, memory_format=like),
    )


def _save_blend(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _blend_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _, a, _, mask, _ = ctx.saved_tensors
    d_f, d_a, d_offset, d_mask, d_weight = _blend_backward(grad, *ctx.saved_tensors)
    return d_f, None if a is None else d_a, d_offset, None if mask is None else d_mask, d_weight


_blend.register_autograd(_blend_gradients, setup_context=_save_blend)


@torch.library.custom_op("shortcutv2v::rows_warp", mutates_args=(), device_types="cpu")
def _warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    b, c, h, w = f.shape
    frame = Frame(h - 2 * border, w - 2 * border, 1, border)
    dtype = torch.float32 if f.dtype == torch.float16 else f.dtype
    grid = Grid.of(frame, torch.promote_types(dtype, torch.float32))
    at = offset.to(grid.y.dtype).reshape(b, 1, 2, frame.pixels)
    # No product follows, so chunks would gain nothing. A channels-last map is a table already: no copy is made.
    rows = [_sum(f[n].permute(1, 2, 0).reshape(-1, c).to(dtype), *corners(frame, grid, at[n])) for n in range(b)]
    out = rows[0] if b == 1 else torch.stack(rows) if rows else f.new_empty(0)
    return (
        out.to(f.dtype).view(b, frame.height, frame.width, c).permute(0, 3, 1, 2).contiguous(memory_format=format_of(f))
    )


@_warp.register_fake
def _(f: Tensor, offset: Tensor, border: int) -> Tensor:
    return f.new_empty(*f.shape[:2], *offset.shape[2:]).contiguous(memory_format=format_of(f))


@torch.library.custom_op("shortcutv2v::rows_warp_backward", mutates_args=(), device_types="cpu")
def _warp_backward(grad: Tensor, f: Tensor, offset: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of f and offset."""
    b, c, h, w = f.shape
    frame = Frame(h - 2 * border, w - 2 * border, 1, border)
    dtype = torch.promote_types(f.dtype, torch.float32)
    d_table = torch.zeros(b, 1, *frame.rows, c, dtype=dtype)
    d_offset = torch.empty(b, 1, 2, frame.pixels, dtype=dtype)
    rows = grad.to(dtype).permute(0, 2, 3, 1).reshape(b, frame.pixels, c)
    for n, item in enumerate(_items(frame, f, None, offset, None, dtype)):
        for at, chunk in item.chunks():
            _add_gradients(item, at, chunk, rows[n, at], _Grads(d_table[n].view(-1, c), d_offset[n], None))
    d_f = _empty_like(f).copy_(feature_of(d_table)[0])
    return d_f, d_offset.view(offset.shape).to(offset.dtype)


@_warp_backward.register_fake
def _(grad: Tensor, f: Tensor, offset: Tensor, border: int) -> tuple[Tensor, Tensor]:
    return _empty_like(f), torch.empty_like(offset, memory_format=torch.contiguous_format)


def _save_warp(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    f, offset, ctx.border = inputs  # an int, or a SymInt where shapes are dynamic
    ctx.save_for_backward(f, offset)


def _warp_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_warp_backward(grad, *ctx.saved_tensors, ctx.border), None


_warp.register_autograd(_warp_gradients, setup_context=_save_warp)


def _refuse(ctx: Any, *grads: Any) -> NoReturn:
    msg = "the fast operators have no gradient of a gradient: call them inside `with ops.use('plain'):`"
    raise InputError(msg)


_blend_backward.register_autograd(_refuse)
_warp_backward.register_autograd(_refuse)


def blend(f: Tensor, a: Tensor | None, offset: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """AdaBD (`a` and `mask` given) or deformable convolution (both None), "same" padding; see `functions`."""
    out: Tensor = _blend(f, a, offset, mask, weight)
    return out


def warp(f: Tensor, offset: Tensor, border: int) -> Tensor:
    """`f` sampled at every position plus its offset; see `functions.warp`."""
    out: Tensor = _warp(f, offset, border)
    return out
