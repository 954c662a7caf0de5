"""Turn the steps of a teacher into nodes of a graph, and keep track of which tensor is which node."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from .frozen import parts
from .info import info, note, note_tensor
from .runtime import after, blank, call, same, tensors_of, under_autocast
from .signature import autocast_state
from .structure import flatten
from .traced import Const, Untraceable, memory
from .twin import Twin

__all__ = ["Builder", "attributes"]

# Functions that read only shape, dtype and device of one tensor argument, with its position.
_SHAPE_ONLY = {
    **dict.fromkeys(("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"), 0),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"), 0),
    **dict.fromkeys(("expand_as", "view_as", "reshape_as", "type_as"), 1),
}
_OWN = frozenset(vars(nn.Module()))  # torch's own attributes
_OPERATORS = {"__getitem__": operator.getitem, "__setitem__": operator.setitem}


class Builder:
    """A graph in the making, and the nodes of all tensors that are alive.

    Args:
        twin: the copy of the teacher that runs. The tensors that it holds become `get_attr` nodes; its other objects
            enter the graph as the teacher's own.
    """

    def __init__(self, twin: Twin) -> None:
        self.graph: Any = Graph()
        teacher, self.origin = twin.teacher, twin.origin
        self.attributes = attributes(teacher)
        self.owned = {memory(t) for t in (*teacher.parameters(), *teacher.buffers())}
        self.leaves: set[str] = set()
        self.nodes: Any = WeakTensorKeyDictionary()
        self.storages: dict[int, list[TensorWeakRef]] = {}
        self.ambient = autocast_state()

    def add(self, emit: Any, args: Any, kwargs: Any, changed: Any, new: Any, out: Any, facts: dict[str, Any]) -> None:
        """Append one step: its node, copies of what it overwrites, and the new nodes of all tensors it touches."""
        copies: dict[int, Node] = {}
        for tensor in {id(t): t for t in changed}.values():
            source = self.node_of(tensor)
            if source.op == "get_attr":
                raise Untraceable(f"it changes {source.target!r} of the teacher in place ({facts['owner']})")
            alone = len(self.aliases(tensor)) == 1 and source.op != "placeholder"
            copies[id(tensor)] = self.plain_node("clone", source, tensor, copied=alone)
        node = emit(self.lower(args, copies), self.lower(kwargs, copies))
        facts["heavy"] |= any(n.op == "get_attr" for n in node.all_input_nodes)
        note(node, **facts)
        self.depend(node)
        self.bind_outputs(node, out, new)
        for tensor in {id(t): t for t in changed}.values():
            value = node if tensor is out else self.nodes.get(tensor) if any(tensor is t for t in new) else None
            if value is None or value is copies[id(tensor)]:
                value = self.plain_node(after, (copies[id(tensor)], node), tensor)
            _rebind(self, tensor, value)

    def bind_outputs(self, node: Node, out: Any, new: list[Tensor]) -> None:
        """Make the tensors of an output known under the step's node."""
        if isinstance(out, Tensor):
            note_tensor(node, out)
            self.bind(out, node)
            return
        picked = self.plain_node(tensors_of, (node,), None) if new else node
        note(node, several=len(new) > 1)
        for i, tensor in enumerate(new):
            self.bind(tensor, self.plain_node(operator.getitem, (picked, i), tensor))

    def emit_function(self, func: Any, name: str) -> Callable[..., Any]:
        """Return the function that turns a call of a torch function into a node."""

        def emit(args: Any, kwargs: Any) -> Any:
            position = _SHAPE_ONLY.get(name)
            if position is not None and len(args) > position and isinstance(args[position], Node):
                args = list(args)
                args[position] = self.blank(args[position])
            state = autocast_state()
            if state != self.ambient:
                return self.graph.call_function(under_autocast, (Const(state), Const(func), *args), kwargs)
            if name in _OPERATORS:
                return self.graph.call_function(_OPERATORS[name], tuple(args), kwargs)
            method = getattr(func, "__objclass__", None) is torch._C.TensorBase and not name.startswith("__")
            if method and args and isinstance(args[0], Node):
                return self.graph.call_method(name, tuple(args), kwargs)
            return self.graph.call_function(func, tuple(args), kwargs)

        return emit

    def emit_module(self, name: str, method: str = "") -> Callable[..., Any]:
        """Return the function that turns a call of a module, or past its hooks of one of its methods, into a node."""
        self.leaves.add(name)

        def emit(args: Any, kwargs: Any) -> Any:
            state = autocast_state()
            if state == self.ambient and not method:
                return self.graph.call_module(name, tuple(args), kwargs)
            module = self.graph.get_attr(f"{name}.{method}" if method else name)
            note(module, depends=True, owner=name)
            if state == self.ambient:
                return self.graph.call_function(call, (module, *args), kwargs)
            return self.graph.call_function(under_autocast, (Const(state), module, *args), kwargs)

        return emit

    def blank(self, node: Node) -> Any:
        """A tensor with the shape and dtype of `node`, and no data flow from it."""
        device = Const(info(node).device)
        args = (info(node).shape, Const(info(node).dtype), device)
        return self.plain_node(blank, args, None, shape=info(node).shape, dtype=info(node).dtype)

    def plain_node(self, target: Any, args: Any, tensor: Tensor | None, **facts: Any) -> Any:
        """A node of bookkeeping: no work, no weights."""
        args = args if isinstance(args, tuple) else (args,)
        make = self.graph.call_method if isinstance(target, str) else self.graph.call_function
        node = make(target, args)
        source = next((a for a in args if isinstance(a, Node)), None)
        owner = info(source).owner if source is not None else ""
        note(node, owner=owner, **facts)
        if tensor is not None:
            note_tensor(node, tensor)
        self.depend(node)
        return node

    def depend(self, node: Node) -> None:
        """Note whether a node depends on inputs or on parameters."""
        note(node, depends=any(info(n).depends for n in node.all_input_nodes))

    def lower(self, value: Any, copies: dict[int, Node]) -> Any:
        """Replace the tensors of an argument by nodes, and whatever has no literal by a `Const`."""
        if isinstance(value, Tensor):
            return copies.get(id(value)) or self.node_of(value)
        if type(value) in (tuple, list, torch.Size):
            items = [self.lower(v, copies) for v in value]
            return items if type(value) is list else tuple(items)
        if type(value) is dict and all(isinstance(k, str) for k in value):
            return {k: self.lower(v, copies) for k, v in value.items()}
        if type(value) is slice:
            return slice(*(self.lower(v, copies) for v in (value.start, value.stop, value.step)))
        if value is None or value is Ellipsis or type(value) in (bool, int, float, str):
            return value
        tensors, structure = flatten(value)
        if not tensors:
            return Const(self.origin(value))
        return self.plain_node(call, (Const(structure.rebuild), [self.lower(t, copies) for t in tensors]), None)

    def node_of(self, tensor: Tensor) -> Any:
        """The node of a tensor; tensors met for the first time are the teacher's own, or constants."""
        node: Node | None = self.nodes.get(tensor)
        if node is None:
            path = self.attributes.get(id(tensor))
            if path is None:
                node = self.graph.call_function(same, (Const(self.origin(tensor)),))
                note(node, owner="a constant")
            else:
                node = self.graph.get_attr(path)
                note(node, depends=True, owner=path.rpartition(".")[0] or path)
            note_tensor(node, tensor)
            self.bind(tensor, node)
        return node

    def bind(self, tensor: Tensor, node: Node) -> None:
        """Make a tensor known, also to the views of its memory."""
        self.nodes[tensor] = node
        note(node, device=tensor.device)
        if tensor.layout == torch.strided:
            group = self.storages.setdefault(tensor.untyped_storage()._cdata, [])
            group[:] = [ref for ref in group if ref() is not None and ref() is not tensor]
            group.append(TensorWeakRef(tensor))

    def aliases(self, tensor: Tensor) -> list[Tensor]:
        """The known living tensors that share storage with `tensor`, itself included."""
        if tensor.layout != torch.strided:
            return [tensor]
        refs = self.storages.get(tensor.untyped_storage()._cdata, [])
        return [t for t in (ref() for ref in refs) if t is not None]


