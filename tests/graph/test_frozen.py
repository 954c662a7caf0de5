"""What the teacher's code reads beside its inputs: tensors are read live, and a changed value is captured anew."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import graph

X = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
STRATEGIES = ("fx", "export", "hooks")
SCALE = 1.0
FLAGS = {"deep": {"on": False}}
TABLE = torch.ones(1, 4, 1, 1)
ORDERED = OrderedDict(gain=1.0)
OPTIONS = argparse.Namespace(gain=1.0)


@dataclasses.dataclass
class Config:
    """Settings, as many projects hold them."""

    gain: float = 1.0
    names: list[str] = dataclasses.field(default_factory=lambda: ["one"])
    unread: int = 0

    def factor(self) -> float:
        return 2.0 if "two" in self.names else 1.0


def scaled(x: Tensor) -> Tensor:
    return x * 3 if FLAGS["deep"]["on"] else x * SCALE * TABLE


def doubled(x: Tensor) -> Tensor:
    return x * 2


class Lora(nn.Module):
    """A layer with a switch and a strength, read by its own code and by its owner's."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.low = traps.conv(4, 4), traps.conv(4, 4)
        self.scale, self.enabled = 1.0, True

    def strength(self) -> float:
        return self.scale if self.enabled else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.low(x) * self.strength()  # type: ignore[no-any-return]


class Reads(traps.Base):
    """Reads its settings in every way that Python has."""

    bias = 0.0

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.mid = Lora()  # type: ignore[assignment]
        self.blocks = nn.ModuleList([traps.conv(4, 4), nn.Tanh(), nn.Sigmoid()])
        self.strength = strength
        self.fast = False
        self.mode: Any = "plain"
        self.config = Config()
        self.styles: dict[str, Any] = {"a": torch.ones(1, 4, 1, 1), "deep.er": {"b": [torch.ones(1, 4, 1, 1), 1.0]}}
        self.order = OrderedDict(first=1.0, second=1.0)
        self.recent: deque[float] = deque([1.0, 1.0])
        self.modes: set[str] = set()
        self.options = types.SimpleNamespace(gain=1.0, inner=argparse.Namespace(gain=[1.0]))
        self.act: Callable[[Tensor], Tensor] = torch.relu
        self.plain = [traps.conv(4, 4).eval()]
        self.offset: Tensor | None = None
        self.unread = 0
        self.seen: list[Tensor] = []
        self.calls = 0
        self.last: Tensor | None = None
        shift = 0.0

        def close(x: Tensor) -> Tensor:
            return x + shift

        self.closed = close
        self.partial = functools.partial(torch.mul, other=1.0)

    @property
    def total(self) -> float:
        return float(sum(self.order.values()) + sum(self.recent))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.seen.append(x)
        self.last = x
        f = self.dec(torch.relu(self.mid(self.enc(x))))
        f = self.closed(self.partial(scaled(f) * self.strength * self.config.gain * self.config.factor() + self.bias))
        f = f * self.styles["a"] * self.styles["deep.er"]["b"][0] * self.styles["deep.er"]["b"][1] * self.total
        f = f * self.options.gain * self.options.inner.gain[0] * ORDERED["gain"] * OPTIONS.gain
        f = f + self.mid.scale + self.plain[0].padding[0]
        if self.mode != "plain" or "double" in self.modes:
            f = f * 2
        if self.offset is not None:
            f = f + self.offset
        for block in self.blocks:
            f = block(f)
        f = f - 0.5
        return self.out(f if self.fast else self.act(f))


def set_global(name: str, value: Any) -> None:
    setattr(sys.modules[__name__], name, value)


def swap_blocks(net: Reads) -> None:
    net.blocks[1], net.blocks[2] = net.blocks[2], net.blocks[1]


