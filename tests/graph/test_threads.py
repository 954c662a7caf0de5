"""A capture in one thread changes nothing for the others: not the teacher, not torch, not the process."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.graph import trap_teachers as traps
from torch import Tensor, nn

from shortcutv2v import graph
from shortcutv2v.graph.quiet import patches_of_this_thread
from shortcutv2v.graph.twin import Twin

STRATEGIES = ("fx", "export", "hooks")
X = torch.rand(1, 3, 16, 24)
SPY: list[Callable[[], None]] = []


class Spied(nn.Module):
    """Calls the spy from its forward pass, wherever a capture runs it."""

    def forward(self, x: Tensor) -> Tensor:
        for spy in SPY:
            spy()
        return x * 2


class Watched(traps.StoresFeatures):
    """Spied upon in its head, middle and tail; normalises, and keeps what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.spies = nn.ModuleList([Spied() for _ in range(3)])
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        self.last = x
        a = self.spies[0](self.enc(x))
        f = self.dec(self.spies[1](self.norm(self.mid(a))))
        return self.spies[2](self.out(f))


@contextlib.contextmanager
def spy(look: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Run `look` in a thread of its own, each time the capture passes; collect what it raises."""
    met: list[BaseException] = []
    owner = threading.get_ident()

    def guarded() -> None:
        try:
            look()
        except BaseException as error:
            met.append(error)

    def go() -> None:
        if threading.get_ident() == owner:
            thread = threading.Thread(target=guarded)
            thread.start()
            thread.join()

    SPY.append(go)
    try:
        yield met
    finally:
        SPY.clear()


@pytest.mark.parametrize("capture", STRATEGIES)
def test_another_thread_finds_the_teacher_and_the_process_as_ever(capture: str) -> None:
    torch.manual_seed(0)
    net = Watched().eval()
    with torch.no_grad():
        want = net(X)
    inside = [(m, dict(vars(m)), {k: id(v) for k, v in vars(m).items()}) for m in net.modules()]
    ours = (sys.stdout, sys.stderr, nn.Module.__call__)
    looks = []

    @torch.no_grad()
    def look() -> None:
        looks.append(1)
        # torch.export patches `nn.Module` itself; the next test sees to it that other threads do not meet the patch.
        assert (sys.stdout, sys.stderr, nn.Module.__call__ if capture != "export" else ours[2]) == ours
        for module, before, ids in inside:
            assert dict(vars(module)).keys() == before.keys()
            assert all(id(v) == ids[k] for k, v in vars(module).items() if k != "last")
        assert all(p.isfinite().all() for p in net.parameters())
        assert torch.equal(net(X), want)

    with spy(look) as met:
        graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture)
    assert len(looks) > 3
    assert not met, met[0]


def test_other_threads_do_not_meet_the_patches_of_an_export() -> None:
    mine, other = Spied(), nn.ReLU()
    met = []

    class Tracer(torch.fx.Tracer):
        def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
            met.append(m)
            return super().call_module(m, forward, args, kwargs)

    with patches_of_this_thread(), spy(lambda: other(X)) as errors:
        Tracer().trace(nn.Sequential(nn.Sigmoid(), mine))
    assert not errors
    assert [type(m) for m in met] == [nn.Sigmoid, Spied]


def test_what_other_threads_say_during_an_export_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    net = Watched().eval()
    logger = logging.getLogger("torch.of_a_user")
    logger.addHandler(caplog.handler)  # loggers of old versions of torch do not tell their parents
    filters = list(warnings.filters)

    def look() -> None:
        logger.warning("heard")
        warnings.filterwarnings("ignore", message="set by another thread")

    with warnings.catch_warnings():
        with spy(look) as met:
            graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture="export")
        assert not met
        assert "set by another thread" in str(warnings.filters[0])
        assert len(warnings.filters) == len(filters) + 1
    logger.removeHandler(caplog.handler)
    assert "heard" in caplog.text


@pytest.mark.parametrize("capture", STRATEGIES)
def test_new_sizes_in_many_threads_at_once(capture: str) -> None:
    torch.manual_seed(0)
    net = traps.StoresFeatures().eval()
    cap = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture)
    frames = [torch.rand(1, 3, 16 + 8 * (k % 4), 16) for k in range(8)]
    ours = (sys.stdout, sys.stderr, nn.Module.__call__, logging.root.manager.disable)
    out: dict[int, Any] = {}

    @torch.no_grad()
    def run(k: int) -> None:
        for _ in range(3):
            split = cap.at((frames[k],))
            carry = split.head(frames[k])
            out[k] = split.tail(carry, split.middle(carry))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sys.stdout, sys.stderr, nn.Module.__call__, logging.root.manager.disable) == ours
    with torch.no_grad():
        assert all(torch.equal(out[k], net(frames[k])) for k in range(8))


def test_a_running_stream_shows_no_captured_frame() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(traps.conv(3, 8), nn.ReLU(), traps.conv(8, 8), nn.ReLU(), traps.conv(8, 8), traps.conv(8, 3))
    cap = graph.Capture(net.eval(), graph.parse_cut(net, "0", "4"), (X,))
    with torch.no_grad():
        want = net(X)
    done, wrong = threading.Event(), []

    @torch.no_grad()
    def serve() -> None:
        while not done.is_set():
            split = cap.at((X,))
            carry = split.head(X)
            wrong.append(not torch.equal(split.tail(carry, split.middle(carry)), want))

    thread = threading.Thread(target=serve)
    thread.start()
    for size in range(8, 40, 2):
        cap.at((torch.rand(1, 3, size, size),))
    done.set()
    thread.join()
    assert not any(wrong), f"{sum(wrong)} of {len(wrong)} frames"


class Closed(traps.Base):
    """Its forward is patched by a closure over itself, and a hook writes into a list outside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        plain = self.forward
        self.forward = lambda x: plain(x) + 1  # type: ignore[method-assign]
        self.mid.register_forward_hook(lambda *given: self.seen.append(given[2]))


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
def test_closures_over_the_teacher_are_followed(capture: str) -> None:
    net = Closed().eval()
    split = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture).at((X,))
    assert not net.seen
    carry = split.head(X)
    assert torch.equal(split.tail(carry, split.middle(carry)), net(X))


