"""`shortcutv2v translate --live`: a camera, a stream, or a file at its own pace."""

from __future__ import annotations

import argparse
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from shortcutv2v import video
from shortcutv2v.bar import Harmless, say
from shortcutv2v.cli.setup import frame_size, load_model, open_adapter
from shortcutv2v.cli.translate import INPUT, OUTPUT, stoppable
from shortcutv2v.errors import InputError
from shortcutv2v.goals import parse_quality
from shortcutv2v.live import TICKS, Figures, Governor, Live
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.translate import Translator

__all__ = ["gears", "run", "seconds"]

_ABOVE, _STEP = 9.0, 3.0
"""Distance in dB of the best setting from the quality asked for, and of two settings."""
_LATEST = 250
"""Frames whose estimated quality is shown."""
_EVERY = {True: 1.0, False: 10.0}
"""Seconds between two lines: on a terminal, where they replace each other, and elsewhere."""


def run(options: argparse.Namespace, goal: dict[str, Any]) -> None:
    """Translate a live source until it ends, or until Ctrl-C."""
    unfit = [name for name in ("frames", "ray", "shard", "report", "windows") if getattr(options, name)]
    if len(options.source) > 1 or unfit:
        raise InputError(f"--live takes one source{''.join(f', and no --{name}' for name in unfit)}")
    deadline = None if options.deadline is None else seconds(options.deadline)
    if options.deadline is None and (options.at_worst or options.fast_block):
        raise InputError("--at-worst and --fast-block say what may happen for the sake of a --deadline: give one")
    if deadline is not None and options.block is None:
        raise InputError("--deadline needs --block: without a block there is nothing to choose")
    piped = str(options.target) in OUTPUT
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(video.standard_output()) if piped else options.target
        rate, frames = _open(options, stack)
        adapter = open_adapter(options)
        models = [load_model(path, adapter) for path in (options.block, options.fast_block) if path]
        translator = Translator(adapter, models[0] if models else None, **({} if deadline else goal))
        governor = None
        if deadline is not None:
            governor = Governor(deadline, gears(translator, models, goal, options.at_worst))
        base, raw = Fraction(1, TICKS), bool(options.raw) and piped
        out = stack.enter_context(
            video.create(target, rate=rate, time_base=base, crf=options.crf, preset="veryfast", raw=raw)
        )
        status = _Status(translator, governor)
        noted = (lambda latency: None) if governor is None else governor.note
        live = Live(translator, out, deadline, noted, status)
        with stoppable(lambda: f"stopped after {live.figures.shown} frames"):  # SIGTERM ends a run as Ctrl-C does
            live.run(frames)
        status.end()
    name = "standard output" if piped else options.target
    said = f"{name}: {live.figures.shown} frames; {live.figures}"
    Harmless().write(f"{said}\n") if piped else say(said)


def _open(options: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[Any, Iterator[Tensor]]:
    """Return frame rate and frames of the source."""
    [name], size = options.source, frame_size(options.size)
    if name in INPUT:
        clip = video.open(video.StandardInput(), size=size, raw=options.raw)  # a thread may wait in it to the end
        return clip.rate, iter(clip)
    if Path(name).is_file() or Path(name).is_dir():
        clip = stack.enter_context(video.open(name, size=size))
        return clip.rate, video.paced(clip)
    return video.connect(name, size=size)


def seconds(text: str) -> float:
    """Return a time as it is typed, in seconds.

    Raises:
        InputError: it is none.

    Examples:
        >>> seconds("33ms"), seconds("0.5s")
        (0.033, 0.5)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)", text)
    if found is None or float(found[1]) <= 0:
        raise InputError(f"--deadline {text}: expected a time above 0 with its unit, such as 33ms or 0.5s")
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


def gears(
    translator: Translator, models: list[ShortcutV2V], goal: dict[str, Any], at_worst: float | None
) -> list[tuple[str, Callable[[], None]]]:
    """Return the settings among which a deadline chooses, from the best to the fastest.

    With `quality`, they are qualities down to the one asked for, and to `at_worst` if that is given. With `interval` or
    nothing, they are intervals up to that one or to the one trained for. Those of a second model follow.
    """
    if "speed" in goal:
        raise InputError("--speed and --deadline contradict each other: give one")
    settings: dict[str, dict[str, Any]]
    if "quality" in goal or at_worst is not None:
        asked = parse_quality(goal["quality"] if at_worst is None else goal.get("quality", at_worst))
        if asked is None:
            raise InputError("--quality lossless leaves a --deadline nothing to choose: leave one out")
        least, share = min(asked[0], at_worst or asked[0]), asked[1]
        count = int((asked[0] + _ABOVE - least) // _STEP)
        levels = [f"{least + _STEP * step:g}dB@{share * 100:g}%" for step in range(count, -1, -1)]
        settings = {f"quality {level}": {"quality": level} for level in levels}
    else:
        longest = goal.get("interval", models[0].trained_interval or models[0].max_interval)
        settings = {f"interval {interval}": {"refresh": interval} for interval in range(1, longest + 1)}
    names = ["", "fast block, "] if len(models) > 1 else [""]
    return [
        (f"{name}{word}", partial(translator.use, model, **setting))
        for name, model in zip(names, models, strict=True)
        for word, setting in settings.items()
    ]


class _Status:
    """Completes the figures by those of the stream, and shows them in one line on standard error."""

    def __init__(self, translator: Translator, governor: Governor | None) -> None:
        self._translator, self._governor = translator, governor
        self._error = Harmless()
        self._tty = self._error.isatty()
        self._next = time.monotonic() + _EVERY[self._tty]
        self._stream, self._seen = translator.stream, 0

    def __call__(self, figures: Figures) -> None:
        stream = self._translator.stream
        if stream is not self._stream:
            self._stream, self._seen = stream, 0
        refreshes = figures.shown if stream is None else stream.refreshes.total()
        figures.refreshes += refreshes - self._seen
        self._seen = refreshes
        figures.gear = "" if self._governor is None else self._governor.name
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY[self._tty]
            self._show(figures)

    def _show(self, figures: Figures) -> None:
        policies = self._stream.policies if self._stream is not None else ()
        estimates = [*policies[0].estimates][-_LATEST:] if policies else []
        figures.estimate = fmean(estimates) if estimates else None
        self._error.write(f"\r{figures}\x1b[K" if self._tty else f"{figures}\n")
        self._error.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._tty:
            self._error.write("\n")
