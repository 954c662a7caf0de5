"""Rows of a batch, and checks of tensors in any nest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.types import Carry

__all__ = ["finite", "put", "rows_of", "same", "select"]

T = TypeVar("T")


def rows_of(carry: Carry) -> int:
    """Return the batch size of the features."""
    return carry.a[0].shape[0]


def select(tree: T, rows: int, index: slice | Tensor) -> T:
    """Return some rows of every tensor that has `rows` of them; others belong to all rows."""
    if rows == 1:
        return tree
    chosen: T = pytree.tree_map_only(Tensor, lambda x: x[index] if x.dim() and x.shape[0] == rows else x, tree)
    return chosen


def put(whole: Any, part: Any, index: Tensor) -> Any:
    """Return `whole` with the rows `index` taken from `part`."""
    return whole.index_copy(0, index, part.to(whole.dtype)) if isinstance(whole, Tensor) else whole


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """True if all conditions are what they were."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def finite(tree: Any) -> bool:
    """True if all floating-point tensors are free of NaN and infinity."""
    return all(bool(edge.isfinite()) for tensor in _floats(tree) for edge in tensor.aminmax())


def _floats(tree: Any) -> Iterator[Tensor]:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel():
            yield leaf
