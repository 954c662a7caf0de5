"""Strategy "hooks": the teacher's own code runs in every pass; its module calls are run, replayed or skipped.

For teachers whose Python code depends on tensor values, where no graph exists. Dependencies between calls are found
by experiment: replay the true output of every module call except one, which is replaced by NaN (then by slightly other
values), and see which later calls get other inputs. The result is a graph of calls, cut like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from ..ops.flops import MacCounter
from .calls import ancestors, module_names, patched_calls
from .info import is_heavy, note, note_tensor
from .structure import Structure, flatten
from .traced import Call, Traced, Untraceable, random_state, version

__all__ = ["CallWatcher", "Key", "Plan", "RecordedCall", "call_teacher", "replay", "watch"]

Key = tuple[str, int]
_LIMITS = (
    (
        "the teacher's Python code runs in every pass and only module calls are skipped: computations between the "
        "modules of the middle still run, on zeros"
    ),
    "not for torch.compile or torch.export, and one pass at a time per process",
    "found by experiment on the example inputs: where the code takes another way for other values, a pass may fail",
)


@dataclass
class RecordedCall:
    """One recorded call: what went in and came out, and which inputs it changed in place."""

    key: Key
    inputs: list[Tensor]
    outputs: list[Tensor]
    structure: Structure
    changed: dict[int, Tensor]
    node: Node

    @property
    def values(self) -> list[Tensor]:
        """The tensors that a replay needs: the outputs, then the new values of changed inputs."""
        return [*self.outputs, *self.changed.values()]


RecordedCalls = dict[Key, RecordedCall]


@dataclass
class Plan:
    """The teacher's calls and their dependencies."""

    traced: Traced
    steps: RecordedCalls
    leaves: _WatchedModules = field(repr=False)

    def bound(self, teacher: nn.Module) -> Plan:
        """The same plan for another copy of the teacher."""
        return replace(self, leaves=_WatchedModules(teacher, self.leaves.marked))


class _WatchedModules:
    """The watched modules: the cut layers and, as in strategy "fx", all modules that hold no cut layer."""

    def __init__(self, teacher: nn.Module, marked: set[str]) -> None:
        self.names = module_names(teacher)
        self.inside = ancestors(teacher, marked)
        self.marked = marked


