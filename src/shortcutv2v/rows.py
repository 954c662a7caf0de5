"""Rows of a batch, and checks of tensors in any nest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.types import Carry

__all__ = ["finite", "joined", "put", "rows_of", "same", "select"]

T = TypeVar("T")


def rows_of(carry: Carry) -> int:
    """Return the batch size of the features."""
    return carry.a[0].shape[0]


def select(tree: T, rows: int, places: Sequence[int]) -> T:
    """Return some rows of every tensor that has `rows` of them; others belong to all rows."""
    if len(places) == rows:
        return tree
    first = places[0]
    alone = slice(first, first + 1) if len(places) == 1 else None  # a view

    def chosen(x: Tensor) -> Tensor:
        if not x.dim() or x.shape[0] != rows:
            return x
        return x[alone] if alone else x.index_select(0, torch.tensor(places, device=x.device))

    made: T = pytree.tree_map_only(Tensor, chosen, tree)
    return made


def put(whole: Any, part: Any, places: Sequence[int]) -> Any:
    """Return `whole` with the rows at `places` taken from `part`."""
    if not isinstance(whole, Tensor):
        return whole
    return whole.index_copy(0, torch.tensor(places, device=whole.device), part.to(whole.dtype))


def joined(trees: Sequence[Any]) -> Any:
    """Return nests of tensors with one row each as one nest with a row for each; other leaves are those of the first.

    Examples:
        >>> joined([(torch.zeros(1), "x"), (torch.ones(1), "x")])
        (tensor([0., 1.]), 'x')
    """

    def together(*leaves: Any) -> Any:
        first = leaves[0]
        return torch.cat(leaves) if isinstance(first, Tensor) and first.dim() and first.shape[0] == 1 else first

    return trees[0] if len(trees) == 1 else pytree.tree_map(together, *trees)


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """True if all conditions are what they were."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def finite(*trees: Any) -> list[bool]:
    """Return of every tree whether its floating-point tensors are free of NaN and infinity; waits for a GPU once.

    Examples:
        >>> finite(torch.zeros(2), (torch.zeros(2), [torch.full((1,), torch.inf)]), ())
        [True, False, True]
    """
    tensors = [[x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)] for tree in trees]
    edges = [[edge for x in own if x.is_floating_point() and x.numel() for edge in x.aminmax()] for own in tensors]
    every = [edge for found in edges for edge in found]
    if all(edge.device.type == "cpu" for edge in every):  # there is nothing to wait for
        flags = [math.isfinite(edge) for edge in every]
    else:
        flags = torch.stack([edge.isfinite().to(every[0].device) for edge in every]).tolist()
    left = iter(flags)
    return [all(list(itertools.islice(left, len(found)))) for found in edges]
