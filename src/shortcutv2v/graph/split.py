"""Head, middle and tail as runnable programs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from ..errors import InputError
from ..types import Carry
from .facts import Facts, graph_facts
from .frozen import Frozen
from .info import info
from .layout import Layout
from .partition import Partition, conditions, kept_by_head, shares
from .signature import take_apart
from .structure import flatten, keep
from .traced import Traced, compile_graph, memory

__all__ = ["GraphSplit", "Maps", "Split"]


@dataclass(frozen=True)
class Maps:
    """The way from the outputs of the cut layers to maps (B, C, H, W), and back.

    Attributes:
        enc: per branch, the place of each part of `a` in the flat list of parts, and its layout.
        dec: per branch, the layout of `f`.
        a_shapes: (B, C_a, H, W) per branch.
        f_shapes: (B, C_f, H, W) per branch.
        widths: per branch, the channels of each part of `a`.
        dtype: the narrowest dtype that holds all of `a` and `f`.
    """

    enc: tuple[tuple[tuple[int, Layout], ...], ...]
    dec: tuple[Layout, ...]
    a_shapes: tuple[tuple[int, ...], ...]
    f_shapes: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    def a_of_outputs(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`a` per branch, from the outputs of the encoder layers."""
        found = []
        for branch in self.enc:
            maps = [layout.to_map(parts[i]) for i, layout in branch]
            found.append(maps[0] if len(maps) == 1 else torch.cat(maps, 1))
        return tuple(found)

    def outputs_of_a(self, a: Sequence[Tensor]) -> list[Tensor]:
        """The inverse of `a_of_outputs`: the outputs of the encoder layers."""
        found: dict[int, Tensor] = {}
        for branch, widths, value in zip(self.enc, self.widths, a, strict=True):
            pieces = (value,) if len(branch) == 1 else torch.split(value, list(widths), 1)
            for (i, layout), piece in zip(branch, pieces, strict=True):
                found.setdefault(i, layout.from_map(piece))
        return [found[i] for i in range(len(found))]

    def f_of_outputs(self, f: Sequence[Tensor]) -> list[Tensor]:
        """`f` per branch, from the outputs of the decoder layers; the leaks after them stay as they are."""
        extra = list(f[len(self.dec) :])
        return [layout.to_map(x) for layout, x in zip(self.dec, f, strict=False)] + extra

    def outputs_of_f(self, f: Sequence[Tensor]) -> list[Tensor]:
        """The inverse of `f_of_outputs`."""
        extra = list(f[len(self.dec) :])
        return [layout.from_map(x) for layout, x in zip(self.dec, f, strict=False)] + extra