class CallWatcher:
    """Counts the calls of watched modules and hands them to `step`."""

    def __init__(self, leaves: _WatchedModules) -> None:
        self.leaves = leaves
        self.counts: dict[str, int] = {}
        self.quiet = 0

    def call_module(self, module: nn.Module, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        """See `calls.Watcher`."""
        name = self.leaves.names[id(module)]
        if name in self.leaves.inside and name not in self.leaves.marked:
            return run(*args, **kwargs)
        self.counts[name] = self.counts.get(name, -1) + 1
        leaf = name not in self.leaves.inside

        def go() -> Any:
            self.quiet += leaf
            try:
                return run(*args, **kwargs)
            finally:
                self.quiet -= leaf

        return self.step((name, self.counts[name]), module, (args, kwargs), go)

    def step(self, key: Key, module: nn.Module, given: Any, run: Callable[[], Any]) -> Any:
        """Handle one call; `run()` runs the module."""
        raise NotImplementedError


class _Recording(CallWatcher):
    """The first pass: everything runs, everything is noted."""

    def __init__(self, leaves: _WatchedModules, graph: Graph) -> None:
        super().__init__(leaves)
        self.graph = graph
        self.steps: RecordedCalls = {}
        self.calls: list[Call] = []
        self.random: dict[str, None] = {}
        self.macs = MacCounter()

    def step(self, key: Key, module: nn.Module, given: Any, run: Callable[[], Any]) -> Any:
        inputs = flatten(given)[0]
        before = [t.clone() for t in inputs]
        versions, macs, rng = [version(t) for t in inputs], self.macs.total, random_state()
        index = len(self.calls)
        out = run()
        changed = {i: t.detach().clone() for i, t in enumerate(inputs) if version(t) != versions[i]}
        outputs, structure = flatten(out)
        leaf = key[0] not in self.leaves.inside
        node = self.graph.call_module(key[0]) if leaf else self.graph.call_function(_nothing)
        cost = self.macs.total - macs if leaf else 0
        note(node, owner=key[0], macs=cost, heavy=is_heavy(module if leaf else None, cost), called=True)
        if isinstance(out, Tensor):
            note_tensor(node, out)
        if leaf and not torch.equal(rng, random_state()):
            self.random[key[0]] = None
        kind = "Tensor" if isinstance(out, Tensor) else type(out).__name__
        self.calls.append(Call(key[0], node if kind == "Tensor" else None, kind, index))
        self.steps[key] = RecordedCall(key, before, [t.detach().clone() for t in outputs], structure, changed, node)
        return out


class _AlteredPass(CallWatcher):
    """Replays every call with its true output, one of them altered, and notes the calls that get other inputs."""

    def __init__(
        self,
        leaves: _WatchedModules,
        steps: RecordedCalls,
        altered: Key | None,
        alter: Callable[[Tensor], Tensor],
    ):
        super().__init__(leaves)
        self.steps = steps
        self.altered = altered
        self.alter = alter
        self.touched: set[Key] = set()

    def step(self, key: Key, module: nn.Module, given: Any, run: Callable[[], Any]) -> Any:
        step = self.steps.get(key)
        if step is None:
            raise Untraceable(f"its calls depend on values: {key[0]} is called more often for other values")
        inputs = flatten(given)[0]
        if key[0] in self.leaves.inside:
            if _differ(flatten(run())[0], step.outputs):
                self.touched.add(key)
        elif _differ(inputs, step.inputs):
            self.touched.add(key)
        values = [self.alter(v) if key == self.altered else v.clone() for v in step.values]
        return replay(step, inputs, values)


def replay(step: RecordedCall, inputs: list[Tensor], values: list[Tensor]) -> Any:
    """Return what the call returned, and change its inputs as it did, from the values that it left."""
    count = len(step.outputs)
    for (index, _), value in zip(step.changed.items(), values[count:], strict=True):
        inputs[index].copy_(value)
    return step.structure.rebuild(values[:count])


def _nothing(*_: Any) -> None:
    """Stands for a module that was looked into."""


def _differ(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return len(left) != len(right) or not all(
        x.shape == y.shape and torch.equal(x, y) for x, y in zip(left, right, strict=True)
    )


def _poison(value: Tensor) -> Tensor:
    return torch.full_like(value, torch.nan) if value.is_floating_point() else value.clone()


def _nudge(value: Tensor) -> Tensor:
    if value.is_floating_point() or value.is_complex():
        return value * 1.0078125 + 0.0078125
    return value.roll(1, -1) if value.ndim else value.clone()


def watch(teacher: nn.Module, tensors: list[Tensor], structure: Structure, marked: set[str]) -> Plan:
    """Record the calls of one pass and find the dependencies between them.

    Args:
        teacher: the network; the caller protects its state.
        tensors: the input tensors.
        structure: rebuilds `(args, kwargs)` from them.
        marked: names of the cut layers.

    Raises:
        Untraceable: the calls themselves depend on tensor values.
    """
    graph: Any = Graph()
    inputs = [graph.placeholder(f"input_{i}") for i in range(len(tensors))]
    for i, (node, tensor) in enumerate(zip(inputs, tensors, strict=True)):
        note_tensor(node, tensor)
        note(node, owner=f"input {i}")
    leaves = _WatchedModules(teacher, marked)
    recording = _Recording(leaves, graph)
    with recording.macs, patched_calls(recording, teacher):
        out = call_teacher(teacher, [t.clone() for t in tensors], structure)
    found, result = flatten(out)
    truth = [t.clone() for t in found]
    needs: dict[Node, list[Node]] = {step.node: [] for step in recording.steps.values()}
    outputs: list[Node] = []
    sources: list[tuple[Node, Key | None]] = [(n, None) for n in inputs]
    sources += [(step.node, step.key) for step in recording.steps.values()]
    for place, (node, key) in enumerate(sources):
        touched, reaches = _reach(teacher, tensors, structure, recording.steps, leaves, truth, key, place)
        for other in touched:
            needs[recording.steps[other].node].append(node)
        if reaches:
            outputs.append(node)
    for node, sources_of in needs.items():
        node.args = tuple(n for n in sources_of if n is not node)
    random, called = list(recording.random), {name for name, _ in recording.steps} - leaves.inside
    traced = Traced(graph, inputs, outputs, result, recording.calls, "hooks", _LIMITS, random, called)
    return Plan(traced, recording.steps, leaves)


def _reach(
    teacher: nn.Module, tensors: list[Tensor], structure: Structure, steps: RecordedCalls, leaves: _WatchedModules,
    truth: list[Tensor], key: Key | None, place: int,
) -> tuple[set[Key], bool]:  # fmt: skip
    """The calls whose inputs change if one call (or, with `key` None, one input) gives other values; and the output."""
    touched: set[Key] = set()
    reaches = False
    for alter in (_poison, _nudge):
        probe = _AlteredPass(leaves, steps, key, alter)
        given = [alter(t) if key is None and i == place else t.clone() for i, t in enumerate(tensors)]
        # Altered values may break the teacher's own checks; what was seen until then still counts.
        with contextlib.suppress(Exception), patched_calls(probe, teacher):
            reaches |= _differ(flatten(call_teacher(teacher, given, structure))[0], truth)
        touched |= probe.touched
    return {k for k in touched if k != key}, reaches


def call_teacher(teacher: nn.Module, tensors: list[Tensor], structure: Structure) -> Any:
    """The teacher's output for inputs that were taken apart."""
    args, kwargs = structure.rebuild(tensors)
    return teacher(*args, **kwargs)
