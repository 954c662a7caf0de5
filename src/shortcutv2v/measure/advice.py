"""Turn measured times into plain sentences: does skipping pay on this device, and what would help?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shortcutv2v.measure.candidates import Candidate, gain

__all__ = ["Times", "advise", "pays"]

_WORTH = 1.05  # a gain below five percent is not worth a second network


@dataclass(frozen=True)
class Times:
    """Seconds, as measured in one run.

    Attributes:
        teacher: one frame of the teacher.
        reference: one reference frame.
        shortcut: one shortcut frame.
        head: part of the shortcut frame.
        block: part of the shortcut frame.
        tail: part of the shortcut frame.
        narrow: block time at smaller widths, by name, widest first.
    """

    teacher: float
    reference: float
    shortcut: float
    head: float
    block: float
    tail: float
    narrow: tuple[tuple[str, float], ...] = ()


def advise(times: Times, interval: int, cuts: Sequence[Candidate] = ()) -> tuple[str, ...]:
    """Return sentences for the user.

    Args:
        times: one measurement.
        interval: frames from one refresh to the next.
        cuts: other cuts that were timed on this device, best first.

    Examples:
        >>> print(*advise(Times(10, 11, 4, 1, 2, 1), 3), sep=chr(10))
        skipping pays here: a frame of the video takes 63% of the teacher's time, 1.58x as fast
        of a shortcut frame the head takes 25%, the block 50%, the tail 25%
    """
    sentences = [_verdict(times, interval), _shares(times)]
    if not pays(times, interval):
        sentences += [_width(times, interval), _cut(cuts)]
    return tuple(sentences)


def pays(times: Times, interval: int) -> bool:
    """Return True if a video runs at least five percent faster than with the teacher alone."""
    return _gain(times, interval, times.shortcut) >= _WORTH


def _gain(times: Times, interval: int, shortcut: float) -> float:
    return gain(times.teacher, times.reference, shortcut, interval)


def _verdict(times: Times, interval: int) -> str:
    ratio = _gain(times, interval, times.shortcut)
    if pays(times, interval):
        return (
            f"skipping pays here: a frame of the video takes {1 / ratio:.0%} of the teacher's time, "
            f"{ratio:.2f}x as fast"
        )
    return f"SKIPPING DOES NOT PAY ON THIS DEVICE: the video runs at {ratio:.2f}x the teacher's speed"


def _shares(times: Times) -> str:
    whole = times.head + times.block + times.tail
    return (
        f"of a shortcut frame the head takes {times.head / whole:.0%}, the block {times.block / whole:.0%}, "
        f"the tail {times.tail / whole:.0%}"
    )


def _width(times: Times, interval: int) -> str:
    """Say whether a narrower block would pay at this cut."""
    kept = times.head + times.tail
    if _gain(times, interval, kept) < _WORTH:
        return f"no width helps at this cut: head and tail alone take {kept / times.teacher:.0%} of a teacher frame"
    for name, block in times.narrow:
        ratio = _gain(times, interval, kept + block)
        if ratio >= _WORTH:
            return f"a narrower block would pay: {name} gives about {ratio:.2f}x"
    quickest = kept + min((block for _, block in times.narrow), default=times.block)
    if times.teacher < _WORTH * quickest:
        return "no measured width pays at this cut, at any interval"
    return "no measured width pays at this cut; a longer interval may"


def _cut(cuts: Sequence[Candidate]) -> str:
    """Say whether another cut would pay."""
    if not cuts:
        return "no other cut was found that promises more; shortcutv2v.suggest_cuts lists them all"
    best = cuts[0]
    if (best.speedup or 0) >= _WORTH:
        return (
            f"another cut would pay: enc_layer={best.enc_layer!r}, dec_layer={best.dec_layer!r}, "
            f"channels={best.channels} ran at {best.speedup:.2f}x (train it to see how well it predicts)"
        )
    return f"of the cuts that promise more none pays either; the best was {best}"
