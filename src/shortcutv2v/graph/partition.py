"""Head, middle and tail as sets of nodes, by data flow alone (design section 3)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.fx import Node

from ..errors import CutOrderError, LeakError
from .cut import Cut
from .info import info
from .leaks import describe_leaks, leak_text
from .traced import Traced

__all__ = ["Partition", "Points", "check_order", "conditions", "find_leaks", "kept_by_head", "partition", "shares"]


@dataclass(frozen=True)
class Points:
    """The nodes of a cut: the parts of `a` per branch, and `f` per branch."""

    a: tuple[tuple[Node, ...], ...]
    f: tuple[Node, ...]

    @property
    def flat_a(self) -> tuple[Node, ...]:
        """Every part of every `a`, each once."""
        return tuple(dict.fromkeys(n for part in self.a for n in part))


@dataclass(frozen=True)
class Partition:
    """Which nodes run where. `leaks` are the nodes handed to the tail beside `f` (`on_leak="reuse"`)."""

    points: Points
    leaks: tuple[Node, ...]
    head: set[Node]
    middle: set[Node]
    tail: set[Node]

    @property
    def injected(self) -> tuple[Node, ...]:
        """The tensors that the tail is given: `f` per branch, then the leaks."""
        return (*self.points.f, *self.leaks)


def upstream(roots: Iterable[Node], stop: Iterable[Node] = ()) -> set[Node]:
    """Return the roots and the nodes that they depend on; nodes of `stop` are neither entered nor listed."""
    barrier = set(stop)
    found: set[Node] = set()
    stack = [n for n in roots if n not in barrier]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(n for n in node.all_input_nodes if n not in barrier and n not in found)
    return found


def kept_by_head(traced: Traced, part: Partition) -> list[Node]:
    """Return the nodes that the head hands on beside `a`. Parameters are read where they are used, not carried."""
    ready = part.head - set(part.points.flat_a)
    wanted = {n for group in (part.middle, part.tail) for node in group for n in node.all_input_nodes}
    wanted.update(traced.outputs)
    return [n for n in traced.graph.nodes if n in wanted and n in ready and n.op != "get_attr"]


def conditions(part: Partition, candidates: Sequence[Node]) -> list[int]:
    """Places of the candidates that the middle reads and that do not depend on the inputs that `a` depends on.

    A style vector is one: if it changes, no change of `a` tells, and `f` of the reference no longer serves.
    """
    read = {n for node in part.middle for n in node.all_input_nodes} | (set(part.points.f) - part.middle)
    seen = {n for n in upstream(part.points.flat_a) if n.op == "placeholder"}
    sources = [{n for n in upstream([node]) if n.op == "placeholder"} for node in candidates]
    return [i for i, n in enumerate(candidates) if n in read and sources[i] and seen.isdisjoint(sources[i])]


def shares(costs: Sequence[int], count: int) -> list[int]:
    """Divide steps that follow one another into `count` parts, the dearest of which costs as little as can be.

    What that leaves open makes the first parts cheap.

    Returns:
        For every step the number of its part, from 0.

    Examples:
        >>> shares([4, 0, 2, 2, 4, 1], 3), shares([1, 1], 5)
        ([0, 1, 1, 1, 2, 2], [3, 4])
    """

    def filled(most: int) -> list[int]:
        parts, spent = [count - 1], 0
        for cost in reversed(costs):
            full = spent + cost > most
            parts.append(parts[-1] - full)
            spent = cost if full else spent + cost
        return parts[:0:-1]

    low, high = max(costs, default=0), sum(costs)
    return filled(low + bisect_left(range(low, high), True, key=lambda most: min(filled(most), default=0) >= 0))


def downstream(roots: Iterable[Node], within: set[Node] | None = None) -> set[Node]:
    """Return the nodes that depend on the roots, without the roots (unless they depend on each other)."""
    found: set[Node] = set()
    stack = list(roots)
    while stack:
        for user in stack.pop().users:
            if user not in found and (within is None or user in within):
                found.add(user)
                stack.append(user)
    return found


def partition(traced: Traced, points: Points, cut: Cut, on_leak: str = "error") -> Partition:
    """Divide a recording at the cut.

    Raises:
        LeakError: the tail needs a feature between `a` and `f`; the message names it and its reader.
    """
    leaks, beyond = find_leaks(traced, points)
    if leaks and on_leak == "error":
        raise LeakError(leak_text(cut, describe_leaks(traced, leaks, downstream(points.flat_a), beyond)))
    injected = [*points.f, *leaks]
    live = upstream(traced.outputs, injected)
    tail = downstream(injected, live)
    head = (live - tail) | upstream(points.flat_a) | set(traced.inputs)
    middle = upstream(injected, head)
    keep_copies_at_hand(traced, head, middle, tail)
    after = tail | set(injected)
    place_effects(traced, head, middle, after)
    tail |= {n for n in after if info(n).effect}
    return Partition(points, tuple(leaks), head, middle, tail)


def keep_copies_at_hand(traced: Traced, head: set[Node], middle: set[Node], tail: set[Node]) -> None:
    """Move each copy that is made to be overwritten into the program that overwrites it."""
    for node in traced.graph.nodes:
        if info(node).copied is not None:
            for group in (middle, tail):
                if group & set(node.users) and node not in group:
                    head.discard(node)
                    group.add(node)


def place_effects(traced: Traced, head: set[Node], middle: set[Node], tail: set[Node]) -> None:
    """Put the user's hooks, on which no node depends, into the first program that has all they look at."""
    for node in traced.graph.nodes:
        if info(node).effect:
            seen = {n for n in node.all_input_nodes if n.op != "get_attr"}
            for group, at_hand in ((head, head), (middle, head | middle), (tail, head | tail)):
                if seen <= at_hand:
                    group.add(node)
                    break


