"""Live video: never behind the source. Reading, network and encoding run in threads of their own.

The newest frame waits in a box that holds one. If the network is slower than the source, frames are replaced there and
counted as dropped. If the encoder is slower, the network waits for it. So memory and delay stay small.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from torch import Tensor

from shortcutv2v.summary import percentile

__all__ = ["TICKS", "Figures", "Governor", "Live", "Sink"]

TICKS = 90_000
"""Time stamps of pictures are whole multiples of so many a second."""
_WINDOW, _CALM, _LONGEST_CALM = 20, 3, 96
"""Frames of which the governor takes the 95th percentile; windows without haste before it shifts up, and at most."""
_EARLY = 0.6
"""Share of the deadline below which the governor shifts back up."""


class Sink(Protocol):
    """Takes pictures, as `video.create` makes one."""

    def write(self, frame: Tensor, time: Fraction) -> None:
        """Take the next picture, uint8 (3, H, W), and when its frame came: seconds since the first one, rising."""
        ...


@dataclass
class Figures:
    """Counts of a live run; `print` them for one line.

    Attributes:
        deadline: seconds that a frame may take, None if there is none.
        read, dropped, shown: frames that came, that were replaced by newer ones, that were written.
        refreshes: frames that the teacher did.
        punctual: frames that were shown within the deadline.
        latencies: of the latest frames: seconds from reading to having been written.
        estimate: mean PSNR to the teacher in dB that the policy estimates of the latest frames; None if it does not.
        seconds: since the first frame came.
        gear: what the governor has chosen.
    """

    deadline: float | None = None
    read: int = 0
    dropped: int = 0
    shown: int = 0
    refreshes: int = 0
    punctual: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    estimate: float | None = None
    seconds: float = 0.0
    gear: str = ""

    def __str__(self) -> str:
        if not self.shown or not self.seconds:
            return f"{self.read} frames in, none shown yet"
        parts = [
            f"in {self.read / self.seconds:.1f} fps, out {self.shown / self.seconds:.1f} fps",
            f"dropped {self.dropped} ({self.dropped / self.read:.0%})",
            f"refreshed {self.refreshes / self.shown:.0%}",
            f"latency p50 {self.latency(0.5) * 1e3:.0f} ms, p99 {self.latency(0.99) * 1e3:.0f} ms",
        ]
        if self.deadline is not None:
            parts.append(f"{self.punctual / self.shown:.1%} under {self.deadline * 1e3:.0f} ms")
        if self.estimate is not None:
            parts.append(f"estimated {self.estimate:.1f} dB")
        return ", ".join([*parts, *([self.gear] if self.gear else [])])

    def latency(self, share: float) -> float:
        """Return the seconds within which this share of the latest frames was written."""
        return percentile(list(self.latencies), share)


class Governor:
    """Chooses among settings, from the best to the fastest, so that frames meet a deadline as the load changes.

    It shifts to a faster setting when one frame in twenty is late, and back after a calm while. A shift back that does
    not hold doubles the calm that the next one needs.

    Args:
        deadline: seconds from reading a frame to having written its picture.
        gears: (name, function that sets it) from the best to the fastest; the first one is set at once. The last one is
            as far as quality may fall.

    Attributes:
        gear: place of the setting in use.

    Examples:
        >>> chosen = []
        >>> governor = Governor(0.1, [(name, lambda name=name: chosen.append(name)) for name in ("best", "fast")])
        >>> for _ in range(20):
        ...     governor.note(0.2)
        >>> chosen
        ['best', 'fast']
    """

    def __init__(self, deadline: float, gears: Iterable[tuple[str, Callable[[], None]]]) -> None:
        self.deadline, self.gears = deadline, list(gears)
        self._recent: list[float] = []
        self._calm, self._patience, self._rose = 0, _CALM, False
        self._shift(0)

    @property
    def name(self) -> str:
        """Name of the setting in use."""
        return self.gears[self.gear][0]

    def note(self, seconds: float) -> None:
        """Take the latency of a frame, and shift if need be."""
        self._recent.append(seconds)
        if len(self._recent) < _WINDOW:
            return
        slow = percentile(self._recent, 0.95)
        self._recent.clear()
        self._calm = self._calm + 1 if slow < _EARLY * self.deadline else 0
        if slow > self.deadline and self.gear + 1 < len(self.gears):
            self._patience = min(2 * self._patience, _LONGEST_CALM) if self._rose else _CALM
            self._shift(self.gear + 1)
            self._rose = False
        elif self._calm >= self._patience and self.gear > 0:
            self._shift(self.gear - 1)
            self._rose = True

    def _shift(self, gear: int) -> None:
        self.gear, self._calm = gear, 0
        self.gears[gear][1]()


class _Newest:
    """A box for one frame: a newer one replaces it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: tuple[float, Tensor] | None = None
        self._error: BaseException | None = None
        self._over = False

    def put(self, frame: tuple[float, Tensor]) -> bool:
        """Put a frame in; return whether another one was lost by that."""
        with self._changed:
            lost, self._frame = self._frame is not None, frame
            self._changed.notify()
            return lost

    def close(self, error: BaseException | None = None) -> None:
        """Say that no frame will follow, and why."""
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify()

    def __iter__(self) -> Iterator[tuple[float, Tensor]]:
        while True:
            with self._changed:
                while self._frame is None and not self._over:
                    self._changed.wait(0.5)  # so that Ctrl-C is heard
                frame, self._frame = self._frame, None
            if frame is None:
                if self._error is not None:
                    raise self._error
                return
            yield frame


