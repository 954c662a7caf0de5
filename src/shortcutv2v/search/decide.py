"""Decisions of a search as pure functions of measured numbers: when it pays, who stays, what is worth what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from statistics import fmean, median

from shortcutv2v.measure.advice import Times
from shortcutv2v.summary import Spread

__all__ = [
    "Curves",
    "Goal",
    "Worth",
    "attainable",
    "budget",
    "dominated",
    "film_seconds",
    "halving",
    "hopeless",
    "in_words",
    "lessons",
    "mean_at",
    "refreshes_of",
    "spread",
    "worth",
]

Curves = Sequence[Sequence[float]]
"""One curve per reference that was tried: PSNR in dB to the teacher 1, 2, ... frames after it."""

_UNREACHABLE = 1.03
"""Time of a film whose quality cannot be held, relative to the teacher's: what `quality.Quality` allows for looking."""
_LESSONS = 4
"""Stretches of a film that a block should learn from, at least."""
_SHARE = 0.5
"""Share of what a search saves that it may cost."""


@dataclass(frozen=True)
class Goal:
    """The aim of a film: a quality or a speed.

    Attributes:
        quality: PSNR in dB that the shortcut frames shall hold; None if a speed is asked for.
        speed: times as fast as the teacher; None if a quality is asked for.
        both: True if frames are predicted from references on both sides.
        horizon: largest distance from a reference.
    """

    quality: float | None = None
    speed: float | None = None
    both: bool = True
    horizon: int = 8

    def share(self, run: float) -> float:
        """Return the share of refreshes if `run` frames in a row can be predicted from a reference, on each side.

        >>> Goal(40.0).share(2), Goal(40.0, both=False).share(1)
        (0.2, 0.5)
        """
        return 1 / (1 + (2 if self.both else 1) * run)


@dataclass(frozen=True)
class Worth:
    """A choice on this film, as predicted.

    Attributes:
        seconds: time of the whole film.
        quality: PSNR in dB that 95 % of its shortcut frames hold; -inf if the goal cannot be held.
        share: share of refreshes.
        mean: mean PSNR in dB of its shortcut frames; -inf if the goal cannot be held.
    """

    seconds: float
    quality: float
    share: float
    mean: float = -math.inf

    def key(self, goal: Goal, frames: int, teacher: float) -> tuple[float, float]:
        """Return what to sort by, the best first: time at a quality; at a speed that is held, quality."""
        late = self.seconds if goal.speed is None else max(0.0, self.seconds - frames * teacher / goal.speed)
        return round(late, 6), -self.quality


def film_seconds(frames: int, times: Times, share: float) -> float:
    """Return the time of a film at a share of refreshes.

    Refreshed frames were looked at and are audited; a stream takes the teacher alone where that is faster.

    >>> film_seconds(10, Times(10, 11, 4, 1, 2, 1), 0.2)
    60.0
    """
    mean = share * (times.reference + times.block + times.tail) + (1 - share) * times.shortcut
    return round(frames * min(mean, _UNREACHABLE * times.teacher), 9)


def worth(times: Times, curves: Curves, goal: Goal, frames: int, margin: float = 0.0) -> Worth:
    """Predict time and quality of a film.

    At a quality, frames are predicted from each reference until the first that falls below it.

    Args:
        times: of a frame's parts.
        curves: of the candidate.
        goal: that is asked for.
        frames: of the film.
        margin: dB by which a stream's estimates may be too good; it shows a frame only if that is left.

    >>> worth(Times(10, 11, 4, 1, 2, 1), [[42.0, 41.0, 39.0]], Goal(40.0), 10)
    Worth(seconds=60.0, quality=41.05, share=0.2, mean=41.5)
    >>> worth(Times(10, 11, 4, 1, 2, 1), [[42.0, 41.0, 39.0]], Goal(speed=1.25), 10)
    Worth(seconds=80.0, quality=42.0, share=0.4, mean=42.0)
    """
    if goal.quality is not None:
        least = goal.quality + margin
        shown = [list(takewhile(lambda value: value >= least, curve)) for curve in curves]
        share = fmean(goal.share(len(held)) for held in shown)
    else:
        refresh = times.reference + times.block + times.tail
        wanted = (times.teacher / (goal.speed or 1.0) - times.shortcut) / (refresh - times.shortcut)
        share = min(1.0, max(wanted, goal.share(goal.horizon)))
        run = (1 / share - 1) / (2 if goal.both else 1)  # frames from a reference to the last that it predicts
        shown = [list(curve[: math.ceil(round(run, 6))]) for curve in curves]
    seconds, held = film_seconds(frames, times, share), Spread.of(list(chain(*shown)))
    return Worth(seconds, -math.inf, share) if held is None else Worth(seconds, round(held.low, 6), share, held.mean)


def refreshes_of(played: Sequence[Mapping[str, int]]) -> float:
    """Return the share of refreshes of a film from stretches of it that were played each as a video of its own.

    A stream begins with an audit, which a film has once and each stretch has, too; they are left out.

    Args:
        played: `frames`, `shortcuts`, and refreshes at the beginning, `begun`, of each stretch.

    >>> refreshes_of([{"frames": 16, "shortcuts": 12, "begun": 1}, {"frames": 16, "shortcuts": 3, "begun": 1}])
    0.5
    """
    count = sum(each["frames"] - each["begun"] for each in played)
    return 1 - sum(each["shortcuts"] for each in played) / count if count > 0 else 1.0


