"""Keep what `torch.export` prints, logs, warns and patches away from the user and from other threads."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["patches_of_this_thread", "silent"]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Export prints, logs and warns when it gives up: swallow that, and nothing of other threads."""
    mine = _OfThisThread()
    ignore = ("ignore", mine, Warning, None, 0)
    names = [name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] == "torch"]
    handlers = [h for name in (None, *names) for h in logging.getLogger(name).handlers]
    handlers += [logging.lastResort] if logging.lastResort else []
    export_module = vars(importlib.import_module("torch.export._trace"))
    for handler in handlers:
        handler.addFilter(mine)
    # Not `catch_warnings`, which would undo what other threads change meanwhile.
    warnings.filters.insert(0, ignore)  # type: ignore[attr-defined]
    export_module["print"] = mine.print
    try:
        yield
    finally:
        del export_module["print"]
        with contextlib.suppress(ValueError):
            warnings.filters.remove(ignore)  # type: ignore[attr-defined]
        for handler in handlers:
            handler.removeFilter(mine)


@contextlib.contextmanager
def patches_of_this_thread() -> Iterator[None]:
    """Export patches the methods of `nn.Module`: keep calls of other threads out of its patches."""
    patcher = importlib.import_module("torch.fx._symbolic_trace")._Patcher
    original = patcher.patch_method

    def patch_method(self: Any, cls: type, name: str, new: Callable[..., Any], deduplicate: bool = True) -> None:
        plain, owner = getattr(cls, name), threading.get_ident()

        @functools.wraps(new)
        def patched(*args: Any, **kwargs: Any) -> Any:
            return (new if threading.get_ident() == owner else plain)(*args, **kwargs)

        original(self, cls, name, patched, deduplicate)

    patcher.patch_method = patch_method
    try:
        yield
    finally:
        patcher.patch_method = original


class _OfThisThread(logging.Filter):
    """Matches the records, warnings and prints of the thread that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let through what others log."""
        return record.thread != self.thread

    def match(self, text: str) -> bool:
        """Find this thread's warnings, in the place of a regular expression."""
        return threading.get_ident() == self.thread

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print for others."""
        if threading.get_ident() != self.thread:
            print(*args, **kwargs)  # noqa: T201 - on behalf of torch
