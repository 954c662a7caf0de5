"""The Python values that a capture has frozen: looked at again for every frame, so that a change is captured anew.

Captured programs read tensors from the live teacher. Numbers, flags, the modules of a container and patched functions
entered the programs as they were. `Frozen` finds every such value that the captured code can read.
"""

from __future__ import annotations

import argparse
import enum
import operator
import types
from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from .reading import Reading, is_foreign
from .structure import constant_key

__all__ = ["Frozen", "Label", "parts", "volatile"]

Label = tuple[str, ...]
"""The place of a value: the name of its owner, the attribute, and the way inside it."""

_MOST = 1000  # items of one container that are looked at
_SEQUENCES = (list, tuple, deque)
_NAMESPACES = (types.SimpleNamespace, argparse.Namespace)
_OPAQUE = (nn.Module, Tensor, type, enum.Enum, types.ModuleType, types.FunctionType, types.MethodType, torch.Size)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HELD = ("_parameters", "_buffers", "_modules", *_HOOKS)
_TORCHS_OWN = frozenset(vars(nn.Module())) - {"training"}


def parts(value: Any) -> list[tuple[str, Any, Any]]:
    """The items of a container, or the attributes of a plain object: what follows in a path, the key, and the item.

    >>> parts({"a": 1}), parts((2, 3))
    ([("['a']", 'a', 1)], [('[0]', 0, 2), ('[1]', 1, 3)])
    """
    if isinstance(value, _OPAQUE):
        return []
    if isinstance(value, dict):
        # Paths are split at dots, so none may be left in a key.
        return [(f"[{k!r}]".replace(".", "\\x2e"), k, v) for k, v in list(value.items()) if isinstance(k, (str, int))]
    if isinstance(value, _SEQUENCES):
        return [(f"[{i}]", i, v) for i, v in enumerate(value)]
    foreign = is_foreign(type(value).__module__) and not isinstance(value, _NAMESPACES)
    own = None if foreign else getattr(value, "__dict__", None)
    return [(k, k, v) for k, v in list(own.items())] if isinstance(own, dict) else []


class Frozen:
    """The values that the code of a teacher can read, other than what tensors contain.

    Args:
        teacher: the live teacher.
        leaves: names of the modules that run as a whole in every pass, so that their own code reads everything live;
            None if no code of the teacher runs after the capture.
        skip: labels of values that a call of the teacher changes by itself.

    Attributes:
        found: the values by label, in a form that can be compared.
    """

    def __init__(
        self, teacher: nn.Module, leaves: set[str] | None = None, skip: frozenset[Label] = frozenset()
    ) -> None:
        self._given = (teacher, leaves, skip)
        walk = _Walk(*self._given)
        self.found, self._same = walk.found, walk.same()

    def holds(self) -> bool:
        """Return True if every value is as it was. Takes microseconds if the same objects are in the same places."""
        try:
            if self._same():
                return True
        except (AttributeError, IndexError, ValueError):  # a container became shorter, a closure lost its variable
            pass
        walk = _Walk(*self._given)
        if walk.found != self.found:
            return False
        self._same = walk.same()  # other objects of the same values
        return True

    def same_as(self, other: Frozen) -> bool:
        """Return True if both found the same values."""
        return self is other or self.found == other.found


def volatile(before: Frozen, after: Frozen) -> frozenset[Label]:
    """Return the attributes and variables that differ, as `skip` takes them."""
    return frozenset(label[:2] for label, _ in before.found.items() ^ after.found.items())


