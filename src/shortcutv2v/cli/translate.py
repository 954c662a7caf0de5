"""`shortcutv2v translate`: video in, video out."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
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

__all__ = ["INPUT", "OUTPUT", "run", "stoppable"]

_GOALS = ("interval", "quality", "speed")
INPUT, OUTPUT = {"-", "/dev/stdin", "/dev/fd/0"}, {"-", "/dev/stdout", "/dev/fd/1"}


def run(options: argparse.Namespace) -> None:
    """Translate a clip, a live source, or all films of folders; a target gets its name when it is complete."""
    goal = {name: value for name in _GOALS if (value := getattr(options, name)) is not None}
    if goal.keys() - ({"quality"} if options.windows else set()) and options.block is None:
        raise InputError(f"--{next(iter(goal))} needs --block: without a block the teacher does every frame")
    check_report(options)
    if len(goal) > 1:
        raise InputError(f"give one of {', '.join(f'--{name}' for name in goal)}")
    if options.both and ("interval" not in goal or options.live or options.windows or not options.lookahead):
        raise InputError("--both goes with --interval, and without --live, --windows and --no-lookahead")
    if options.live:
        from shortcutv2v.cli import live

        live.run(options, goal)
        return
    if options.deadline or options.at_worst or options.fast_block:
        raise InputError("--deadline, --at-worst and --fast-block are for --live")
    options.source = [Path(name) for name in options.source]
    [source] = options.source[:1]
    if len(options.source) > 1 or (source.is_dir() and source not in video.films_in(source)):
        from shortcutv2v.cli import films

        films.run(options, goal)
    elif options.ray or options.shard:
        raise InputError("--ray and --shard share out films: give a folder of films, or several")
    else:
        _one_clip(options, goal, source)


def _one_clip(options: argparse.Namespace, goal: dict[str, Any], source: Any) -> None:
    """Translate a file, a folder of frames or a pipe."""
    pipes = [str(source) in INPUT, str(options.target) in OUTPUT]
    if options.raw and not any(pipes):
        raise InputError("--raw is for pipes: give - as the source, the target or both")
    if options.report and pipes[0]:
        raise InputError("--report reads the clip again, which a pipe cannot do: leave it out, or name a file")
    with contextlib.ExitStack() as stack:
        # First of all, so that nothing that is printed gets among the frames.
        target = stack.enter_context(video.standard_output()) if pipes[1] else options.target
        if pipes[0]:
            source = stack.enter_context(video.StandardInput())
        _translate(options, goal, source, target)


def _translate(options: argparse.Namespace, goal: dict[str, Any], source: Any, target: Any) -> None:
    """Translate from a file or pipe to another."""
    start, stop = frame_range(options.frames)
    again = isinstance(source, Path) and (source.is_file() or source.is_dir())
    # Open the clip first, so that a bad file fails before the network is loaded.
    size, raw = frame_size(options.size), options.raw if isinstance(source, video.StandardInput) else None
    with video.open(source, size=size, start=start, stop=stop, tone_map=options.tone_map, raw=raw) as clip:
        adapter = open_adapter(options, clip if again else None)
        model = load_model(options.block, adapter, goal.pop("interval", None), options.both) if options.block else None
        if options.windows:
            model, goal["windows"] = model or _untrained(adapter), True
        translator = Translator(adapter, model, lookahead=options.lookahead, **goal)
        begun = time.perf_counter()
        piped = target is not options.target
        name = "standard output" if piped else options.target
        with stoppable(lambda: f"stopped after {translator.frames} frames; {name} was not written"):
            how = {"crf": options.crf, "audio": not options.no_audio, "raw": bool(options.raw) and piped}
            video.convert(clip, target, translator, **how)
        said = f"{name}: {_result(translator, time.perf_counter() - begun)}"
        Harmless().write(f"{said}\n") if piped else say(said)
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
def stoppable(line: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a clean end with a line: temporaries are removed."""
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
        if isinstance(stopped, _Terminated):
            Harmless().write(f"shortcutv2v: {line()}\n")
            raise SystemExit(128 + stopped.args[0]) from None
        raise KeyboardInterrupt(line()) from None
    finally:
        for number, old in before.items():
            signal.signal(number, old)
