"""The demosaicking example: weights from the wheel, mosaics, cuts, errors."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import torch
from examples.demosaicnet.adapter import PATTERNS, DemosaicAdapter, build_adapter, colour_filter
from examples.demosaicnet.teacher import MOSAICS, BayerNet, build_teacher, load_pretrained

from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.wheels import wheel_file


def has_wheel() -> bool:
    try:
        wheel_file("demosaicnet", "bayer.pth")
    except InputError:
        return False
    return True


wheel = pytest.mark.skipif(not has_wheel(), reason="the wheel demosaicnet is not installed")


@pytest.mark.parametrize("name", ["teacher", "adapter"])
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"examples.demosaicnet.{name}")).failed == 0


def picture(height: int, width: int) -> torch.Tensor:
    yy, xx = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([yy, (xx - 0.3).abs(), (yy + xx) / 2])[None]


@wheel
@torch.no_grad()
@pytest.mark.parametrize(("mosaic", "pattern"), [*(("bayer", name) for name in PATTERNS), ("xtrans", "grbg")])
def test_published_weights_restore_the_colours(mosaic: str, pattern: str) -> None:
    adapter, frame = build_adapter(mosaic, pattern=pattern), picture(36, 48)
    (given,), _ = adapter.inputs(frame, None)
    found = adapter.image(adapter.teacher(given))
    shifted = adapter.image(adapter.teacher(given.roll(1, -1)).roll(-1, -1))  # another pattern
    good, bad = (float((x - frame)[..., 6:-6, 6:-6].abs().mean()) for x in (found, shifted))
    assert good < 0.01
    assert bad > 5 * good or mosaic == "xtrans"  # at full resolution, a network knows no position in the pattern


@wheel
def test_weights_of_the_other_mosaic_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit this BayerNet"):
        load_pretrained("bayer", str(wheel_file("demosaicnet", "xtrans.pth")))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_grey_mosaic_is_the_mosaic_of_its_colours(pattern: str) -> None:
    adapter = DemosaicAdapter(BayerNet(depth=8, width=4), pattern=pattern)
    frame, letters = torch.rand(1, 3, 6, 8), pattern.upper()
    grey = torch.zeros(1, 1, 6, 8)
    for place, colour in enumerate(letters):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        grey[..., rows, columns] = frame[:, ["RGB".index(colour)], rows, columns]
    (from_grey,), _ = adapter.inputs(grey.expand(-1, 3, -1, -1), None)
    (from_colour,), _ = adapter.inputs(frame, None)
    assert torch.equal(from_grey, from_colour)
    assert torch.equal(adapter.image(adapter.image(frame)), frame)


def test_the_xtrans_filter_sees_every_colour_in_every_row_and_column() -> None:
    mask = colour_filter("xtrans", 6, 6)
    assert torch.equal(mask.sum(0), torch.ones(6, 6))
    assert mask.sum((1, 2)).tolist() == [8, 20, 8]
    assert bool((mask.sum(1) > 0).all() and (mask.sum(2) > 0).all())
    assert torch.equal(colour_filter("xtrans", 7, 13)[:, 6, :6], mask[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("mosaic", MOSAICS)
@pytest.mark.parametrize("cut", ["low", "medium", "high"])
def test_every_cut_splits_exactly(mosaic: str, cut: str) -> None:
    adapter = DemosaicAdapter(build_teacher(mosaic, depth=8, width=4).eval(), cut)
    frame = torch.rand(1, 3, 12, 10)
    model = adapter.wrap(frame)
    (given,), _ = adapter.inputs(frame, None)
    output, reference = model.reference(given)
    assert torch.equal(output, adapter.teacher(given))
    assert torch.equal(model.shortcut(reference, given), output)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(InputError, match="mosaic='foveon'"):
        build_teacher("foveon")
    with pytest.raises(InputError, match="pattern='rgbg'"):
        DemosaicAdapter(BayerNet(), pattern="rgbg")
    with pytest.raises(InputError, match="for Bayer mosaics only"):
        DemosaicAdapter(build_teacher("xtrans"), pattern="rggb")
    with pytest.raises(InputError, match="no cut 'tiny'"):
        DemosaicAdapter(BayerNet(), "tiny")
