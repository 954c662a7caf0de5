"""A lock on a folder that only one process at a time writes to; it ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shortcutv2v.errors import InputError

__all__ = ["held", "lock", "locked"]

# Windows has no such lock; two runs in one folder are then the user's business.
fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

_held: set[int] = set()


def lock(handle: int) -> bool:
    """Lock an open file or folder until it is closed; return False if another process has locked it."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a network file system without locks
            pass
    return True


@contextlib.contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Lock an existing folder; nothing is written into it.

    Args:
        folder: the folder.
        refusal: the message if another process holds the lock.

    Raises:
        InputError: another process holds it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder), "in use"):
        ...     with locked(Path(folder), "in use"):
        ...         pass
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: in use
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    _held.add(handle)
    try:
        if not lock(handle):
            raise InputError(refusal)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def held(folder: Path) -> bool:
    """True if this process holds the lock of the folder. Always true where the system has no such locks."""
    return fcntl is None or any(os.path.samestat(os.fstat(handle), folder.stat()) for handle in _held)


def _let_go() -> None:
    """Close the locks in a forked child: reading processes outlive a killed run by seconds."""
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
