"""Helpers that generated programs call beside torch and the teacher's modules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .structure import flatten

__all__ = [
    "after",
    "blank",
    "call",
    "fire_after",
    "fire_before",
    "same",
    "tensors_of",
    "under_autocast",
]


def after(value: Tensor, _: Any) -> Tensor:
    """Return the value, once the second argument has been computed, which changes the value in place."""
    return value


def same(value: Any) -> Any:
    """Return the value: a constant, or the output of a cut layer under a node of its own."""
    return value


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call something that the program holds as a value."""
    return function(*args, **kwargs)


def tensors_of(value: Any) -> list[Any]:
    """Return the tensors inside a module's output."""
    return flatten(value)[0]


def blank(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of which only shape, dtype and device are read."""
    return torch.empty((), dtype=dtype, device=device).expand(shape)


def under_autocast(state: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function under the autocast state that the teacher had switched on around it."""
    with contextlib.ExitStack() as stack:
        for device, enabled, dtype in state:
            stack.enter_context(torch.autocast(device, dtype=dtype, enabled=enabled))
        return function(*args, **kwargs)


def fire_before(module: nn.Module, key: int, args: Any, kwargs: Any) -> Any:
    """Fire a forward pre-hook; new `(args, kwargs)`, or None if it changes nothing."""
    hook: Any = module._forward_pre_hooks.get(key)
    if hook is None:
        return (args, kwargs)
    if key in module._forward_pre_hooks_with_kwargs:
        return hook(module, args, kwargs)
    new = hook(module, args)
    if new is None:
        return None
    return (new if isinstance(new, tuple) else (new,), kwargs)


def fire_after(module: nn.Module, key: int, args: Any, kwargs: Any, out: Any) -> Any:
    """Fire a forward hook; the new output, or None if it changes nothing."""
    hook: Any = module._forward_hooks.get(key)
    if hook is None:
        return out
    if key in module._forward_hooks_with_kwargs:
        return hook(module, args, kwargs, out)
    return hook(module, args, out)
