"""Throughput of 1, 4 and 8 videos in one batch against the same videos one by one; results in `benchmarks/results/`.

    python benchmarks/streams.py [--size 90x160] [--model realesr-animevideov3-x2] [--refresh 3] [--device cpu]

Throughput does not depend on the weights of the block, so an untrained one is timed. Both ways run in turn, round by
round, so that a busy machine is busy for both; the median of the rounds is shown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import shortcutv2v
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.setup import frame_size

RESULTS = Path(__file__).parent / "results"


def timed(step: Callable[[int], Any], first: int, count: int, device: torch.device) -> float:
    """Return the seconds of `count` steps."""
    begun = time.perf_counter()
    for number in range(first, first + count):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


@torch.no_grad()
def compare(model: shortcutv2v.ShortcutV2V, n: int, frame: torch.Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Return frames per second of `n` videos in one batch, and of as many separate streams."""
    clips = torch.rand(n, 8, *frame.shape, device=frame.device)
    together = model.streams(n, refresh=options.refresh)
    apart = [model.stream(refresh=options.refresh) for _ in range(n)]
    for stream, twin in zip(apart, together.values(), strict=True):
        stream.refresh = twin.refresh
    ways: dict[str, Callable[[int], Any]] = {
        "together": lambda t: together([clip[t % 8] for clip in clips]),
        "apart": lambda t: [stream(clip[t % 8]) for stream, clip in zip(apart, clips, strict=True)],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    count = 2 * options.refresh  # steps of a round: the same phases every time
    for number in range(options.rounds + 2):
        for way, step in ways.items():
            took = timed(step, number * count, count, frame.device)
            if number > 1:  # the first rounds prepare the network
                seconds[way].append(took)
    rates = {way: count * n / median(found) for way, found in seconds.items()}
    return {"videos": n, **rates, "gain": rates["together"] / rates["apart"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="90x160")
    parser.add_argument("--model", default="realesr-animevideov3-x2")
    parser.add_argument("--refresh", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--videos", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    shortcutv2v.memory.keep_freed_memory()
    adapter = find_adapter("real_esrgan", [f"model={options.model}"])
    device = torch.device(options.device)
    adapter.teacher.to(device)
    size = frame_size(options.size)
    assert isinstance(size, tuple)
    frame = torch.rand(1, 3, *size, device=device)
    model = adapter.wrap(frame).eval()
    lines = ["| videos | together, frames/s | one by one, frames/s | gain |", "|---:|---:|---:|---:|"]
    rows = [compare(model, n, frame, options) for n in options.videos]
    for row in rows:
        lines.append(f"| {row['videos']} | {row['together']:.1f} | {row['apart']:.1f} | {row['gain']:.2f} |")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    where = f"{options.model} at {options.size}, interval {options.refresh}, {name}"
    text = f"# Videos together and one by one\n\n{where}, torch {torch.__version__}.\n\n" + "\n".join(lines) + "\n"
    kind = "cuda" if device.type == "cuda" else "cpu"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"streams_{kind}.md").write_text(text)
    (RESULTS / f"streams_{kind}.json").write_text(json.dumps({"where": where, "rows": rows}, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
