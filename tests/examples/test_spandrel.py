"""One adapter for all architectures of spandrel: small networks with random weights, loaded from files."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.errors import CheckpointError, InputError

spandrel = pytest.importorskip("spandrel")

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Compact": ("Compact:Compact", {"num_feat": 16, "num_conv": 4}),
    "ESRGAN": ("ESRGAN:ESRGAN", {"num_filters": 16, "num_blocks": 2}),
    "NAFNet": ("NAFNet:NAFNet", {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    "DRUNet": ("DRUNet:DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [8, 16, 16, 32], "nb": 2}),  # reads a noise level, too
}


def saved(name: str, folder: Path) -> str:
    module, _, kind = NETWORKS[name][0].partition(":")
    torch.manual_seed(0)
    net: nn.Module = getattr(importlib.import_module(f"spandrel.architectures.{module}"), kind)(**NETWORKS[name][1])
    torch.save(net.state_dict(), folder / "net.pth")
    return str(folder / "net.pth")


@torch.no_grad()
@pytest.mark.parametrize("name", ["Compact", "ESRGAN", "NAFNet"])
def test_the_file_is_enough(name: str, tmp_path: Path) -> None:
    path = saved(name, tmp_path)
    adapter = find_adapter("spandrel", [f"checkpoint={path}"])
    frame = torch.rand(1, 3, 24, 32)
    model = adapter.wrap(frame)
    output, reference = model.reference(frame)
    assert torch.equal(output, adapter.teacher(frame))
    assert torch.equal(model.shortcut(reference, frame), output)
    wanted = spandrel.ModelLoader().load_from_file(path)
    torch.testing.assert_close(adapter.image(output).clamp(0, 1), wanted(frame).clone())
    assert output.shape[-2:] == (24 * wanted.scale, 32 * wanted.scale)


@torch.no_grad()
def test_the_call_and_the_sizes_are_spandrels(tmp_path: Path) -> None:
    path = saved("DRUNet", tmp_path)
    adapter = find_adapter("spandrel", [f"checkpoint={path}", "enc_layer=model.m_head", "dec_layer=model.m_up1"])
    assert (adapter.enc_layer, adapter.dec_layer) == ("model.m_head", "model.m_up1")
    frame = torch.rand(1, 3, 24, 32)
    wanted = spandrel.ModelLoader().load_from_file(path)(frame).clone()
    torch.testing.assert_close(adapter.teacher(frame).clamp(0, 1), wanted)
    model = adapter.wrap(frame)
    output, reference = model.reference(frame)
    assert torch.equal(model.shortcut(reference, frame), output)
    assert adapter.multiple == 8


def described(**changes: Any) -> SimpleNamespace:
    facts = {
        "architecture": SimpleNamespace(name="Some"),
        "purpose": "Restoration",
        "model": nn.Conv2d(1, 1, 3, padding=1),
        "input_channels": 1,
        "output_channels": 1,
        "scale": 1,
        "size_requirements": SimpleNamespace(multiple_of=8, minimum=16, square=True),
        "_call_fn": lambda model, picture: model(picture),
    }
    return SimpleNamespace(**{**facts, **changes})


@pytest.mark.filterwarnings("ignore:frames of")
def test_grey_networks_and_size_rules() -> None:
    from examples.spandrel.adapter import SpandrelAdapter

    adapter = SpandrelAdapter(described())
    assert adapter.pad(torch.zeros(1, 3, 5, 7)).shape == (1, 3, 16, 16)
    frame = torch.rand(1, 3, 9, 20)
    padded = adapter.pad(frame)
    assert padded.shape == (1, 3, 24, 24)
    assert torch.equal(padded[..., :9, :20], frame)
    (grey,), _ = adapter.inputs(padded, None)
    red: Tensor = adapter.inputs(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), None)[0][0]
    assert grey.shape == (1, 1, 24, 24)
    assert float(red) == pytest.approx(0.299)
    assert adapter.image(grey).shape == (1, 3, 24, 24)


def test_refusals_are_one_line(tmp_path: Path) -> None:
    from examples.spandrel.adapter import SpandrelAdapter, build_adapter

    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no pickle")
    for given, message in {
        "other.pth": "recognises no architecture",
        "broken.pth": "cannot read",
        "x": "no checkpoint",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            build_adapter(str(tmp_path / given))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="--set checkpoint="):
        build_adapter()
    with pytest.raises(InputError, match="needs a mask"):
        SpandrelAdapter(described(purpose="Inpainting"))
    with pytest.raises(InputError, match="turns 4 channels into 1"):
        SpandrelAdapter(described(input_channels=4))
    with pytest.raises(InputError, match="only one end"):
        SpandrelAdapter(described(), "0")
