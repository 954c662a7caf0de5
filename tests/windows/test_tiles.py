"""Windows cover a picture exactly, whatever its size; their batch gives what the whole picture gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shortcutv2v.errors import InputError
from shortcutv2v.windows import Grid
from shortcutv2v.windows.levels import Cell, Levels

SIDES = st.integers(1, 70)


@given(SIDES, SIDES, st.integers(1, 40), st.integers(0, 9), st.sampled_from([1, 2, 4, 8]))
def test_cores_cover_the_picture_once_and_have_their_halo(h: int, w: int, window: int, halo: int, align: int) -> None:
    grid = Grid.of((h, w), window, halo, align)
    covered = torch.zeros(h, w)
    for (top, bottom, left, right), corner in zip(grid.cores, grid.corners, strict=True):
        covered[top:bottom, left:right] += 1
        for begin, end, start, side, length in zip(
            (top, left), (bottom, right), corner, grid.crop, (h, w), strict=True
        ):
            assert 0 <= start <= start + side <= length
            assert start % align == begin % align == 0
            assert begin - start >= min(halo, begin)
            assert start + side - end >= min(halo, length - end)
    assert bool((covered == 1).all())
    assert sum(grid.shares) == pytest.approx(1)


@given(SIDES, SIDES, st.integers(1, 40), st.integers(0, 9), st.integers(0, 10**6))
def test_cutting_and_pasting_agree_with_a_plain_loop(h: int, w: int, window: int, halo: int, seed: int) -> None:
    grid = Grid.of((h, w), window, halo)
    generator = torch.Generator().manual_seed(seed)
    picture, canvas, expected = (torch.rand(1, 2, h, w, generator=generator) for _ in range(3))
    canvas.copy_(expected)
    chosen = torch.randperm(len(grid), generator=generator)[: seed % len(grid) + 1].tolist()
    crops = grid.cut(picture, chosen)
    for row, window_number in enumerate(chosen):
        top, bottom, left, right = grid.cores[window_number]
        for y in range(top, bottom):
            for x in range(left, right):
                expected[0, :, y, x] = picture[0, :, y, x]
        y, x = grid.corners[window_number]
        assert torch.equal(crops[row], picture[0, :, y : y + grid.crop[0], x : x + grid.crop[1]])
    grid.paste(canvas, crops, chosen)
    assert torch.equal(canvas, expected)


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 6, 4, stride=2, padding=1),
        nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1),
    )


NETWORKS = {  # name -> network, stride, reach in pixels
    "plain": (lambda: nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))), 1, 3),
    "reflecting": (lambda: nn.Conv2d(3, 3, 5, padding=2, padding_mode="reflect"), 1, 2),
    "strided": (strided, 4, 14),
    "enlarging": (lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), 1, 1),
    "shrinking": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), 2, 2),
}


def windowed(network: nn.Module, picture: Tensor, grid: Grid) -> Tensor:
    whole = network(picture)
    canvas, every = torch.full_like(whole, torch.nan), list(range(len(grid)))
    grid.paste(canvas, network(grid.cut(picture, every)), every)
    return canvas


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(61, 83), (64, 96), (50, 37), (20, 70)])
@torch.no_grad()
def test_all_windows_give_the_whole_picture(name: str, size: tuple[int, int]) -> None:
    build, align, reach = NETWORKS[name]
    picture, network = torch.rand(1, 3, *size), build()
    made = windowed(network, picture, Grid.of(size, 24, reach, align))
    # Convolutions choose their algorithm by size, so equal within rounding.
    assert torch.allclose(made, network(picture), atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(61, 83), (64, 96), (50, 37), (20, 70)])
@torch.no_grad()
def test_windows_out_of_cells_of_every_level_equal_the_whole_picture(name: str, size: tuple[int, int]) -> None:
    build, align, reach = NETWORKS[name]
    picture, network = torch.rand(1, 3, *size), build()
    whole = network(picture)
    levels = Levels.of(size, 12, reach, align).serving([whole])
    for level, members in enumerate(levels.members):
        canvas = torch.full_like(whole, torch.nan)
        for job in levels.jobs([Cell(level, place) for place in range(len(members))], "cpu"):
            part = network(levels.grids[level].cut(picture, job.places))
            for window in job.windows[0]:
                one = next(levels.jobs([Cell(level, job.places[0])], "cpu", wanted={window}))
                levels.paste(canvas, part, one)
        assert torch.allclose(canvas, whole, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_nothing_outside_the_crop_reaches_a_core(name: str) -> None:
    build, align, reach = NETWORKS[name]
    network, size = build(), (61, 83)
    grid, picture = Grid.of(size, 24, reach, align), torch.rand(1, 3, *size)
    broken, window = torch.full_like(picture, torch.nan), len(grid) // 2
    y, x = grid.corners[window]
    area = (..., slice(y, y + grid.crop[0]), slice(x, x + grid.crop[1]))
    broken[area] = picture[area]
    one, other = (network(grid.cut(p, [window])) for p in (picture, broken))
    canvas = network(picture)
    grid.paste(canvas, other, [window])
    assert torch.equal(one, other)
    assert torch.allclose(canvas, network(picture), atol=1e-6)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="window=0"):
        Grid.of((8, 8), window=0, halo=1)
