"""The savings of a cut, in numbers and names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.fx import Node

from .info import info
from .partition import Partition
from .reach import Reach
from .traced import Traced, lookup

__all__ = ["Facts", "graph_facts"]


Shapes = tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Facts:
    """The properties of a split.

    Attributes:
        strategy: "fx", "export" or "hooks".
        modules: names of the modules that run in the middle only.
        macs: multiply-adds of head, middle and tail for the example inputs.
        parameters: numbers of parameters: of the teacher, and of the middle alone.
        middle_only: names of the parameters that only the middle reads.
        a: shapes of `a`, (B, C, H, W) per branch.
        f: shapes of `f`, (B, C, H, W) per branch.
        kept: tensors that the carry holds beside `a`: owner and shape of each tensor.
        leaks: owners and shapes of the features kept from the reference (`on_leak="reuse"`).
        random: layers that draw random numbers.
        limits: things that the split cannot do, in sentences.
        bundled: some module gives several outputs at once, so that a finer look may move work into the middle.
        passed_over: strategies tried before, and why they were given up.
        reach: how far around a place each part looks, in pixels of the input; measured at the first capture.
    """

    strategy: str
    modules: tuple[str, ...]
    macs: tuple[int, int, int]
    parameters: tuple[int, int]
    middle_only: tuple[str, ...]
    a: tuple[tuple[int, ...], ...]
    f: tuple[tuple[int, ...], ...]
    kept: tuple[tuple[str, tuple[int, ...]], ...] = ()
    leaks: tuple[tuple[str, tuple[int, ...]], ...] = ()
    random: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    bundled: bool = False
    passed_over: tuple[tuple[str, str], ...] = ()
    reach: tuple[tuple[str, Reach], ...] = ()

    @property
    def share_of_macs(self) -> float:
        """The middle's part of the teacher's multiply-adds, 0 to 1."""
        return self.macs[1] / max(1, sum(self.macs))

    @property
    def share_of_parameters(self) -> float:
        """The middle's part of the teacher's parameters, 0 to 1."""
        return self.parameters[1] / max(1, self.parameters[0])

    def _windows(self) -> str:
        """Say whether the teacher is local, as far as the example shows."""
        wide = [part for part, reach in self.reach if reach.whole]
        if wide:
            return f"not if the {' and '.join(wide)} looks at whole pictures of any size, as at that of the example"
        return f"local; exact with a halo of {sum(reach.pixels for _, reach in self.reach)} pixels"

    def lines(self) -> list[str]:
        """The explanation, line by line."""
        text = [
            f"captured by: {self.strategy}",
            f"a {_shapes(self.a)}, f {_shapes(self.f)}",
            f"the middle: {_few(self.modules)}",
            (
                f"it holds {self.share_of_macs:.1%} of the multiply-adds ({self.macs[1] / 1e9:.3g} of "
                f"{sum(self.macs) / 1e9:.3g} G) and {self.share_of_parameters:.1%} of the parameters"
            ),
            f"the carry holds a and {_few([f'{owner} {shape}' for owner, shape in self.kept]) or 'nothing else'}",
        ]
        if self.reach:
            text.append("reach: " + ", ".join(f"{part} {reach}" for part, reach in self.reach))
            text.append(f"windows: {self._windows()}")
        if self.leaks:
            text.append(f"kept from the reference: {_few([f'{owner} {shape}' for owner, shape in self.leaks])}")
        if self.random:
            text.append(f"not deterministic: {_few(self.random)}")
        text += [f"limit: {limit}" for limit in self.limits]
        text += [f"passed over {name}: {reason}" for name, reason in self.passed_over]
        return text


def graph_facts(teacher: nn.Module, traced: Traced, part: Partition, shapes: Shapes, kept: list[Node]) -> Facts:
    """The facts of a recorded split.

    Args:
        teacher: the network.
        traced: its recording.
        part: the recording, divided.
        shapes: shapes of `a` and of `f`, per branch.
        kept: the nodes that the carry holds beside `a`.
    """
    steps = [n for n in traced.graph.nodes if n.op != "placeholder"]
    head, middle, tail = ([n for n in steps if n in group] for group in (part.head, part.middle, part.tail))
    weights = _weights(teacher, middle)
    elsewhere = {*_weights(teacher, head), *_weights(teacher, tail)}
    only = [name for name in weights if name not in elsewhere]
    return Facts(
        strategy=traced.strategy,
        modules=_modules(middle, [*head, *tail]),
        macs=(_macs(head), _macs(middle), _macs(tail)),
        parameters=_numbers(teacher, only),
        middle_only=tuple(only),
        a=shapes[0],
        f=shapes[1],
        kept=tuple((info(n).owner, info(n).shape) for n in kept),
        leaks=tuple((info(n).owner, info(n).shape) for n in part.leaks),
        random=tuple(traced.random),
        limits=traced.limits,
        bundled=any(info(n).several for n in steps),
    )


def _macs(nodes: list[Node]) -> int:
    return sum(info(n).macs for n in nodes)


def _modules(middle: list[Node], others: list[Node]) -> tuple[str, ...]:
    """The modules that run in the middle only."""
    elsewhere = {info(n).owner for n in others}
    called = [n for n in middle if n.op == "call_module" or (n.op != "get_attr" and info(n).called)]
    return tuple(name for name in dict.fromkeys(info(n).owner for n in called) if name not in elsewhere)


def _numbers(teacher: nn.Module, names: list[str]) -> tuple[int, int]:
    """Count the numbers in all parameters of the teacher, and in those of some names."""
    named = dict(teacher.named_parameters(remove_duplicate=False))
    some = {id(named[name]): named[name].numel() for name in names}
    return sum(p.numel() for p in teacher.parameters()), sum(some.values())


def _weights(teacher: nn.Module, nodes: list[Node]) -> list[str]:
    """First names of the parameters that the nodes read, each once."""
    names = {id(p): n for n, p in teacher.named_parameters()}
    found: dict[str, None] = {}
    for node in nodes:
        reads = (
            [node]
            if node.op in ("call_module", "get_attr")
            else [n for n in node.all_input_nodes if n.op == "get_attr"]
        )
        for read in reads:
            item = lookup(teacher, str(read.target))
            item = getattr(item, "__self__", item)
            weights = item.parameters() if isinstance(item, nn.Module) else [item]
            found.update((names[id(w)], None) for w in weights if id(w) in names)
    return list(found)


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join(map(str, shapes))


def _few(items: tuple[str, ...] | list[str], most: int = 12) -> str:
    text = ", ".join(items[:most])
    return f"{text} and {len(items) - most} more" if len(items) > most else text
