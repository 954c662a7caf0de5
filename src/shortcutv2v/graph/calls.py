"""Watching module calls: the one place that patches `nn.Module.__call__`, for the length of a `with` block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import nn

from .cut import canonical_names

__all__ = ["Watcher", "ancestors", "module_names", "patched_calls"]

_PATCH = threading.RLock()


class Watcher(Protocol):
    """Whoever wants to see the calls. While `quiet` is not 0, calls go straight to the modules."""

    quiet: int

    def call_module(self, module: nn.Module, args: Any, kwargs: Any, original: Callable[..., Any]) -> Any:
        """Handle one call; `original(module, *args, **kwargs)` runs it."""
        ...


@contextlib.contextmanager
def patched_calls(watcher: Watcher) -> Iterator[None]:
    """Route every module call of this thread through the watcher; one watcher at a time in the process."""
    with _PATCH:
        original = nn.Module.__call__
        owner = threading.get_ident()

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if watcher.quiet or threading.get_ident() != owner:
                return original(module, *args, **kwargs)
            return watcher.call_module(module, args, kwargs, original)

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]


def module_names(teacher: nn.Module) -> dict[int, str]:
    """The first name of every module by its id; the teacher's own is ""."""
    canonical = canonical_names(teacher)
    return {id(m): canonical[n] if n else "" for n, m in teacher.named_modules()}


def ancestors(teacher: nn.Module, marked: set[str]) -> set[str]:
    """The first names of all modules that hold one of the marked ones, under whatever name; the teacher included.

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