class _Walk:
    """One look at a teacher: every value by its label, and where to find the same objects again."""

    def __init__(self, teacher: nn.Module, leaves: set[str] | None, skip: frozenset[Label]) -> None:
        modules = dict(teacher.named_modules())
        inside = {name: m for name, m in modules.items() if not _under(name, leaves or set())}
        self.skip = skip
        self.inlined = leaves is None
        self.reading = Reading(inside.values(), modules.values())
        size = -1
        while size != self.reading.size:  # objects that are met have classes and functions, which name more
            size = self.reading.size
            self.found: dict[Label, Hashable] = {}
            self.places: dict[int, int] = {}
            self.slots: dict[Any, list[tuple[Any, Any, Any]]] = {}
            self.sized: list[Any] = []
            self.entered: set[int] = set()
            for name, module in modules.items():
                self.module(name, module, name in inside)
            self.variables()
            self.reading.close()
        if "dtype" in self.reading.names:
            self.found["", "dtype"] = tuple(p.dtype for p in teacher.parameters())
            self.slots.setdefault(getattr, []).extend((p, "dtype", p.dtype) for p in teacher.parameters())

    def same(self) -> Callable[[], bool]:
        """Return a function that checks that the same objects are in the same places."""
        slots: Any = [(get, *map(list, zip(*found, strict=True))) for get, found in self.slots.items()]
        sized, sizes = self.sized, list(map(len, self.sized))

        def check() -> bool:
            return list(map(len, sized)) == sizes and all(
                all(map(operator.is_, map(get, owners, keys), values)) for get, owners, keys, values in slots
            )

        return check

    def look(self, label: Label, get: Any, owner: Any, key: Any, value: Any) -> None:
        """Note the value at `get(owner, key)`, and what is inside it."""
        if label[:2] in self.skip:
            return
        self.slots.setdefault(get, []).append((owner, key, value))
        items = parts(value)
        if isinstance(value, Tensor):
            self.found[label] = self.tensor(label, value)
        elif isinstance(value, (set, frozenset)):
            self.found[label] = kept = frozenset(map(constant_key, value))
            self.slots.setdefault(_unchanged_set, []).append((value, kept, kept))
        elif isinstance(value, (dict, *_SEQUENCES)) or items:
            self.found[label] = (type(value), len(items))
            if id(value) not in self.entered:
                self.entered.add(id(value))
                self.inside(label, value, items)
        else:
            if self.inlined or label[1] not in _HOOKS:
                self.reading.add(value)
            self.found[label] = constant_key(value)

    def inside(self, label: Label, value: Any, items: list[tuple[str, Any, Any]]) -> None:
        """Note the items of a container, or the attributes of an object that are read."""
        owner: Any = value
        get: Any = operator.getitem
        if isinstance(value, dict):
            get = dict.get
        elif not isinstance(value, _SEQUENCES):
            self.reading.add_class(type(value))
            items = [item for item in items if self.reading.dynamic or item[1] in self.reading.names]
            owner, get = vars(value), dict.get
        self.sized.append(owner)
        for way, key, item in islice(items, _MOST):
            self.look((*label, way), get, owner, key, item)

    def tensor(self, label: Label, value: Tensor) -> Hashable:
        """The frozen side of a tensor. Those that modules hold are read live, all others by reference."""
        self.slots.setdefault(getattr, []).append((value, "dtype", value.dtype))
        held = not label[0].startswith(("global ", "closure ", "class "))
        place = self.places.setdefault(id(value), len(self.places)) if held else id(value)
        return (tuple(value.shape), value.dtype, value.device, place)

    def module(self, name: str, module: nn.Module, inside: bool) -> None:
        own = vars(module)
        if inside:
            self.sized.append(own)
        for key, value in list(own.items()):  # another thread may add to it
            read = key in self.reading.names or (inside and (self.reading.dynamic or key == "forward"))
            if (read and key not in _TORCHS_OWN) or (inside and key in _HELD):
                self.look((name, key), dict.get, own, key, value)

    def variables(self) -> None:
        for scope, name in list(self.reading.variables.values()):
            self.look((f"global {scope.get('__name__')}", name), dict.get, scope, name, scope.get(name))
        for i, cell in enumerate(list(self.reading.cells.values())):
            self.look((f"closure {i}", ""), getattr, cell, "cell_contents", cell.cell_contents)
        for kind in list(self.reading.classes):
            if not is_foreign(kind.__module__):
                for name in sorted(self.reading.names & vars(kind).keys()):
                    self.look((f"class {kind.__qualname__}", name), _class_attribute, kind, name, vars(kind)[name])


def _under(name: str, leaves: set[str]) -> bool:
    """Return True if a module is one of the leaves, or lies inside one."""
    ways = name.split(".")
    return any(".".join(ways[: i + 1]) in leaves for i in range(len(ways)))


def _class_attribute(kind: type, name: str) -> Any:
    return vars(kind).get(name)


def _unchanged_set(members: set[Any], before: frozenset[Hashable]) -> frozenset[Hashable] | None:
    return before if frozenset(map(constant_key, members)) == before else None
