"""The split of strategy "hooks": passes of the teacher's own code, with calls run, replayed or skipped."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..types import Carry
from .calls import patched_calls
from .facts import graph_facts
from .partition import Partition, conditions, kept_by_head
from .split import Maps, Split
from .structure import Structure, flatten
from .watch import CallWatcher, Key, Plan, call_teacher, replay

__all__ = ["HookSplit"]


class _PassEnds(BaseException):
    """Ends a pass early; no `Exception`, so that the teacher's own handlers let it through."""


class _SplitPass(CallWatcher):
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
                raise _PassEnds
        return out


class HookSplit(Split):
    """A split that runs the teacher's own code."""

    def __init__(
        self, teacher: nn.Module, plan: Plan, part: Partition, maps: Maps, structure: Structure, signature: Hashable
    ):
        super().__init__(teacher, plan.traced, maps, signature)
        self._plan = plan
        self._structure = structure
        keys = {step.node: k for k, step in plan.steps.items()}
        self._a = [keys[n] for n in part.points.flat_a]
        self._f = [keys[n] for n in part.injected]
        self._head = {keys[n] for n in part.head if n in keys}
        self._middle = {keys[n] for n in part.middle if n in keys}
        self._tail = {keys[n] for n in part.tail if n in keys}
        kept = [n for n in kept_by_head(plan.traced, part) if n in keys]
        self._kept = [keys[n] for n in kept]
        self._conditions = conditions(part, plan.traced.inputs)
        self.facts = graph_facts(teacher, plan.traced, part, (maps.a_shapes, maps.f_shapes), kept)

    def bind(self, teacher: nn.Module) -> None:
        """See `Split.bind`."""
        super().bind(teacher)
        self._plan = self._plan.bound(teacher)

    def begin(self, tensors: list[Tensor]) -> Carry:
        """See `Split.begin`."""
        wanted = {*self._a, *self._kept}
        got, _ = self._pass(tensors, self._head, {}, wanted)
        parts = [got[k][0] for k in self._a]
        return Carry(
            self.maps.a_of_outputs(parts), (tuple(tensors), tuple(tuple(got[k]) for k in self._kept)), self.signature
        )

    def conditions(self, carry: Carry) -> list[Tensor]:
        """See `Split.conditions`."""
        return [carry.kept[0][i] for i in self._conditions]

    def middle(self, carry: Carry) -> tuple[Tensor, ...]:
        """See `Split.middle`."""
        got, _ = self._pass(list(carry.kept[0]), self._middle, self._given(carry), set(self._f))
        return tuple(self.maps.f_of_outputs([got[k][0] for k in self._f]))

    def tail(self, carry: Carry, f: Sequence[Tensor]) -> Any:
        """See `Split.tail`."""
        given = self._given(carry)
        given.update((k, [value]) for k, value in zip(self._f, self.maps.outputs_of_f(f), strict=True))
        return self._pass(list(carry.kept[0]), self._tail, given, set())[1]

    def _given(self, carry: Carry) -> dict[Key, list[Tensor]]:
        given: dict[Key, list[Tensor]] = {k: list(v) for k, v in zip(self._kept, carry.kept[1], strict=True)}
        given.update((k, [part]) for k, part in zip(self._a, self.maps.outputs_of_a(carry.a), strict=True))
        return given

    def _pass(
        self, tensors: list[Tensor], run: set[Key], given: dict[Key, list[Tensor]], until: set[Key]
    ) -> tuple[dict[Key, list[Tensor]], Any]:
        watcher = _SplitPass(self._plan, run, given, until)
        try:
            with patched_calls(watcher, self._teacher):
                out = call_teacher(self._teacher, [t.clone() for t in tensors], self._structure)
        except _PassEnds:
            return watcher.got, None
        if until:
            missing = ", ".join(sorted(name for name, _ in until - set(watcher.got)))
            raise InputError(f"for these inputs the teacher's code took a way past {missing}, which the cut needs")
        return {}, out
