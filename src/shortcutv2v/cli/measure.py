"""`shortcutv2v measure`: quality and time of a trained block on a clip, beside the teacher and the free baselines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from shortcutv2v import video
from shortcutv2v.cli.setup import LONGEST, frame_range, frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Interpolator, Macs, Metric, measure
from shortcutv2v.measure.scores import Scores
from shortcutv2v.precision import beside
from shortcutv2v.report import about
from shortcutv2v.show.page import markdown, save

__all__ = [
    "Frames",
    "check_target",
    "goals",
    "interval_table",
    "quality_table",
    "run",
    "settings",
    "time_table",
]


QUICK = ("psnr", "ssim", "ms_ssim", "flicker", "warping")
"""Metrics that take no longer than the networks."""


def run(options: argparse.Namespace) -> None:
    """Translate the clip with teacher and wrapped model, frame by frame in turn; print tables and the worst frames."""
    start, stop = frame_range(options.frames)
    intervals, asked = goals(options)
    metrics, files = settings(options)
    rival = Interpolator(options.interpolate) if options.interpolate else None
    for path in (options.json, options.csv):
        check_target(path)
    with video.open(options.source, size=frame_size(options.size), start=start, stop=stop) as clip:
        target = open_adapter(options, own_precision=True) if options.dtype else None
        adapter = open_adapter(options, clip)
        model = load_model(options.block, adapter)
        found: dict[str, Scores] = {}
        for name, goal in asked.items():
            frames = Frames(clip)
            given = {"rate": float(clip.rate), "files": files, "lookahead": options.lookahead, "target": target}
            given["interpolate"] = rival
            found[name] = measure(model, adapter, frames, metrics, **given, **goal)
        if target is not None:
            print(f"{beside(adapter, target, clip)}\n")
    scores = next(reversed(found.values()))
    if intervals:
        print("\n".join([*interval_table(dict(zip(intervals, found.values(), strict=True))), ""]))
        for name, each in found.items():
            print(f"{name}, {_worst(each, start, frames.times)}")
    else:
        tables = [*quality_table({options.source.name: scores}), "", *markdown(scores.table(scores.methods, start)), ""]
        print("\n".join([*tables, *time_table(scores), "", _worst(scores, start, frames.times)]))
    print(*scores.remarks(), sep="\n")
    if options.json:
        runs = {name: each.to_dict() for name, each in found.items()}
        save(json.dumps({**about(model), "clip": str(options.source), "runs": runs}, indent=1), options.json)
    if options.csv:
        scores.write_csv(options.csv, start, map(float, frames.times))


def goals(options: argparse.Namespace) -> tuple[list[int], dict[str, dict[str, Any]]]:
    """Return the intervals that were asked for, and the runs: name -> goal of the stream."""
    intervals = _intervals(options.intervals)
    if intervals and options.quality is not None:
        raise InputError("give one of --intervals, --quality")
    if intervals:
        return intervals, {f"interval {interval}": {"refresh": interval} for interval in intervals}
    if options.quality is not None:
        return [], {f"quality {options.quality}": {"quality": options.quality}}
    return [], {"the block's own policy": {}}


def settings(options: argparse.Namespace) -> tuple[list[str] | None, dict[str, str]]:
    """Return the names of `--metrics`, None for all, and the values of `--use`."""
    pairs = [entry.partition("=") for entry in options.use]
    for entry, (name, equals, value) in zip(options.use, pairs, strict=True):
        if not (equals and value and name in Metric.known):
            raise InputError(f"--use {entry!r}: expected METRIC=FILE with one of {', '.join(sorted(Metric.known))}")
    values = {name: value for name, _, value in pairs}
    if options.metrics == "all":
        return None, values
    names = [name.strip() for name in options.metrics.split(",")] if options.metrics else QUICK
    return list(dict.fromkeys(["psnr", "ssim", *names, *values])), values


@dataclass
class Frames:
    """The frames of a clip, and their times once they were read."""

    clip: video.Clip
    times: list[Fraction] = field(default_factory=list)

    def __iter__(self) -> Iterator[Tensor]:
        for time, frame in self.clip.timed():
            self.times.append(time)
            yield frame


def check_target(path: Path | None) -> None:
    """Raise `InputError` before any work if a file could not be written there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")


def _worst(scores: Scores, start: int, times: Sequence[Fraction]) -> str:
    """Name the worst frames, so that they can be looked at."""
    frames = (
        f"{start + score.number} at {float(times[score.number]):.2f} s ({score.psnr['ours']:.2f} dB, "
        f"distance {score.distance})"
        for score in scores.worst()
    )
    return f"worst frames: {', '.join(frames)}"


def interval_table(scores: dict[int, Scores]) -> Iterator[str]:
    """Markdown lines: quality and time by interval, over the shortcut frames, beside the free baselines."""
    methods = next(iter(scores.values())).methods
    titles = [f"{title}, dB" for title in methods.values()]
    rows = [["interval", *titles, "worst frame, dB", "SSIM", "ms per frame", "x faster"]]
    for interval, found in scores.items():
        numbers = [f"{value:.2f}" for value in (*map(found.psnr, methods), found.worst_psnr("ours"))]
        speed = [f"{found.average_seconds * 1000:.0f}", f"{found.speed:.2f}"]
        rows.append([str(interval), *numbers, f"{found.ssim('ours'):.4f}", *speed])
    return markdown(rows, names=0)


def quality_table(scores: dict[str, Scores]) -> Iterator[str]:
    """Markdown lines: PSNR and SSIM to the teacher's output over the shortcut frames, by clip and method."""
    distances = sorted({frame.distance for part in scores.values() for frame in part.at()})
    rows = [["part", "method", "PSNR dB", *(f"distance {d}" for d in distances), "worst frame", "SSIM"]]
    for part, found in scores.items():
        for method, title in found.methods.items():
            values = [found.psnr(method), *(found.psnr(method, d) for d in distances), found.worst_psnr(method)]
            rows.append([part, title, *(f"{value:.2f}" for value in values), f"{found.ssim(method):.4f}"])
    return markdown(rows, names=2)


def time_table(scores: Scores, work: Macs | None = None, interval: int = 1) -> Iterator[str]:
    """Markdown lines: milliseconds of each kind of frame; with `work`, multiply-adds at an interval, too."""
    rows = [["", "ms", "x faster", *([] if work is None else ["multiply-adds G", "x fewer"])]]
    seconds = (scores.teacher_seconds, scores.shortcut_seconds, scores.average_seconds)
    macs = [0.0] * 3 if work is None else [work.teacher, work.shortcut, work.amortised(interval)]
    for name, took, count in zip(("teacher", "shortcut", "average video"), seconds, macs, strict=True):
        fewer = [] if work is None else [f"{count / 1e9:.2f}", f"{work.teacher / count:.2f}"]
        rows.append([f"{name} frame", f"{took * 1000:.0f}", f"{seconds[0] / took:.2f}", *fewer])
    return markdown(rows)


def _intervals(text: str | None) -> list[int]:
    """The intervals of `--intervals`, in order, each once."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 2 <= int(part) <= LONGEST for part in parts):
        raise InputError(
            f"--intervals {text}: expected whole numbers of 2 or more between commas, such as 2,3,4,6 (at interval 1 "
            "every frame is the teacher's)"
        )
    return sorted({int(part) for part in parts})
