"""Two private operators of torch that make `rows` faster, each with a public replacement.

A private operator may vanish or change its arguments in any release, or be missing from a build. So each is tried once
per dtype on a tiny case. If it is absent, fails or gives other numbers, the public replacement runs: slower, with the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

__all__ = ["dots", "product"]


def product(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return `rows @ matrix.T`, (n, c) and (m, c) to (n, m), by oneDNN if possible: it uses AVX-512 on all CPUs.

    >>> rows, matrix = torch.rand(5, 3), torch.rand(4, 3)
    >>> torch.allclose(product(rows, matrix), rows @ matrix.T)
    True
    """
    run = _onednn_product if rows.dtype == torch.float32 and _has_onednn_product() else _plain_product
    return run(rows, matrix)


def dots(samples: Tensor, table: Tensor, row: Tensor, parts: int) -> Tensor:
    """Return the dot product of every sample with each of its `parts` table rows: the gradient of a bag's weights.

    Args:
        samples: (n, C).
        table: (rows, C).
        row: int32 (n * parts), the rows of each sample.
        parts: rows per sample.

    Returns:
        Of shape (n * parts).

    >>> dots(torch.ones(1, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0], dtype=torch.int32), 2)
    tensor([7., 3.])
    """
    run = _bag_dots if _has_bag_dots(samples.dtype) else _plain_dots
    return run(samples, table, row, parts)


def _plain_product(rows: Tensor, matrix: Tensor) -> Tensor:
    return torch.mm(rows, matrix.t())


def _onednn_product(rows: Tensor, matrix: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, matrix, None, "none", [], "")
    return out


def _plain_dots(samples: Tensor, table: Tensor, row: Tensor, parts: int) -> Tensor:
    gathered = table.index_select(0, row).view(-1, parts, table.shape[1])
    return torch.bmm(gathered, samples.unsqueeze(2)).view(-1)


def _bag_dots(samples: Tensor, table: Tensor, row: Tensor, parts: int) -> Tensor:
    count = samples.shape[0]
    starts = torch.arange(0, count * parts, parts, dtype=torch.int32)
    bag_of = torch.arange(count, dtype=torch.int32).unsqueeze(1).repeat(1, parts).view(-1)
    out: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(samples, table, row, starts, bag_of, 0)
    return out


@cache
def _has_onednn_product() -> bool:
    rows, matrix = _numbers(6, torch.float32).view(2, 3), _numbers(12, torch.float32).view(4, 3)
    usable = torch.backends.mkldnn.is_available()
    return usable and _agree(lambda: _onednn_product(rows, matrix), lambda: _plain_product(rows, matrix))


@cache
def _has_bag_dots(dtype: torch.dtype) -> bool:
    samples, table = _numbers(6, dtype).view(2, 3), _numbers(12, dtype).view(4, 3)
    row = torch.tensor([3, 0, 1, 2], dtype=torch.int32)
    return _agree(lambda: _bag_dots(samples, table, row, 2), lambda: _plain_dots(samples, table, row, 2))


def _numbers(count: int, dtype: torch.dtype) -> Tensor:
    return torch.arange(1, count + 1, dtype=dtype)


def _agree(private: Callable[[], Tensor], public: Callable[[], Tensor]) -> bool:
    """True if the private operator exists, runs, and gives the public one's numbers, exact for small integers."""
    try:
        return torch.equal(private(), public())
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