def _rebind(builder: Builder, changed: Tensor, after: Node) -> None:
    """Point `changed`, and every living view of the same memory, at nodes that hold the new values.

    The recorded step worked on a copy, so the views of the original memory must be computed anew: the widest dense
    tensor of the group takes the change, all others are views of it.

    Raises:
        Untraceable: no tensor of the group spans all others, or the memory belongs to a parameter.
    """
    builder.bind(changed, after)
    group = [t for t in builder.aliases(changed) if t is not changed]
    others = [t for t in group if _geometry(t) != _geometry(changed) or t.dtype != changed.dtype]
    for tensor in group:
        if builder.nodes[tensor].op == "get_attr":
            raise Untraceable(f"it changes a view of {builder.nodes[tensor].target!r} in place")
        if not any(tensor is t for t in others):
            builder.bind(tensor, after)
    if not others:
        return
    base = max([changed, *others], key=lambda t: t.numel())
    if not all(_inside(t, base) for t in [changed, *others]):
        raise Untraceable("it changes one of several overlapping views in place")
    node = after
    if base is not changed:
        size, stride, offset = _geometry(changed)
        args: tuple[Any, ...] = (builder.nodes[base], after, size, stride, offset - base.storage_offset())
        node = builder.plain_node(_scatter, args, base)
        builder.bind(base, node)
        others = [t for t in others if t is not base]
    for tensor in others:
        size, stride, offset = _geometry(tensor)
        args = (node, size, stride, offset - base.storage_offset())
        builder.bind(tensor, builder.plain_node(torch.as_strided, args, tensor))


def _geometry(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Size, stride and offset of a tensor in its memory, in elements."""
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def _span(tensor: Tensor) -> tuple[int, int]:
    size, stride, offset = _geometry(tensor)
    return offset, offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))


def _inside(tensor: Tensor, base: Tensor) -> bool:
    dense = torch.ops.aten.is_non_overlapping_and_dense(base)
    (first, last), (low, high) = _span(tensor), _span(base)
    return bool(dense) and tensor.dtype == base.dtype and low <= first and last <= high


def _scatter(base: Tensor, values: Tensor, size: Any, stride: Any, offset: int) -> Tensor:
    new = base.clone()
    new.as_strided(size, stride, new.storage_offset() + offset).copy_(values)
    return new


def attributes(teacher: nn.Module, kind: type = Tensor) -> dict[int, str]:
    """Paths to the objects of one kind that the teacher holds, by their ids: in attributes, and in containers there."""
    found: dict[int, str] = {}
    for prefix, module in teacher.named_modules():
        own = {**module._parameters, **module._buffers}
        own.update((k, v) for k, v in vars(module).items() if k not in _OWN)
        queue = deque((f"{prefix}.{name}" if prefix else name, value) for name, value in own.items())
        entered: set[int] = set()
        while queue:
            path, value = queue.popleft()
            if isinstance(value, kind):
                found.setdefault(id(value), path)
            elif id(value) not in entered:
                entered.add(id(value))
                queue.extend((f"{path}.{way}", item) for way, _, item in parts(value))
    return found