CHANGES: dict[str, Callable[[Reads], Any]] = {
    "number": lambda net: setattr(net, "strength", 0.25),
    "flag": lambda net: setattr(net, "fast", True),
    "text": lambda net: setattr(net, "mode", "other"),
    "number of a layer": lambda net: setattr(net.mid, "scale", 0.5),
    "switch of a layer": lambda net: setattr(net.mid, "enabled", False),
    "field of a namespace": lambda net: setattr(net.options, "gain", 0.5),
    "list in nested namespaces": lambda net: net.options.inner.gain.__setitem__(0, 0.5),
    "global ordered dictionary": lambda _: ORDERED.update(gain=0.5),
    "global namespace": lambda _: setattr(OPTIONS, "gain", 0.5),
    "field of a config": lambda net: setattr(net.config, "gain", 0.5),
    "list in a config": lambda net: net.config.names.append("two"),
    "new config": lambda net: setattr(net, "config", Config(gain=3.0)),
    "tensor in a dict": lambda net: net.styles.update(a=torch.full((1, 4, 1, 1), 0.5)),
    "tensor in a nested list": lambda net: net.styles["deep.er"]["b"].__setitem__(0, torch.full((1, 4, 1, 1), 0.5)),
    "tensor in place": lambda net: net.styles["a"].mul_(0.5),
    "number in a nested list": lambda net: net.styles["deep.er"]["b"].__setitem__(1, 0.5),
    "new dict": lambda net: setattr(net, "styles", {"a": torch.zeros(1), "deep.er": {"b": [torch.ones(1), 2.0]}}),
    "ordered dict": lambda net: net.order.update(third=1.0),
    "deque": lambda net: net.recent.append(1.0),
    "set": lambda net: net.modes.add("double"),
    "function": lambda net: setattr(net, "act", torch.tanh),
    "none becomes a tensor": lambda net: setattr(net, "offset", torch.ones(1)),
    "class attribute": lambda net: setattr(Reads, "bias", 1.0),
    "class attribute on the instance": lambda net: setattr(net, "bias", 1.0),
    "module list swapped": swap_blocks,
    "module list shortened": lambda net: net.blocks.__delitem__(2),
    "module list grown": lambda net: net.blocks.append(nn.Tanh()),
    "new module list": lambda net: setattr(net, "blocks", nn.ModuleList(reversed(net.blocks))),
    "module replaced": lambda net: setattr(net, "dec", traps.conv(4, 4)),
    "parameter replaced": lambda net: setattr(net.dec, "weight", nn.Parameter(torch.ones_like(net.dec.weight))),
    "forward patched": lambda net: setattr(net, "forward", lambda x, old=net.forward: old(x) + 1),
    "forward of a layer patched": lambda net: setattr(net.dec, "forward", lambda x, old=net.dec.forward: old(x) + 1),
    "method patched": lambda net: setattr(net.mid, "strength", lambda: 0.125),
    "closure": lambda net: setattr(net.closed.__closure__[0], "cell_contents", 1.0),  # type: ignore[attr-defined]
    "partial": lambda net: setattr(net, "partial", functools.partial(torch.mul, other=2.0)),
    "global number": lambda _: set_global("SCALE", 0.5),
    "global dictionary": lambda _: FLAGS["deep"].update(on=True),
    "global tensor": lambda _: set_global("TABLE", torch.full((1, 4, 1, 1), 2.0)),
    "global function": lambda _: set_global("scaled", doubled),
    "hook": lambda net: net.register_forward_hook(lambda *given: given[2] + 1),
    "hook of a layer": lambda net: net.dec.register_forward_hook(lambda *given: given[2] * 2),
    "weights": lambda net: net.load_state_dict({k: v * 0.5 for k, v in net.state_dict().items()}),
}


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the module's variables back."""
    here = sys.modules[__name__]
    for name in ("SCALE", "TABLE", "scaled"):
        monkeypatch.setattr(here, name, getattr(here, name))
    monkeypatch.setattr(Reads, "bias", 0.0)
    FLAGS["deep"]["on"] = False
    ORDERED["gain"] = OPTIONS.gain = 1.0


def passes(cap: graph.Capture, x: Tensor = X) -> Tensor:
    split = cap.at((x,))
    carry = split.head(x)
    out: Tensor = cap.of(carry).tail(carry, cap.of(carry).middle(carry))
    return out


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, capture: str) -> None:
    torch.manual_seed(0)
    net = Reads().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture)
    before = net(X)
    assert torch.equal(passes(cap), before)
    CHANGES[change](net)
    want = net(X)
    assert not torch.equal(want, before)
    assert torch.equal(passes(cap), want)


