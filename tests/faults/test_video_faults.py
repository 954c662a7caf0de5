"""Damaged files and killed runs, by the hundred: each ends in a right result or in one line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from killing import killed
from mutations import make, mutate

pytestmark = pytest.mark.faults
FILES, KILLS, PATIENCE = 300, 40, 60.0
HERE = Path(__file__).parent


def report(capsys: pytest.CaptureFixture[str], what: str, counts: Counter[str], other: dict[str, str]) -> None:
    with capsys.disabled():
        shown = ", ".join(f"{counts[name]} {name}" for name in ("refused", "right"))
        print(f"\n{what}: {sum(counts.values())} tried, {shown}, {len(other)} anything else")
    assert not other, json.dumps(other, indent=1)


class Reader:
    """A process that converts one file after the other; it is replaced when it dies or hangs."""

    def __init__(self) -> None:
        self._run: subprocess.Popen[str] | None = None

    def __call__(self, path: Path) -> str:
        run = self._run
        if run is None:
            self._run = run = subprocess.Popen(
                [sys.executable, str(HERE / "read_all.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        late = threading.Timer(PATIENCE, run.kill)
        late.start()
        run.stdin.write(f"{path}\n")
        run.stdin.flush()
        lines = [run.stdout.readline(), run.stdout.readline()]
        hung = not late.is_alive()
        late.cancel()
        if not lines[1]:
            self.close()
            return "hung" if hung else f"the process died ({run.returncode})"
        return lines[1].removeprefix("end ").strip()

    def close(self) -> None:
        if self._run is not None:
            self._run.stdin.close()
            self._run.wait()
            self._run.stdout.close()
            self._run = None


def test_mutated_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    clips = make(tmp_path)
    whole = {clip: clip.read_bytes() for clip in clips}
    draw, read = random.Random(11), Reader()
    request.addfinalizer(read.close)
    counts: Counter[str] = Counter()
    other = {}
    (tmp_path / "work").mkdir()
    for number in range(-len(clips), FILES):
        clip = clips[number % len(clips)]
        path = tmp_path / "work" / f"{number}-{clip.name}"
        path.write_bytes(mutate(whole[clip], draw) if number >= 0 else whole[clip])
        found = read(path)
        if number < 0:
            assert found == "right", f"{clip.name}, not damaged: {found}"
            continue
        counts[found if found in {"refused", "right"} else "else"] += 1
        if found not in {"refused", "right"}:
            other[path.name] = found
        else:
            path.unlink()
    report(capsys, "mutated files", counts, other)


def test_killed_translations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At random moments, from the first frame to the last rename; afterwards the same command succeeds."""
    make(tmp_path)
    found = killed("kill_translations.py", tmp_path, KILLS)
    report(capsys, "killed translations", Counter(found["counts"]), found["other"])
