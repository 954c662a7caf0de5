"""Watching the calls of a teacher's modules: the one place that redirects them, for the length of a `with` block."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import nn

from .cut import canonical_names

__all__ = ["Watcher", "ancestors", "module_names", "patched_calls"]

_PATCH = threading.RLock()
# `nn.Module.__call__` runs this attribute of an instance, if there is one: `module.compile()` sets it, and so do we.
_SLOT = "_compiled_call_impl"


class Watcher(Protocol):
    """A receiver of calls. While `quiet` is not 0, calls go straight to the modules."""

    quiet: int

    def call_module(self, module: nn.Module, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        """Handle one call; `run(*args, **kwargs)` runs the module."""
        ...


@contextlib.contextmanager
def patched_calls(watcher: Watcher, teacher: nn.Module) -> Iterator[None]:
    """Route the calls of the teacher's modules through the watcher; one watcher at a time in the process.

    Only these modules are redirected, and only for calls of this thread: `nn.Module` itself is left alone.
    """
    with _PATCH:
        owner = threading.get_ident()
        before = [(module, vars(module).get(_SLOT)) for module in teacher.modules()]
        try:
            for module, compiled in before:
                run = compiled or module._call_impl
                vars(module)[_SLOT] = functools.partial(_call, watcher, owner, module, run)
            yield
        finally:
            for module, compiled in before:
                vars(module)[_SLOT] = compiled
                if compiled is None:
                    del vars(module)[_SLOT]


def _call(
    watcher: Watcher, owner: int, module: nn.Module, run: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    if watcher.quiet or threading.get_ident() != owner:
        return run(*args, **kwargs)
    return watcher.call_module(module, args, kwargs, run)


def module_names(teacher: nn.Module) -> dict[int, str]:
    """Return the first name of every module by its id; the teacher's own is ""."""
    canonical = canonical_names(teacher)
    return {id(m): canonical[n] if n else "" for n, m in teacher.named_modules()}


def ancestors(teacher: nn.Module, marked: set[str]) -> set[str]:
    """Return the first names of all modules that hold a marked one, under whatever name, and of the teacher.

    >>> net = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
    >>> sorted(ancestors(net, {"0.0"}))
    ['', '0']
    """
    known = canonical_names(teacher)
    found = {""}
    for name, first in known.items():
        if first in marked:
            parts = name.split(".")
            found.update(known[".".join(parts[:i])] for i in range(1, len(parts)))
    return found
