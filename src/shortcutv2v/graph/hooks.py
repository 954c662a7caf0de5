"""Strategy "hooks": the teacher's own code runs in every pass; its module calls are run, replayed or skipped.

For teachers whose Python code depends on tensor values, where no graph exists. What depends on what is found by
experiment: replay the true output of every module call except one, which is replaced by NaN (then by slightly other
values), and see which later calls get other inputs. The result is a graph of calls, cut like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from ..errors import InputError
from ..types import Carry
from .calls import ancestors, module_names, patched_calls
from .cost import MacCounter
from .facts import graph_facts
from .partition import Partition
from .signature import take_apart
from .split import Maps
from .structure import Structure, flatten
from .traced import Call, Traced, Untraceable, is_heavy, meta_of, version

__all__ = ["HookSplit", "Plan", "watch"]

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
class Step:
    """One recorded call: what went in and came out, and which inputs it changed in place."""

    key: Key
    inputs: list[Tensor]
    outputs: list[Tensor]
    structure: Structure
    changed: dict[int, Tensor]
    node: Node

    @property
    def values(self) -> list[Tensor]:
        """All that a replay needs: the outputs, then the new values of changed inputs."""
        return [*self.outputs, *self.changed.values()]


@dataclass
class Plan:
    """The teacher's calls and their dependencies."""

    traced: Traced
    steps: dict[Key, Step]
    leaves: _Leaves = field(repr=False)


class _Stop(BaseException):
    """Ends a pass early; no `Exception`, so that the teacher's own handlers let it through."""


class _Leaves:
    """Which modules are watched: as in strategy "fx", those that are no ancestor of a cut layer, and the cut layers."""

    def __init__(self, teacher: nn.Module, marked: set[str]) -> None:
        self.names = module_names(teacher)
        self.inside = ancestors(teacher, marked)
        self.marked = marked


class _Watcher:
    """Counts the calls of watched modules and hands them to `step`."""

    def __init__(self, leaves: _Leaves) -> None:
        self.leaves = leaves
        self.counts: dict[str, int] = {}
        self.quiet = 0

    def call_module(self, module: nn.Module, args: Any, kwargs: Any, original: Callable[..., Any]) -> Any:
        name = self.leaves.names.get(id(module))
        if name is None or (name in self.leaves.inside and name not in self.leaves.marked):
            return original(module, *args, **kwargs)
        self.counts[name] = self.counts.get(name, -1) + 1
        leaf = name not in self.leaves.inside

        def run() -> Any:
            self.quiet += leaf
            try:
                return original(module, *args, **kwargs)
            finally:
                self.quiet -= leaf

        return self.step((name, self.counts[name]), module, (args, kwargs), run)

    def step(self, key: Key, module: nn.Module, given: Any, run: Callable[[], Any]) -> Any:
        raise NotImplementedError


class _Recording(_Watcher):
    """The first pass: everything runs, everything is noted."""

    def __init__(self, leaves: _Leaves, graph: Graph) -> None:
        super().__init__(leaves)
        self.graph = graph
        self.steps: dict[Key, Step] = {}
        self.calls: list[Call] = []
        self.random: dict[str, None] = {}
        self.macs = MacCounter()

    def step(self, key: Key, module: nn.Module, given: Any, run: Callable[[], Any]) -> Any:
        inputs = flatten(given)[0]
        before = [t.clone() for t in inputs]
        versions, macs, rng = [version(t) for t in inputs], self.macs.total, torch.get_rng_state()
        index = len(self.calls)
        out = run()
        changed = {i: t.detach().clone() for i, t in enumerate(inputs) if version(t) != versions[i]}
        outputs, structure = flatten(out)
        leaf = key[0] not in self.leaves.inside
        node = self.graph.call_module(key[0]) if leaf else self.graph.call_function(_nothing)
        cost = self.macs.total - macs if leaf else 0
        node.meta.update(owner=key[0], macs=cost, heavy=is_heavy(module if leaf else None, cost), module=True)
        if isinstance(out, Tensor):
            node.meta.update(meta_of(out))
        if leaf and not torch.equal(rng, torch.get_rng_state()):
            self.random[key[0]] = None
        self.calls.append(Call(key[0], node if isinstance(out, Tensor) else None, type(out).__name__, index))
        self.steps[key] = Step(key, before, [t.detach().clone() for t in outputs], structure, changed, node)
        return out


class _Probe(_Watcher):
    """Replays every call with its true output, one of them altered, and notes who is touched."""

    def __init__(self, leaves: _Leaves, steps: dict[Key, Step], altered: Key | None, alter: Callable[[Tensor], Tensor]):
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


class _Pass(_Watcher):
    """A pass of a finished split: calls run, are replayed, or are skipped."""

    def __init__(self, plan: Plan, run: set[Key], given: dict[Key, list[Tensor]], until: set[Key]) -> None:
        super().__init__(plan.leaves)
        self.plan = plan
        self.run_keys = run
        self.given = given
        self.until = until
        self.got: dict[Key, list[Tensor]] = {}

    def step(self, key: Key, module: nn.Module, given: Any, run: Callable[[], Any]) -> Any:
        step = self.plan.steps.get(key)
        if step is None:
            return run()
        inputs = flatten(given)[0]
        if key in self.given:
            return replay(step, inputs, [v.clone() for v in self.given[key]])
        if key not in self.run_keys:
            if key[0] in self.leaves.inside:
                return run()
            return replay(step, inputs, [torch.zeros_like(v) for v in step.values])
        out = run()
        if key in self.until:
            changed = [inputs[i] for i in step.changed]
            self.got[key] = [t.clone() for t in (*flatten(out)[0], *changed)]
            if len(self.got) == len(self.until):
                raise _Stop
        return out


