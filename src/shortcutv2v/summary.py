"""Summary of a stream: frames, refreshes and their reasons, estimated and audited quality, times."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import torch
from torch import Tensor

from shortcutv2v.decibels import BEST, error_of

__all__ = ["Record", "Spread", "Summary", "psnr"]

KEPT = 10_000
"""Frames whose times and estimates are kept, so that an endless stream takes no more and more memory."""
_WATCHED, _LEAST_GAIN = 100, 1.1
_TINY = 0.005
"""Seconds of a teacher frame below which starting the operators takes most of the time, and skipping gains nothing."""


def psnr(picture: Tensor, target: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB, (B,), of pictures (B, ...) in [0, 1], clipped to it as when shown.

    Equal pictures have 100 dB, the largest value that is returned.

    Examples:
        >>> psnr(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.6)).round()
        tensor([20.])
    """
    error = (picture.float().clamp(0, 1) - target.float().clamp(0, 1)).square().flatten(1).mean(1)
    return -10 * error.clamp_min(error_of(BEST)).log10()


@dataclass(frozen=True)
class Spread:
    """Mean, 5th percentile and worst of some PSNR values in dB."""

    mean: float
    low: float
    worst: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread | None:
        """Return the spread of the values; None if there are none."""
        if not values:
            return None
        return Spread(fmean(values), percentile(values, 0.05), min(values))

    def __str__(self) -> str:
        return f"{self.mean:.1f} dB (5 % below {self.low:.1f}, worst {self.worst:.1f})"


@dataclass(frozen=True)
class Summary:
    """A stream's frames in figures. `print` it for one line.

    Attributes:
        frames: frames of all rows.
        shortcuts: shortcut frames among them.
        refreshes: the others, by reason, see `Stream`.
        estimated: PSNR to the teacher of the shortcut frames, as the policy estimated it; None if it does not.
        audited: PSNR that the prediction had at refreshes where it was measured; None without audits.
        p50, p99: time of a frame in seconds, median and 99th percentile; None before the first frame.
        speed: how many times as fast as the teacher, whose time is measured at the refreshes; None before the second.
        note: what the policy has to say, such as a quality that the block cannot reach.
    """

    frames: int
    shortcuts: int
    refreshes: dict[str, int]
    estimated: Spread | None
    audited: Spread | None
    p50: float | None
    p99: float | None
    speed: float | None
    note: str

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.refreshes.items())
        parts = [f"{self.frames} frames: {self.shortcuts} shortcut, {self.frames - self.shortcuts} full ({reasons})"]
        if self.estimated is not None:
            parts.append(f"estimated {self.estimated}")
        if self.audited is not None:
            parts.append(f"audited {self.audited}")
        if self.p50 is not None and self.p99 is not None:
            parts.append(f"{self.p50 * 1e3:.0f} ms a frame, p99 {self.p99 * 1e3:.0f} ms")
        if self.speed is not None:
            parts.append(f"{self.speed:.2f}x as fast as the teacher")
        return "; ".join([*parts, *([self.note] if self.note else [])])


class Record:
    """The running notes of which a `Summary` is made.

    Attributes:
        refreshes: refreshes by reason.
        shortcuts: shortcut frames.
        audits: audited PSNR of the latest audits, in dB.
    """

    def __init__(self) -> None:
        self.refreshes: Counter[str] = Counter()
        self.shortcuts = 0
        self.audits: deque[float] = deque(maxlen=KEPT)
        self._frames: deque[float] = deque(maxlen=KEPT)
        self._steady: deque[float] = deque(maxlen=KEPT)
        self._kinds: set[bool] = set()
        self._teacher: deque[float] = deque(maxlen=101)
        self._shortcut: deque[float] = deque(maxlen=101)
        self._warned = False

    def frame(self, reasons: Sequence[str], seconds: float, teacher_seconds: float | None) -> None:
        """Note one call of the stream.

        Args:
            reasons: per row, why it refreshed; empty for a shortcut frame.
            seconds: what the call took.
            teacher_seconds: the part of it that the teacher alone would have taken; None unless all rows refreshed.
        """
        self.refreshes.update(filter(None, reasons))
        self.shortcuts += sum(not reason for reason in reasons)
        self._frames.append(seconds)
        full = any(reasons)
        if full in self._kinds:
            self._steady.append(seconds)
        self._kinds.add(full)
        if teacher_seconds is not None:
            self._teacher.append(teacher_seconds)
        elif not full:
            self._shortcut.append(seconds)
        self._warn_without_gain()

    def teacher_took(self, seconds: float) -> None:
        """Note what a frame of the teacher would have taken, where its parts ran in several calls."""
        self._teacher.append(seconds)

    @property
    def seconds(self) -> float:
        """Time of the latest frame; 0 before the first."""
        return self._frames[-1] if self._frames else 0.0

    @property
    def times(self) -> tuple[float | None, float | None]:
        """Median seconds of a teacher frame and of a shortcut frame; None where there was none.

        The first teacher frame is left out if there are more, because it prepares the network.
        """
        teacher = list(self._teacher)[1:] or self._teacher
        return (median(teacher) if teacher else None, median(self._shortcut) if self._shortcut else None)

    @property
    def speed(self) -> float | None:
        """Speed of the latest frames as a multiple of the teacher's, all included; None before the second refresh.

        The first full and the first shortcut frame are left out, because they prepare the network.
        """
        teacher, frames = self.times[0], self._steady
        return teacher / fmean(frames) if teacher is not None and len(self._teacher) > 1 and frames else None

    def summary(self, note: str = "", estimates: Sequence[float] = ()) -> Summary:
        """Return the figures so far, with what the policy notes and the PSNR that it estimates."""
        times = list(self._frames)
        return Summary(
            frames=self.shortcuts + self.refreshes.total(),
            shortcuts=self.shortcuts,
            refreshes=dict(self.refreshes),
            estimated=Spread.of(estimates),
            audited=Spread.of(self.audits),
            p50=median(times) if times else None,
            p99=percentile(times, 0.99) if times else None,
            speed=self.speed,
            note=note,
        )

    def _warn_without_gain(self) -> None:
        if self._warned or len(self._frames) != _WATCHED:
            return
        speed, (teacher, _) = self.speed, self.times
        if self.shortcuts and (speed is None or speed >= _LEAST_GAIN or teacher is None or teacher < _TINY):
            return
        self._warned = True
        found = f"{speed:.2f}x the teacher's speed" if self.shortcuts else "not one shortcut frame"
        warnings.warn(
            f"{found} in {_WATCHED} frames: ask for a lower quality or a longer interval, train the block on footage "
            "like this, or run `shortcutv2v profile` to see whether skipping pays for this network",
            stacklevel=5,
        )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie, interpolated.

    Examples:
        >>> percentile([1.0, 2.0, 3.0], 0.5)
        2.0
    """
    return float(torch.tensor(list(values), dtype=torch.float64).quantile(share))
