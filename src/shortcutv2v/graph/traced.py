"""A recorded pass of the teacher, and the code that runs a part of it."""

from __future__ import annotations

import ast
import itertools
import keyword
import linecache
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from .structure import Structure

__all__ = ["Call", "Const", "Traced", "Untraceable", "compile_graph"]


_NUMBERS = itertools.count()


class Untraceable(Exception):  # noqa: N818 - internal: a strategy gives up, the next one is tried
    """A strategy cannot capture the teacher; the text completes "the teacher cannot be recorded: ..."."""


class Const:
    """A Python value that has no literal; it travels in the graph by reference."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Const({type(self.value).__name__})"


@dataclass
class Call:
    """One recorded call of a module.

    Attributes:
        name: the module's first dotted name.
        node: the node of its output, None if the output is no single tensor, or a tensor that is not needed.
        kind: the type of the output, for messages; "Tensor" for all tensors.
        index: how many calls of any module came before.
    """

    name: str
    node: Node | None
    kind: str
    index: int


@dataclass
class Traced:
    """One forward pass of the teacher, recorded.

    `info(node)` says what is known of each node.

    Attributes:
        graph: `torch.fx` graph without output node; targets of `call_module` and `get_attr` are names in the teacher.
        inputs: one placeholder per input tensor.
        outputs: one entry per output tensor.
        result: the structure that rebuilds the teacher's output.
        calls: the module calls in order.
        strategy: "fx" or "export".
        limits: things that this capture cannot do, in sentences.
        random: the layers that draw random numbers.
        leaves: names of the modules that run as a whole; None if no code of the teacher runs in a pass.
    """

    graph: Graph
    inputs: list[Node]
    outputs: list[Node]
    result: Structure
    calls: list[Call]
    strategy: str
    limits: tuple[str, ...] = ()
    random: list[str] = field(default_factory=list)
    leaves: set[str] | None = None

    def calls_of(self, name: str) -> list[Call]:
        """The calls of one module, in order."""
        return [call for call in self.calls if call.name == name]


def compile_graph(graph: Graph) -> Callable[..., Any]:
    """Turn a graph into a Python function of the live teacher and the placeholders.

    The generated code reads `self.layer1(x)` and `self.weight` at every call, so that `.to()`, `load_state_dict` and
    hooks work on the teacher as ever, and nothing is copied. Values are freed after their last use.
    """
    writer = _Writer(graph)
    source = writer.write()
    namespace: dict[str, Any] = dict(writer.values)
    name = f"<shortcutv2v graph {next(_NUMBERS)}>"
    exec(compile(source, name, "exec"), namespace)  # noqa: S102 - code we wrote ourselves
    # Tracebacks show the lines. And torch.compile takes functions without a source for one and the same function.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    function: Callable[..., Any] = namespace["program"]
    function.__dict__["source"] = source
    weakref.finalize(function, linecache.cache.pop, name, None)
    return function


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.nodes = list(graph.nodes)
        self.values: dict[str, Any] = {}
        self.names: dict[Node, str] = {}
        self.last = {used: node for node in self.nodes for used in node.all_input_nodes}

    def write(self) -> str:
        lines = []
        params = ["self"]
        for i, node in enumerate(self.nodes):
            self.names[node] = f"v{i}"
            if node.op == "placeholder":
                params.append(f"v{i}")
            elif node.op == "output":
                lines.append(f"    return {self.text(node.args[0])}")
            else:
                lines.append(f"    v{i} = {self.expression(node)}")
                gone = [self.names[n] for n in node.all_input_nodes if self.last[n] is node]
                if node not in self.last:
                    gone.append(f"v{i}")
                if gone:
                    lines.append(f"    {' = '.join(gone)} = None")
        return f"def program({', '.join(params)}):\n" + "\n".join(lines or ["    pass"]) + "\n"

    def expression(self, node: Node) -> str:
        if node.op == "get_attr":
            return attribute("self", str(node.target))
        given = [self.text(a) for a in node.args]
        given += [f"{k}={self.text(v)}" for k, v in node.kwargs.items()]
        if node.op == "call_module":
            return f"{attribute('self', str(node.target))}({', '.join(given)})"
        if node.op == "call_method":
            return f"{given[0]}.{node.target}({', '.join(given[1:])})"
        return f"{self.constant(node.target)}({', '.join(given)})"

    def text(self, value: Any) -> str:
        if isinstance(value, Node):
            return self.names[value]
        if isinstance(value, tuple):
            return "(" + "".join(self.text(v) + ", " for v in value) + ")"
        if isinstance(value, list):
            return "[" + ", ".join(map(self.text, value)) + "]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k!r}: {self.text(v)}" for k, v in value.items()) + "}"
        if isinstance(value, slice):
            return f"slice({self.text(value.start)}, {self.text(value.stop)}, {self.text(value.step)})"
        if value is None or value is Ellipsis or type(value) in (bool, int, str):
            return repr(value)
        return self.constant(value.value if isinstance(value, Const) else value)

    def constant(self, value: Any) -> str:
        name = f"c{len(self.values)}"
        self.values[name] = value
        return name


def attribute(root: str, path: str) -> str:
    """Python for a dotted name, which may hold numbers and items: `getattr(self.layers, '0').table.['key']`."""
    text = root
    for part in path.split(".") if path else []:
        if part.startswith("["):
            text += part
            continue
        plain = part.isidentifier() and not keyword.iskeyword(part)
        text = f"{text}.{part}" if plain else f"getattr({text}, {part!r})"
    return text


def lookup(root: nn.Module, path: str) -> Any:
    """The object that `attribute` names."""
    value: Any = root
    for part in path.split(".") if path else []:
        value = value[ast.literal_eval(part[1:-1])] if part.startswith("[") else getattr(value, part)
    return value


def version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; inference tensors do not count."""
    return 0 if tensor.is_inference() else int(tensor._version)


def random_state() -> Tensor:
    """The state of torch's generators, to see whether a step draws from them."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())]
    return torch.cat(states)


def memory(tensor: Tensor) -> int:
    """The memory that a tensor lives in, as a number."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)
