"""Pipes: standard input and output as they come; named pipes through a file, because a video is read twice."""

from __future__ import annotations

import io
import os
import re
import select
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import reason

__all__ = ["Raw", "StandardInput", "is_pipe", "spooled", "standard_output"]

_PATIENCE = 30.0  # seconds until a program must have begun to write


def is_pipe(path: Path) -> bool:
    """Return whether `path` is a pipe.

    Raises:
        VideoError: it is a device or a socket, which has no end.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return False
    if not stat.S_ISFIFO(mode):
        raise VideoError(f"{path}: neither a file nor a folder nor a pipe; expected a video or a folder of frames")
    return True


def spooled(path: Path) -> IO[bytes]:
    """Read a pipe to its end into a temporary file, which disappears when it is closed or forgotten.

    Raises:
        VideoError: nobody writes into the pipe, or there is no room.
    """
    try:
        file = tempfile.NamedTemporaryFile(prefix="shortcutv2v-", suffix=".video")  # noqa: SIM115 - the caller keeps it
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            _pour(path, source, file)
        finally:
            os.close(source)
        file.flush()
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({reason(error)})") from error
    return file


def _pour(path: Path, source: int, file: IO[bytes]) -> None:
    begin, came = time.monotonic(), False
    while True:
        try:
            data = os.read(source, 1 << 20)
        except BlockingIOError:  # a writer that has nothing to say yet
            came = True
            select.select([source], [], [], 1.0)
            continue
        if data:
            came = True
            file.write(data)
        elif came:
            return
        elif time.monotonic() - begin > _PATIENCE:
            raise VideoError(f"{path}: nobody writes into this pipe; start the program that writes, or name a file")
        else:
            time.sleep(0.05)


@dataclass(frozen=True)
class Raw:
    """Frames without any header: RGB, 3 bytes a pixel, row by row.

    Attributes:
        width, height: of the frames.
        rate: frames per second.
    """

    width: int
    height: int
    rate: Fraction

    @staticmethod
    def parse(text: str) -> Raw:
        """Read "WIDTHxHEIGHT@RATE", as in `Raw.parse("640x360@30000/1001")`.

        Raises:
            VideoError: the text says something else.
        """
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})@([1-9]\d*(?:\.\d+|/[1-9]\d*)?)", text)
        if found is None:
            raise VideoError(f"raw={text!r}: expected WIDTHxHEIGHT@RATE, such as 640x360@25 or 640x360@30000/1001")
        return Raw(int(found[1]), int(found[2]), Fraction(found[3]))

    @property
    def options(self) -> dict[str, str]:
        """The options of FFmpeg's reader."""
        return {
            "video_size": f"{self.width}x{self.height}",
            "pixel_format": "rgb24",
            "framerate": f"{self.rate.numerator}/{self.rate.denominator}",
        }


class StandardInput(io.FileIO):
    """Standard input, unbuffered, so that a frame is there as soon as it has been written.

    Attributes:
        count: the bytes read so far; of a file, those that it holds.

    Raises:
        VideoError: it is closed, or it is a terminal.
    """

    def __init__(self) -> None:
        try:
            super().__init__(0, "rb", closefd=False)
        except OSError as error:
            raise VideoError(f"standard input: cannot be read ({reason(error)}); pipe a video into it") from error
        if self.isatty():
            raise VideoError("standard input: a terminal; pipe a video into it, or name a file")
        self.count = os.fstat(0).st_size if self.seekable() else 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return what has been written so far, at most `size` bytes; wait for the first of them."""
        data = super().read(-1 if size is None else size) or b""
        if not self.seekable():
            self.count += len(data)
        return data


@contextmanager
def standard_output() -> Iterator[IO[bytes]]:
    """Yield standard output for frames; meanwhile, everything else that is printed goes to standard error.

    Raises:
        VideoError: it is closed, or it is a terminal.
    """
    try:
        if os.isatty(1):
            raise VideoError("standard output: a terminal; pipe it into a program, or name a file")
        kept = os.dup(1)
    except OSError as error:
        raise VideoError(f"standard output: cannot be written ({reason(error)}); pipe it into a program") from error
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        words = os.open(os.devnull, os.O_WRONLY) if kept == 2 else 2  # standard error is closed
        os.dup2(words, 1)
        with open(kept, "wb", closefd=False) as file:
            yield file
    finally:
        os.dup2(kept, 1)
        os.close(kept)
