"""Processes that are killed, and runs of the scripts beside this file that kill processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def forked(line: Sequence[str], said: Path | str = os.devnull) -> int:
    """Run a command of `shortcutv2v` in a child, which appends all it prints to `said`; return its number."""
    from shortcutv2v.cli import main

    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            code = main(line)
        os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a child; return its exit code, less than 0 if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(script: str, folder: Path, kills: int) -> dict[str, Any]:
    """Run a script that kills its own processes; returns what it prints last: how often each outcome came."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).parent / script), str(folder), str(kills)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found
