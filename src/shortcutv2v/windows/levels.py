"""Windows that lie together run as one larger crop where that is faster: less halo, fewer calls.

Level 0 has the windows themselves. A cell of the next levels holds 2x2 and 4x4 of them, and one of the last level holds
them all: the whole picture. A frame's windows are covered by the cells that take the least time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from shortcutv2v.windows.tiles import Grid

__all__ = ["Cell", "Job", "Levels"]

_TIMES = (2, 4)
"""Sides of the cells between windows and the whole picture, in windows."""
_LARGEST = 0.25
"""Largest crop of such a cell, as a share of the picture."""
_BATCHES = (64, 16, 4, 1)
"""Sizes of a batch on a GPU: few, because a capture serves one size."""


class Cell(NamedTuple):
    """A crop to run.

    Attributes:
        level: its size.
        place: its number in the level's grid.
    """

    level: int
    place: int


@dataclass(frozen=True)
class Job:
    """Crops of one size to run as one batch.

    Attributes:
        level: their level.
        places: their numbers in the level's grid.
        windows: per crop, the windows to take from it.
    """

    level: int
    places: list[int]
    windows: list[list[int]]


@dataclass(frozen=True)
class Levels:
    """A picture divided into windows, and into larger cells of windows.

    Attributes:
        grids: of each level, finest first.
        members: per level and cell, its windows.

    Examples:
        >>> levels = Levels.of((96, 128), window=24, halo=4)
        >>> [len(grid) for grid in levels.grids], levels.members[1][0]
        ([48, 12, 1], (0, 1, 8, 9))
        >>> levels.cover([0, 1, 8, 9, 47], costs=[1.0, 3.0, 9.0])
        [Cell(level=0, place=47), Cell(level=1, place=0)]
    """

    grids: tuple[Grid, ...]
    members: tuple[tuple[tuple[int, ...], ...], ...]

    @staticmethod
    def of(size: Sequence[int], window: int, halo: int, align: int = 1, *, between: bool = True) -> Levels:
        """Divide a picture; see `Grid.of`.

        Args:
            size: (H, W) of the picture.
            window: side of a window with its halo.
            halo: pixels around the core of every crop.
            align: stride of the network.
            between: make cells between the windows and the whole picture; batches of windows serve a GPU better.
        """
        finest = Grid.of(size, window, halo, align)
        core = (finest.cores[0][1], finest.cores[0][3])
        grids = [finest]
        for times in _TIMES if between else ():
            grid = Grid.of_cores(size, [side * times for side in core], halo, align)
            if len(grid) < len(grids[-1]) and math.prod(grid.crop) <= _LARGEST * math.prod(size):
                grids.append(grid)
        if len(finest) > 1:
            grids.append(Grid.of_cores(size, size, 0))
        return Levels(tuple(grids), tuple(_members(finest, grid) for grid in grids))

    def serving(self, maps: Sequence[Tensor]) -> Levels:
        """Return the levels that are of use for these maps of the whole picture.

        A crop as high or wide as the picture does not say where a window lies in a map, if the map's size is not
        proportional to the picture's.
        """
        size, align = self.grids[0].size, math.gcd(*(n for core in self.grids[0].cores for n in core[::2])) or 1
        even = all(n * align % side == 0 for x in maps for n, side in zip(x.shape[-2:], size, strict=True))
        levels = [
            level
            for level, grid in enumerate(self.grids)
            if not level or even or all(part < side for part, side in zip(grid.crop, size, strict=True))
        ]
        return Levels(tuple(self.grids[level] for level in levels), tuple(self.members[level] for level in levels))

    @cached_property
    def _children(self) -> list[list[list[int]]]:
        """Per level above the first and cell, the cells of the level below."""
        found = []
        for below, above in zip(self.members, self.members[1:], strict=False):
            first = {cell[0]: place for place, cell in enumerate(below)}
            found.append([[first[window] for window in cell if window in first] for cell in above])
        return found

    def cover(self, wanted: Collection[int], costs: Sequence[float]) -> list[Cell]:
        """Return the cells that hold some windows and cost least.

        Args:
            wanted: the windows.
            costs: of a cell, per level.
        """
        best = {window: (costs[0], [Cell(0, window)]) for window in sorted(wanted)}
        for level, children in enumerate(self._children, start=1):
            above = {}
            for place, below in enumerate(children):
                parts = [best[child] for child in below if child in best]
                if parts:
                    apart = sum(cost for cost, _ in parts)
                    one = costs[level], [Cell(level, place)]
                    above[place] = one if costs[level] < apart else (apart, [c for _, cells in parts for c in cells])
            best = above
        return sorted(cell for _, cells in best.values() for cell in cells)

    def jobs(self, cells: Sequence[Cell], device: str, wanted: Collection[int] | None = None) -> Iterator[Job]:
        """Divide cells into batches: one by one on a CPU, whose threads one crop keeps busy.

        Args:
            cells: to run.
            device: type of the device.
            wanted: the windows to take from them; default: all.
        """
        for level in range(len(self.grids)):
            rest = [cell.place for cell in cells if cell.level == level]
            for size in (1,) if device == "cpu" else _BATCHES:
                while len(rest) >= size:
                    places, rest = rest[:size], rest[size:]
                    windows = [[w for w in self.members[level][p] if wanted is None or w in wanted] for p in places]
                    yield Job(level, places, windows)

    def cores(self, job: Job, whole: Tensor, parts: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each window of a job, with views (C, h, w) of its core in a map of the whole picture and in the crop's.

        Args:
            job: the crops.
            whole: (1, C, H', W'), the map of the whole picture.
            parts: (N, C, h', w'), the same map of the crops.
        """
        grid, cores = self.grids[job.level], self.grids[0].cores
        for part, place, windows in zip(parts, job.places, job.windows, strict=True):
            for window in windows:
                (rows, columns), (y, x) = grid.spots(place, whole, parts, cores[window])
                yield window, whole[0, :, rows, columns], part[:, y, x]

    def paste(self, whole: Tensor, parts: Tensor, job: Job) -> None:
        """Write the windows of a job into a map of the whole picture, in place; see `cores`."""
        for _, there, here in self.cores(job, whole, parts):
            there.copy_(here)


def _members(finest: Grid, grid: Grid) -> tuple[tuple[int, ...], ...]:
    """Return the windows within each cell: the cell of a window is the last one that begins before it."""
    tops, lefts = (sorted({core[i] for core in grid.cores}) for i in (0, 2))
    found: list[list[int]] = [[] for _ in grid.cores]
    for window, (top, _, left, _) in enumerate(finest.cores):
        found[(bisect_right(tops, top) - 1) * len(lefts) + bisect_right(lefts, left) - 1].append(window)
    return tuple(map(tuple, found))
