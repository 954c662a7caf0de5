"""The three strategies behind one function."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import LeakError, ShortcutError
from .cut import Cut
from .exported import export
from .hooks import HookSplit, watch
from .partition import check_order, find_leaks, partition
from .points import find_maps, find_points
from .protect import untouched
from .record import record
from .split import GraphSplit, Split
from .structure import Structure
from .traced import Traced, Untraceable
from .verify import Expected, verify

__all__ = ["STRATEGIES", "Job", "SettledLeakError", "attempt"]

STRATEGIES = ("fx", "export", "hooks")


class SettledLeakError(LeakError):
    """A leak that no other strategy needs to confirm."""


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
        try:
            return _graph_split(job, traced, on_leak)
        except LeakError as error:
            if any(n.meta.get("several") for n in traced.graph.nodes):
                raise
            # Every node is one operator with one output: no other strategy can see more.
            raise SettledLeakError(str(error)) from error
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
    with untouched(job.teacher):
        traced = export(job.teacher, [t.clone() for t in job.tensors], job.structure, job.marked)
    return _graph_split(job, traced, on_leak)


def _hooks(job: Job, on_leak: str) -> Split:
    with untouched(job.teacher):
        try:
            plan = watch(job.teacher, job.tensors, job.structure, job.marked)
        except (ShortcutError, Untraceable):
            raise
        except Exception as error:
            raise Untraceable(f"watching stopped with {type(error).__name__}: {_line(error)}") from error
    points = find_points(plan.traced, job.cut)
    check_order(plan.traced, points, job.cut)
    maps = find_maps(points, job.cut, job.tensors)
    part = partition(plan.traced, points, job.cut, on_leak)
    return HookSplit(job.teacher, plan, part, maps, job.structure, job.key)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


_ATTEMPTS = {"fx": _fx, "export": _export, "hooks": _hooks}
