"""Kill processes that save two models in turn, and load what is left; prints counts as JSON. Run as a process.

Arguments: the folder to save in, how many processes to kill. The process loads everything once and forks for each run.
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

import torch
from torch import nn

import shortcutv2v


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 8, 3 if i == 5 else 8, 3, padding=1) for i in range(6)]
    return nn.Sequential(*layers).eval()


def wrapped(teacher: nn.Module, seed: int, interval: int) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(seed)
    model = shortcutv2v.wrap(teacher, "1", "4", example_inputs=(torch.rand(1, 3, 16, 16),), max_interval=interval)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def state(folder: Path, teacher: nn.Module, models: list[shortcutv2v.ShortcutV2V]) -> str:
    """Return "right", "refused", or what is wrong with the folder."""
    try:
        found = shortcutv2v.load(folder, teacher)
    except shortcutv2v.ShortcutError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    for model in models:
        pairs = zip(model.parameters(), found.parameters(), strict=True)
        if all(torch.equal(a, b) for a, b in pairs):
            return "right" if found.max_interval == model.max_interval else "the recipe is that of the other model"
    return "the weights are those of no model"


def main(folder: Path, kills: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    draw, counts, other = random.Random(0), Counter[str](), {}
    teacher = network()
    models = [wrapped(teacher, seed, interval) for seed, interval in ((1, 3), (2, 9))]
    for number in range(kills):
        target = folder / str(number % 3)  # every third time the folder is the one of an earlier kill
        if number < 3 and draw.random() < 0.7:
            models[0].save(target)
        child = os.fork()
        if child == 0:
            while True:
                for model in models:
                    model.save(target)
        time.sleep(draw.uniform(0.002, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = state(target, teacher, models)
        if found == "refused" and not (target / "shortcut.json").exists():
            found = "right"  # killed before anything was there
        counts[found] += 1
        if found != "right":
            other[str(number)] = found
    for target in folder.iterdir():
        models[0].save(target)
        left = sorted(path.name for path in target.iterdir())
        if left != ["block.safetensors", "shortcut.json"]:
            other[target.name] = f"files are left: {left}"
    print(json.dumps({"counts": counts, "other": other}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
