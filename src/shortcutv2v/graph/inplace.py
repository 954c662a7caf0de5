"""Turn in-place changes into new values, for all tensors that share the overwritten memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from .traced import Untraceable

if TYPE_CHECKING:
    from .build import Builder

__all__ = ["geometry", "rebind"]


def rebind(builder: Builder, changed: Tensor, after: Node) -> None:
    """Point `changed`, and every living view of the same memory, at nodes that hold the new values.

    The recorded step worked on a copy, so the views of the original memory must be computed anew: the widest dense
    tensor of the group takes the change, all others are views of it.

    Raises:
        Untraceable: no tensor of the group spans all others, or the memory belongs to a parameter.
    """
    builder.bind(changed, after)
    group = [t for t in builder.aliases(changed) if t is not changed]
    others = [t for t in group if geometry(t) != geometry(changed) or t.dtype != changed.dtype]
    for tensor in group:
        if builder.nodes[tensor].op == "get_attr":
            raise Untraceable(f"it changes a view of {builder.nodes[tensor].target!r} in place")
        if not any(tensor is t for t in others):
            builder.bind(tensor, after)
    if not others:
        return
    base = max([changed, *others], key=lambda t: t.numel())
    if not all(_inside(t, base) for t in [changed, *others]):
        raise Untraceable("it changes one of several overlapping views in place")
    node = after
    if base is not changed:
        size, stride, offset = geometry(changed)
        args: tuple[Any, ...] = (builder.nodes[base], after, size, stride, offset - base.storage_offset())
        node = builder.plain_node(_scatter, args, base)
        builder.bind(base, node)
        others = [t for t in others if t is not base]
    for tensor in others:
        size, stride, offset = geometry(tensor)
        args = (node, size, stride, offset - base.storage_offset())
        builder.bind(tensor, builder.plain_node(torch.as_strided, args, tensor))


def geometry(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Size, stride and offset of a tensor in its memory, in elements."""
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def _span(tensor: Tensor) -> tuple[int, int]:
    size, stride, offset = geometry(tensor)
    return offset, offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))


def _inside(tensor: Tensor, base: Tensor) -> bool:
    dense = torch.ops.aten.is_non_overlapping_and_dense(base)
    (first, last), (low, high) = _span(tensor), _span(base)
    return bool(dense) and tensor.dtype == base.dtype and low <= first and last <= high


def _scatter(base: Tensor, values: Tensor, size: Any, stride: Any, offset: int) -> Tensor:
    new = base.clone()
    new.as_strided(size, stride, new.storage_offset() + offset).copy_(values)
    return new
