"""Windows that lie together run as one crop, chosen by what crops cost; their results equal the whole picture's."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from shortcutv2v.windows.levels import Cell, Levels

SIZE = (96, 128)


@given(st.integers(20, 90), st.integers(20, 90), st.integers(12, 40), st.integers(0, 6), st.sampled_from([1, 2, 4]))
def test_every_level_holds_every_window_once(h: int, w: int, window: int, halo: int, align: int) -> None:
    levels = Levels.of((h, w), window, halo, align)
    for grid, members in zip(levels.grids, levels.members, strict=True):
        assert sorted(itertools.chain.from_iterable(members)) == list(range(len(levels.grids[0])))
        for (top, bottom, left, right), cell in zip(grid.cores, members, strict=True):
            cores = [levels.grids[0].cores[window] for window in cell]
            assert sum((b - t) * (r - x) for t, b, x, r in cores) == (bottom - top) * (right - left)
    assert levels.grids[-1].crop == (h, w)


@given(st.sets(st.integers(0, 47)), st.tuples(*[st.floats(0.5, 20)] * 3))
def test_a_cover_holds_what_is_wanted_and_none_costs_less(wanted: set[int], costs: tuple[float, ...]) -> None:
    levels = Levels.of(SIZE, 24, 4)
    cells = levels.cover(wanted, costs)
    covered = list(itertools.chain.from_iterable(levels.members[cell.level][cell.place] for cell in cells))
    assert wanted <= set(covered)
    assert len(covered) == len(set(covered))
    found = sum(costs[cell.level] for cell in cells)
    quads = sum(bool(wanted & set(cell)) for cell in levels.members[1])
    assert found <= min(costs[0] * len(wanted), costs[1] * quads, costs[2] * bool(wanted)) + 1e-9


def test_jobs_are_single_on_a_cpu_and_in_few_batch_sizes_elsewhere() -> None:
    levels = Levels.of(SIZE, 24, 4, between=False)
    cells = [Cell(0, place) for place in range(22)]
    assert [len(job.places) for job in levels.jobs(cells, "cpu")] == [1] * 22
    assert [len(job.places) for job in levels.jobs(cells, "cuda")] == [16, 4, 1, 1]
    assert next(levels.jobs([Cell(1, 0)], "cpu", wanted={3, 5})).windows == [[3, 5]]


def test_a_whole_picture_of_which_no_map_tells_the_places_is_left_out() -> None:
    levels = Levels.of((61, 83), 24, 2, 2)
    assert levels.serving([torch.empty(1, 1, 122, 166)]) == levels
    assert len(levels.serving([torch.empty(1, 1, 31, 42)]).grids) == len(levels.grids) - 1
