"""One process at a time: the second is refused at once, and a killed one leaves no lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shortcutv2v.errors import InputError
from shortcutv2v.locks import locked

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="locks are those of Unix")


def holder(folder: Path, then: str) -> Any:
    """A process that holds the lock of `folder`, and does `then`."""
    code = f"""
import os, pathlib, sys, time
from shortcutv2v.locks import locked
with locked(pathlib.Path({str(folder)!r}), "in use"):
    {then}
    print("held", flush=True)
    time.sleep(60)
"""
    process: Any = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("then", ["pass", "child = os.fork() or (time.sleep(20), os._exit(0))"])
def test_a_killed_process_leaves_no_lock(then: str, tmp_path: Path) -> None:
    process = holder(tmp_path, then)
    with pytest.raises(InputError, match="in use"), locked(tmp_path, "in use"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    begun = time.monotonic()
    with locked(tmp_path, "in use"):
        assert time.monotonic() - begun < 5
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(3):
        with locked(tmp_path, "in use"):
            pass
