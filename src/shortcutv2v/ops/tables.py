"""Bilinear sampling as weighted sums of table rows: the index arithmetic of the `rows` implementation.

A feature map becomes a table with one row per pixel (channels last) and a zero border two pixels wide. So every
bilinear corner of every offset has a row: positions far outside are clamped to the border, which is zero. A sample is
then a "bag" of four rows with their bilinear weights. AdaBD adds a fifth row, the tap of the current feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Bags", "Frame", "Grid", "bags", "corners", "feature_of", "format_of", "table_of"]

_EDGE = 2  # pixels of zero border: a corner of a clamped position lies at most two pixels outside


@dataclass(frozen=True)
class Frame:
    """Geometry of one call.

    Attributes:
        height: height of the offsets and of the output, in pixels.
        width: their width.
        kernel: side of the square kernel, odd; 1 for a warp.
        border: number of known pixels of the feature on each side of the frame (see `ops.warp`).
    """

    height: int
    width: int
    kernel: int
    border: int = 0

    @property
    def taps(self) -> int:
        """Number of kernel taps, K."""
        return self.kernel**2

    @property
    def pixels(self) -> int:
        """Number of positions, H * W."""
        return self.height * self.width

    @property
    def rows(self) -> tuple[int, int]:
        """Height and width of the table, zero border included."""
        return self.height + 2 * (self.border + _EDGE), self.width + 2 * (self.border + _EDGE)


class Grid(NamedTuple):
    """The place of each tap of each position without an offset; all chunks of a frame share it.

    Attributes:
        y: row of each tap, of shape (K, P), in pixels of the feature.
        x: its column, likewise.
        still: index of the table row there, in a second table that follows the first, int32 of shape (K, P).
    """

    y: Tensor
    x: Tensor
    still: Tensor

    @classmethod
    def of(cls, frame: Frame, dtype: torch.dtype) -> Grid:
        """Return the grid of `frame`, with positions in `dtype`."""
        reach, (height, width) = frame.kernel // 2, frame.rows
        tap = torch.arange(frame.taps).unsqueeze(1)
        pixel = torch.arange(frame.pixels)
        y = torch.div(pixel, frame.width, rounding_mode="floor") + tap // frame.kernel - reach + frame.border
        x = pixel % frame.width + tap % frame.kernel - reach + frame.border
        still = (y + _EDGE + height) * width + x + _EDGE
        return cls(y.to(dtype), x.to(dtype), still.int())


class Bags(NamedTuple):
    """Rows and weights of a chunk of n positions; each sample has R rows: 4, or 5 with a current feature.

    Attributes:
        row: table rows, int32 of shape (n * K * R).
        weight: their weights, in the position dtype, of shape (n * K * R).
        down: fraction of the position below its upper row, of shape (K, n).
        right: fraction right of its left column, of shape (K, n).
        parts: R.
    """

    row: Tensor
    weight: Tensor
    down: Tensor
    right: Tensor
    parts: int


def bags(frame: Frame, grid: Grid, offset: Tensor, mask: Tensor | None, start: int, stop: int) -> Bags:
    """Return the bags of the positions from start to stop; offset is (K, 2, P), mask (K, P) or None."""
    (_, width), n = frame.rows, stop - start
    down = offset[:, 0, start:stop] + grid.y[:, start:stop]
    right = offset[:, 1, start:stop] + grid.x[:, start:stop]
    top, left = down.floor(), right.floor()
    # Clamp the integers and not the positions: the fractions stay exact, and NaN cannot index outside the table.
    row = top.to(torch.int32).clamp_(-_EDGE, frame.height + 2 * frame.border)
    column = left.to(torch.int32).clamp_(-_EDGE, frame.width + 2 * frame.border).add_(_EDGE * width + _EDGE)
    down, right = down.sub_(top), right.sub_(left)
    parts = 4 if mask is None else 5
    index = torch.empty(frame.taps, parts, n, dtype=torch.int32)
    weight = torch.empty(frame.taps, parts, n, dtype=offset.dtype)
    corner = torch.add(column, row, alpha=width, out=index[:, 0])
    for part, step in ((1, 1), (2, width), (3, width + 1)):
        torch.add(corner, step, out=index[:, part])
    if mask is None:
        lower = down
        upper = 1 - down
    else:
        share = mask[:, start:stop]
        index[:, 4], weight[:, 4] = grid.still[:, start:stop], share
        kept = 1 - share
        lower = down * kept
        upper = kept - lower
    for part, side in ((1, upper), (3, lower)):
        torch.mul(side, right, out=weight[:, part])
        torch.sub(side, weight[:, part], out=weight[:, part - 1])
    return Bags(_by_position(index), _by_position(weight), down, right, parts)


def corners(frame: Frame, grid: Grid, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return the four pixels around every position of a warp, and their weights, for a table without a border.

    A corner outside the feature gets a pixel on its edge, and the weight zero.

    Args:
        frame: with a kernel of 1.
        grid: of the frame.
        offset: (1, 2, P), in pixels.

    Returns:
        indices into the pixels of the feature, int32, and weights, each (4 * P), ordered by position.
    """
    ends = frame.height + 2 * frame.border, frame.width + 2 * frame.border
    indices, weights = [], []
    for axis, (start, end) in enumerate(zip((grid.y[0], grid.x[0]), ends, strict=True)):
        at = offset[0, axis] + start
        first = at.floor()
        after = at.sub_(first)
        pixel = torch.stack((first, first + 1)).to(torch.int32)
        weights.append(torch.stack((1 - after, after)) * ((pixel >= 0) & (pixel < end)))
        indices.append(pixel.clamp_(0, end - 1))
    index = (indices[0] * ends[1])[:, None] + indices[1]
    weight = weights[0][:, None] * weights[1]
    return _by_position(index), _by_position(weight)


def _by_position(tensor: Tensor) -> Tensor:
    """Flatten (K, R, n) in the order (n, K, R)."""
    taps, parts, n = tensor.shape
    return tensor.view(taps * parts, n).t().contiguous().view(-1)


def table_of(frame: Frame, features: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the tables of all `features`, each (C, h, w), one below the other: (len * rows, C)."""
    channels = features[0].shape[0]
    table = torch.empty(len(features), *frame.rows, channels, dtype=dtype)
    for part, feature in zip(table, features, strict=True):
        for edge in (part[:_EDGE], part[-_EDGE:], part[:, :_EDGE], part[:, -_EDGE:]):
            edge.zero_()
        part[_EDGE:-_EDGE, _EDGE:-_EDGE].copy_(feature.permute(1, 2, 0))
    return table.view(-1, channels)


def format_of(feature: Tensor) -> torch.memory_format:
    """Return channels_last for a channels_last map, contiguous for anything else.

    >>> format_of(torch.zeros(1, 2, 3, 3))
    torch.contiguous_format
    """
    last = feature.is_contiguous(memory_format=torch.channels_last) and not feature.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def feature_of(table: Tensor) -> Tensor:
    """Invert `table_of`: (B, tables, height, width, C), border included, to views (tables, B, C, h, w)."""
    return table[:, :, _EDGE:-_EDGE, _EDGE:-_EDGE].permute(1, 0, 4, 2, 3)
