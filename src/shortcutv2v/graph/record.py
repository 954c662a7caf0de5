"""Strategy "fx": one real forward pass of the teacher, recorded into a `torch.fx` graph.

`torch.fx.symbolic_trace` hands out proxies and breaks on the first `if x.shape[2] % 8`. This recorder lets the teacher
run on real tensors and watches: every torch function (through a `TorchFunctionMode`) and every call of a module that
is no ancestor of a cut layer (such a module is a leaf, its inside is not looked at) becomes one node. So shapes are
plain numbers, containers hold plain tensors, and leaf modules may return anything. What the teacher's Python code reads
out of tensor VALUES (`.item()`, `if x.sum() > 0`) cannot be recorded and is refused, never baked in.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.overrides import TorchFunctionMode
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from .calls import ancestors, module_names, patched_calls
from .cost import MacCounter
from .inplace import rebind
from .runtime import after, blank, call, constant, fire_after, fire_before, rebuilt, tensors_of, under_autocast
from .signature import autocast_state
from .structure import flatten
from .traced import Call, Const, Traced, Untraceable, is_heavy, meta_of, version

__all__ = ["record"]

# Functions that read values out of a tensor into Python, or whose output shape depends on values.
_READERS = frozenset(
    """item tolist numpy __array__ __bool__ __int__ __float__ __index__ __complex__ __contains__ is_nonzero equal
    allclose nonzero argwhere unique unique_consecutive masked_select bincount histc""".split()  # noqa: SIM905
)
# Functions of which one tensor argument gives nothing but its shape, dtype and device: its position.
_SHAPE_ONLY = {
    **dict.fromkeys(("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"), 0),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"), 0),
    **dict.fromkeys(("expand_as", "view_as", "reshape_as", "type_as"), 1),
}
_OPERATORS = {"__getitem__": operator.getitem, "__setitem__": operator.setitem}


def record(
    teacher: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], marked: set[str], *, fine: bool = False
) -> Traced:
    """Run the teacher once and record it.

    Args:
        teacher: the network; the caller protects its state.
        args: positional inputs; their tensors become the graph's placeholders.
        kwargs: keyword inputs.
        marked: names of the cut layers. Their ancestors are looked into, everything else is a leaf.
        fine: look into every module that is no plain `torch.nn` layer; finds finer data flow, at the price of user
            hooks on the modules inside.

    Returns:
        The recording.

    Raises:
        Untraceable: the teacher does something that a recording cannot repeat; says what.
    """
    recorder = _Recorder(teacher, marked, fine)
    return recorder.run(args, kwargs)


class _Recorder(TorchFunctionMode):
    def __init__(self, teacher: nn.Module, marked: set[str], fine: bool) -> None:
        super().__init__()
        self.teacher = teacher
        self.marked = marked
        self.fine = fine
        self.graph: Any = Graph()
        self.modules = module_names(teacher)
        self.inside = ancestors(teacher, marked)
        self.attributes = _attributes(teacher)
        self.owned = {t.untyped_storage()._cdata for t in (*teacher.parameters(), *teacher.buffers()) if _dense(t)}
        self.nodes: Any = WeakTensorKeyDictionary()
        self.storages: dict[int, list[TensorWeakRef]] = {}
        self.calls: list[Call] = []
        self.kept: list[Any] = []
        self.owners = [""]
        self.quiet = 0
        self.macs = MacCounter()

    # --- the run ------------------------------------------------------------------------------------------------

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
        tensors, _ = flatten((args, kwargs))
        inputs = []
        for i, tensor in enumerate(tensors):
            inputs.append(self.graph.placeholder(f"input_{i}"))
            inputs[-1].meta.update(meta_of(tensor), dep={"input"}, owner=f"input {i}")
            self.bind(tensor, inputs[-1])
        with self.macs, patched_calls(self), _patched_forwards(self), torch.enable_grad(), self:
            self.ambient = autocast_state()
            out = self.teacher(*args, **kwargs)
        found, result = flatten(out)
        outputs = [self.node_of(t) for t in found]
        random = [str(n.meta["owner"]) for n in self.graph.nodes if n.meta.get("random")]
        return Traced(self.graph, inputs, outputs, result, self.calls, "fx", random=list(dict.fromkeys(random)))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.quiet:
            return func(*args, **kwargs)
        name = function_name(func)
        if name == "__iter__":
            return iter(self.__torch_function__(torch.Tensor.unbind, types, args))
        if name in _READERS or _indexes_by_mask(name, args):
            self.refuse_reading(name, args, kwargs)
        if name == "__set__" and any(isinstance(t, Tensor) and t in self.nodes for t in args):
            raise Untraceable("it assigns to an attribute of a tensor (such as x.data = ...)")
        return self.note(lambda a, k: func(*a, **k), args, kwargs, self.emit_function(func, name), None, name)

    def call_module(self, module: nn.Module, args: Any, kwargs: Any, original: Callable[..., Any]) -> Any:
        name = self.modules.get(id(module))
        if name is None:
            return original(module, *args, **kwargs)
        index = len(self.calls)
        if self.is_leaf(name, module):
            out = self.note(
                lambda a, k: original(module, *a, **k), args, kwargs, self.emit_module(name), module, name, index
            )
        else:
            self.owners.append(name)
            try:
                hooked = bool(module._forward_hooks or module._forward_pre_hooks)
                out = self.run_hooked(module, args, kwargs) if hooked else original(module, *args, **kwargs)
            finally:
                self.owners.pop()
            out = self.mark(name, out)
        return self.note_call(name, out, index)

    def run_hooked(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """A call that is looked into, with the user's hooks as steps of their own: they fire in the programs too."""
        for key in list(module._forward_pre_hooks):
            args, kwargs = self.fire(fire_before, module, key, (args, kwargs)) or (args, kwargs)
        out = module.forward(*args, **kwargs)
        for key in list(module._forward_hooks):
            changed = self.fire(fire_after, module, key, (args, kwargs, out))
            out = out if changed is None else changed
        return out

    def fire(self, function: Any, module: nn.Module, key: int, given: tuple[Any, ...]) -> Any:
        """Fire one hook. Where it leaves the values alone, data flow does not pass through it."""

        def emit(args: Any, kwargs: Any) -> Any:
            owner = self.graph.get_attr(name)
            owner.meta.update(dep={"param"}, owner=name, bare=True)
            return self.graph.call_function(function, (owner, key, *args), kwargs)

        name = self.modules[id(module)]
        before = len(self.graph.nodes)
        result = self.note(lambda a, k: function(module, key, *a), given, {}, emit, None, "hook")
        if len(self.graph.nodes) == before:
            node = emit(self.lower(given, {}), {})
            node.meta.update(owner=f"{name} (hook)", macs=0, heavy=False, effect=True)
            self.depend(node)
        return result

    def is_leaf(self, name: str, module: nn.Module) -> bool:
        if name in self.inside:
            return False
        if not self.fine or isinstance(module, torch.jit.ScriptModule):
            return True
        plain = type(module).__module__.startswith("torch.nn.modules")
        return plain and not isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))

    def mark(self, name: str, out: Any) -> Any:
        """Give the output of a cut layer that was looked into an identity of its own."""
        if name not in self.marked or not isinstance(out, Tensor):
            return out
        return self.note(
            lambda a, k: a[0][a[1]], (out, ...), {}, self.emit_function(operator.getitem, "alias"), None, name
        )

    def note_call(self, name: str, out: Any, index: int) -> Any:
        node = self.nodes.get(out) if isinstance(out, Tensor) else None
        self.calls.append(Call(name, node, type(out).__name__, index))
        if name in self.marked:
            # Views of the cut outputs must stay known as long as the recording runs.
            self.kept.append(out)
        return out

    # --- one step -----------------------------------------------------------------------------------------------

    def note(
        self, run: Any, args: Any, kwargs: Any, emit: Any, module: nn.Module | None, name: str, index: int = -1
    ) -> Any:
        """Run one step for real, and add its node if it yields or changes tensors."""
        given, before = flatten((args, kwargs))
        with self.silence():
            versions = [version(t) for t in given]
            macs, rng = self.macs.total, torch.get_rng_state()
            with torch.inference_mode(False), torch.no_grad():
                out = run(args, kwargs)
            changed = [t for t, v in zip(given, versions, strict=True) if version(t) != v]
            found, structure = flatten(out)
            if not _identical(flatten((args, kwargs))[0], given):
                raise Untraceable(f"{name!r} changes a list or dict that it is given")
            if not found and not changed:
                return out
            new = _unshared(found, given, changed) if module is not None else found
            out = structure.rebuild(new)
            facts = {
                "macs": self.macs.total - macs,
                "random": not torch.equal(rng, torch.get_rng_state()),
                "owner": name if module is not None or not self.owners[-1] else f"{self.owners[-1]} ({name})",
                "heavy": is_heavy(module, self.macs.total - macs),
                "fresh": not {_memory(t) for t in new} & ({_memory(t) for t in given} | self.owned),
            }
            args, kwargs = before.rebuild(given)
            self.add(emit, args, kwargs, changed, new, out, facts)
        return out

    def add(self, emit: Any, args: Any, kwargs: Any, changed: Any, new: Any, out: Any, facts: dict[str, Any]) -> None:
        copies: dict[int, Node] = {}
        for tensor in {id(t): t for t in changed}.values():
            source = self.node_of(tensor)
            if source.op == "get_attr":
                raise Untraceable(f"it changes {source.target!r} of the teacher in place ({facts['owner']})")
            alone = len(self.aliases(tensor)) == 1 and source.op != "placeholder"
            copies[id(tensor)] = self.plain_node("clone", source, tensor, elidable=alone)
        node = emit(self.lower(args, copies), self.lower(kwargs, copies))
        node.meta.update(facts)
        self.depend(node)
        self.bind_outputs(node, out, new)
        for tensor in {id(t): t for t in changed}.values():
            value = node if tensor is out else self.nodes.get(tensor) if any(tensor is t for t in new) else None
            if value is None or value is copies[id(tensor)]:
                value = self.plain_node(after, (copies[id(tensor)], node), tensor)
            rebind(self, tensor, value)

    def bind_outputs(self, node: Node, out: Any, new: list[Tensor]) -> None:
        if isinstance(out, Tensor):
            node.meta.update(meta_of(out))
            self.bind(out, node)
            return
        picked = self.plain_node(tensors_of, (node,), None) if new else node
        node.meta["several"] = len(new) > 1
        for i, tensor in enumerate(new):
            self.bind(tensor, self.plain_node(operator.getitem, (picked, i), tensor))

    # --- nodes --------------------------------------------------------------------------------------------------

    def emit_function(self, func: Any, name: str) -> Callable[..., Any]:
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
            if _is_method(func) and args and isinstance(args[0], Node):
                return self.graph.call_method(name, tuple(args), kwargs)
            return self.graph.call_function(func, tuple(args), kwargs)

        return emit

    def emit_module(self, name: str, method: str = "") -> Callable[..., Any]:
        def emit(args: Any, kwargs: Any) -> Any:
            state = autocast_state()
            if state == self.ambient and not method:
                return self.graph.call_module(name, tuple(args), kwargs)
            module = self.graph.get_attr(f"{name}.{method}" if method else name)
            module.meta.update(dep={"param"}, owner=name)
            if state == self.ambient:
                return self.graph.call_function(call, (module, *args), kwargs)
            return self.graph.call_function(under_autocast, (Const(state), module, *args), kwargs)

        return emit

    def blank(self, node: Node) -> Any:
        """A tensor with the shape and dtype of `node`, and no data flow from it."""
        device = Const(node.meta.get("device", torch.device("cpu")))
        args = (node.meta["shape"], Const(node.meta["dtype"]), device)
        return self.plain_node(blank, args, None, shape=node.meta["shape"], dtype=node.meta["dtype"])

    def plain_node(self, target: Any, args: Any, tensor: Tensor | None, **meta: Any) -> Any:
        """A node of bookkeeping: no work, no weights."""
        args = args if isinstance(args, tuple) else (args,)
        make = self.graph.call_method if isinstance(target, str) else self.graph.call_function
        node = make(target, args)
        source = next((a for a in args if isinstance(a, Node)), None)
        owner = source.meta.get("owner", "") if source is not None else ""
        node.meta.update(owner=owner, macs=0, heavy=False, **meta)
        if tensor is not None:
            node.meta.update(meta_of(tensor))
        self.depend(node)
        return node

    def depend(self, node: Node) -> None:
        node.meta["dep"] = set().union(*(n.meta["dep"] for n in node.all_input_nodes))

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
            return Const(value)
        return self.plain_node(rebuilt, (Const(structure), [self.lower(t, copies) for t in tensors]), None)

    def node_of(self, tensor: Tensor) -> Any:
        node: Node | None = self.nodes.get(tensor)
        if node is None:
            path = self.attributes.get(id(tensor))
            if path is None:
                node = self.graph.call_function(constant, (Const(tensor),))
                node.meta.update(dep=set(), owner="a constant")
            else:
                node = self.graph.get_attr(path)
                node.meta.update(dep={"param"}, owner=path.rpartition(".")[0] or path)
            node.meta.update(meta_of(tensor), macs=0, heavy=False)
            self.bind(tensor, node)
        return node

    def bind(self, tensor: Tensor, node: Node) -> None:
        self.nodes[tensor] = node
        node.meta["device"] = tensor.device
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

    # --- small print --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        self.quiet += 1
        try:
            yield
        finally:
            self.quiet -= 1

    def refuse_reading(self, name: str, args: Any, kwargs: Any) -> None:
        tensors, _ = flatten((args, kwargs))
        if any(self.node_of(t).meta["dep"] for t in tensors):
            where = self.owners[-1] or type(self.teacher).__name__
            raise Untraceable(f"the Python code of {where} depends on tensor values ({name})")


