"""From measured times to plain sentences: does skipping pay on this device, and what would help."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Times", "advise"]

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


def advise(times: Times, interval: int) -> tuple[str, ...]:
    """Sentences for the user.

    Args:
        times: one measurement.
        interval: frames from one refresh to the next.

    Example:
        >>> print(*advise(Times(10, 11, 4, 1, 2, 1), 3), sep=chr(10))
        skipping pays here: a frame of the video takes 63% of the teacher's time, 1.58x as fast
        of a shortcut frame the head takes 25%, the block 50%, the tail 25%
    """
    return (_verdict(times, interval), _shares(times), *_help(times, interval))


def _gain(times: Times, interval: int, shortcut: float) -> float:
    return times.teacher * interval / (times.reference + (interval - 1) * shortcut)


def _verdict(times: Times, interval: int) -> str:
    gain = _gain(times, interval, times.shortcut)
    if gain >= _WORTH:
        return (
            f"skipping pays here: a frame of the video takes {1 / gain:.0%} of the teacher's time, {gain:.2f}x as fast"
        )
    return f"SKIPPING DOES NOT PAY ON THIS DEVICE: the video runs at {gain:.2f}x the teacher's speed"


def _shares(times: Times) -> str:
    whole = times.head + times.block + times.tail
    return (
        f"of a shortcut frame the head takes {times.head / whole:.0%}, the block {times.block / whole:.0%}, "
        f"the tail {times.tail / whole:.0%}"
    )


def _help(times: Times, interval: int) -> tuple[str, ...]:
    """What would help, where skipping does not pay."""
    if _gain(times, interval, times.shortcut) >= _WORTH:
        return ()
    kept = times.head + times.tail
    cut = "a cut with more of the teacher between its layers (shortcutv2v.suggest_cuts ranks them)"
    if _gain(times, interval, kept) < _WORTH:
        share = f"head and tail alone take {kept / times.teacher:.0%} of a teacher frame"
        return (f"no width helps: {share}; choose {cut}",)
    for name, block in times.narrow:
        gain = _gain(times, interval, kept + block)
        if gain >= _WORTH:
            return (f"a narrower block would pay: {name} gives about {gain:.2f}x",)
    return (f"no measured width pays at this cut; a longer interval, or {cut}, may",)
