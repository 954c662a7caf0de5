"""Kill translations at random moments and look at what is left; prints counts as JSON. Run as a process.

The process loads everything once and forks for each run, so that kills hit the work and not the imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from killing import ended, forked

from shortcutv2v import video

ADAPTER = """
from torch import nn
from shortcutv2v import Adapter

def build_adapter():
    return Adapter(nn.Identity())
"""


def start(source: Path, target: Path) -> int:
    """Translate in a child; return its number."""
    return forked(["translate", str(source), str(target), "--adapter", str(source.parent / "identity.py")])


def state(target: Path, frames: int) -> str:
    """Return "absent", "whole", or what is wrong with the target."""
    if not target.exists():
        return "absent"
    if target.is_dir():
        count = sum(1 for path in target.iterdir() if path.suffix == ".png")
        return "whole" if count == frames else f"{count} frames of {frames}"
    try:
        count = sum(1 for _ in video.open(target))
    except Exception as error:
        return f"unreadable: {error}"
    return "whole" if count == frames else f"{count} frames of {frames}"


def run(folder: Path, kills: int) -> dict[str, dict[str, object]]:
    (folder / "identity.py").write_text(ADAPTER)
    source, frames = folder / "a.mp4", 16
    begin = time.monotonic()
    if ended(start(source, folder / "first.mp4")) != 0:
        raise SystemExit("a run that nobody kills fails")
    lasts = time.monotonic() - begin
    draw, counts, other = random.Random(5), Counter[str](), {}
    for number in range(kills):
        target = folder / f"{number // 4}{('.mp4', '', '.mkv', '.mov')[number % 4]}"
        child = start(source, target)
        time.sleep(draw.uniform(0, lasts * 1.1))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        ended(child)
        found = state(target, frames)
        if found == "absent" and ended(start(source, target)) == 0:
            found = state(target, frames)
        right = found == "whole" and not list(folder.glob(f".{target.name}.*.part"))
        counts["right" if right else "else"] += 1
        if not right:
            other[target.name] = found
    return {"counts": dict(counts), "other": other}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
