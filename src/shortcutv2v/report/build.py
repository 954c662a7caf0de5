"""Measure a clip and write its page."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.devices import device_name
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Panel, Scores, Setting, compare, inspect, profile
from shortcutv2v.measure.stages import stages
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.report.collect import FRAMES, LARGEST, Reel
from shortcutv2v.report.sections import Report
from shortcutv2v.translate import from_uint8

__all__ = ["about", "write_report"]


def about(model: ShortcutV2V) -> dict[str, Any]:
    """Return versions, device, cut and policy as plain values: what a reader needs to repeat a measurement."""
    program = Path(sys.argv[0]).stem
    names = ("shortcutv2v", "torch")
    return {
        "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in names}},
        "device": device_name(placement(model.teacher)[0]),
        "teacher": type(model.teacher).__name__,
        "cut": model.cut.short,
        "block": ", ".join(f"{block.variant}, {block.channels} channels" for block in model.blocks),
        "policy": str(model.refresh),
        "command": shlex.join([{"__main__": "shortcutv2v"}.get(program, program), *sys.argv[1:]]),
    }


def write_report(
    model: ShortcutV2V,
    adapter: Adapter,
    frames: Iterable[Tensor],
    path: str | Path,
    *,
    title: str = "clip",
    goals: Mapping[str, Mapping[str, Any]] | None = None,
    metrics: Sequence[str] | None = ("psnr", "ssim", "flicker", "warping"),
    setting: Setting | None = None,
    others: Mapping[str, dict[str, Any]] | None = None,
    start: int = 0,
    times: Sequence[float] = (),
    lookahead: bool = False,
    inspected: bool = False,
    largest: int = LARGEST,
    extra: Sequence[str] = (),
) -> Report:
    """Measure a clip and write one self-contained page about it.

    Args:
        model: the wrapped teacher.
        adapter: how frames become inputs, and outputs frames.
        frames: uint8 (3, H, W), in order; the first `FRAMES` are used. Every goal reads them anew.
        path: of the HTML file.
        title: name of the clip.
        goals: name -> `refresh`, `quality` or `speed`; the first is shown frame by frame, the others are points of the
            quality-speed plot. Default: the model's own policy.
        metrics: names; None for all.
        setting: frame rate and files for the metrics.
        others: more points: name -> what `Scores.to_dict()` returned, measured elsewhere.
        start: number of the first frame in the clip.
        times: of the frames, in seconds; default: by the frame rate.
        lookahead: predict from references on both sides, as `translate` does.
        inspected: try other cuts on the clip, too; otherwise the teacher's stages alone are shown.
        largest: bytes of its pictures, at most.
        extra: more sections, HTML; they follow the time of a frame.

    Returns:
        The content of the page.

    Raises:
        InputError: no frame took the shortcut.
    """
    clip = [frame for frame, _ in zip(frames, range(FRAMES), strict=False)]
    if not clip:
        raise InputError("a report needs frames: the clip is empty")
    setting = setting or Setting(adapter=adapter)
    asked = goals or {"the block's own policy": {}}
    run = partial(_run, model, adapter, clip, setting, lookahead)
    scores, reel = run(metrics, next(iter(asked.values())), Reel())
    runs = {
        name: (run(("psnr", "ssim"), goal)[0] if n else scores).to_dict()
        for n, (name, goal) in enumerate(asked.items())
    }
    main = next(iter(runs))
    scores.at()
    report = Report(title, main, runs | dict(others or {}), about(model), reel, scores, start=start, rate=setting.rate)
    report.times = [float(t) for t in times] or [(start + n) / setting.rate for n in range(len(clip))]
    report.extra, report.parts, report.cut = extra, _parts(model, adapter, clip[0]), str(model.cut)
    report.inspection = inspect(adapter, clip) if inspected else None
    report.stages = stages(adapter, clip[0]) if report.inspection is None else report.inspection.stages
    report.write(path, largest)
    return report


def _run(
    model: ShortcutV2V,
    adapter: Adapter,
    clip: Sequence[Tensor],
    setting: Setting,
    lookahead: bool,
    metrics: Sequence[str] | None,
    goal: Mapping[str, Any],
    reel: Reel | None = None,
) -> tuple[Scores, Reel]:
    """Measure the clip, and collect its pictures if there is a reel."""
    panel, scores = Panel(metrics, setting), Scores()
    for seen in compare(model, adapter, clip, panel=panel, lookahead=lookahead, analyse=reel is not None, **goal):
        scores.frames.append(seen.score)
        if reel is not None:
            reel.add(seen)
    return scores.close(panel), reel or Reel()


def _parts(model: ShortcutV2V, adapter: Adapter, frame: Tensor) -> dict[str, dict[str, float]]:
    """Return the times of the parts of each kind of frame."""
    args, kwargs = adapter.example(from_uint8(frame, adapter.teacher))
    found = profile(model, args, kwargs, runs=5, cuts=0, seconds=10)
    seconds = {row.name: row.latency.median for row in found.rows}
    full = {name: seconds[name] for name in ("head", "middle", "tail")}
    short = {name: seconds[name] for name in ("head", "block", "tail")}
    return {
        "teacher": full,
        "reference frame": {**full, "reference state": seconds["reference state"]},
        "shortcut": short,
    }
