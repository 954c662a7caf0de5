"""Suggested cuts hold what they promise."""

from __future__ import annotations

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import Tensor, nn

from shortcutv2v import errors, graph

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
    assert [s.saved for s in found] == sorted((s.saved for s in found), reverse=True)
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
    assert ("enc", "dec") in {(s.enc_layer, s.dec_layer) for s in found}


def test_a_suggestion_reads_well() -> None:
    best = graph.suggest_cuts(chain(1), X)[0]
    assert str(best) == " 78.6%  0 -> 2  a (1, 4, 16, 24) f (1, 3, 16, 24)"


def test_the_cut_explains_itself() -> None:
    net = traps.Base().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    text = str(cap.cut)
    assert text.startswith("enc -> dec\n")
    for part in ("captured by: fx", "the middle: mid, dec", "57.1% of the multiply-adds", "57.0% of the parameters"):
        assert part in text
    assert (cap.cut.enc_layer, cap.cut.dec_layer) == ("enc", "dec")
    assert "strategy='fx'" in repr(cap.at((X,)))


def test_dearer_reasons_are_kept() -> None:
    net = traps.Decides().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    assert "passed over export: torch.export stopped with" in str(cap.cut)