def test_a_copy_shares_the_memory_of_parameters_and_nothing_else() -> None:
    net = Watched().eval()
    net.shared = [net.enc, {"norm": net.norm}]  # type: ignore[assignment]
    net.reference = weakref.ref(net.mid)  # type: ignore[assignment]
    net.bound = functools.partial(net.mid.forward)  # type: ignore[assignment]
    net.lock = threading.Lock()  # type: ignore[assignment]
    twin: Any = Twin(net).teacher
    for (name, theirs), ours in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert ours is not theirs, name
        assert ours.data_ptr() == theirs.data_ptr()
    assert all(x.data_ptr() != y.data_ptr() for x, y in zip(net.buffers(), twin.buffers(), strict=True))
    assert twin.shared[0] is twin.enc is not net.enc
    assert twin.shared[1]["norm"] is twin.norm
    assert twin.reference() is twin.mid
    assert twin.bound.func.__self__ is twin.mid
    assert twin.lock is net.lock
    assert twin.list is not net.list
    assert torch.equal(twin(X), net(X))


class Slots:
    """Nothing can copy this, so its module is the teacher's own."""

    __slots__ = ("module",)


class Uncopyable(traps.Base):
    """Reaches its first layer through an object that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.way = Slots()
        self.way.module = self.enc

    def forward(self, x: Tensor) -> Any:
        return self.out(self.deep(self.way.module(x)))


@torch.no_grad()
@pytest.mark.parametrize("capture", STRATEGIES)
def test_a_teacher_that_cannot_run_as_a_copy_is_captured_itself(capture: str) -> None:
    net = Uncopyable().eval()
    split = graph.Capture(net, graph.parse_cut(net, "enc", "dec"), (X,), capture=capture).at((X,))
    carry = split.head(X)
    assert torch.equal(split.tail(carry, split.middle(carry)), net(X))
