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
from torch.overrides import TorchFunctionMode

from ..ops.flops import MacCounter
from .build import Builder
from .calls import ancestors, module_names, patched_calls
from .info import info, is_heavy, note, note_tensor
from .runtime import fire_after, fire_before
from .structure import flatten
from .traced import Call, Traced, Untraceable, memory, random_state, version
from .twin import Twin

__all__ = ["record"]

# Functions that read values out of a tensor into Python, or whose output shape depends on values.
_READERS = frozenset(
    """item tolist numpy __array__ __bool__ __int__ __float__ __index__ __complex__ __contains__ is_nonzero equal
    allclose nonzero argwhere unique unique_consecutive masked_select bincount histc""".split()  # noqa: SIM905
)

_MASKS = (torch.bool, torch.uint8)


def record(
    twin: Twin, args: tuple[Any, ...], kwargs: dict[str, Any], marked: set[str], *, fine: bool = False
) -> Traced:
    """Run the teacher once and record it.

    Args:
        twin: the copy of the teacher that runs; the caller protects its state.
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
    recorder = _Recorder(twin, marked, fine)
    return recorder.run(args, kwargs)


class _Recorder(TorchFunctionMode):
    def __init__(self, twin: Twin, marked: set[str], fine: bool) -> None:
        super().__init__()
        teacher = self.teacher = twin.teacher
        self.marked = marked
        self.fine = fine
        self.modules = module_names(teacher)
        self.inside = ancestors(teacher, marked)
        self.builder = Builder(twin)
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
            inputs.append(self.builder.graph.placeholder(f"input_{i}"))
            note_tensor(inputs[-1], tensor)
            note(inputs[-1], depends=True, owner=f"input {i}")
            self.builder.bind(tensor, inputs[-1])
        with self.macs, patched_calls(self, self.teacher), _patched_forwards(self), torch.enable_grad(), self:
            out = self.teacher(*args, **kwargs)
        found, result = flatten(out)
        outputs = [self.builder.node_of(t) for t in found]
        graph = self.builder.graph
        random = dict.fromkeys(info(n).owner for n in graph.nodes if info(n).random)
        leaves = self.builder.leaves
        return Traced(graph, inputs, outputs, result, self.calls, "fx", random=list(random), leaves=leaves)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.quiet:
            return func(*args, **kwargs)
        name = str(getattr(func, "__name__", type(func).__name__))
        if name == "__iter__":
            return iter(self.__torch_function__(torch.Tensor.unbind, types, args))
        if name in _READERS or (name == "where" and len(args) == 1):
            self.refuse_reading(name, (args, kwargs))
        if name == "__getitem__":
            self.refuse_reading("a boolean index", [t for t in flatten(args[1])[0] if t.dtype in _MASKS])
        if name == "__set__" and any(isinstance(t, Tensor) and t in self.builder.nodes for t in args):
            raise Untraceable("it assigns to an attribute of a tensor (such as x.data = ...)")
        return self.note(lambda a, k: func(*a, **k), args, kwargs, self.builder.emit_function(func, name), None, name)

    def call_module(self, module: nn.Module, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        name = self.modules[id(module)]
        index = len(self.calls)
        if self.is_leaf(name, module):
            out = self.note(
                lambda a, k: run(*a, **k),
                args,
                kwargs,
                self.builder.emit_module(name),
                module,
                name,
                index,
            )
        else:
            self.owners.append(name)
            try:
                hooked = bool(module._forward_hooks or module._forward_pre_hooks)
                out = self.run_hooked(module, args, kwargs) if hooked else run(*args, **kwargs)
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
            owner = self.builder.graph.get_attr(name)
            note(owner, depends=True, owner=name)
            return self.builder.graph.call_function(function, (owner, key, *args), kwargs)

        name = self.modules[id(module)]
        before = len(self.builder.graph.nodes)
        result = self.note(lambda a, k: function(module, key, *a), given, {}, emit, None, "hook")
        if len(self.builder.graph.nodes) == before:
            node = emit(self.builder.lower(given, {}), {})
            note(node, owner=f"{name} (hook)", effect=True)
            self.builder.depend(node)
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
            lambda a, k: a[0][a[1]], (out, ...), {}, self.builder.emit_function(operator.getitem, "alias"), None, name
        )

    def note_call(self, name: str, out: Any, index: int) -> Any:
        node = self.builder.nodes.get(out) if isinstance(out, Tensor) else None
        self.calls.append(Call(name, node, "Tensor" if isinstance(out, Tensor) else type(out).__name__, index))
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
        self.quiet += 1
        try:
            versions = [version(t) for t in given]
            macs, rng = self.macs.total, random_state()
            with torch.inference_mode(False), torch.no_grad():
                out = run(args, kwargs)
            changed = [t for t, v in zip(given, versions, strict=True) if version(t) != v]
            found, structure = flatten(out)
            if [*map(id, flatten((args, kwargs))[0])] != [*map(id, given)]:
                raise Untraceable(f"{name!r} changes a list or dict that it is given")
            if not found and not changed:
                return out
            new = _unshared(found, given, changed) if module is not None else found
            out = structure.rebuild(new)
            facts = {
                "macs": self.macs.total - macs,
                "random": not torch.equal(rng, random_state()),
                "owner": name if module is not None else f"{self.where()} ({name})",
                "heavy": is_heavy(module, self.macs.total - macs),
                "fresh": not {memory(t) for t in new} & ({memory(t) for t in given} | self.builder.owned),
            }
            args, kwargs = before.rebuild(given)
            self.builder.add(emit, args, kwargs, changed, new, out, facts)
        finally:
            self.quiet -= 1
        return out

    def where(self) -> str:
        """The module whose code is running, for messages."""
        return self.owners[-1] or type(self.teacher).__name__

    def refuse_reading(self, name: str, given: Any) -> None:
        tensors, _ = flatten(given)
        if any(info(self.builder.node_of(t)).depends for t in tensors):
            raise Untraceable(f"the Python code of {self.where()} depends on tensor values ({name})")


def _unshared(found: list[Tensor], given: list[Tensor], changed: list[Tensor]) -> list[Tensor]:
    """Outputs of a module; one that is an untouched input comes back as a view, so that it has its own identity."""
    same = {id(t) for t in given} - {id(t) for t in changed}
    return [t[...] if id(t) in same else t for t in found]


@contextlib.contextmanager
def _patched_forwards(recorder: _Recorder) -> Iterator[None]:
    """Notice cut layers whose `forward` is called directly, past `__call__`."""
    with contextlib.ExitStack() as patches:
        for name in recorder.marked:
            module = recorder.teacher.get_submodule(name)
            if not isinstance(module, torch.jit.ScriptModule) and "forward" not in vars(module):
                vars(module)["forward"] = _forward(recorder, module, name)
                patches.callback(vars(module).pop, "forward", None)
        yield


def _forward(recorder: _Recorder, module: nn.Module, name: str) -> Callable[..., Any]:
    method = type(module).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if recorder.quiet or recorder.owners[-1] == name:
            return method(module, *args, **kwargs)
        index = len(recorder.calls)
        if not recorder.is_leaf(name, module):
            return recorder.note_call(name, recorder.mark(name, method(module, *args, **kwargs)), index)
        emit = recorder.builder.emit_module(name, "forward")
        out = recorder.note(lambda a, k: method(module, *a, **k), args, kwargs, emit, module, name, index)
        return recorder.note_call(name, out, index)

    return forward