class Live:
    """Shows a live source.

    Args:
        step: from a frame, uint8 (3, H, W), to its picture; runs in the calling thread.
        sink: takes the pictures, in a thread of its own.
        deadline: seconds from reading a frame to having written its picture; for the figures.
        noted: called with the latency of every picture, in seconds, in the calling thread; a `Governor` listens here.
        told: called with the figures after every picture, in the calling thread.

    Attributes:
        figures: counts what happens.

    Examples:
        >>> class Screen:
        ...     def write(self, frame: Tensor, time: Fraction) -> None: ...
        >>> import torch
        >>> live = Live(lambda frame: 255 - frame, Screen())
        >>> live.run([torch.zeros(3, 8, 8, dtype=torch.uint8)])
        >>> live.figures.read, live.figures.shown + live.figures.dropped
        (1, 1)
    """

    def __init__(
        self,
        step: Callable[[Tensor], Tensor],
        sink: Sink,
        deadline: float | None = None,
        noted: Callable[[float], None] = lambda seconds: None,
        told: Callable[[Figures], None] = lambda figures: None,
    ) -> None:
        self._step, self._sink, self._noted, self._told = step, sink, noted, told
        self.figures = Figures(deadline)
        self._box = _Newest()
        self._pictures: queue.Queue[tuple[float, Tensor] | None] = queue.Queue(2)
        self._latencies: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._over = threading.Event()
        self._error: BaseException | None = None  # of the sink

    def run(self, frames: Iterable[Tensor]) -> None:
        """Show frames until they end, or until Ctrl-C, which is the way to end a camera.

        Args:
            frames: uint8 (3, H, W) each, as they come; read in a thread of its own.

        Raises:
            VideoError: the source broke off, or the sink cannot be written. Errors of `step` pass through.
        """
        writing = threading.Thread(target=self._write, daemon=True)
        reading = threading.Thread(target=self._read, args=(frames,), daemon=True)
        writing.start()
        reading.start()
        try:
            for arrived, frame in self._box:
                self._hand_over((arrived, self._step(frame)), writing)
                while not self._latencies.empty():
                    self._noted(self._latencies.get())
                self._told(self.figures)
        except KeyboardInterrupt:
            pass
        finally:
            self._over.set()
            self._hand_over(None, writing)
            writing.join()
            reading.join(1.0)  # a source may wait for its next frame for ever
            self.figures.dropped = max(self.figures.dropped, self.figures.read - self.figures.shown)
        if self._error is not None:
            raise self._error
        self._told(self.figures)

    def _hand_over(self, picture: tuple[float, Tensor] | None, writing: threading.Thread) -> None:
        """Wait until the encoder takes a picture; None ends it."""
        while writing.is_alive():
            with contextlib.suppress(queue.Full):
                self._pictures.put(picture, timeout=0.5)
                return
        if self._error is not None and picture is not None:
            raise self._error

    def _read(self, frames: Iterable[Tensor]) -> None:
        figures, begun = self.figures, None
        error: BaseException | None = None
        try:
            for frame in frames:
                now = time.perf_counter()
                begun = now if begun is None else begun
                figures.seconds = now - begun
                figures.read += 1
                figures.dropped += self._box.put((now, frame))
                if self._over.is_set():
                    break
        except BaseException as raised:
            error = raised
        self._box.close(error)

    def _write(self) -> None:
        figures, first = self.figures, None
        try:
            while (item := self._pictures.get()) is not None:
                arrived, picture = item
                first = arrived if first is None else first
                self._sink.write(picture, Fraction(round((arrived - first) * TICKS), TICKS))
                seconds = time.perf_counter() - arrived
                figures.shown += 1
                figures.punctual += figures.deadline is None or seconds <= figures.deadline
                figures.latencies.append(seconds)
                self._latencies.put(seconds)
        except BaseException as error:
            self._error = error
