"""Cuts by name, and every way to get them wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import nn

from shortcutv2v import errors, graph
from shortcutv2v.graph.layout import Layout
from shortcutv2v.graph.structure import flatten


def parse(enc: Any, dec: Any, **options: Any) -> graph.Cut:
    return graph.parse_cut(traps.Flow(), enc, dec, **options)


@pytest.mark.parametrize(
    ("enc", "dec", "words"),
    [
        ("encc", "dec", "Did you mean 'enc'"),
        ("zzzz", "dec", "outermost modules"),
        (3, "dec", "enc_layer=3 .*dotted module name"),
        ("enc", ("dec", "rgb"), "f is the output of one layer"),
        (["enc", "enc2"], ["dec"], "lists of equal length"),
        ((), "dec", "at least one"),
        ([], [], "equal length"),
    ],
)
def test_wrong_names_are_refused(enc: Any, dec: Any, words: str) -> None:
    with pytest.raises(errors.CutError, match=words):
        parse(enc, dec)


@pytest.mark.parametrize("layout", ["b (h w) c", "b n c -> b c h w", "b c h w -> b h w c", "b (h w) -> b c h w"])
def test_wrong_layouts_are_refused(layout: str) -> None:
    with pytest.raises(errors.CutError, match="einops pattern"):
        parse("enc", "dec", layout=layout)


@pytest.mark.parametrize(
    ("enc", "dec"), [("enc", "dec"), ([("enc", "enc2")], "dec"), (["enc", ("enc", "enc2")], ["dec", "rgb"])]
)
def test_names_survive_a_round_trip(enc: Any, dec: Any) -> None:
    cut = parse(enc, dec)
    assert (cut.enc_layer, cut.dec_layer) == (enc, dec)
    assert parse(cut.enc_layer, cut.dec_layer) == cut


def test_aliases_get_the_first_name() -> None:
    assert graph.parse_cut(traps.Twice(), "enc", "same").dec_layer == "dec"


@pytest.mark.parametrize(
    ("pattern", "shape"), [("b (h w) c", (2, 24, 5)), ("b h w c", (2, 4, 6, 5)), ("(h w) b c", (24, 2, 5))]
)
def test_layouts_go_there_and_back(pattern: str, shape: tuple[int, ...]) -> None:
    layout = Layout.of(shape, f"{pattern} -> b c h w", (8, 12), "layer")
    x = torch.rand(shape)
    assert layout.to_map(x).shape == layout.map_shape(shape) == (2, 5, 4, 6)
    assert torch.equal(layout.from_map(layout.to_map(x)), x)


@pytest.mark.parametrize(
    ("shape", "words"), [((2, 25, 5), "class token"), ((2, 24), "2, 24"), ((2, 1, 2, 3, 4), "axes")]
)
def test_features_that_are_no_maps_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(errors.OutputTypeError, match=words):
        Layout.of(shape, "b (h w) c -> b c h w", (8, 12), "layer")


def test_structures_rebuild_what_they_took_apart() -> None:
    value = {
        "a": [torch.zeros(1), (torch.ones(2), "text")],
        "b": traps.Output(torch.zeros(3), 1, traps.Opaque(torch.ones(1))),
    }
    leaves, structure = flatten(value)
    again = structure.rebuild([t + 1 for t in leaves])
    assert (len(leaves), again["a"][1][1], type(again["b"]), again["b"].depth) == (4, "text", traps.Output, 1)
    assert torch.equal(again["b"].more.mean, torch.full((1,), 2.0))
    assert torch.equal(value["b"].more.mean, torch.ones(1))  # type: ignore[attr-defined]
    assert flatten(value)[1].key == structure.key
    assert flatten({**value, "c": 1})[1].key != structure.key


def test_unknown_options_are_refused() -> None:
    net = nn.Sequential(traps.conv(3, 3), traps.conv(3, 3))
    cut = graph.parse_cut(net, "0", "1")
    for options in ({"capture": "jit"}, {"on_leak": "ignore"}):
        with pytest.raises(errors.CaptureError, match="choose"):
            graph.Capture(net, cut, (torch.rand(1, 3, 4, 4),), **options)
    with pytest.raises(errors.InputError, match="another model"):
        graph.Capture(net, cut).of(
            graph.Capture(net, cut, (torch.rand(1, 3, 4, 4),))
            .at((torch.rand(1, 3, 4, 4),))
            .head(torch.rand(1, 3, 4, 4))
        )
