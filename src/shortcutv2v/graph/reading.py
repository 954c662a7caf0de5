"""Names and variables that a teacher's Python code can read, found in its byte code."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections import deque
from collections.abc import Iterable
from typing import Any

from torch import nn

__all__ = ["Reading", "is_foreign"]

_LIMIT = 2000
_ALWAYS = ("forward", "__call__", "__getattr__", "__getattribute__")
_DYNAMIC = {"getattr", "vars", "__dict__", "attrgetter", "eval", "exec"}
_LOADS = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_SUPER_ATTR", "LOAD_CONST")
_FOREIGN = {*sys.stdlib_module_names, "torch", "numpy", "einops", "shortcutv2v"}


class Reading:
    """The names that the code of some modules can read: their `forward`, and all functions and methods it names.

    Args:
        modules: the modules whose code runs at capture, and not in every pass.
        others: more modules, whose other methods that code may call.

    Attributes:
        names: names of attributes and variables that are loaded somewhere, and texts that may be names.
        dynamic: some code computes the names of the attributes it reads.
        variables: global variables, as pairs of their dictionary and their name.
        cells: variables that functions close over.
        classes: the classes in which the names may be class attributes.
    """

    def __init__(self, modules: Iterable[nn.Module], others: Iterable[nn.Module] = ()) -> None:
        self.names: set[str] = set()
        self.dynamic = False
        self.variables: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}
        self.cells: dict[int, types.CellType] = {}
        self.classes: dict[type, None] = {}
        self._seen: dict[int, Any] = {}
        self._todo: deque[types.FunctionType] = deque()
        for module in modules:
            self.add_class(type(module), always=_ALWAYS)
            self.add(vars(module).get("forward"))
        for module in others:
            self.add_class(type(module))
        self.close()

    @property
    def size(self) -> int:
        """Grows whenever something new is read."""
        return len(self.names) + len(self._seen) + len(self.classes)

    def add(self, value: Any) -> None:
        """Add a function, whatever wraps it."""
        while isinstance(value, (functools.partial, staticmethod, classmethod, types.MethodType, property)):
            name = {functools.partial: "func", property: "fget"}.get(type(value), "__func__")
            value = getattr(value, name, None)
        if isinstance(value, types.FunctionType) and id(value) not in self._seen and len(self._seen) < _LIMIT:
            self._seen[id(value)] = value
            self._todo.append(value)
            for default in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
                self.add(default)

    def add_class(self, kind: type, always: tuple[str, ...] = ()) -> None:
        """Add a class: `always` names methods that are read whoever names them."""
        for base in kind.__mro__[:-1]:
            if base is not nn.Module and (base not in self.classes or always):
                self.classes[base] = None
                for name in always:
                    self.add(vars(base).get(name))

    def close(self) -> None:
        """Follow names to methods, and functions to the functions they name, until nothing new is found."""
        while self._todo:
            while self._todo:
                self._function(self._todo.popleft())
            for base in list(self.classes):
                for name in sorted(self.names & vars(base).keys() - set(_ALWAYS)):
                    self.add(vars(base)[name])

    def _function(self, function: types.FunctionType) -> None:
        loaded = _loads(function.__code__)
        self.names |= loaded
        foreign = is_foreign(function.__module__)
        self.dynamic |= not foreign and not _DYNAMIC.isdisjoint(loaded)
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # empty
                continue
            self.cells[id(cell)] = cell
            self.add(value)
        if not foreign:
            for name in sorted(loaded & function.__globals__.keys()):
                self._variable(function.__globals__, name, loaded)

    def _variable(self, scope: dict[str, Any], name: str, loaded: frozenset[str]) -> None:
        value = scope[name]
        if isinstance(value, types.ModuleType):
            if not is_foreign(value.__name__):
                for inner in sorted(loaded & vars(value).keys()):
                    if not isinstance(vars(value)[inner], types.ModuleType):
                        self._variable(vars(value), inner, loaded)
            return
        code = callable(value) and not isinstance(value, (nn.Module, functools.partial))
        if code and is_foreign(getattr(value, "__module__", None)):
            return
        self.variables[id(scope), name] = (scope, name)
        if isinstance(value, type):
            self.add_class(value)
        self.add(value)


def is_foreign(module: str | None) -> bool:
    """Return True if a Python module belongs to torch, the standard library or this package, not to the teacher."""
    return (module or "").partition(".")[0] in _FOREIGN


@functools.lru_cache(maxsize=4096)
def _loads(code: types.CodeType) -> frozenset[str]:
    """Names that the code loads, and texts in it that may name an attribute."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname.startswith(_LOADS) and isinstance(i.argval, str)}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _loads(constant)
    return frozenset(found)
