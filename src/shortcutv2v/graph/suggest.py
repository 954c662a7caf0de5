"""Every cut that a teacher allows, and what it would save."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from ..errors import CaptureError
from ..teacher import require_module
from .cut import Layer
from .exported import export
from .partition import upstream
from .protect import capturing, untouched
from .record import record
from .signature import take_apart
from .structure import Structure
from .traced import Traced, Untraceable, describe
from .twin import Twin
from .watch import watch

__all__ = ["Suggestion", "nearest", "suggest_cuts"]


@dataclass(frozen=True)
class Suggestion:
    """One possible cut.

    Attributes:
        enc_layer: name to give to `wrap` for `a`.
        dec_layer: name to give to `wrap` for `f`.
        saved: the middle's share of the teacher's multiply-adds, 0 to 1: what a shortcut pass does not run. The
            Shortcut block's own cost has to be paid from it.
        a_shape: (B, C_a, H, W).
        f_shape: (B, C_f, H, W).
        leaks: layers between the two that the tail needs beside `f`; such a cut wants `on_leak="reuse"`.
    """

    enc_layer: str
    dec_layer: str
    saved: float
    a_shape: tuple[int, ...]
    f_shape: tuple[int, ...]
    leaks: tuple[str, ...] = ()

    def __str__(self) -> str:
        leaks = f", leaks: {', '.join(self.leaks)}" if self.leaks else ""
        return f"{self.saved:6.1%}  {self.enc_layer} -> {self.dec_layer}  a {self.a_shape} f {self.f_shape}{leaks}"


def suggest_cuts(
    teacher: nn.Module, example_inputs: Sequence[Any] | Tensor, example_kwargs: dict[str, Any] | None = None
) -> list[Suggestion]:
    """List all pairs of layers of the same spatial size between which a teacher can be cut.

    Args:
        teacher: the network; it is left as found.
        example_inputs: a tuple of inputs, or one tensor; smaller inputs give the same list faster.
        example_kwargs: keyword inputs.

    Returns:
        The cuts, those that save most multiply-adds first. Of names for the same tensor the outermost is given.

    Raises:
        CaptureError: the teacher can be followed by no strategy.

    >>> net = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)])
    >>> print(suggest_cuts(net, torch.zeros(1, 3, 8, 8))[0])
     75.0%  0 -> 3  a (1, 3, 8, 8) f (1, 3, 8, 8)
    """
    require_module(teacher)
    args = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    tensors, structure = take_apart(args, example_kwargs or {})
    with capturing():
        traced = survey(Twin(teacher), [t.detach().clone() for t in tensors], structure)
    found = _Survey(traced).suggestions()
    return sorted(found, key=lambda s: -s.saved)


def survey(twin: Twin, tensors: list[Tensor], structure: Structure) -> Traced:
    """Follow the teacher down to its single layers, with the first strategy that can."""
    teacher = twin.teacher
    names = [n for n, m in teacher.named_modules() if n and not isinstance(m, torch.jit.ScriptModule)]
    met = []
    for name in ("fx", "export", "hooks"):
        try:
            with untouched(teacher):
                given = [t.clone() for t in tensors]
                if name == "fx":
                    args, kwargs = structure.rebuild(given)
                    return record(twin, args, kwargs, set(), fine=True)
                if name == "export":
                    return export(twin, given, structure, set(names))
                return watch(teacher, given, structure, {n for n in names if n.count(".") < 2}).traced
        except Exception as error:
            text = str(error).strip().partition("\n")[0]
            met.append(f"  {name}: {'' if isinstance(error, Untraceable) else type(error).__name__ + ': '}{text}")
    raise CaptureError("no strategy can follow the teacher:\n" + "\n".join(met))


class _Survey:
    """A recording as bit sets: node i is bit i, so that thousands of pairs are compared in no time."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.nodes = [n for n in traced.graph.nodes if n.op != "get_attr"]
        self.index = {n: i for i, n in enumerate(self.nodes)}
        self.before = [0] * len(self.nodes)
        for i, node in enumerate(self.nodes):
            for source in node.all_input_nodes:
                if source in self.index:
                    self.before[i] |= self.before[self.index[source]] | 1 << self.index[source]
        self.after = [0] * len(self.nodes)
        for i in reversed(range(len(self.nodes))):
            for user in self.nodes[i].users:
                if user in self.index:
                    self.after[i] |= self.after[self.index[user]] | 1 << self.index[user]
        self.live = self.bits(upstream(traced.outputs))
        self.outputs = self.bits(traced.outputs)
        self.heavy = self.bits(n for n in self.nodes if n.meta.get("heavy"))
        self.macs = torch.tensor([float(n.meta.get("macs", 0)) for n in self.nodes], dtype=torch.float64)

    def bits(self, nodes: Iterable[Node]) -> int:
        found = 0
        for node in nodes:
            if node in self.index:
                found |= 1 << self.index[node]
        return found

    def candidates(self) -> dict[int, str]:
        """Nodes that give maps, with the best name of the layer: the outermost."""
        repeated = {c.name for c in self.traced.calls if len(self.traced.calls_of(c.name)) > 1}
        counts: dict[str, int] = {}
        found: dict[int, str] = {}
        for call in self.traced.calls:
            number = counts[call.name] = counts.get(call.name, -1) + 1
            shape = () if call.node is None else call.node.meta.get("shape", ())
            # A map of one row or column has nothing to align.
            if not call.name or call.node is None or len(shape) != 4 or min(shape[2:]) < 2:
                continue
            i = self.index[call.node]
            name = str(Layer(call.name, number if call.name in repeated else None))
            if self.live >> i & 1 and (i not in found or len(name.split(".")) < len(found[i].split("."))):
                found[i] = name
        return found

    def suggestions(self) -> list[Suggestion]:
        names = self.candidates()
        sizes: dict[Any, list[int]] = {}
        for i in names:
            sizes.setdefault(self.nodes[i].meta["shape"][2:], []).append(i)
        return [s for group in sizes.values() for s in self.group(sorted(group), names)]

    def group(self, group: list[int], names: dict[int, str]) -> list[Suggestion]:
        """All pairs of one spatial size; the multiply-adds of every middle come from one matrix product."""
        around = [self.bits(upstream(self.traced.outputs, [self.nodes[f]])) for f in group]
        ends = [(self.before[f] | 1 << f) & ~skip for f, skip in zip(group, around, strict=True)]
        end, start = self.matrix(ends), self.matrix([self.before[a] | 1 << a for a in group])
        saved = (end @ self.macs)[:, None] - (end * self.macs) @ start.T
        total = max(1.0, float(self.macs.sum()))
        found = []
        for row, f in enumerate(group):
            exits = self.exits(f)
            for column, a in enumerate(group):
                if self.before[f] >> a & 1:
                    shapes = self.nodes[a].meta["shape"], self.nodes[f].meta["shape"]
                    part = float(saved[row, column]) / total
                    found.append(Suggestion(names[a], names[f], part, *shapes, self.leaks(a, f, exits)))
        return found

    def matrix(self, rows: list[int]) -> Tensor:
        width = (len(self.nodes) + 7) // 8
        flat = torch.frombuffer(bytearray(b"".join(r.to_bytes(width, "little") for r in rows)), dtype=torch.uint8)
        spread = flat.reshape(len(rows), width, 1) >> torch.arange(8, dtype=torch.uint8) & 1
        return spread.reshape(len(rows), -1)[:, : len(self.nodes)].double()

    def exits(self, f: int) -> int:
        """What feeds `f` and also something that does not: whatever of it lies behind `a` leaks."""
        inner = self.before[f] | 1 << f
        found = self.before[f] & self.outputs
        for i in _ones(self.before[f]):
            users = self.bits(self.nodes[i].users)
            if users & ~inner & self.live:
                found |= 1 << i
        return found

    def leaks(self, a: int, f: int, exits: int) -> tuple[str, ...]:
        found = [
            self.nodes[i]
            for i in _ones(self.after[a] & exits)
            if self.after[a] & (self.before[i] | 1 << i) & self.heavy
        ]
        return tuple(describe(found)[:8])


def _ones(bits: int) -> Iterable[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def nearest(twin: Twin, tensors: list[Tensor], structure: Structure, enc: str, dec: str) -> list[Suggestion]:
    """The leak-free cuts nearest to a given one, in calls; those that keep one of its layers first."""
    traced = survey(twin, tensors, structure)
    place: dict[str, int] = {}
    for call in traced.calls:
        place.setdefault(call.name, call.index)

    def distance(s: Suggestion) -> tuple[bool, int]:
        moved = (s.enc_layer != enc) + (s.dec_layer != dec)
        steps = [abs(place.get(x.partition(":")[0], 0) - place.get(y.partition(":")[0], 0)) for x, y in ends(s)]
        return moved > 1, sum(steps)

    def ends(s: Suggestion) -> list[tuple[str, str]]:
        return [(s.enc_layer, enc), (s.dec_layer, dec)]

    good = [s for s in _Survey(traced).suggestions() if not s.leaks and s.saved > 0]
    return sorted(good, key=distance)[:3]