def replay(step: Step, inputs: list[Tensor], values: list[Tensor]) -> Any:
    """What the call returned, and did to its inputs, from the values it left."""
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
    """Record the calls of one pass and find out what depends on what.

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
        node.meta.update(meta_of(tensor), owner=f"input {i}")
    leaves = _Leaves(teacher, marked)
    recording = _Recording(leaves, graph)
    with recording.macs, patched_calls(recording):
        out = _call(teacher, [t.clone() for t in tensors], structure)
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
    traced = Traced(graph, inputs, outputs, result, recording.calls, "hooks", _LIMITS, list(recording.random))
    return Plan(traced, recording.steps, leaves)


def _reach(
    teacher: nn.Module, tensors: list[Tensor], structure: Structure, steps: dict[Key, Step], leaves: _Leaves,
    truth: list[Tensor], key: Key | None, place: int,
) -> tuple[set[Key], bool]:  # fmt: skip
    """The calls whose inputs change if one call (or, with `key` None, one input) gives other values; and the output."""
    touched: set[Key] = set()
    reaches = False
    for alter in (_poison, _nudge):
        probe = _Probe(leaves, steps, key, alter)
        given = [alter(t) if key is None and i == place else t.clone() for i, t in enumerate(tensors)]
        # Altered values may break the teacher's own checks; what was seen until then still counts.
        with contextlib.suppress(Exception), patched_calls(probe):
            reaches |= _differ(flatten(_call(teacher, given, structure))[0], truth)
        touched |= probe.touched
    return {k for k in touched if k != key}, reaches


def _call(teacher: nn.Module, tensors: list[Tensor], structure: Structure) -> Any:
    args, kwargs = structure.rebuild(tensors)
    return teacher(*args, **kwargs)


class HookSplit:
    """A split that runs the teacher's own code (see `Split`)."""

    def __init__(
        self, teacher: nn.Module, plan: Plan, part: Partition, maps: Maps, structure: Structure, key: Hashable
    ):
        self._teacher = teacher
        self._plan = plan
        self._structure = structure
        self.strategy = "hooks"
        self.limits = plan.traced.limits
        self.maps = maps
        self.signature = key
        keys = {step.node: k for k, step in plan.steps.items()}
        self._a = [keys[n] for n in part.points.flat_a]
        self._f = [keys[n] for n in part.injected]
        self._head = {keys[n] for n in part.head if n in keys}
        self._middle = {keys[n] for n in part.middle if n in keys}
        self._tail = {keys[n] for n in part.tail if n in keys}
        wanted = {n for group in (part.middle, part.tail) for node in group for n in node.all_input_nodes}
        kept = [n for n in plan.traced.graph.nodes if n in (wanted | set(plan.traced.outputs)) and n in part.head]
        self._kept = [keys[n] for n in kept if n in keys and keys[n] not in self._a]
        shapes = (maps.a_shapes, maps.f_shapes)
        self.facts = graph_facts(teacher, plan.traced, part, shapes, [plan.steps[k].node for k in self._kept])

    def head(self, *args: Any, **kwargs: Any) -> Carry:
        """See `Split.head`."""
        tensors, _ = take_apart(args, kwargs)
        wanted = {*self._a, *self._kept}
        got, _ = self._pass(tensors, self._head, {}, wanted)
        parts = [got[k][0] for k in self._a]
        return Carry(self.maps.join(parts), (tuple(tensors), tuple(tuple(got[k]) for k in self._kept)), self.signature)

    def middle(self, carry: Carry) -> tuple[Tensor, ...]:
        """See `Split.middle`."""
        got, _ = self._pass(list(carry.kept[0]), self._middle, self._given(carry), set(self._f))
        return tuple(self.maps.give([got[k][0] for k in self._f]))

    def tail(self, carry: Carry, f: Sequence[Tensor]) -> Any:
        """See `Split.tail`."""
        given = self._given(carry)
        given.update((k, [value]) for k, value in zip(self._f, self.maps.take(f), strict=True))
        return self._pass(list(carry.kept[0]), self._tail, given, set())[1]

    def _given(self, carry: Carry) -> dict[Key, list[Tensor]]:
        given: dict[Key, list[Tensor]] = {k: list(v) for k, v in zip(self._kept, carry.kept[1], strict=True)}
        given.update((k, [part]) for k, part in zip(self._a, self.maps.part(carry.a), strict=True))
        return given

    def _pass(
        self, tensors: list[Tensor], run: set[Key], given: dict[Key, list[Tensor]], until: set[Key]
    ) -> tuple[dict[Key, list[Tensor]], Any]:
        watcher = _Pass(self._plan, run, given, until)
        try:
            with patched_calls(watcher):
                out = _call(self._teacher, [t.clone() for t in tensors], self._structure)
        except _Stop:
            return watcher.got, None
        if until:
            missing = ", ".join(sorted(name for name, _ in until - set(watcher.got)))
            raise InputError(f"for these inputs the teacher's code took a way past {missing}, which the cut needs")
        return {}, out

    def __repr__(self) -> str:
        return f"Split(strategy={self.strategy!r}, a={self.maps.a_shapes}, f={self.maps.f_shapes})"
