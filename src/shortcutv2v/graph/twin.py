"""A private copy of the teacher, on which captures run while other threads use the teacher itself."""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import types
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Twin"]

_LIMIT = 200_000
_SHARED = (type, enum.Enum, types.ModuleType, types.BuiltinFunctionType, str, bytes, int, float, complex, type(None))
_PRIVATE = ("builtins", "torch", "numpy")


class Twin:
    """A copy of a teacher: modules, containers and plain objects are new, the memory of parameters is shared.

    Buffers and other tensors are cloned, because a forward pass may change them. Functions that close over one of the
    copied objects (a patched `forward`, a hook) are made anew for the copies. Objects that cannot be copied this way,
    such as locks, files and objects with `__slots__`, are shared.

    Args:
        teacher: the network; it is only read.
        copied: False for a twin that is the teacher itself, for teachers that cannot run as a copy.

    Attributes:
        teacher: the copy.
    """

    def __init__(self, teacher: nn.Module, *, copied: bool = True) -> None:
        self._pairs: dict[int, tuple[Any, Any]] = {}
        self._fill: deque[Callable[[], None]] = deque()
        self.teacher: nn.Module = self._copy(teacher) if copied else teacher
        while self._fill:
            self._fill.popleft()()
        self._origins = {id(new): old for old, new in self._pairs.values()}

    def origin(self, value: Any) -> Any:
        """Return the teacher's own object of which `value` is the copy, or `value` itself if it is not a copy."""
        return self._origins.get(id(value), value)

    def _copy(self, item: Any) -> Any:
        if isinstance(item, _SHARED):
            return item
        known = self._pairs.get(id(item))
        if known is None:
            if len(self._pairs) >= _LIMIT:
                return item
            known = self._pairs[id(item)] = (item, item)  # a tuple that holds itself ends here
            try:
                known = self._pairs[id(item)] = (item, self._new(item))
            except (TypeError, RuntimeError):
                return item
        return known[1]

    def _new(self, item: Any) -> Any:
        if isinstance(item, Tensor):
            return _tensor(item)
        if isinstance(item, tuple):
            return self._tuple(item)
        if isinstance(item, types.CellType):
            new = types.CellType()
            self._fill.append(lambda: self._fill_cell(item, new))
            return new
        if isinstance(item, (dict, list, deque, set)):
            container = copy.copy(item)
            self._fill.append(lambda: self._fill_container(container))
            return container
        if isinstance(item, types.FunctionType):
            return self._function(item)
        if isinstance(item, types.MethodType):
            owner = self._copy(item.__self__)
            return item if owner is item.__self__ else types.MethodType(self._copy(item.__func__), owner)
        if type(item) is functools.partial:
            return functools.partial(
                self._copy(item.func),
                *map(self._copy, item.args),
                **{k: self._copy(v) for k, v in item.keywords.items()},
            )
        if type(item) is weakref.ref:
            return item if item() is None else weakref.ref(self._copy(item()))
        return self._object(item)

    def _object(self, item: Any) -> Any:
        if isinstance(item, torch.Generator):
            return item.clone_state()
        foreign = type(item).__module__.partition(".")[0] in _PRIVATE
        if (foreign and not isinstance(item, nn.Module)) or not isinstance(getattr(item, "__dict__", None), dict):
            return item
        try:
            new = object.__new__(type(item))
            vars(new).update(vars(item))
        except TypeError:  # a class with a layout of its own
            new = copy.copy(item)
        self._fill.append(lambda: self._fill_container(vars(new)))
        return new

    def _function(self, item: types.FunctionType) -> Any:
        """The function, over copies of what it closes over and of its defaults."""
        defaults = self._copy(item.__defaults__)
        if not item.__closure__ and defaults is item.__defaults__ and not item.__kwdefaults__:
            return item
        cells = tuple(map(self._copy, item.__closure__ or ()))
        made = types.FunctionType(item.__code__, item.__globals__, item.__name__, defaults, cells)
        made.__kwdefaults__ = item.__kwdefaults__ and {k: self._copy(v) for k, v in item.__kwdefaults__.items()}
        vars(made).update(vars(item))
        return made

    def _fill_container(self, new: Any) -> None:
        if isinstance(new, dict):
            for key in list(new):
                dict.__setitem__(new, key, self._copy(dict.__getitem__(new, key)))
        elif isinstance(new, set):
            items = [self._copy(v) for v in new]
            new.clear()
            new.update(items)
        else:
            for i, value in enumerate(new):
                new[i] = self._copy(value)

    def _fill_cell(self, old: types.CellType, new: types.CellType) -> None:
        with contextlib.suppress(ValueError):  # a cell may be empty
            new.cell_contents = self._copy(old.cell_contents)

    def _tuple(self, item: tuple[Any, ...]) -> tuple[Any, ...]:
        parts = [self._copy(v) for v in item]
        if all(x is y for x, y in zip(item, parts, strict=True)):
            return item
        made: tuple[Any, ...] = type(item)._make(parts) if hasattr(item, "_make") else type(item)(parts)
        return made


def _tensor(item: Tensor) -> Tensor:
    """A parameter on the same memory, or a clone of any other plain tensor; special kinds of tensors are shared."""
    if item.is_inference() or item.layout != torch.strided or type(item) not in (Tensor, nn.Parameter):
        return item
    if isinstance(item, nn.Parameter):
        new: Tensor = nn.Parameter(item.detach(), item.requires_grad)
    else:
        new = item.detach().clone().requires_grad_(item.requires_grad)
    vars(new).update(vars(item))
    return new
