"""One function for all three strategies."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import LeakError, ShortcutError
from .cut import Cut
from .exported import export
from .hooks import HookSplit
from .info import info
from .partition import Partition, check_order, partition
from .points import find_maps, find_points
from .protect import untouched
from .record import record
from .split import GraphSplit, Maps, Split
from .structure import Structure
from .traced import Traced, Untraceable
from .twin import Twin
from .verify import Expected, verify
from .watch import watch

__all__ = ["STRATEGIES", "Job", "SettledLeakError", "attempt", "follow"]

STRATEGIES = ("fx", "export", "hooks")


class SettledLeakError(LeakError):
    """A leak that no other strategy needs to confirm."""


@dataclass(frozen=True)
class Job:
    """One capture to be made: the teacher's twin, the cut, one set of inputs, and what the teacher does with them."""

    twin: Twin
    cut: Cut
    tensors: list[Tensor]
    structure: Structure
    key: Hashable
    expected: Expected

    @property
    def teacher(self) -> nn.Module:
        """The copy of the teacher that runs."""
        return self.twin.teacher

    @property
    def marked(self) -> set[str]:
        """The names of the cut's layers."""
        return {layer.name for layer in self.cut.layers}


def attempt(name: str, job: Job, on_leak: str) -> Split:
    """Capture with one strategy and verify the result.

    Raises:
        Untraceable: the strategy cannot, or its result differs from the teacher.
        CutError: the cut cannot be made.
    """
    if name != "fx":
        return _verified(_ATTEMPTS[name], job, on_leak)
    whole: Split | None = None
    reason = ""
    try:
        whole = _verified(_fx, job, "error")
        if not whole.facts.bundled:
            return whole
    except LeakError:
        pass
    except Untraceable as error:
        reason = f"{error}; looking into all modules: "
    # A leaf module with several outputs hides which of them depend on what: look inside.
    try:
        split = _verified(_fine_fx, job, on_leak)
    except Untraceable as error:
        if whole is not None:
            return whole
        raise Untraceable(f"{reason}{error}") from error
    return split if whole is None or split.facts.macs[1] > whole.facts.macs[1] else whole


def follow(name: str, twin: Twin, tensors: list[Tensor], structure: Structure) -> Traced:
    """Record the teacher down to its single layers, without a cut, for a list of cuts.

    Raises:
        Untraceable: the strategy cannot.
    """
    modules = twin.teacher.named_modules()
    names = {n for n, m in modules if n and not isinstance(m, torch.jit.ScriptModule)}
    if name == "fx":
        args, kwargs = structure.rebuild(tensors)
        return record(twin, args, kwargs, set(), fine=True)
    if name == "export":
        return export(twin, tensors, structure, names)
    # Every call takes two runs of the teacher here: look at the outer modules alone.
    return watch(twin.teacher, tensors, structure, {n for n in names if n.count(".") < 2}).traced


def _verified(strategy: Callable[[Job, str], Split], job: Job, on_leak: str) -> Split:
    try:
        with untouched(job.teacher):
            split = strategy(job, on_leak)
        verify(job.teacher, split, job.structure, job.expected)
    except (ShortcutError, Untraceable):
        raise
    except Exception as error:
        line = str(error).strip().partition("\n")[0][:200]
        raise Untraceable(f"it stopped with {type(error).__name__}: {line}") from error
    return split


def _fx(job: Job, on_leak: str) -> Split:
    return _graph_split(job, _recorded(job, fine=False), on_leak)


def _fine_fx(job: Job, on_leak: str) -> Split:
    traced = _recorded(job, fine=True)
    try:
        return _graph_split(job, traced, on_leak)
    except LeakError as error:
        if any(info(n).several for n in traced.graph.nodes):
            raise
        # Every node is one operator with one output: no other strategy can see more.
        raise SettledLeakError(str(error)) from error


def _recorded(job: Job, *, fine: bool) -> Traced:
    args, kwargs = job.structure.rebuild([t.clone() for t in job.tensors])
    return record(job.twin, args, kwargs, job.marked, fine=fine)


def _graph_split(job: Job, traced: Traced, on_leak: str) -> Split:
    part, maps = _divided(job, traced, on_leak)
    return GraphSplit(job.teacher, traced, part, maps, job.key)


def _divided(job: Job, traced: Traced, on_leak: str) -> tuple[Partition, Maps]:
    points = find_points(traced, job.cut)
    check_order(traced, points, job.cut)
    maps = find_maps(points, job.cut, job.tensors)
    return partition(traced, points, job.cut, on_leak), maps


def _export(job: Job, on_leak: str) -> Split:
    return _graph_split(job, export(job.twin, [t.clone() for t in job.tensors], job.structure, job.marked), on_leak)


def _hooks(job: Job, on_leak: str) -> Split:
    plan = watch(job.teacher, job.tensors, job.structure, job.marked)
    part, maps = _divided(job, plan.traced, on_leak)
    return HookSplit(job.teacher, plan, part, maps, job.structure, job.key)


_ATTEMPTS: dict[str, Callable[[Job, str], Split]] = {"fine": _fine_fx, "export": _export, "hooks": _hooks}
