"""Kill runs of `fit` at random moments, resume them, and compare with a run that was left alone; prints counts as JSON.

Arguments: a folder, how many runs to kill. The process loads everything once and forks for each run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from kill_saves import network, wrapped

from shortcutv2v.distill import LossWeights, fit
from shortcutv2v.errors import ShortcutError

STEPS = 40
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cached features": {"cache": "features"},
    "averages and discriminators": {"ema": 0.7, "weights": LossWeights(perceptual=0)},
    "reading processes": {"workers": 1},
    "validated on held-out ends": {"val_check_interval": 5},
}


def train(folder: Path, kind: str) -> None:
    """A run in this process, from the folder's checkpoint if there is one; leaves the weights in a file."""
    torch.set_num_threads(1)
    model = wrapped(network(), 1, 3)
    options = dict(KINDS[kind])
    if "cache" in options:
        options["cache"] = folder / options["cache"]
    clip = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    last = folder / "last.ckpt"
    ends: dict[str, Any] = {"minutes": None, "steps": STEPS, "save_every": 3, "progress": False}
    resume = last if last.exists() else None
    fit(model, clip, folder=folder, resume=resume, crop=8, batch_size=2, lr=1e-2, **ends, **options)
    torch.save(model.state_dict(), folder / "weights.pt")


def forked(folder: Path, kind: str) -> int:
    """Start a run in a process of its own."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        train(folder, kind)
        code = 0
    except ShortcutError as error:
        (folder / "refused").write_text(str(error))
        code = 2
    except BaseException as error:
        (folder / "error").write_text(repr(error))
    finally:
        os._exit(code)


def outcome(folder: Path, kind: str, expected: dict[str, torch.Tensor]) -> str:
    """Resume what is left in a folder; return "right", "refused" or what is wrong."""
    _, status = os.waitpid(forked(folder, kind), 0)
    if os.waitstatus_to_exitcode(status) == 2:
        return f"refused: {(folder / 'refused').read_text()}"
    if status:
        return (folder / "error").read_text() if (folder / "error").exists() else f"status {status}"
    found = torch.load(folder / "weights.pt", weights_only=True)
    if not all(torch.equal(value, found[name]) for name, value in expected.items()):
        return "the weights are other ones than without a kill"
    left = {path.name for path in folder.iterdir()} - {"last.ckpt", "logs", "weights.pt", "features"}
    return f"files are left: {left}" if left else "right"


def main(folder: Path, kills: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    draw, counts, other, resumed = random.Random(0), Counter[str](), {}, 0
    whole: dict[str, tuple[dict[str, torch.Tensor], float]] = {}
    for number in range(kills):
        kind = [*KINDS][number % len(KINDS)]
        if kind not in whole:
            alone = folder / f"whole {kind}"
            alone.mkdir()
            begun = time.monotonic()
            _, status = os.waitpid(forked(alone, kind), 0)
            assert status == 0, (alone / "error").read_text()
            whole[kind] = (torch.load(alone / "weights.pt", weights_only=True), time.monotonic() - begun)
        target = folder / str(number)
        target.mkdir()
        expected, seconds = whole[kind]
        for _ in range(draw.choice((1, 1, 2))):  # some are killed again while they go on
            child = forked(target, kind)
            time.sleep(draw.uniform(0.05, 0.95) * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        (target / "weights.pt").unlink(missing_ok=True)
        resumed += (target / "last.ckpt").exists()
        found = outcome(target, kind, expected)
        counts[found.partition(":")[0]] += 1
        if found != "right":
            other[f"{number} {kind}"] = found
    print(json.dumps({"counts": counts, "other": other, "resumed": resumed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
