"""Cut pictures and feature maps into windows, and put the results back.

A picture is divided into cores without overlap. Around each core lies a crop, which adds a halo on every side; all
crops have one size, so that any number of them is one batch. A crop that would leave the picture is shifted inwards, so
that its padding is the picture's own. Crops begin at multiples of `align`, the stride of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from shortcutv2v.errors import InputError

__all__ = ["Grid"]

_Axis = tuple[int, list[tuple[int, int, int]]]


@dataclass(frozen=True)
class Grid:
    """Windows of one picture size, in pixels of the picture. Made by `Grid.of`.

    Attributes:
        size: (H, W) of the picture.
        crop: (h, w) of every crop.
        cores: per window (top, bottom, left, right) of its core; the cores cover the picture without overlap.
        corners: per window (top, left) of its crop.

    Examples:
        >>> grid = Grid.of((10, 7), window=6, halo=1)
        >>> grid.crop, grid.cores[-1], grid.corners[-1]
        ((6, 6), (8, 10, 4, 7), (4, 1))
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    cores: tuple[tuple[int, int, int, int], ...]
    corners: tuple[tuple[int, int], ...]

    @staticmethod
    def of(size: Sequence[int], window: int, halo: int, align: int = 1) -> Grid:
        """Divide a picture.

        Args:
            size: (H, W) of the picture.
            window: side of a crop in pixels, at most; more where the halo needs it.
            halo: pixels that a crop shows around its core, at least; fewer only at the picture's own border.
            align: crops and cores begin at multiples of this number.

        Raises:
            InputError: `window` or `align` is below 1, or `halo` below 0.
        """
        if min(window, align) < 1 or halo < 0:
            raise InputError(f"window={window}, halo={halo}, align={align}: expected at least 1, 0 and 1")
        return Grid.of_cores(size, [_core(side, window, halo, align) for side in size], halo, align)

    @staticmethod
    def of_cores(size: Sequence[int], core: Sequence[int], halo: int, align: int = 1) -> Grid:
        """Divide a picture into cores of (h, w) pixels, multiples of `align`; the last ones may be smaller."""
        (height, rows), (width, columns) = (
            _axis(side, inner, halo, align) for side, inner in zip(size, core, strict=True)
        )
        pairs = [(row, column) for row in rows for column in columns]
        return Grid(
            (size[0], size[1]),
            (height, width),
            tuple((row[1], row[2], column[1], column[2]) for row, column in pairs),
            tuple((row[0], column[0]) for row, column in pairs),
        )

    def __len__(self) -> int:
        return len(self.cores)

    @cached_property
    def shares(self) -> list[float]:
        """Share of the picture that each core has."""
        height, width = self.size
        return [(bottom - top) * (right - left) / (height * width) for top, bottom, left, right in self.cores]

    def cut(self, whole: Tensor, chosen: Sequence[int], crop: Sequence[int] | None = None) -> Tensor:
        """Return the crops of some windows as one batch.

        Args:
            whole: (1, C, H', W'), the picture or a map made from it.
            chosen: numbers of windows, at least one.
            crop: (h', w') of the same map when it is made from a crop; default: `whole` is a picture of `size`.

        Returns:
            (N, C, h', w').
        """
        height, width = crop or self.crop
        pieces = []
        for window in chosen:
            y, x = self._scaled(self.corners[window], whole.shape[-2:], (height, width))
            pieces.append(whole[..., y : y + height, x : x + width])
        return torch.cat(pieces)

    def paste(self, whole: Tensor, parts: Tensor, chosen: Sequence[int]) -> None:
        """Write the cores of some crops into a map, in place.

        Args:
            whole: (1, C, H', W'), the map of the whole picture.
            parts: (N, C, h', w'), the same map made from crops.
            chosen: their windows.
        """
        for part, window in zip(parts, chosen, strict=True):
            (rows, columns), (y, x) = self.spots(window, whole, parts)
            whole[0, :, rows, columns] = part[:, y, x]

    def spots(
        self, window: int, whole: Tensor, parts: Tensor, core: Sequence[int] | None = None
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return rows and columns of a core in a map of the whole picture, and in the same map of the window's crop.

        Args:
            window: number of the window.
            whole: the map of the whole picture; its size counts.
            parts: the same map of crops.
            core: (top, bottom, left, right) in the picture of another core within the crop.
        """
        size, crop = whole.shape[-2:], parts.shape[-2:]
        top, bottom, left, right = core or self.cores[window]
        begin, end = self._scaled((top, left), size, crop), self._scaled((bottom, right), size, crop)
        # The last core ends where the map ends, also where the stride does not divide the picture.
        stop = [size[i] if edge == self.size[i] else end[i] for i, edge in enumerate((bottom, right))]
        corner = self._scaled(self.corners[window], size, crop)
        there = slice(begin[0], stop[0]), slice(begin[1], stop[1])
        here = slice(begin[0] - corner[0], stop[0] - corner[0]), slice(begin[1] - corner[1], stop[1] - corner[1])
        return there, here

    def _scaled(self, place: Sequence[int], size: Sequence[int], crop: Sequence[int]) -> tuple[int, int]:
        """Return a place of the picture in a map of `size`, which is `crop` when made from a crop."""
        y, x = (
            n * (large - small) // (whole - part) if whole > part else n * large // whole
            for n, large, small, whole, part in zip(place, size, crop, self.size, self.crop, strict=True)
        )
        return y, x


def _core(length: int, window: int, halo: int, align: int) -> int:
    """Return the side of the cores: about equal ones, with a crop of at most `window` where the halo allows it."""
    most = max(align, (window - 2 * (-(-halo // align) * align)) // align * align)
    core = -(-length // -(-length // most))
    return -(-core // align) * align


def _axis(length: int, core: int, halo: int, align: int) -> _Axis:
    """Return the crop's side, and (begin of the crop, begin and end of the core) for each window along one side."""
    halo = -(-halo // align) * align
    crop = core + 2 * halo
    crop += (length - crop) % align  # the last crop ends at the border and begins at a multiple
    if crop >= length:
        return length, [(0, 0, length)]
    begins = range(0, length, core)
    return crop, [(min(max(n - halo, 0), length - crop), n, min(n + core, length)) for n in begins]
