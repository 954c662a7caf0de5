"""Put the teacher back as it was found, also after an exception."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["capturing", "same_random_state", "untouched"]

_LIMIT = 200_000
_CAPTURE = threading.RLock()


@contextlib.contextmanager
def capturing() -> Iterator[None]:
    """Hold the process's one lock for captures. Compiled code runs uncompiled, and inference mode is off."""
    with _CAPTURE, contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        if "torch._dynamo" in sys.modules:  # else nothing was ever compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


class _Snapshot:
    """Shallow copies of every module's `__dict__` and of every container and tensor reached from there.

    Containers keep their identity: they are emptied and refilled. Of parameters only the memory they point to is noted:
    some teachers assign `weight.data` in their forward pass, and copies would double the memory of a large teacher.
    """

    def __init__(self, teacher: nn.Module) -> None:
        self.dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self.lists: list[tuple[Any, list[Any]]] = []
        self.sets: list[tuple[set[Any], set[Any]]] = []
        self.tensors: list[tuple[Tensor, Tensor]] = []
        self.parameters: list[tuple[nn.Parameter, Tensor]] = []
        seen: set[int] = set()
        queue: deque[Any] = deque([teacher])
        while queue and len(seen) < _LIMIT:
            item = queue.popleft()
            if id(item) not in seen:
                seen.add(id(item))
                queue.extend(self._save(item))

    def _save(self, item: Any) -> list[Any]:
        if isinstance(item, Tensor):
            if isinstance(item, nn.Parameter):
                self.parameters.append((item, item.data))
            elif item.layout == torch.strided:
                self.tensors.append((item, item.detach().clone()))
            return []
        if isinstance(item, torch.jit.ScriptModule):
            return list(item.buffers())
        if isinstance(item, dict):
            self.dicts.append((item, dict(item)))
            return list(item.values())
        if isinstance(item, (list, deque)):
            self.lists.append((item, list(item)))
            return list(item)
        if isinstance(item, set):
            self.sets.append((item, set(item)))
            return []
        if isinstance(item, tuple):
            return list(item)
        return _own_state(item)

    def restore(self) -> None:
        for live, saved in self.dicts:
            if len(live) != len(saved) or any(live.get(k, self) is not v for k, v in saved.items()):
                live.clear()
                live.update(saved)
        for items, was in self.lists:
            if len(items) != len(was) or any(x is not y for x, y in zip(items, was, strict=True)):
                items.clear()
                items.extend(was)
        for members, before in self.sets:
            if members != before:
                members.clear()
                members.update(before)
        self._restore_tensors()

    def _restore_tensors(self) -> None:
        for parameter, data in self.parameters:
            if parameter.data_ptr() != data.data_ptr():
                parameter.data = data
        with torch.no_grad():
            for tensor, values in self.tensors:
                # Not by the version counter: batch norm updates its running statistics without counting.
                if not torch.equal(tensor, values):
                    tensor.copy_(values)


def _own_state(item: Any) -> list[Any]:
    if isinstance(item, type) or (callable(item) and not isinstance(item, nn.Module)):
        return []
    if type(item).__module__.partition(".")[0] in ("builtins", "torch", "numpy") and not isinstance(item, nn.Module):
        return []
    state = getattr(item, "__dict__", None)
    return [state] if isinstance(state, dict) else []


@contextlib.contextmanager
def untouched(teacher: nn.Module) -> Iterator[None]:
    """Restore the state of every module, and of the random generators, when the block ends.

    Restored are attributes (also lists, dicts and plain objects they hold), training flags, hooks, buffers and other
    tensors changed in place. The block runs without gradients.
    """
    saved = _Snapshot(teacher)
    with same_random_state(), torch.no_grad():
        try:
            yield
        finally:
            saved.restore()


@contextlib.contextmanager
def same_modes(module: nn.Module) -> Iterator[None]:
    """Restore the training flag of a module, and of every module inside it, when the block ends."""
    flags = [(each, each.training) for each in module.modules()]
    try:
        yield
    finally:
        for each, training in flags:
            each.training = training


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Leave the random generators (torch's on CPU and all CUDA devices in use, Python's, NumPy's) as found."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    state = numpy.random.get_state() if numpy is not None else None
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(state)
