"""The call signature that a capture is valid for: structure, shapes, dtypes, devices, constants and modes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .structure import Structure, flatten

__all__ = ["autocast_state", "modes", "signature", "take_apart"]


def take_apart(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Tensor], Structure]:
    """Return the tensors of a call and the structure that rebuilds `(args, kwargs)` from them.

    Raises:
        InputError: an input is a numpy array, whose values would silently become constants.
    """
    kwargs = dict(sorted(kwargs.items()))
    tensors, structure = flatten((tuple(args), kwargs))
    if "ndarray" in repr(structure.key):
        raise InputError("an input is a numpy array; give tensors (torch.from_numpy(x)), arrays would become constants")
    return tensors, structure


def signature(teacher_modules: list[nn.Module], tensors: list[Tensor], structure: Structure) -> Hashable:
    """Return a value that is equal for two calls exactly if one capture serves both.

    Shapes and constants are frozen in a capture, and so are the branches that the teacher's Python code takes by
    training flags and autocast.
    """
    described = tuple((tuple(t.shape), t.dtype, t.device) for t in tensors)
    return (described, structure.key, modes(teacher_modules), autocast_state())


def modes(modules: list[nn.Module]) -> Hashable:
    """Return the training flags of all modules, as one value if they agree."""
    flags = tuple([m.training for m in modules])
    if all(flags):
        return True
    return flags if any(flags) else False


def autocast_state() -> tuple[Any, ...]:
    """Return per device type if autocast is on, and in which dtype."""
    state = []
    for device in ("cpu", "cuda"):
        enabled = torch.is_autocast_enabled(device)
        state.append((device, enabled, torch.get_autocast_dtype(device) if enabled else None))
    return tuple(state)
