"""Leases: files that say which process works on an item, and go stale when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import uuid
from pathlib import Path

__all__ = ["Lease", "take"]

BEAT, STALE = 5.0, 60.0
"""Seconds from one sign of life to the next, and without one until a lease is stale."""


class Lease(contextlib.AbstractContextManager["Lease"]):
    """A lease that this process holds; leave the `with` block to give it back.

    Args:
        path: its file.
        token: tells this lease from all others.
    """

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._token = path, token
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._live, daemon=True)
        self._beat.start()

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if _owner(self._path).get("token") == self._token:
            with contextlib.suppress(OSError):
                self._path.unlink()


def take(path: Path) -> Lease | None:
    """Take the lease at `path`; return None if a living process holds it.

    On this machine a lease is stale as soon as its process has ended, on others when it has shown no sign of life for a
    minute by the disk's own clock. If two processes ever work on one item, both make the same file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, take(Path(folder, "1.lease")):
        ...     print(take(Path(folder, "1.lease")))
        None
    """
    token = uuid.uuid4().hex
    owner: dict[str, object] = {"token": token, "host": _host(), "pid": os.getpid(), "born": _born(os.getpid())}
    for _ in range(3):
        if _claim(path, json.dumps(owner), token):
            return Lease(path, token)
        seen = _owner(path)
        if not _stale(path, seen):
            return None
        _remove(path, seen, token)
    return None


def _claim(path: Path, text: str, token: str) -> bool:
    """Make the file of a lease, with its text from the first moment on; return False if there is one."""
    draft = path.with_name(f"{path.name}.{token}.draft")
    draft.write_text(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links
        try:
            with open(path, "x") as file:
                file.write(text)
        except FileExistsError:
            return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _remove(path: Path, seen: dict[str, object], token: str) -> None:
    """Remove a stale lease; of several processes that try, one succeeds."""
    moved = path.with_name(f"{path.name}.{token}")
    with contextlib.suppress(OSError):
        os.rename(path, moved)
        if _owner(moved) != seen and not path.exists():
            os.rename(moved, path)  # another process took it over in between
        else:
            moved.unlink()


def _stale(path: Path, owner: dict[str, object]) -> bool:
    pid = owner.get("pid")
    if owner.get("host") == _host() and isinstance(pid, int) and os.name == "posix":
        return _born(pid) != owner.get("born")
    clock = path.with_name(f"{path.name}.{uuid.uuid4().hex}.clock")
    try:
        clock.touch()
        return clock.stat().st_mtime - path.stat().st_mtime > STALE
    except OSError:
        return False
    finally:
        clock.unlink(missing_ok=True)


def _owner(path: Path) -> dict[str, object]:
    """Return what a lease says; nothing if its process was killed while it wrote."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _host() -> str:
    """Return a name for the set of processes that this one can see."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _born(pid: int) -> str:
    """Return when a process began, so that a number used again is told apart; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
