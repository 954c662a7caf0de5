"""Training under kills: a run that was killed and resumed ends as one that was left alone, bit for bit."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from killing import killed

KILLS = 20

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to kill are forked")


@pytest.mark.faults
def test_killed_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = killed("kill_trainings.py", tmp_path, KILLS)
    counts = Counter(found["counts"])
    with capsys.disabled():
        resumed, others = found["resumed"], len(found["other"])
        print(f"\nkilled trainings: {KILLS} tried, {resumed} with a checkpoint, ", end="")
        print(f"{counts['right']} right, {counts['refused']} refused, {others} anything else")
    assert not found["other"], json.dumps(found["other"], indent=1)
    assert found["resumed"] >= KILLS // 4  # kills come while there is something to lose
