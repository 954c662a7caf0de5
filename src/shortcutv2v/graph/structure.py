"""Take nested values apart into their tensors, and put them together again.

A teacher may take and return anything: tuples, dicts, dataclasses, `ModelOutput`s, plain objects that hold
tensors. `torch.utils._pytree` knows only registered types, so this module adds dataclasses, mappings and plain
objects, and never needs a registration.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Structure", "constant_key", "flatten", "keep"]

T = TypeVar("T")

Rebuild = Callable[[list[Any]], Any]
_ATOMS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout, enum.Enum, slice)


@dataclasses.dataclass(frozen=True)
class Structure:
    """The way to put the tensors of a nested value back in their places.

    Attributes:
        rebuild: from the list of tensors to the nested value.
        key: equal for values of the same shape of nesting, types and constants.
        count: how many tensors there are.
    """

    rebuild: Rebuild
    key: Hashable
    count: int


def flatten(value: Any) -> tuple[list[Any], Structure]:
    """Take any nested value apart: its tensors in order of appearance, and the structure that rebuilds it.

    >>> tensors, structure = flatten({"x": torch.zeros(1), "n": 3})
    >>> len(tensors), structure.rebuild([7])
    (1, {'x': 7, 'n': 3})
    """
    leaves: list[Any] = []
    rebuild, key = _walk(value, leaves, ())
    return leaves, Structure(lambda new: rebuild(list(new)), key, len(leaves))


def keep(value: T) -> T:
    """Return the same nested value in memory of its own; a tensor that occurs twice is copied once.

    >>> x = torch.zeros(2)
    >>> first, second = keep((x, [x]))
    >>> first is second[0], first is x
    (True, False)
    """
    tensors, structure = flatten(value)
    copies = {id(tensor): tensor.clone() for tensor in tensors}
    made: T = structure.rebuild([copies[id(tensor)] for tensor in tensors])
    return made


def _walk(value: Any, leaves: list[Any], within: tuple[Any, ...]) -> tuple[Rebuild, Hashable]:
    if isinstance(value, Tensor):
        index = len(leaves)
        leaves.append(value)
        return (lambda new: new[index]), "*"
    if isinstance(value, _ATOMS) or _is_one_of(value, within):
        return (lambda new: value), constant_key(value)
    parts = _children(value)
    if parts is None:
        return (lambda new: value), constant_key(value)
    children, assemble = parts
    before = len(leaves)
    walked = [_walk(child, leaves, (*within, value)) for child in children.values()]
    key = (type(value), tuple(zip(children, (k for _, k in walked), strict=True)))
    if len(leaves) == before and not isinstance(value, (tuple, list, dict)):
        # An object without tensors is handed on as it is: a copy would lose its identity for nothing.
        return (lambda new: value), key if dataclasses.is_dataclass(value) else constant_key(value)
    return (lambda new: assemble([r(new) for r, _ in walked])), key


def _is_one_of(value: Any, others: tuple[Any, ...]) -> bool:
    # Dynamo knows neither `is` of two tuples nor, before torch 2.12, their `id`. What it traces does not hold itself.
    return not torch.compiler.is_dynamo_compiling() and any(value is other for other in others)


def _children(value: Any) -> tuple[dict[Any, Any], Callable[[list[Any]], Any]] | None:
    """The parts of a container by key and the function that assembles new parts, or None for an atom."""
    if type(value) in (tuple, list):
        return dict(enumerate(value)), type(value)
    if isinstance(value, tuple):
        return dict(enumerate(value)), getattr(type(value), "_make", type(value))
    if isinstance(value, (torch.nn.Module, type)) or callable(value):
        return None
    if isinstance(value, dict):
        return dict(value), lambda parts: _rebuild_dict(value, parts)
    if type(value) in pytree.SUPPORTED_NODES:
        node = pytree.SUPPORTED_NODES[type(value)]
        parts, context = node.flatten_fn(value)
        return dict(enumerate(parts)), lambda new: node.unflatten_fn(new, context)
    return _object_children(value)


def _object_children(value: Any) -> tuple[dict[Any, Any], Callable[[list[Any]], Any]] | None:
    fields = getattr(value, "__dict__", None)
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]
        fields = {name: getattr(value, name) for name in names}
    if isinstance(value, list):
        fields = dict(enumerate(value))
    if not fields or type(value).__module__.partition(".")[0] in ("builtins", "numpy"):
        return None

    def assemble(parts: list[Any]) -> Any:
        new = copy.copy(value)
        if isinstance(value, list):
            new[:] = parts
            return new
        for name, part in zip(fields, parts, strict=True):
            object.__setattr__(new, name, part)
        return new

    return dict(fields), assemble


def _rebuild_dict(value: dict[Any, Any], parts: list[Any]) -> Any:
    if type(value) is dict:
        return dict(zip(value, parts, strict=True))
    # Subclasses (OrderedDict, ModelOutput) keep their own attributes; a copy is filled with the new parts.
    new = copy.copy(value)
    for key, part in zip(list(value), parts, strict=True):
        dict.__setitem__(new, key, part)
        if isinstance(key, str) and hasattr(type(value), "__dataclass_fields__"):
            object.__setattr__(new, key, part)
    return new


def constant_key(value: Any) -> Hashable:
    """Return a hashable stand-in for a value that is not a tensor: the value itself, or its identity.

    >>> constant_key(3), constant_key(True) == constant_key(1)
    ((<class 'int'>, 3), False)
    """
    if isinstance(value, slice):
        return (slice, constant_key(value.start), constant_key(value.stop), constant_key(value.step))
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return (type(value), cast("Hashable", value))


class _Same:
    """Stands for one object that has no hash; holds it, so that its identity is not given to another one."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        return f"<{type(self.value).__name__}>"
