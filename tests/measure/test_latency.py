"""Order of calls and arithmetic; no test here depends on how fast the machine is."""

import pytest
import torch

from shortcutv2v import measure
from shortcutv2v.errors import InputError


def test_warmup_then_rounds_side_by_side():
    calls = []
    found = measure.latency({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, warmup=1, runs=2)
    assert calls == ["a", "b"] * 3
    assert set(found) == {"a", "b"}
    assert all(len(value.times) == 2 for value in found.values())


def test_the_clock_is_read_between_synchronisations(monkeypatch):
    order = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 1)
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: order.append("sync"))
    monkeypatch.setattr("time.perf_counter", lambda: order.append("clock") or len(order))
    measure.latency(lambda: order.append("work"), warmup=0, runs=1)
    assert order == ["clock", "sync", "clock", "work", "sync", "clock"]  # the first limits the whole measurement


def test_stops_when_the_time_is_used_but_not_before_three_rounds():
    assert len(measure.latency(lambda: None, warmup=0, runs=50, seconds=0.0).times) == 3


def test_no_gradients_are_recorded():
    seen = []
    measure.latency(lambda: seen.append(torch.is_grad_enabled()), runs=1)
    assert not any(seen)


def test_summary():
    found = measure.Latency((4.0, 1.0, 2.0, 3.0, 100.0))
    assert (found.median, found.best) == (3.0, 1.0)
    assert found.spread == pytest.approx(2 / 3)
    assert measure.Latency((2.0,)).spread == 0
    assert str(measure.Latency((0.5,))) == "500.0 ms (1 runs, spread 0%)"


@pytest.mark.parametrize("options", [{"runs": 0}, {"warmup": -1}])
def test_refuses_nonsense(options):
    with pytest.raises(InputError, match="at least"):
        measure.latency(lambda: None, **options)


def test_peak_memory_counts_what_is_alive_together():
    x = torch.zeros(1000)
    assert measure.peak_memory(lambda: x + 1) == 4000
    assert measure.peak_memory(lambda: (x + 1) + (x + 2)) == 12000
    assert measure.peak_memory(lambda: [x + 1 for _ in range(3)]) == 12000
    assert measure.peak_memory(lambda: ((x + 1) + 1) + 1) == 8000


def test_views_and_work_in_place_take_no_memory():
    x = torch.zeros(10, 10)
    assert measure.peak_memory(lambda: x.view(-1)[5:].add_(1)) == 0


def test_every_gpu_in_use_is_waited_for_and_asked(monkeypatch):
    """Two GPUs, played: the model lies on the second, the first is current, a third is idle."""
    waited, held = [], {0: (10, 20), 1: (30, 70), 2: (0, 0)}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: held[device][1])
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: held[device][0])
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: held[device][1])
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    assert measure.peak_memory(lambda: None) == 20 + 70 - 10 - 30
    assert waited == [0, 1, 0, 1]
