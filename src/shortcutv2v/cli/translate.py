"""`shortcutv2v translate`: video in, video out."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import Harmless, say
from shortcutv2v.cli.report import check_report, report_run
from shortcutv2v.cli.setup import frame_range, frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.translate import Translator
from shortcutv2v.wrap import wrap

__all__ = ["run"]

_GOALS = ("interval", "quality", "speed")


def run(options: argparse.Namespace) -> None:
    """Translate one clip; the target appears under its name only when it is complete."""
    goal = {name: value for name in _GOALS if (value := getattr(options, name)) is not None}
    if goal.keys() - ({"quality"} if options.windows else set()) and options.block is None:
        raise InputError(f"--{next(iter(goal))} needs --block: without a block the teacher does every frame")
    check_report(options)
    if len(goal) > 1:
        raise InputError(f"give one of {', '.join(f'--{name}' for name in goal)}")
    start, stop = frame_range(options.frames)
    # Open the clip first, so that a bad file fails before the network is loaded.
    size = frame_size(options.size)
    with video.open(options.source, size=size, start=start, stop=stop, tone_map=options.tone_map) as clip:
        adapter = open_adapter(options, clip if options.source.is_file() or options.source.is_dir() else None)
        model = load_model(options.block, adapter, goal.pop("interval", None)) if options.block else None
        if options.windows:
            model, goal["windows"] = model or _untrained(adapter), True
        translator = Translator(adapter, model, lookahead=options.lookahead, **goal)
        begun = time.perf_counter()
        with _stoppable(options.target, translator):
            video.convert(clip, options.target, translator, crf=options.crf, audio=not options.no_audio)
        say(f"{options.target}: {_result(translator, time.perf_counter() - begun)}")
        if options.report is not None and model is not None:
            report_run(options, model, adapter, clip, start)


def _untrained(adapter: Adapter) -> ShortcutV2V:
    """Return the teacher in a stream's form, for windows that are kept or refreshed and never predicted."""
    enc_layer: Any = adapter.enc_layer
    dec_layer: Any = adapter.dec_layer
    if enc_layer is None or dec_layer is None:
        raise InputError("--windows without --block needs an adapter that names a cut: give --cut, or a --block")
    return wrap(adapter.teacher, enc_layer, dec_layer, on_leak="reuse", layout=adapter.layout)


def _result(translator: Translator, seconds: float) -> str:
    """Frames, seconds and frame rate; with a block, the stream's own summary."""
    took = f"{seconds:.1f} s ({translator.frames / max(seconds, 1e-9):.1f} fps)"
    if translator.stream is None:
        return f"{translator.frames} frames in {took}"
    return f"{translator.stream.summary()}; {took}"


class _Terminated(KeyboardInterrupt):
    """The process was told to end, by SIGTERM or SIGHUP."""


@contextlib.contextmanager
def _stoppable(target: Any, translator: Translator) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a clean end with one line: temporaries are removed."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in numbers} if ours else {}
    before = {number: old for number, old in before.items() if old is signal.SIG_DFL}  # nohup ignores SIGHUP

    def stop(number: int, frame: Any) -> None:
        raise _Terminated(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt as stopped:
        line = f"stopped after {translator.frames} frames; {target} was not written"
        if isinstance(stopped, _Terminated):
            Harmless().write(f"shortcutv2v: {line}\n")
            raise SystemExit(128 + stopped.args[0]) from None
        raise KeyboardInterrupt(line) from None
    finally:
        for number, old in before.items():
            signal.signal(number, old)
