"""Describe the features that go around a cut, and who needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from torch.fx import Node

from .cut import Cut
from .frozen import parts
from .info import info
from .structure import Structure
from .traced import Traced

__all__ = ["describe_leaks", "layer_of", "leak_text", "output_names", "returned_names"]


def output_names(result: Structure) -> list[str]:
    """Return how each output tensor is written: `output`, `output[0]`, `output['features']`, `output.flow`."""
    marks = [object() for _ in range(result.count)]
    names = {id(mark): f"output {i}" for i, mark in enumerate(marks)}
    queue: deque[tuple[str, Any, int]] = deque()
    try:
        queue.append(("output", result.rebuild(list(marks)), 0))
    except Exception:
        return list(names.values())
    while queue:
        path, value, depth = queue.popleft()
        if id(value) in names:
            names[id(value)] = path.replace("\\x2e", ".")
        elif depth < 8:
            queue.extend((path + (w if w.startswith("[") else f".{w}"), item, depth + 1) for w, _, item in parts(value))
    return [names[id(mark)] for mark in marks]


def returned_names(traced: Traced) -> dict[Node, list[str]]:
    """Return the nodes that are outputs, each with the names of these outputs."""
    found: dict[Node, list[str]] = {}
    for node, name in zip(traced.outputs, output_names(traced.result), strict=True):
        found.setdefault(node, []).append(name)
    return found


def layer_of(node: Node, within: set[Node] | None = None) -> str:
    """Return the layer that a node comes from.

    A node without work of its own, such as an activation, is described by the last layer with weights before it. With
    `within`, only such layers count as are in that set.
    """
    own = info(node).owner or node.name
    frontier = {node}
    while frontier:
        latest = max(frontier)
        frontier.remove(latest)
        if info(latest).heavy:
            name = info(latest).owner
            return name if name == own else f"{name} (then {own})"
        frontier.update(n for n in latest.all_input_nodes if n.op != "get_attr" and (within is None or n in within))
    return own


def describe_leaks(traced: Traced, leaks: Iterable[Node], within: set[Node], around: set[Node]) -> list[str]:
    """Return one phrase per leak: the layer, and who needs it.

    Args:
        traced: the recording.
        leaks: the leaking nodes.
        within: the nodes that depend on `a`.
        around: the nodes that the tail needs, other than those that only feed `f`.
    """
    returned = returned_names(traced)
    phrases = []
    for node in leaks:
        needs = [f"returned as {' and '.join(returned[node])}"] if node in returned else []
        reader = _reader(node, around, returned)
        needs += [reader] if reader and not (needs and reader.startswith("returned")) else []
        phrases.append(f"{layer_of(node, within)!r}, {' and '.join(needs) or 'needed by the tail'}")
    return list(dict.fromkeys(phrases))


def _reader(leak: Node, around: set[Node], returned: dict[Node, list[str]]) -> str:
    """Return the first layer with weights after a leak, on a way that does not feed `f`."""
    queue, seen = deque(n for n in leak.users if n in around), {leak}
    while queue:
        node = queue.popleft()
        if node in seen:
            continue
        seen.add(node)
        if info(node).heavy:
            return f"read by {info(node).owner!r}"
        if node in returned:
            return f"returned as {' and '.join(returned[node])}"
        queue.extend(n for n in node.users if n in around)
    return ""


def leak_text(cut: Cut, phrases: Sequence[str]) -> str:
    """Return the message of a `LeakError`, without advice on other cuts."""
    more = f"; and {len(phrases) - 8} more" if len(phrases) > 8 else ""
    text = f"the tail needs more than f of the cut {cut.short}. Between a and f: {'; '.join(phrases[:8])}{more}"
    if any("returned as" in phrase for phrase in phrases):
        text += (
            ". If you do not need an output, leave it out with a module around the teacher whose forward() returns the "
            "others"
        )
    return f'{text}. Choose another cut, or keep these features from the reference with on_leak="reuse"'
