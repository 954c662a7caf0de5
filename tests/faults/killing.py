"""Runs of the scripts beside this file that kill processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


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
