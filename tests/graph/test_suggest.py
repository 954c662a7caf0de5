"""Suggested cuts save what the list says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import errors, graph
from shortcutv2v.cuts import block_macs
from shortcutv2v.graph.reach import Reach

X = torch.rand(1, 3, 16, 24)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.norm, self.c2 = traps.conv(4, 4), nn.BatchNorm2d(4), traps.conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c2(torch.relu(self.norm(self.c1(x))))  # type: ignore[no-any-return]


def chain(blocks: int) -> nn.Sequential:
    return nn.Sequential(traps.conv(3, 4), *[Residual() for _ in range(blocks)], traps.conv(4, 3)).eval()


def test_every_suggestion_is_what_the_capture_finds() -> None:
    net = chain(2)
    found = graph.suggest_cuts(net, X)
    assert found == sorted(found, key=lambda s: (bool(s.leaks), s.picture, -s.saved))
    assert {(s.enc_layer, s.dec_layer) for s in found} >= {("0", "3"), ("1", "2"), ("0", "2.c2")}
    for suggestion in found:
        cut = graph.parse_cut(net, suggestion.enc_layer, suggestion.dec_layer)
        if suggestion.leaks:
            with pytest.raises(errors.LeakError):
                graph.Capture(net, cut, (X,))
            continue
        facts = graph.Capture(net, cut, (X,)).at((X,)).facts
        assert facts.share_of_macs == pytest.approx(suggestion.saved, abs=1e-9)
        assert (facts.a[0], facts.f[0]) == (suggestion.a_shape, suggestion.f_shape)


def test_a_leak_comes_with_the_nearest_cuts_that_have_none() -> None:
    net = chain(3)
    advice = r"'1.c2 \(then 1 \(add\)\)'.*Nearest cuts that do not leak: enc_layer='1', dec_layer='2.c2'"
    with pytest.raises(errors.LeakError, match=advice):
        graph.Capture(net, graph.parse_cut(net, "0", "2.c2"), (X,))


def test_five_hundred_modules_are_no_burden() -> None:
    net = chain(125)
    assert len(list(net.modules())) > 500
    found = graph.suggest_cuts(net, X[..., :4, :4])
    assert found[0].saved > 0.95
    assert len(found) > 10_000


def test_teachers_without_a_graph_are_followed_by_hooks() -> None:
    found = graph.suggest_cuts(traps.Decides().eval(), X)
    assert ("act", "dec") in {(s.enc_layer, s.dec_layer) for s in found}


def test_a_suggestion_reads_well() -> None:
    found = graph.suggest_cuts(chain(1), X)
    assert str(found[0]) == " 57.1%  0 -> 1.c2  4 and 4 channels of 16x24 (1/1), reach 2 pixels"
    assert str(found[-1]).endswith("reach 1 pixels, to the end")
    assert not found[0].remark


class Place(nn.Module):
    """Convolution, norm and activation: one place to cut at."""

    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.norm, self.act = traps.conv(i, o, stride), nn.BatchNorm2d(o), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class Styled(nn.Module):
    """A U-Net whose middle is scaled by a style, and whose deep features are returned, too."""

    def __init__(self) -> None:
        super().__init__()
        self.d0, self.d1, self.mid = Place(3, 6), Place(6, 8, 2), nn.Sequential(Place(8, 8), Place(8, 8))
        self.style, self.u0, self.rgb = nn.Linear(5, 8), Place(14, 6), traps.conv(6, 3)

    def forward(self, x: Tensor, style: Tensor, features: bool = True) -> Any:
        first = self.d0(nn.functional.pad(x, (0, 0, 0, 0)))
        deep = self.mid(self.d1(first)) * (1 + self.style(style)[:, :, None, None])
        up = nn.functional.interpolate(deep, size=first.shape[2:])
        rgb = self.rgb(self.u0(torch.cat([up, first], 1))).tanh()
        return {"rgb": rgb, "more": [{"features": deep}]} if features else rgb


STYLED = (X, torch.rand(1, 5))


def styled() -> Styled:
    torch.manual_seed(0)
    return Styled().eval()


def test_one_line_per_distinct_cut() -> None:
    found = graph.suggest_cuts(styled(), STYLED, {"features": False})
    names = [(s.enc_layer, s.dec_layer) for s in found]
    assert len(set(names)) == len(names)
    assert {name for pair in names for name in pair} == {"d0", "d1", "mid.0", "mid", "u0", "rgb"}
    assert names[0] == ("d0", "u0")


def test_pictures_come_after_features_and_leaks_last() -> None:
    found = graph.suggest_cuts(styled(), STYLED)
    order = [(bool(s.leaks), s.picture) for s in found]
    assert order == sorted(order)
    assert {s.dec_layer for s in found if s.picture} == {"rgb"}
    assert all(s.leaks for s in found if (s.enc_layer, s.dec_layer) == ("d0", "u0"))


def test_a_leak_is_blamed_on_who_needs_it() -> None:
    net: nn.Module = styled()
    found = {(s.enc_layer, s.dec_layer): s.leaks for s in graph.suggest_cuts(net, STYLED)}
    name = "mid.1.norm (then Styled (mul))"
    assert found["d0", "u0"] == (f"{name}, returned as output['more'][0]['features']",)
    words = r"norm \(then (Styled \()?mul\)+', returned as output\['more'\]\[0\]\['features'\].*leave it out"
    for capture in ("fx", "export"):
        with pytest.raises(errors.LeakError, match=words):
            graph.Capture(net, graph.parse_cut(net, "d0", "u0"), STYLED, capture=capture)
    net = skipping()
    with pytest.raises(errors.LeakError, match=r"d1\.norm.*read by 'rgb'"):
        graph.Capture(net, graph.parse_cut(net, "d0", "d2"), (X,))


def skipping() -> nn.Module:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.d0, self.d1, self.d2, self.rgb = Place(3, 4), Place(4, 4), Place(4, 4), traps.conv(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            skip = self.d1(self.d0(x))
            return self.rgb(torch.cat([self.d2(skip), skip], 1))  # type: ignore[no-any-return]

    return Skips().eval()


def test_resolution_and_reach_are_those_of_the_middle() -> None:
    found = {(s.enc_layer, s.dec_layer): s for s in graph.suggest_cuts(styled(), STYLED, {"features": False})}
    middle = found["d1", "mid"]
    assert (middle.resolution, middle.a_shape[1], middle.f_shape[1]) == (0.5, 8, 8)
    assert middle.reach is not None
    assert (middle.reach.pixels, middle.reach.whole) == (4, False)  # two 3x3 convolutions at half resolution
    norm = nn.Sequential(traps.conv(3, 4), nn.InstanceNorm2d(4), traps.conv(4, 4), traps.conv(4, 3)).eval()
    reach = {(s.enc_layer, s.dec_layer): s.reach for s in graph.suggest_cuts(norm, X)}["1", "2"]
    assert reach is not None
    assert reach.whole


def test_the_price_of_a_block_counts() -> None:
    net = nn.Sequential(traps.conv(3, 32), *[traps.conv(32, 32) for _ in range(9)], traps.conv(32, 3)).eval()
    free = graph.suggest_cuts(net, X)
    paid = shortcutv2v.suggest_cuts(net, X)
    assert {(s.enc_layer, s.dec_layer, s.saved) for s in free} == {(s.enc_layer, s.dec_layer, s.saved) for s in paid}
    assert all(s.net < s.saved for s in paid)
    small = next(s for s in paid if (s.enc_layer, s.dec_layer) == ("0", "1"))
    assert small.net < 0 < paid[0].net
    macs = sum(p[1] for p in [block_macs((1, 32, 16, 24), (1, 32, 16, 24), 16, "flow")])
    total = shortcutv2v.measure.cost(net, X).macs
    assert paid[0].saved - paid[0].net == pytest.approx(macs / total)


def test_the_cut_explains_itself() -> None:
    net = traps.Base().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    text = str(cap.cut)
    assert text.startswith("enc -> dec\n")
    for part in ("captured by: fx", "the middle: mid, dec", "57.1% of the multiply-adds", "57.0% of the parameters"):
        assert part in text
    assert (cap.cut.enc_layer, cap.cut.dec_layer) == ("enc", "dec")
    assert "strategy='fx'" in repr(cap.at((X,)))


@pytest.mark.parametrize("capture", ["fx", "export", "hooks"])
def test_the_cut_says_how_far_each_part_looks(capture: str) -> None:
    net = nn.Sequential(traps.conv(3, 4), traps.conv(4, 4), traps.conv(4, 4), traps.conv(4, 4), traps.conv(4, 3)).eval()
    cap = graph.Capture(net, graph.parse_cut(net, "0", "2"), (X,), capture=capture)
    assert "reach: head 1 pixels, middle 2 pixels, tail 2 pixels" in str(cap.cut)
    assert "windows: local; exact with a halo of 5 pixels" in str(cap.cut)


def test_the_reach_is_in_pixels_of_the_input_and_says_where_it_ends() -> None:
    net = styled()
    reach = dict(graph.Capture(net, graph.parse_cut(net, "d1", "mid"), STYLED).at(STYLED).facts.reach)
    assert reach["middle"] == Reach(4, whole=False)
    norm = nn.Sequential(traps.conv(3, 4), traps.conv(4, 4), nn.InstanceNorm2d(4), traps.conv(4, 3)).eval()
    reach = dict(graph.Capture(norm, graph.parse_cut(norm, "0", "1"), (X,)).at((X,)).facts.reach)
    assert not reach["middle"].whole
    assert reach["tail"].whole


def test_reasons_of_strategies_passed_over_are_kept() -> None:
    net = traps.Decides().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    assert "passed over export: torch.export stopped with" in str(cap.cut)


class BatchInside(nn.Module):
    """Makes a larger batch inside, as window attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep, self.last = traps.conv(3, 8), traps.conv(8, 8), traps.conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        parts = self.deep(torch.cat((y, y * 2)))
        return self.last(parts[:1] + parts[1:])  # type: ignore[no-any-return]


def test_a_cut_does_not_change_the_batch() -> None:
    found = shortcutv2v.suggest_cuts(BatchInside(), (X,))
    assert found
    assert all(one.a_shape[0] == one.f_shape[0] for one in found)
    with pytest.raises(errors.SpatialMismatchError, match="the same batch size"):
        shortcutv2v.wrap(BatchInside(), "first", "deep", example_inputs=(X,))