class Split:
    """A teacher cut for one signature of inputs. All three programs are pure and read the live teacher.

    Args:
        teacher: the network, or the copy that was captured.
        traced: its recording.
        maps: the shapes of `a` and `f`.
        signature: the call signature that the split is valid for.

    Attributes:
        strategy: "fx", "export" or "hooks".
        limits: things that this split cannot do, in sentences.
        facts: the shares that the cut saves.
        leaves: names of the modules that run as a whole in every pass, None if none does.
        frozen: the Python values that the split has frozen.
    """

    facts: Facts
    frozen: Frozen

    def __init__(self, teacher: nn.Module, traced: Traced, maps: Maps, signature: Hashable) -> None:
        self._teacher = teacher
        self.strategy, self.limits, self.leaves = traced.strategy, traced.limits, traced.leaves
        self.maps, self.signature = maps, signature

    def bind(self, teacher: nn.Module) -> None:
        """Run on this teacher from now on, instead of the copy that was captured."""
        self._teacher = teacher

    def compile(self, **options: Any) -> None:
        """Compile the programs with `torch.compile(**options)`, where the strategy can."""

    def head(self, *args: Any, **kwargs: Any) -> Carry:
        """Compute `a`, and all else that the middle and the tail need and that does not depend on `f`."""
        return self.begin(take_apart(args, kwargs)[0])

    def begin(self, tensors: list[Tensor]) -> Carry:
        """`head` for inputs that were taken apart."""
        raise NotImplementedError

    def conditions(self, carry: Carry) -> list[Tensor]:
        """Tensors that the middle reads and that no change of `a` tells of, such as a style vector."""
        raise NotImplementedError

    def middle(self, carry: Carry) -> tuple[Tensor, ...]:
        """Compute `f` per branch, then the leaking tensors."""
        raise NotImplementedError

    def middle_in_parts(self, carry: Carry, count: int) -> Iterator[tuple[Tensor, ...]]:
        """Compute what `middle` does, one of `count` parts for every item; all items are empty but the last.

        Raises:
            InputError: the strategy cannot.
        """
        raise InputError(
            "the middle cannot run in parts, because the teacher was captured by hooks, which run its own code: "
            "leave rolling=True out; print(model.cut) says why fx and export were passed over"
        )

    def tail(self, carry: Carry, f: Sequence[Tensor]) -> Any:
        """Compute the teacher's output from `f` as `middle` returns it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"Split(strategy={self.strategy!r}, a={self.maps.a_shapes}, f={self.maps.f_shapes})"


class GraphSplit(Split):
    """A split made of three generated functions (strategies "fx" and "export")."""

    def __init__(self, teacher: nn.Module, traced: Traced, part: Partition, maps: Maps, signature: Hashable) -> None:
        super().__init__(teacher, traced, maps, signature)
        self._result = traced.result
        kept = kept_by_head(traced, part)
        self._conditions = conditions(part, kept)
        self._eager = self._programs = _programs(traced, part, kept)
        self._recorded, self._parts = (part, kept), dict[int, list[Callable[..., Any]]]()
        self.facts = graph_facts(teacher, traced, part, (maps.a_shapes, maps.f_shapes), kept)

    def compile(self, **options: Any) -> None:
        """See `Split.compile`."""
        eager = self._eager
        self._programs = _Programs(*(torch.compile(run, **options) for run in (eager.head, eager.middle, eager.tail)))

    def begin(self, tensors: list[Tensor]) -> Carry:
        """See `Split.begin`."""
        parts, kept = self._programs.head(self._teacher, *tensors)
        return Carry(self.maps.a_of_outputs(_apart(parts, tensors)), kept, self.signature)

    def conditions(self, carry: Carry) -> list[Tensor]:
        """See `Split.conditions`."""
        return [carry.kept[i] for i in self._conditions if isinstance(carry.kept[i], Tensor)]

    def middle(self, carry: Carry) -> tuple[Tensor, ...]:
        """See `Split.middle`."""
        f = self._programs.middle(self._teacher, *self.maps.outputs_of_a(carry.a), *carry.kept)
        return tuple(self.maps.f_of_outputs(_apart(f, carry.kept)))

    def middle_in_parts(self, carry: Carry, count: int) -> Iterator[tuple[Tensor, ...]]:
        """See `Split.middle_in_parts`. The parts run uncompiled."""
        if count not in self._parts:
            self._parts[count] = _parts(*self._recorded, count)
        return self._run_parts(carry, self._parts[count])

    def _run_parts(self, carry: Carry, programs: list[Callable[..., Any]]) -> Iterator[tuple[Tensor, ...]]:
        values: Sequence[Any] = (*self.maps.outputs_of_a(carry.a), *carry.kept)
        taken = {memory(tensor) for tensor in flatten(values)[0]}  # callers may overwrite it before the last part runs
        for program in programs[:-1]:
            made = program(self._teacher, *values)
            values = [v if isinstance(v, Tensor) and memory(v) not in taken else keep(v) for v in made]
            yield ()
        f = programs[-1](self._teacher, *values)
        yield tuple(self.maps.f_of_outputs(_apart(f, carry.kept)))

    def tail(self, carry: Carry, f: Sequence[Tensor]) -> Any:
        """See `Split.tail`."""
        given = (*self.maps.outputs_of_a(carry.a), *carry.kept, *self.maps.outputs_of_f(f))
        return self._result.rebuild(_apart(self._programs.tail(self._teacher, *given), given))


def _apart(made: Sequence[Tensor], given: Iterable[Any]) -> list[Tensor]:
    """Copy results that share memory with what they were made from.

    Callers scale pictures in place and fill one frame buffer again and again; neither may reach a reference.
    """
    if torch.compiler.is_compiling():
        return [tensor.clone() for tensor in made]
    taken = {memory(tensor) for tensor in given if isinstance(tensor, Tensor)}
    return [tensor.clone() if memory(tensor) in taken else tensor for tensor in made]


@dataclass(frozen=True)
class _Programs:
    head: Callable[..., Any]
    middle: Callable[..., Any]
    tail: Callable[..., Any]


def _programs(traced: Traced, part: Partition, kept: list[Node]) -> _Programs:
    a = list(part.points.flat_a)
    return _Programs(
        _program(traced.inputs, part.head, (tuple(a), tuple(kept))),
        _program([*a, *kept], part.middle, part.injected),
        _program([*a, *kept, *part.injected], part.tail, tuple(traced.outputs)),
    )


def _parts(part: Partition, kept: list[Node], count: int) -> list[Callable[..., Any]]:
    """The middle as so many functions of the live teacher; each takes what the one before returns."""
    given, place = [*part.points.flat_a, *kept], dict[Node, int]()
    order = next(iter(part.injected)).graph.nodes
    nodes = [n for n in order if n in part.middle and n.op != "get_attr"]
    place.update(zip(nodes, shares([info(n).macs for n in nodes], count), strict=True))
    programs = []
    for number in range(count - 1):
        known = {*given, *(n for n in nodes if place[n] == number)}
        wanted = {*part.injected, *(i for n in nodes if place[n] > number for i in n.all_input_nodes)}
        handed = [n for n in order if n in known and n in wanted]
        programs.append(_program(given, known - {*given}, tuple(handed)))
        given = handed
    return [*programs, _program(given, {n for n in nodes if place[n] == count - 1}, part.injected)]


def _program(inputs: Sequence[Node], nodes: set[Node], outputs: Any) -> Callable[..., Any]:
    """A function of the live teacher and `inputs` that runs `nodes` in their recorded order."""
    graph = Graph()
    new: dict[Node, Node] = {}
    for node in inputs:
        new[node] = graph.placeholder(f"p{len(new)}")
    order = next(iter(nodes | set(inputs))).graph.nodes if nodes or inputs else ()
    # Weights are read where they are used, and only there.
    wanted = {n for n in nodes if n.op != "get_attr"}
    read = (*tree_leaves(outputs), *(i for n in wanted for i in n.all_input_nodes))
    wanted |= {n for n in read if n.op == "get_attr"}
    for node in order:
        if node in wanted and node not in new:
            new[node] = graph.node_copy(node, lambda n: new[n])
    graph.output(map_arg(outputs, lambda n: new[n]))
    _drop_copies(graph)
    return compile_graph(graph)


def _drop_copies(graph: Graph) -> None:
    """Work in place again where the copied value is fresh and has no other reader."""
    for node in list(graph.nodes):
        if info(node).copied:
            source = node.args[0]
            if source.op not in ("placeholder", "get_attr") and info(source).fresh and len(source.users) == 1:
                node.replace_all_uses_with(source)
                graph.erase_node(node)
