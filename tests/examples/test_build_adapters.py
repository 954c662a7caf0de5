"""`build_adapter()` as the command line calls it: settings in, an adapter around the file's network out."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from examples.unsup.adapter import build_adapter as build_unsup
from examples.unsup.teacher import build_teacher as unsup_net
from examples.vid2vid.adapter import build_adapter as build_vid2vid
from examples.vid2vid.maps import pack_labels, tile_maps
from examples.vid2vid.teacher import build_teacher as vid2vid_net
from examples.vtoonify.adapter import build_adapter as build_vtoonify
from examples.vtoonify.teacher import build_teacher as vtoonify_net
from torch import Tensor, nn

from shortcutv2v.errors import InputError

MODULES = [
    "examples._checkpoints",
    *(f"examples.unsup.{name}" for name in ("teacher", "checkpoint", "adapter")),
    *(f"examples.vid2vid.{name}" for name in ("teacher", "layers", "first_frames", "maps", "checkpoint", "adapter")),
    *(f"examples.vtoonify.{name}" for name in ("teacher", "stylegan", "dualstylegan", "checkpoint", "adapter")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def _save(net: nn.Module, path: Path) -> str:
    torch.save(net.state_dict(), path)
    return str(path)


def test_unsup_from_a_file(tmp_path: Path) -> None:
    net = unsup_net({"ngf": 2, "n_blocks": 9})
    adapter = build_unsup(_save(net, tmp_path / "net.pth"), cut="high", show_shortcut=False)
    assert (adapter.enc_layer, adapter.dec_layer) == ("model.9", "model.18")
    assert not adapter.show_shortcut
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(adapter.teacher(x), net(x))


def _generator(tmp_path: Path, **config: Any) -> str:
    return _save(vid2vid_net({"prev_output_nc": 6, "ngf": 2, "n_blocks": 2, **config}), tmp_path / "net_G0.pth")


@torch.no_grad()
def test_vid2vid_with_labels_and_a_first_frame_network(tmp_path: Path) -> None:
    painter = vid2vid_net({"input_nc": 3, "ngf": 2, "n_downsampling": 1, "n_blocks": 1})
    first = _save(painter, tmp_path / "net_G.pth")
    adapter = build_vid2vid(_generator(tmp_path, input_nc=12), first=first, interval=6)
    assert adapter.max_interval == 6
    frame = pack_labels(torch.randint(0, 3, (1, 16, 16)), torch.randint(0, 5, (1, 16, 16)))
    expected = painter.train()(adapter.encode(frame)[:, :3])  # the frame's own statistics, as in train mode
    torch.testing.assert_close(adapter.opening(frame, adapter.start()), expected)


@torch.no_grad()
def test_vid2vid_with_tiles_and_a_guided_first_frame_network(tmp_path: Path) -> None:
    painter = vid2vid_net({"input_nc": 5, "nz": 2, "ngf": 2, "n_downsampling": 1, "n_blocks": 1})
    first, features = _save(painter, tmp_path / "net_G.pth"), torch.randn(2, 16, 16)
    torch.save(features, tmp_path / "features.pt")
    settings = {"maps": "tiles", "first": first, "features": str(tmp_path / "features.pt")}
    adapter = build_vid2vid(_generator(tmp_path, input_nc=15), **settings)
    maps = torch.rand(2, 5, 16, 16)
    expected = torch.cat([painter.train()(one[None], features[None]) for one in maps])
    opening = adapter.opening(tile_maps(maps), adapter.start())
    torch.testing.assert_close(opening, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="features=FILE"):
        build_vid2vid(_generator(tmp_path, input_nc=15), **{**settings, "features": None})


def test_vid2vid_refuses_files_in_the_wrong_place(tmp_path: Path) -> None:
    encoder = _save(vid2vid_net({"input_nc": 3, "output_nc": 2, "ngf": 2, "n_downsampling": 1}), tmp_path / "net_E.pth")
    with pytest.raises(InputError, match="give it as first="):
        build_vid2vid(encoder)
    with pytest.raises(InputError, match="paints no pictures"):
        build_vid2vid(_generator(tmp_path, input_nc=12), first=encoder)
    with pytest.raises(InputError, match="'labels' or 'tiles'"):
        build_vid2vid(_generator(tmp_path, input_nc=12), maps="boxes")
    with pytest.raises(InputError, match=r"foreground=\(26,\)"):
        build_vid2vid(_generator(tmp_path, input_nc=12, fg=True))


class _Parser(nn.Module):
    def forward(self, picture: Tensor) -> Tensor:
        """Nineteen grey copies."""
        return picture.mean(1, keepdim=True).repeat(1, 19, 1, 1)


@torch.no_grad()
def test_vtoonify_with_style_and_parser_from_files(tmp_path: Path) -> None:
    channels = dict.fromkeys((4, 8, 16, 32, 64), 4)
    config = {"backbone": "toonify", "in_size": 32, "out_size": 64, "style_channels": 4, "num_mlps": 1}
    net = vtoonify_net({**config, "generator_channels": channels})
    torch.save({"g_ema": net.state_dict()}, tmp_path / "net.pt")
    style = torch.randn(1, 10, 4)
    torch.save(style, tmp_path / "style.pt")
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(_Parser(), (torch.randn(2, 3, 16, 24),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "parser.pt2")
    adapter = build_vtoonify(
        str(tmp_path / "net.pt"), str(tmp_path / "style.pt"), parse=str(tmp_path / "parser.pt2"), cut="high"
    )
    frame = torch.rand(1, 3, 8, 16)
    (x, code), kwargs = adapter.inputs(frame, adapter.start())
    torch.testing.assert_close(x[:, 3:], _Parser()(frame * 2 - 1) / 16)
    torch.testing.assert_close(code, style)
    torch.testing.assert_close(adapter.teacher(x, code, **kwargs), net(x, style))
    with pytest.raises(InputError, match="style=FILE"):
        build_vtoonify(str(tmp_path / "net.pt"))
