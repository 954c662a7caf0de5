"""Two files of one folder, replaced together: whoever reads them, at any moment, gets a pair that belongs together."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from shortcutv2v.errors import InputError
from shortcutv2v.locks import held, locked

__all__ = ["read", "replace", "write"]

_PATIENCE = 5.0
"""Seconds to wait for another process that writes to the same folder."""
_one_at_a_time = threading.Lock()


def write(folder: Path, name: str, data: bytes, digest: str, index: str, text: bytes) -> None:
    """Replace two files.

    The data is written beside the old data first, under a name that contains its digest. Then the index, which names
    the digest, is replaced: that is the one moment at which the new pair takes effect. Last, the data takes its name.

    Args:
        folder: where.
        name: the name of the data file.
        data: its content.
        digest: the hash of the content, which the index contains.
        index: the name of the index file.
        text: its content.

    Raises:
        OSError: a file cannot be written.
    """
    with _alone(folder) as alone:
        waiting = folder / _waiting(name, digest)
        replace(waiting, data)
        replace(folder / index, text)
        os.replace(waiting, folder / name)
        # Writers that were killed have left files of these names.
        for stale in (*folder.glob(f".{name}.*"), *folder.glob(f".{index}.*")) if alone else ():
            stale.unlink(missing_ok=True)


def read(folder: Path, name: str, digest: str) -> bytes:
    """Return the data with this digest, if it is there, else the content of the data file.

    The data of a writer that was killed before its last step still has its first name.

    Raises:
        OSError: the data file cannot be read.
    """
    with contextlib.suppress(OSError, ValueError):
        return (folder / _waiting(name, digest)).read_bytes()
    return (folder / name).read_bytes()


def _waiting(name: str, digest: str) -> str:
    return f".{name}.{digest[:32]}"


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a reader, and a killed process, leave no half of it."""
    partial = path.with_name(f".{path.name.removeprefix('.')}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait until no other thread or process writes to the folder; False after a long wait in vain."""
    end = time.monotonic() + _PATIENCE
    with _one_at_a_time, contextlib.ExitStack() as stack:
        while not held(folder):  # a training run holds the lock of its folder
            try:
                stack.enter_context(locked(folder, "another process writes to it"))
            except InputError:
                if time.monotonic() > end:
                    yield False
                    return
                time.sleep(0.02)
        yield True
