"""`shortcutv2v translate`: video in, video out."""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from shortcutv2v import video
from shortcutv2v.bar import Harmless, say
from shortcutv2v.cli.setup import frame_range, frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.translate import Translator

__all__ = ["Timed", "run"]


def run(options: argparse.Namespace) -> None:
    """Translate one clip; the target appears under its name only when it is complete."""
    if options.interval is not None and options.block is None:
        raise InputError("--interval needs --block: without a block the teacher does every frame")
    start, stop = frame_range(options.frames)
    # Open the clip first, so that a bad file fails before the network is loaded.
    with video.open(options.source, size=frame_size(options.size), start=start, stop=stop) as clip:
        adapter = open_adapter(options)
        model = load_model(options.block, adapter, options.interval) if options.block else None
        timed = Timed(Translator(adapter, model))
        with _stoppable(options.target, timed):
            video.convert(clip, options.target, timed, crf=options.crf, audio=not options.no_audio)
    say(f"{options.target}: {timed.summary()}")


class Timed:
    """A translator that measures its frames.

    Args:
        translate: the translator.

    Attributes:
        count: frames done so far.
    """

    def __init__(self, translate: Translator) -> None:
        self.count = 0
        self._translate = translate
        self._begin = time.perf_counter()
        self._seconds: dict[str, list[float]] = {"refresh": [], "shortcut": []}

    def __call__(self, frame: Tensor) -> Tensor:
        """Translate the next frame, uint8 (3, H, W)."""
        before, begin = self._counts(), time.perf_counter()
        picture = self._translate(frame)
        seconds = time.perf_counter() - begin
        self.count += 1
        for kind, now, then in zip(self._seconds, self._counts(), before, strict=True):
            if now > then:
                self._seconds[kind].append(seconds)
        return picture

    def _counts(self) -> tuple[int, int]:
        stream = self._translate.stream
        return (0, 0) if stream is None else (sum(stream.refreshes.values()), stream.shortcuts)

    def summary(self) -> str:
        """Return frames, seconds and frame rate; with a block, refreshes and the speed relative to the teacher.

        The speed is measured on the frames that ran: a refresh costs about as much as the teacher. The first frame of
        each kind is left out if there are more, because it also prepares the network.
        """
        total = time.perf_counter() - self._begin
        parts = [f"{self.count} frames in {total:.1f} s ({self.count / max(total, 1e-9):.1f} fps)"]
        refreshes, shortcuts = (len(times) for times in self._seconds.values())
        if refreshes:
            parts.append(f"{refreshes} {'refresh' if refreshes == 1 else 'refreshes'}")
        if refreshes and shortcuts:
            full, short = (statistics.mean(times[1:] or times) for times in self._seconds.values())
            average = (refreshes * full + shortcuts * short) / (refreshes + shortcuts)
            parts.append(
                f"{full / average:.2f}x the teacher's speed "
                f"(refresh {full * 1000:.0f} ms, shortcut frame {short * 1000:.0f} ms)"
            )
        return ", ".join(parts)


class _Terminated(KeyboardInterrupt):
    """The process was told to end, by SIGTERM or SIGHUP."""


@contextlib.contextmanager
def _stoppable(target: Any, timed: Timed) -> Iterator[None]:
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
        line = f"stopped after {timed.count} frames; {target} was not written"
        if isinstance(stopped, _Terminated):
            Harmless().write(f"shortcutv2v: {line}\n")
            raise SystemExit(128 + stopped.args[0]) from None
        raise KeyboardInterrupt(line) from None
    finally:
        for number, old in before.items():
            signal.signal(number, old)
