"""The paper's figures: where the block samples, what it blends, and what is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shortcutv2v import show
from shortcutv2v.blocks import Prediction
from shortcutv2v.errors import InputError
from shortcutv2v.show.figures import coloured, positions

SIZE = (8, 12)


def prediction(taps: int = 9, mask: float | None = 0.5, half: bool = False) -> Prediction:
    """All offsets known: global one down and two left in half-resolution pixels, local by tap."""
    f = torch.zeros(1, 4, *SIZE)
    moved = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 4, 6)
    size = (SIZE[0] // 2, SIZE[1] // 2) if half else SIZE
    local = torch.stack([torch.full(size, float(k)) for k in range(2 * taps)])[None]
    return Prediction(f, f, moved, local, None if mask is None else torch.full((1, 9, *SIZE), mask))


def test_motion_is_global_and_local_in_pixels_of_the_features() -> None:
    alone = show.motion(prediction(), local=False)
    assert alone.shape == (2, *SIZE)
    assert (alone[0] == 2).all()
    assert (alone[1] == -4).all()
    both = show.motion(prediction())
    assert torch.allclose(both[0], torch.full(SIZE, 2.0 + 8.0))  # mean of 0, 2, ... 16
    assert torch.allclose(both[1], torch.full(SIZE, -4.0 + 9.0))
    halved = show.motion(prediction(taps=1, half=True))
    assert torch.allclose(halved[1], torch.full(SIZE, -4.0 + 2.0))


def test_sampling_positions_of_a_point() -> None:
    found = positions(prediction(), (0.5, 0.5), local=False) * torch.tensor(SIZE)
    grid = [(4.5 + i + 2, 6.5 + j - 4) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert torch.allclose(found, torch.tensor(grid))
    local = positions(prediction(), (0.5, 0.5)) * torch.tensor(SIZE)
    assert torch.allclose(local - found, torch.tensor([(2.0 * k, 2.0 * k + 1) for k in range(9)]))
    single = positions(prediction(taps=1, half=True), (0.5, 0.5)) * torch.tensor(SIZE)
    assert torch.allclose(single, torch.tensor([[4.5 + 2, 6.5 - 4 + 2]]))


def test_figures_are_drawn(tmp_path: Path) -> None:
    from PIL import Image

    picture = torch.rand(3, 16, 24)
    show.sampling_positions(picture, picture, prediction(), tmp_path / "positions.png")
    show.blending_masks(
        [("one", picture, prediction()), ("two", picture, prediction(mask=1.0))], tmp_path / "masks.png"
    )
    show.error_maps([("one", picture, picture, picture, picture)], tmp_path / "errors.png")
    for name in ("positions", "masks", "errors"):
        with Image.open(tmp_path / f"{name}.png") as drawn:
            assert min(drawn.size) > 100
    with pytest.raises(InputError, match="no blending mask.*--variant paper"):
        show.blending_masks([("one", picture, prediction(mask=None))], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_efficiency_plot_is_an_svg_that_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "efficiency.svg"
    points = [("ours", "Ours", 6.2, 2.0), ("ours", "Ours-1/2", 4.1, 2.3), ("others", "teacher", 28.0, 1.9)]
    show.efficiency(points, path, "G multiply-adds", "FVD", lower=True)
    text = path.read_text()
    assert text.startswith("<svg")
    for name in ("Ours-1/2", "teacher", "G multiply-adds", "FVD"):
        assert f">{name}<" in text
    assert "--ink: #1a1d21" in text


def test_colours_span_the_range() -> None:
    found = coloured(torch.tensor([[0.0, 0.05, 0.1, 9.0]]), 0.1)
    assert found.dtype == torch.uint8
    assert found[:, 0, 0].tolist() == [0, 0, 3]  # the darkest of magma
    assert torch.equal(found[:, 0, 2], found[:, 0, 3])