def _attributes(teacher: nn.Module) -> dict[int, str]:
    """Where the teacher's own tensors live: parameters, buffers, and plain tensors held as attributes."""
    found: dict[int, str] = {}
    for prefix, module in teacher.named_modules():
        own = {**module._parameters, **module._buffers}
        own.update((k, v) for k, v in vars(module).items() if isinstance(v, Tensor))
        for name, tensor in own.items():
            if tensor is not None:
                found.setdefault(id(tensor), f"{prefix}.{name}" if prefix else name)
    return found


def _unshared(found: list[Tensor], given: list[Tensor], changed: list[Tensor]) -> list[Tensor]:
    """Outputs of a module; one that is an untouched input comes back as a view, so that it has its own identity."""
    same = {id(t) for t in given} - {id(t) for t in changed}
    return [t[...] if id(t) in same else t for t in found]


def _identical(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(x is y for x, y in zip(left, right, strict=True))


def _dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if _dense(tensor) else id(tensor)


def _is_method(func: Any) -> bool:
    return getattr(func, "__objclass__", None) is torch._C.TensorBase and not func.__name__.startswith("__")


def _indexes_by_mask(name: str, args: Any) -> bool:
    if name != "__getitem__":
        return False
    return any(t.dtype in (torch.bool, torch.uint8) for t in flatten(args[1])[0])


def function_name(func: Any) -> str:
    """The bare name of a torch function, method or operator."""
    return str(getattr(func, "__name__", type(func).__name__))


@contextlib.contextmanager
def _patched_forwards(recorder: _Recorder) -> Iterator[None]:
    """Notice cut layers whose `forward` is called directly, past `__call__`."""
    patched = []
    for name in recorder.marked:
        module = recorder.teacher.get_submodule(name)
        if not isinstance(module, torch.jit.ScriptModule) and "forward" not in vars(module):
            vars(module)["forward"] = _forward(recorder, module, name)
            patched.append(module)
    try:
        yield
    finally:
        for module in patched:
            vars(module).pop("forward", None)


def _forward(recorder: _Recorder, module: nn.Module, name: str) -> Callable[..., Any]:
    method = type(module).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if recorder.quiet or recorder.owners[-1] == name:
            return method(module, *args, **kwargs)
        index = len(recorder.calls)
        if not recorder.is_leaf(name, module):
            return recorder.note_call(name, recorder.mark(name, method(module, *args, **kwargs)), index)
        emit = recorder.emit_module(name, "forward")
        out = recorder.note(lambda a, k: method(module, *a, **k), args, kwargs, emit, module, name, index)
        return recorder.note_call(name, out, index)

    return forward
