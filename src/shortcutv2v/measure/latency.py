"""Time and memory of a callable: warm-up, synchronisation, medians and spread."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from shortcutv2v.devices import gpus, synchronise
from shortcutv2v.errors import InputError

__all__ = ["Latency", "Timed", "latency", "peak_memory"]

Work = Callable[[], Any]


@dataclass(frozen=True)
class Latency:
    """Times of repeated runs, in seconds.

    Attributes:
        times: every run after the warm-up, in order.
    """

    times: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run: the number to quote."""
        return statistics.median(self.times)

    @property
    def best(self) -> float:
        """The fastest run: the machine's time when nothing else runs on it."""
        return min(self.times)

    @property
    def spread(self) -> float:
        """Middle half of the runs (interquartile range) over the median: above 0.1, take the numbers with care.

        >>> Latency((1.0, 1.0, 1.0, 1.1, 3.0)).spread < Latency((1.0, 2.0, 3.0, 4.0, 5.0)).spread
        True
        """
        if len(self.times) == 1:
            return 0.0
        low, _, high = statistics.quantiles(self.times, n=4, method="inclusive")
        return (high - low) / self.median

    def __str__(self) -> str:
        return f"{self.median * 1e3:.1f} ms ({len(self.times)} runs, spread {self.spread:.0%})"


@overload
def latency(work: Work, *, warmup: int = ..., runs: int = ..., seconds: float = ...) -> Latency: ...


@overload
def latency(
    work: Mapping[str, Work], *, warmup: int = ..., runs: int = ..., seconds: float = ...
) -> dict[str, Latency]: ...


def latency(
    work: Work | Mapping[str, Work], *, warmup: int = 2, runs: int = 20, seconds: float = 10.0
) -> Latency | dict[str, Latency]:
    """Time one callable, or several side by side.

    Several are run in turn, round after round, so that a machine that slows down slows down all of them alike.
    Every GPU that torch has in use is synchronised before the clock is read. No gradients are recorded.

    Args:
        work: a callable without arguments, or several by name.
        warmup: runs that do not count (kernels are chosen, memory is taken).
        runs: rounds that count.
        seconds: stop after this time, but not before three rounds.

    Returns:
        A `Latency`, or one by name.

    Raises:
        InputError: `runs` is below 1, or `warmup` below 0.

    Examples:
        >>> x = torch.rand(64, 64)
        >>> latency(lambda: x @ x, runs=5).median > 0
        True
    """
    if runs < 1 or warmup < 0:
        raise InputError(f"`runs` must be at least 1 and `warmup` at least 0, got {runs} and {warmup}")
    several = {name: Timed(call) for name, call in (work if isinstance(work, Mapping) else {"": work}).items()}
    times: dict[str, list[float]] = {name: [] for name in several}
    with torch.no_grad():
        for _ in range(warmup):
            for call in several.values():
                call()
        end = time.perf_counter() + seconds
        for done in range(runs):
            if done >= 3 and time.perf_counter() > end:
                break
            for name, call in several.items():
                call()
                times[name].append(call.seconds)
    found = {name: Latency(tuple(values)) for name, values in times.items()}
    return found if isinstance(work, Mapping) else found[""]


class Timed:
    """A callable with a clock that waits for every device.

    Attributes:
        seconds: the time of the last call, 0 before the first.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run, self.seconds = run, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, and note the time."""
        synchronise()
        begun = time.perf_counter()
        result = self.run(*args, **kwargs)
        synchronise()
        self.seconds = time.perf_counter() - begun
        return result


def peak_memory(work: Work) -> int:
    """Return the largest number of bytes that one run holds, beyond those held before it.

    On CUDA the caching allocator reports it, for all devices in use together. On the CPU the tensors alive between
    operators are counted; memory that a kernel takes for itself while it runs is not.

    Example:
        >>> x = torch.zeros(1024)
        >>> peak_memory(lambda: (x + 1) * 2 + x)
        8192
    """
    with torch.no_grad():
        if used := gpus():
            synchronise()
            for device in used:
                torch.cuda.reset_peak_memory_stats(device)
            before = sum(torch.cuda.memory_allocated(device) for device in used)
            work()
            synchronise()
            return int(sum(torch.cuda.max_memory_allocated(device) for device in used) - before)
        with _Alive() as alive:
            work()
        peak: int = alive.peak
        return peak


class _Alive(TorchDispatchMode):
    """Mode that follows the storages that operators make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(t) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in given:
                self._follow(tensor)
        return out

    def _follow(self, tensor: Tensor) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
