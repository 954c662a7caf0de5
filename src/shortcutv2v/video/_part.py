"""Temporary places for results: locked while one process writes, named like the target when they are whole.

The name of the temporary follows from the target's. So a second run finds the lock of the first, and a later run finds
and removes what a killed one left. The lock is the operating system's and ends with its process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

from shortcutv2v import locks
from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import reason

__all__ = ["FilePart", "FolderPart", "Part", "PipePart"]


class Part(ABC):
    """The place where a result is made before it gets its name.

    Args:
        target: the name it is to get, as the user wrote it. A link stays a link: its file is replaced.

    Attributes:
        path: where to write.

    Raises:
        VideoError: the target cannot be written, or another run is writing it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._lock: int | None = None
        try:
            self.real = Path(os.path.realpath(target))
            if not self.real.parent.is_dir():
                raise VideoError(f"{target}: the folder {self.real.parent} does not exist; create it first")
            self.path = self._place()
            self._claim()
            self._empty()
        except VideoError:
            self.remove()
            raise
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            self.remove()
            raise self.refused(error) from error

    def refused(self, error: BaseException) -> VideoError:
        """Return the error for a target that the system refuses."""
        name = str(self.target).replace("\0", "\\0")
        return VideoError(f"{name}: cannot be written ({reason(error)}); choose a place with write access and room")

    def finish(self) -> None:
        """Give the result its name.

        Raises:
            VideoError: it cannot get this name any more; the message says where the result is kept.
        """
        try:
            self._rename()
        except OSError as error:
            kept = self._free_name()
            os.rename(self.path, kept)
            raise VideoError(
                f"{self.target}: complete, but it cannot get this name ({reason(error)}); it is kept as {kept}"
            ) from error

    def remove(self) -> None:
        """Remove the temporary, if it is still there and ours."""
        if self._lock is None:
            return
        self._delete()
        os.close(self._lock)
        self._lock = None

    def _claim(self) -> None:
        """Make the temporary and lock it."""
        while self._lock is None:
            self._make()
            try:
                lock = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # the run that held it has just ended
            if not locks.lock(lock):
                os.close(lock)
                raise VideoError(
                    f"{self.target}: another run is writing this target; wait for it, or choose another name"
                )
            if os.fstat(lock).st_nlink and os.path.exists(self.path) and os.path.samefile(lock, self.path):
                self._lock = lock
            else:
                os.close(lock)  # renamed or removed by the run that held it, just now

    def _place(self) -> Path:
        """Return the temporary's path, with a name short enough even if the target's own is as long as can be."""
        name = os.fsencode(self.real.name)
        start = name[:60].decode("utf-8", "ignore")
        return self.real.parent / f".{start}.{hashlib.sha256(name).hexdigest()[:8]}.part"

    def _free_name(self) -> Path:
        """Return a name like the target's that nothing has."""
        names = (self.path.parent / f"{self.real.stem[:40]}-{n}{self.real.suffix}" for n in range(1, 10_000))
        return next((name for name in names if not name.exists()), self.path)

    @abstractmethod
    def _make(self) -> None:
        """Make the temporary, unless it is there."""

    @abstractmethod
    def _empty(self) -> None:
        """Remove what a killed run left in it, and check that it can be written."""

    @abstractmethod
    def _rename(self) -> None:
        """Give the result its name."""

    @abstractmethod
    def _delete(self) -> None:
        """Remove the temporary."""


class FilePart(Part):
    """A file beside the target."""

    def _make(self) -> None:
        if self.real.exists() and not self.real.is_file():
            raise VideoError(f"{self.target}: exists and is not a file; choose another name")
        with self.path.open("ab"):
            pass

    def _empty(self) -> None:
        with self.path.open("wb"):
            pass

    def _rename(self) -> None:
        os.replace(self.path, self.real)

    def _delete(self) -> None:
        self.path.unlink(missing_ok=True)


class FolderPart(Part):
    """A folder: beside the target if that does not exist yet, else in it.

    An empty folder may be a mount point, the current folder, or behind a link: it cannot be replaced, but files can be
    moved into it.
    """

    def _place(self) -> Path:
        beside = super()._place()
        self._into = self.real.exists()
        if not self._into:
            return beside
        if not self.real.is_dir():
            raise VideoError(
                f"{self.target}: is a file already, and a name without suffix means a folder of frames; "
                "choose another name"
            )
        if any(_counts(file) for file in self.real.iterdir()):
            raise VideoError(f"{self.target}: the folder is not empty; choose another name, or empty it yourself first")
        return self.real / beside.name

    def _make(self) -> None:
        if not self.path.is_dir():
            self.path.mkdir()

    def _empty(self) -> None:
        for file in self.path.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        trial = self.path / ".trial"
        trial.touch()
        (trial.rename(self.real / trial.name) if self._into else trial).unlink()

    def _rename(self) -> None:
        if not self._into:
            os.rename(self.path, self.real)
            return
        files = sorted(self.path.iterdir())
        taken = [file.name for file in files if (self.real / file.name).exists()]
        if taken:
            raise FileExistsError(17, f"{taken[0]} exists in it by now")
        try:
            for file in files:
                file.rename(self.real / file.name)
        except BaseException:  # also a signal: all of the frames, or none
            for file in files:
                if not file.exists():
                    (self.real / file.name).rename(file)
            raise

    def _delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class PipePart:
    """Standard output in the place of a `Part`: nothing to lock, to rename or to remove."""

    target = path = Path("standard output")

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def refused(self, error: BaseException) -> VideoError:
        """Return the error for a pipe whose reader has ended."""
        return VideoError(f"{self.target}: cannot be written ({reason(error)}); the program that reads it has ended")

    def finish(self) -> None:
        """Do nothing."""

    remove = finish


def _counts(file: Path) -> bool:
    """Return whether a file makes a folder one that is not empty; not what systems put into every folder."""
    return not file.name.startswith(".") and file.name not in {"lost+found", "Thumbs.db", "desktop.ini"}
