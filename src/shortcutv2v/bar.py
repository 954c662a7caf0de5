"""Progress bars and lines that can never end a run: if nobody can read them, they are dropped."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

__all__ = ["Harmless", "bar", "say"]


class Harmless(io.TextIOBase):
    """Standard error as it is at each write, which may be closed, full, or missing; errors of writing are swallowed.

    Examples:
        >>> Harmless().write("")
        0
    """

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of standard error; ASCII if there is none."""
        return str(getattr(sys.stderr, "encoding", None) or "ascii")

    def write(self, text: str) -> int:
        """Write `text`, or drop it."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush, if this is possible."""
        self._try("flush")

    def isatty(self) -> bool:
        """Return whether standard error is a terminal."""
        return bool(self._try("isatty"))

    def fileno(self) -> int:
        """Return its number, from which tqdm takes the width; -1 if it has none."""
        number = self._try("fileno")
        return -1 if number is None else int(number)

    def _try(self, name: str, *args: Any) -> Any:
        try:
            return getattr(sys.stderr, name)(*args)
        except (OSError, ValueError, AttributeError):
            return None


def bar(**options: Any) -> Any:
    """Return a tqdm bar on standard error that cannot raise.

    Args:
        options: as `tqdm.tqdm` takes them.
    """
    from tqdm import tqdm

    return tqdm(file=Harmless(), **options)


def say(line: str) -> None:
    """Print a line on standard output; if it is full or closed, drop the line and close the output for good."""
    try:
        print(line, flush=True)  # noqa: T201 - the one place
    except UnicodeEncodeError:
        say(line.encode("ascii", "backslashreplace").decode())
    except (OSError, ValueError, AttributeError):
        _drop(1, sys.stdout)


def _drop(number: int, stream: Any) -> None:
    """Let what is left of a stream go to nowhere, so that the interpreter does not fail on it at its end."""
    try:
        if stream is not None and stream.fileno() == number:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
    except (OSError, ValueError):
        return
