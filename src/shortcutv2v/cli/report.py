"""`shortcutv2v report`: one self-contained page about a block on a clip."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.cli.measure import Frames, check_target, goals, settings
from shortcutv2v.cli.setup import frame_range, frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Setting
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.report import FRAMES, write_report

__all__ = ["check_report", "report_run", "run", "write"]


def run(options: argparse.Namespace) -> None:
    """Measure the clip and write the page to `--out`."""
    _, asked = goals(options)
    metrics, files = settings(options)
    check_target(options.out)
    if options.largest < 1:
        raise InputError(f"--largest {options.largest}: expected a number of kB, at least 1")
    others = _others(options.compare)
    start, stop = frame_range(options.frames)
    with video.open(options.source, size=frame_size(options.size), start=start, stop=stop) as clip:
        adapter = open_adapter(options)
        model = load_model(options.block, adapter)
        setting = Setting(float(clip.rate), adapter, files)
        write(
            options.out,
            model,
            clip,
            start,
            setting,
            goals=asked,
            metrics=metrics,
            others=others,
            inspected=options.inspect,
            largest=1000 * options.largest,
            lookahead=options.lookahead,
        )


def check_report(options: argparse.Namespace) -> None:
    """Raise `InputError` before any work if `translate --report` cannot write its page."""
    if options.report is not None and options.block is None:
        raise InputError("--report needs --block: it compares the block with the teacher")
    if options.report is not None and options.windows:
        raise InputError("--report shows a run on whole frames: leave out --windows")
    check_target(options.report)


def report_run(options: argparse.Namespace, model: ShortcutV2V, adapter: Adapter, clip: video.Clip, start: int) -> None:
    """Write the page about a run of `translate`: the same clip, goal and direction of time, beside the teacher."""
    goal = {name: value for name in ("quality", "speed") if (value := getattr(options, name)) is not None}
    shown = [f"{name} {value}" for name, value in {"interval": options.interval, **goal}.items() if value is not None]
    goals = {", ".join([*shown, *(["from both sides"] if options.both else [])]) or "the block's own policy": goal}
    setting = Setting(float(clip.rate), adapter)
    write(options.report, model, clip, start, setting, goals=goals, lookahead=options.lookahead)


def write(path: Path, model: ShortcutV2V, clip: video.Clip, start: int, setting: Setting, **options: Any) -> None:
    """Write the page about the first frames of a clip, and say where it is.

    Args:
        path: of the page.
        model: the wrapped teacher.
        clip: is read anew.
        start: number of its first frame.
        setting: for the metrics, with the adapter.
        options: as `write_report` takes them.
    """
    frames = Frames(clip)
    read = list(itertools.islice(frames, FRAMES + 1))
    assert setting.adapter is not None  # noqa: S101 (the callers give it)
    title, times = clip.path.name, [float(time) for time in frames.times[:FRAMES]]
    write_report(model, setting.adapter, read, path, title=title, setting=setting, start=start, times=times, **options)
    more = f"; it shows the first {FRAMES} frames, --frames START:STOP chooses others" if len(read) > FRAMES else ""
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB{more}")


def _others(paths: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """Return the runs in files that `measure --json` wrote, each under the name of its file."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        try:
            runs = json.loads(path.read_text())["runs"]
            found |= {f"{path.stem}: {name}": {**run, "group": path.stem} for name, run in runs.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"--compare {path}: expected a file that `shortcutv2v measure --json` wrote ({error})"
            ) from None
    return found