def check_order(traced: Traced, points: Points, cut: Cut) -> None:
    """Check that every `f` depends on its `a`, and the output on every `f`.

    Raises:
        CutOrderError: one does not; the message says if the layers are swapped or lie on independent paths.
    """
    used = upstream(traced.outputs, points.f)
    for branch, a, f in zip(cut.branches, points.a, points.f, strict=True):
        before = upstream([f])
        loose = [str(e) for e, n in zip(branch.enc, a, strict=True) if n not in before or n is f]
        if loose:
            swapped = any(f in upstream([n]) for n in a)
            reason = (
                "it runs before; the two are swapped: enc_layer comes first, dec_layer after it"
                if swapped and a[0] is not f
                else "they are the same layer; choose a dec_layer further down"
                if f in a
                else "they lie on independent paths; choose a dec_layer that is computed from enc_layer"
            )
            raise CutOrderError(f"dec_layer {branch.dec!s} does not depend on enc_layer {loose[0]}: {reason}")
        if not any(u in used or u in traced.outputs for u in f.users) and f not in traced.outputs:
            raise CutOrderError(
                f"the teacher's output does not depend on dec_layer {branch.dec!s}; choose one that the output needs"
            )


def find_leaks(traced: Traced, points: Points) -> tuple[list[Node], set[Node]]:
    """The nodes between `a` and `f` that the tail needs other than through `f`; and all nodes the tail may need.

    A node that follows `a` without multiply-adds and without weights (an activation, a reshape) does not leak: the head
    computes it, and no weight of the middle is read.
    """
    live = upstream(traced.outputs, points.f)
    tail = downstream(points.f, live)
    rest = live - tail
    between = downstream(points.flat_a) & upstream(points.f) & rest
    worked = {n for n in between if info(n).heavy}
    between &= worked | downstream(worked)
    between -= set(points.flat_a)
    outputs = set(traced.outputs)
    beyond = live - between
    leaks = [n for n in traced.graph.nodes if n in between and (n in outputs or not beyond.isdisjoint(n.users))]
    return leaks, beyond
