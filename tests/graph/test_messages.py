"""Messages name the cause, and the next thing to type."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import errors, graph

X = torch.rand(1, 3, 16, 24)
STRATEGIES = ("fx", "export", "hooks")


class DeadBranch(traps.Base):
    """Of its two branches one is computed for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.dec2 = traps.conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc(x)
        self.dec2(self.mid(a))
        return self.out(self.deep(a))  # type: ignore[no-any-return]


@pytest.mark.parametrize("capture", [None, *STRATEGIES])
def test_a_branch_that_nothing_needs_is_named(capture: str | None) -> None:
    net = DeadBranch().eval()
    with pytest.raises(errors.CutOrderError, match="output does not depend on .*dec2"):
        graph.Capture(net, graph.parse_cut(net, ["enc", "enc"], ["dec", "dec2"]), (X,), capture=capture)


class LeaksPastExport(traps.Base):
    """A leak through an operation of several outputs, and a cut layer whose hooks, which export needs, do not fire."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.mid(self.enc(x)).chunk(2, 1)
        f = self.dec.forward(torch.cat([left, right], 1))
        return self.out(f + torch.cat([right, left], 1))  # type: ignore[no-any-return]


def test_a_leak_is_reported_although_later_strategies_see_less() -> None:
    net = LeaksPastExport().eval()
    with pytest.raises(errors.LeakError, match="'mid'"):
        graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))


class Holder:
    """As spandrel's descriptors and diffusers' pipelines: callable, and no module."""

    def __init__(self) -> None:
        self.network, self.name = traps.Base(), "holder"

    def __call__(self, x: Tensor) -> Any:
        return self.network(x)


NOT_MODULES = {
    "a descriptor": (Holder, r"give its \.network$"),
    "a function": (lambda: lambda x: x, r"put a function into a module"),
    "a class": (lambda: traps.Base, r"such as Base\(\)"),
    "a path": (lambda: "weights.pth", r"load the weights from 'weights.pth'"),
    "a state dict": (lambda: traps.Base().state_dict(), r"load_state_dict"),
    "an exported program": (
        lambda: torch.export.export(traps.Base().eval(), (X,)),
        "the network that it was exported from",
    ),
    "nothing": (lambda: None, r"NoneType"),
}


@pytest.mark.parametrize("kind", NOT_MODULES)
def test_what_is_no_module_is_refused_with_the_way_to_one(kind: str) -> None:
    make, words = NOT_MODULES[kind]
    with pytest.raises(errors.InputError, match=words):
        shortcutv2v.wrap(make(), "enc", "dec", example_inputs=(X,))
    with pytest.raises(errors.InputError, match=words):
        graph.suggest_cuts(make(), X)


class OwnGenerator(traps.Base):
    """Draws noise from a generator of its own, which it keeps in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.sources = [torch.Generator().manual_seed(0)]

    def forward(self, x: Tensor) -> Any:
        return super().forward(x + torch.rand(x.shape, generator=self.sources[0]))


def test_a_generator_of_its_own_is_named() -> None:
    net = OwnGenerator().eval()
    state = net.sources[0].get_state()
    with pytest.raises(errors.CaptureError, match=r"sources\[0\].*torch\.Generator.*as an input"):
        graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    assert torch.equal(net.sources[0].get_state(), state)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_in_train_mode_is_sent_to_eval(norm: Any) -> None:
    net = traps.Base().eval()
    norm(net.mid)
    net.mid.train()
    with pytest.raises(errors.CaptureError, match=r"spectral norm.*'mid'.*\.eval\(\)"):
        graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    net.eval()
    graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
