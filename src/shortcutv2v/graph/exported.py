"""Strategy "export": the teacher as `torch.export` sees it, with its weights read from the live teacher.

Export looks through every module down to single operators and functionalises in-place changes, so it settles what a
recording of whole modules cannot: which of several outputs depends on what, and overlapping views. Temporary forward
hooks insert a marker operator after the cut layers, so that `a` and `f` are found exactly.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from ..ops.flops import MacCounter
from .build import attributes
from .info import info, note, note_tensor
from .quiet import patches_of_this_thread, silent
from .runtime import same
from .structure import Structure, flatten
from .traced import Call, Const, Traced, Untraceable
from .twin import Twin

__all__ = ["export"]

_LIMITS = (
    "bound to the shapes it was exported for: other shapes are exported anew, which takes a while",
    "forward hooks do not fire: what they do to tensors is part of the program, nothing else happens",
)
_WORK = ("conv", "linear", "matmul", "mm", "bmm", "attention", "einsum", "lstm", "gru")


def export(twin: Twin, tensors: list[Tensor], structure: Structure, marked: set[str]) -> Traced:
    """Export the teacher for the given inputs.

    Args:
        twin: the copy of the teacher that runs; the caller protects its state.
        tensors: the input tensors.
        structure: rebuilds `(args, kwargs)` from them.
        marked: names of the cut layers.

    Returns:
        A recording whose nodes are single operators.

    Raises:
        Untraceable: export gives up, or the exported program changes buffers of the teacher.
    """
    results: list[Structure] = []
    teacher = twin.teacher
    entry = _Entry(teacher, structure, results.append)
    names = sorted(marked)
    kinds: list[tuple[str, str]] = []
    with _markers(teacher, names, kinds), silent(), patches_of_this_thread():
        try:
            program = torch.export.export(entry, tuple(tensors), strict=False).run_decompositions({})
        except Exception as error:
            text = str(error).strip().partition("\n")[0][:200]
            raise Untraceable(f"torch.export stopped with {type(error).__name__}: {text}") from error
    changed = sorted(program.graph_signature.buffers_to_mutate.values())
    if changed:
        raise Untraceable(f"the exported program changes buffers ({', '.join(changed[:4])}), which would be lost")
    return _Import(program, twin, names, kinds, results[-1]).run()


class _Entry(nn.Module):
    """The teacher as a module from tensors to tensors."""

    def __init__(self, teacher: nn.Module, structure: Structure, tell: Callable[[Structure], None]) -> None:
        super().__init__()
        self.teacher = teacher
        self.structure = structure
        self.tell = tell

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = self.structure.rebuild(list(tensors))
        found, result = flatten(self.teacher(*args, **kwargs))
        self.tell(result)
        return tuple(found)


@functools.cache
def _mark() -> Any:
    """The marker operator; registered at first use, because registration is global."""

    @torch.library.custom_op("shortcutv2v::mark", mutates_args=())
    def mark(value: Tensor, layer: int) -> Tensor:
        return value.clone()

    @mark.register_fake
    def _(value: Tensor, layer: int) -> Tensor:
        return value.clone()

    return mark


@contextlib.contextmanager
def _markers(teacher: nn.Module, names: list[str], kinds: list[tuple[str, str]]) -> Iterator[None]:
    mark = _mark()

    def hook(index: int, module: nn.Module, args: Any, out: Any) -> Any:
        kinds.append((names[index], "Tensor" if isinstance(out, Tensor) else type(out).__name__))
        return mark(out, index) if isinstance(out, Tensor) else out

    with contextlib.ExitStack() as hooks:
        for index, name in enumerate(names):
            module = teacher.get_submodule(name)
            if isinstance(module, torch.jit.ScriptModule):
                raise Untraceable(f"{name!r} is a ScriptModule, which export cannot look at")
            hooks.enter_context(module.register_forward_hook(functools.partial(hook, index)))
        yield


class _Import:
    """Translates an exported program: lifted parameters become attributes of the teacher, markers vanish."""

    def __init__(self, program: Any, twin: Twin, names: list[str], kinds: list[Any], result: Structure) -> None:
        self.program = program
        self.twin = twin
        self.attributes = attributes(twin.teacher)
        self.names = names
        self.kinds = kinds
        self.result = result
        self.graph: Any = Graph()
        self.new: dict[Node, Any] = {}
        self.marks: dict[str, list[Node]] = {}

    def run(self) -> Traced:
        inputs = self.placeholders()
        random: dict[str, None] = {}
        for node in self.program.graph_module.graph.nodes:
            if node.op == "get_attr":
                value = getattr(self.program.graph_module, node.target)
                self.new[node] = self.add(node, self.graph.call_function(same, (Const(value),)))
            elif node.op == "call_function":
                self.new[node] = self.function(node)
                if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                    random[info(self.new[node]).owner] = None
        outputs = self.outputs()
        return Traced(self.graph, inputs, outputs, self.result, self.calls(), "export", _LIMITS, list(random))

    def placeholders(self) -> list[Node]:
        inputs: list[Node] = []
        nodes = {n.name: n for n in self.program.graph_module.graph.nodes if n.op == "placeholder"}
        for spec in self.program.graph_signature.input_specs:
            node = nodes[spec.arg.name]
            if spec.kind.name == "USER_INPUT":
                self.new[node] = self.graph.placeholder(f"input_{len(inputs)}")
                inputs.append(self.new[node])
            elif spec.kind.name in ("PARAMETER", "BUFFER") and spec.target.startswith("teacher."):
                self.new[node] = self.graph.get_attr(spec.target.removeprefix("teacher."))
            else:
                value = self.program.constants.get(spec.target, self.program.state_dict.get(spec.target))
                path = self.attributes.get(id(value))
                origin = Const(self.twin.origin(value))
                self.new[node] = self.graph.get_attr(path) if path else self.graph.call_function(same, (origin,))
            self.add(node, self.new[node])
            if self.new[node].op == "placeholder":
                note(self.new[node], owner=f"input {len(inputs) - 1}")
        return inputs

    def function(self, node: Node) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self.new[n])
        if node.target is torch.ops.shortcutv2v.mark.default:
            # The cut layer's value, under a node of its own: an identity, free of cost.
            new = self.add(node, self.graph.call_function(same, (args[0],)))
            self.marks.setdefault(self.names[node.args[1]], []).append(new)  # type: ignore[index]
            return new
        new = self.add(node, self.graph.call_function(node.target, args, kwargs))
        macs = _macs(node)
        name = str(node.target)
        weights = any(n.op == "get_attr" for n in new.all_input_nodes)
        note(new, macs=macs, heavy=bool(macs) or weights or any(w in name for w in _WORK))
        return new

    def add(self, node: Node, new: Any) -> Any:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            note_tensor(new, value)
        note(new, owner=_owner(node), called=True)
        return new

    def outputs(self) -> list[Node]:
        (values,) = next(n for n in self.program.graph_module.graph.nodes if n.op == "output").args
        kinds = [spec.kind.name for spec in self.program.graph_signature.output_specs]
        found = [v for v, kind in zip(values, kinds, strict=True) if kind == "USER_OUTPUT"]
        return [self.new[v] if isinstance(v, Node) else self.graph.call_function(same, (Const(v),)) for v in found]

    def calls(self) -> list[Call]:
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        found = [Call(name, node, "Tensor", order[node]) for name, nodes in self.marks.items() for node in nodes]
        for i, (name, kind) in enumerate(self.kinds):
            if name not in self.marks:
                found.append(Call(name, None, kind, i))
        return sorted(found, key=lambda call: call.index)


def _owner(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    path = path.rpartition("teacher")[2].lstrip(".") if "teacher" in path else path
    return path or node.name


def _macs(node: Node) -> int:
    """Multiply-adds of one operator, from the fake tensors it was exported with."""
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    count = MacCounter()
    with contextlib.suppress(Exception), count:
        node.target(*args, **kwargs)  # type: ignore[operator]
    return count.total