def attainable(field: Sequence[Curves], goal: Goal) -> Goal:
    """Return the goal to judge a round by: a lower quality while not even the best holds the goal two frames on.

    >>> attainable([[[39.0, 37.0]], [[38.0, 36.0]]], Goal(40.0)).quality
    37.0
    """
    if goal.quality is None:
        return goal
    best = max(median(curve[min(1, len(curve) - 1)] for curve in curves) for curves in field)
    return replace(goal, quality=min(goal.quality, best))


def hopeless(times: Times, goal: Goal, frames: int, best: float) -> bool:
    """Return True if a cut, even with a block that takes no time and never fails, is slower than the best's `best` s.

    >>> hopeless(Times(10, 10, 9, 4, 1, 4), Goal(40.0, both=False, horizon=1), 10, best=85.0)
    True
    """
    share = goal.share(goal.horizon)
    return frames * (share * times.teacher + (1 - share) * (times.head + times.tail)) > best


def budget(frames: int, now: float, then: float, least: float, most: float) -> tuple[float, int | None]:
    """Work out what a search may cost: half of what it should save, between the least that is of use and a bound.

    Args:
        frames: of the film.
        now: seconds a frame without a search.
        then: seconds a frame that are expected after one.
        least: seconds of the shortest search.
        most: seconds that it may take at most.

    Returns:
        Seconds that it may take, 0 if it does not pay; and the number of frames from which it pays, None for never.

    >>> budget(1000, 0.4, 0.2, 60, 1800), budget(200, 0.4, 0.2, 60, 1800), budget(9, 0.4, 0.5, 60, 1800)
    ((100.0, 300), (0.0, 300), (0.0, None))
    """
    if then >= now:
        return 0.0, None
    pays, saved = math.ceil(round(least / (now - then), 6)), round(frames * (now - then), 6)
    return min(most, max(least, _SHARE * saved)) if frames >= pays else 0.0, pays


def halving(most: int, amount: float, shortest: float = 0.0) -> list[tuple[int, float]]:
    """Divide an amount of training: half among rounds of equal cost, each with half the field; the winner gets half.

    Args:
        most: candidates that could begin; as many do as the first round can train for `shortest` each.
        amount: seconds, or steps, for all.
        shortest: seconds, or steps, that a candidate needs to be judged.

    Returns:
        For each round the number of candidates that train in it, and the seconds, or steps, that each has had in all at
        its end.

    >>> halving(4, 600), halving(4, 60, 20)
    ([(4, 37.5), (2, 112.5), (1, 412.5)], [(1, 60.0)])
    """
    count = math.ceil(math.log2(most))
    found, until = list[tuple[int, float]](), 0.0
    for kept in (math.ceil(most / 2**number) for number in range(count)):
        until += amount / 2 / count / kept
        found.append((kept, until))
    if found and found[0][1] < shortest:
        return halving(most - 1, amount, shortest)
    return [*found, (1, until + (amount / 2 if count else float(amount)))]


def lessons(afford: int, stretches: int, cuts: int) -> tuple[int, int]:
    """Return of how many cuts features are computed, and on how many stretches: four, before there is a second cut.

    >>> lessons(5, 12, 3), lessons(9, 12, 3), lessons(60, 12, 3), lessons(0, 2, 3)
    ((1, 5), (2, 4), (3, 12), (1, 1))
    """
    taken = min(cuts, max(1, afford // max(1, min(_LESSONS, stretches))))
    return taken, min(stretches, max(1, afford // taken))


def dominated(points: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Return, for each point that another equals or beats in every value and beats in one, the best such point's name.

    Args:
        points: name -> values, larger is better.

    >>> dominated({"a": (2, 40), "b": (1, 39), "c": (1, 41)})
    {'b': 'a'}
    """
    better = {
        name: [
            other
            for other, theirs in points.items()
            if tuple(mine) != tuple(theirs) and all(a <= b for a, b in zip(mine, theirs, strict=True))
        ]
        for name, mine in points.items()
    }
    return {name: max(others, key=lambda other: tuple(points[other])) for name, others in better.items() if others}


def spread(frames: int, length: int, most: int) -> list[int]:
    """Return where up to `most` stretches of a length begin, spread evenly over a film; one alone lies in its middle.

    >>> spread(100, 25, 3), spread(100, 25, 9), spread(100, 25, 1)
    ([0, 38, 75], [0, 25, 50, 75], [37])
    """
    count = max(1, min(most, frames // length))
    return [round(n * (frames - length) / (count - 1)) for n in range(count)] if count > 1 else [(frames - length) // 2]


def mean_at(curves: Curves, distance: int) -> float:
    """Return the mean PSNR in dB at a distance from the reference, counted from 1; the last one of shorter curves."""
    return fmean(curve[min(distance, len(curve)) - 1] for curve in curves)


def in_words(seconds: float) -> str:
    """Return a time as text, in seconds or minutes."""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
