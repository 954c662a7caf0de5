"""Training under kills: a run that was killed and resumed ends as one that was left alone, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KILLS = 20

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forked")


@pytest.mark.faults
def test_killed_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "kill_trainings.py"), str(tmp_path), str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    counts = Counter(found["counts"])
    with capsys.disabled():
        resumed, others = found["resumed"], len(found["other"])
        print(f"\nkilled trainings: {KILLS} tried, {resumed} with a checkpoint, ", end="")
        print(f"{counts['right']} right, {counts['refused']} refused, {others} anything else")
    assert not found["other"], json.dumps(found["other"], indent=1)
    assert found["resumed"] >= KILLS // 4  # kills come while there is something to lose