def captures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The strategies that run from now on."""
    from shortcutv2v.graph import capture

    ran: list[str] = []
    real = capture.attempt
    monkeypatch.setattr(capture, "attempt", lambda name, *rest: (ran.append(name), real(name, *rest))[1])
    return ran


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
def test_a_switch_back_needs_no_new_capture(capture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Reads().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture)
    ran = captures(monkeypatch)
    for strength in (1.0, 0.5, 1.0, 0.5, 1.0):
        net.strength = strength
        assert torch.equal(passes(cap), net(X))
    assert ran == [capture]


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
def test_what_changes_nothing_is_not_captured_anew(capture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Reads().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture)
    ran = captures(monkeypatch)
    for i in range(3):
        net(X)  # counts its calls, keeps its inputs
        net.unread = net.config.unread = i
        net.frames = i  # type: ignore[assignment]
        net.strength = float("1.0")  # another object of the same value
        net.config = dataclasses.replace(net.config)
        net.styles["a"] = net.styles["a"].clone()
        assert torch.equal(passes(cap), net(X))
    assert ran == []


@torch.no_grad()
def test_layers_that_run_as_a_whole_read_their_own_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    net = traps.Base().eval()
    net.mid = Lora()  # type: ignore[assignment]
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    ran = captures(monkeypatch)
    for scale in (0.5, 0.25):
        net.mid.scale = scale  # type: ignore[assignment]
        assert torch.equal(passes(cap), net(X))
    assert ran == []


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
def test_the_carry_of_a_changed_teacher_is_another(capture: str) -> None:
    net = Reads().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture)
    first = cap.at((X,)).head(X)
    want = cap.of(first).tail(first, cap.of(first).middle(first))
    net.strength = 0.5
    second = cap.at((X,)).head(X)
    assert first.signature != second.signature
    if capture != "hooks":  # its passes run the teacher's own code
        assert torch.equal(cap.of(first).tail(first, cap.of(first).middle(first)), want)


class Computed(traps.Base):
    """Computes the names of its attributes: all of them count."""

    def __init__(self) -> None:
        super().__init__()
        self.gain_1, self.gain_2, self.config = 1.0, 2.0, Config()

    def forward(self, x: Tensor) -> Any:
        gains = [getattr(self, f"gain_{i}") for i in (1, 2)] + [vars(self.config)["ga" + "in"]]
        return super().forward(x) * sum(gains)


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
def test_computed_names_are_found(capture: str) -> None:
    net = Computed().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture)
    for owner, name in ((net, "gain_2"), (net.config, "gain")):
        setattr(owner, name, 0.5)
        assert torch.equal(passes(cap), net(X))


@torch.no_grad()
def test_half_after_a_capture_is_seen_where_code_reads_a_dtype() -> None:
    class Casts(traps.Base):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.to(self.out.weight.dtype))

    net = Casts().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,))
    passes(cap)
    net.double()
    assert torch.equal(passes(cap), net(X))


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
def test_a_stream_refreshes_when_the_teacher_has_changed(capture: str) -> None:
    net = Reads().eval()
    stream = shortcutv2v.wrap(net, "enc", "dec", example_inputs=(X,), capture=capture).stream(10)
    stream(X)
    stream(X)
    assert stream.distance == 1
    net.mid.enabled = False  # type: ignore[assignment]
    net.fast = True
    assert torch.equal(stream(X), net(X))
    assert (stream.distance, stream.refreshes["teacher"]) == (0, 1)
    stream(X)
    assert stream.distance == 1


@torch.no_grad()
def test_a_number_among_the_inputs_does_not_refresh() -> None:
    class Timed(traps.Base):
        def forward(self, x: Tensor, step: int = 0) -> Any:
            return super().forward(x) * (step + 1)

    stream = shortcutv2v.wrap(Timed().eval(), "enc", "dec", example_inputs=(X,)).stream(10)
    for step in range(3):
        stream(X, step=step)
    assert stream.distance == 2


@torch.no_grad()
def test_finding_nothing_changed_takes_no_time() -> None:
    import time

    net = nn.Sequential(traps.conv(3, 4), *[Lora() for _ in range(100)], traps.conv(4, 3)).eval()
    small = torch.rand(1, 3, 2, 2)
    cap = graph.Capture(net, graph.parse_cut(net, "0", "100"), (small,))
    split = cap.at((small,))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        split.frozen.holds()
        middle = time.perf_counter()
        split.head(small)
        net(small)
        times.append((middle - start) / (time.perf_counter() - middle))
    assert sorted(times)[10] < 0.05
