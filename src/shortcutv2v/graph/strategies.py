"""The three strategies behind one function, and what a leak message can advise."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import LeakError, ShortcutError
from .cut import Cut
from .partition import check_order, find_leaks, partition
from .points import find_maps, find_points
from .protect import untouched
from .record import record
from .split import GraphSplit, Split
from .structure import Structure
from .traced import Traced, Untraceable
from .verify import Expected, verify

__all__ = ["STRATEGIES", "Job", "advice", "attempt"]

STRATEGIES = ("fx", "export", "hooks")


@dataclass(frozen=True)
class Job:
    """One capture to be made: the teacher, the cut, one set of inputs, and what the teacher does with them."""

    teacher: nn.Module
    cut: Cut
    tensors: list[Tensor]
    structure: Structure
    key: Hashable
    expected: Expected

    @property
    def marked(self) -> set[str]:
        """The names of the cut's layers."""
        return {layer.name for layer in self.cut.layers}

    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fresh copies of the inputs."""
        args, kwargs = self.structure.rebuild([t.clone() for t in self.tensors])
        return args, kwargs


def attempt(name: str, job: Job, on_leak: str) -> Split:
    """Capture with one strategy and verify the result.

    Raises:
        Untraceable: the strategy cannot, or its result is not faithful.
        CutError: the cut cannot be made.
    """
    split = _ATTEMPTS[name](job, on_leak)
    verify(job.teacher, split, job.structure, job.expected)
    return split


def _fx(job: Job, on_leak: str) -> Split:
    traced = _guarded(job, fine=False)
    points = find_points(traced, job.cut)
    check_order(traced, points, job.cut)
    if find_leaks(traced, points):
        # A leaf module with several outputs hides which of them depend on what; look inside.
        traced = _guarded(job, fine=True)
    return _graph_split(job, traced, on_leak)


def _guarded(job: Job, *, fine: bool) -> Traced:
    args, kwargs = job.inputs()
    with untouched(job.teacher):
        try:
            return record(job.teacher, args, kwargs, job.marked, fine=fine)
        except (ShortcutError, Untraceable):
            raise
        except Exception as error:
            raise Untraceable(f"recording stopped with {type(error).__name__}: {_line(error)}") from error


def _graph_split(job: Job, traced: Traced, on_leak: str) -> Split:
    points = find_points(traced, job.cut)
    check_order(traced, points, job.cut)
    maps = find_maps(points, job.cut, job.tensors)
    part = partition(traced, points, job.cut, on_leak)
    return GraphSplit(job.teacher, traced, part, maps, job.key)


def _export(job: Job, on_leak: str) -> Split:
    raise Untraceable("not implemented")


def _hooks(job: Job, on_leak: str) -> Split:
    raise Untraceable("not implemented")


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


_ATTEMPTS = {"fx": _fx, "export": _export, "hooks": _hooks}


def advice(job: Job) -> str:
    """The nearest cuts that do not leak, for the end of a `LeakError`."""
    return ""


_ = LeakError
