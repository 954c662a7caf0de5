"""Named pipes as sources: what comes out of them is kept in a file, because a video is read twice."""

from __future__ import annotations

import os
import select
import stat
import tempfile
import time
from pathlib import Path
from typing import IO

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import reason

__all__ = ["is_pipe", "spooled"]

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
