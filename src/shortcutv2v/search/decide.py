"""Decisions of a search as pure functions of measured numbers: when it pays, who stays, what is worth what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from shortcutv2v.measure.advice import Times
from shortcutv2v.summary import percentile

__all__ = [
    "Budget",
    "Curves",
    "Goal",
    "Round",
    "Worth",
    "attainable",
    "budget",
    "dominated",
    "expected",
    "field_size",
    "film_seconds",
    "halving",
    "hopeless",
    "lessons",
    "refresh_share",
    "refreshes_of",
    "spread",
    "worth",
]

Curves = Sequence[Sequence[float]]
"""One curve per reference that was tried: PSNR in dB to the teacher 1, 2, ... frames after it."""

LIFT = 6.0
"""dB that a block gains over reuse in minutes: 5.9 to 7.8 on the four clips of docs/quality.md."""
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

    def run(self, share: float) -> float:
        """Return how many frames are predicted from a reference at a share of refreshes: the reverse of `share`.

        >>> Goal(40.0).run(0.2)
        2.0
        """
        return (1 / share - 1) / (2 if self.both else 1)


@dataclass(frozen=True)
class Worth:
    """A choice on this film.

    Attributes:
        seconds: predicted time of the whole film.
        quality: predicted PSNR in dB that 95 % of its shortcut frames hold; -inf if the goal cannot be held.
        share: predicted share of refreshes.
    """

    seconds: float
    quality: float
    share: float

    def key(self, goal: Goal, frames: int, teacher: float) -> tuple[float, float]:
        """Return what to sort by, the best first: time at a quality; at a speed that is held, quality."""
        late = self.seconds if goal.speed is None else max(0.0, self.seconds - frames * teacher / goal.speed)
        return round(late, 6), -self.quality


def refresh_share(curves: Curves, goal: Goal, quality: float) -> float:
    """Return the share of refreshes at which every shown frame holds a quality.

    From each reference, frames are predicted until the first that falls below it.

    >>> refresh_share([[42.0, 41.0, 39.0]], Goal(40.0), 40.0), refresh_share([[30.0]], Goal(40.0), 40.0)
    (0.2, 1.0)
    """
    runs = [next((n for n, value in enumerate(curve) if value < quality), len(curve)) for curve in curves]
    return fmean(goal.share(run) for run in runs)


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


def film_seconds(frames: int, times: Times, share: float, *, looks: bool = True) -> float:
    """Return the time of a film at a share of refreshes; `looks=False` is for fixed intervals.

    With a goal, refreshed frames were looked at and are audited; a stream takes the teacher alone where that is faster.

    >>> film_seconds(10, Times(10, 11, 4, 1, 2, 1), 0.2), film_seconds(10, Times(10, 11, 4, 1, 2, 1), 0.2, looks=False)
    (60.0, 54.0)
    """
    refresh = times.reference + (times.block + times.tail) * looks
    mean = share * refresh + (1 - share) * times.shortcut
    return round(frames * (min(mean, _UNREACHABLE * times.teacher) if looks else mean), 9)


def worth(times: Times, curves: Curves, goal: Goal, frames: int, margin: float = 0.0) -> Worth:
    """Predict time and quality of a film.

    Args:
        times: of a frame's parts.
        curves: of the candidate.
        goal: that is asked for.
        frames: of the film.
        margin: dB by which a stream's estimates may be too good; it shows a frame only if that is left.

    >>> worth(Times(10, 11, 4, 1, 2, 1), [[42.0, 41.0, 39.0]], Goal(40.0), 10)
    Worth(seconds=60.0, quality=41.05, share=0.2)
    >>> worth(Times(10, 11, 4, 1, 2, 1), [[42.0, 41.0, 39.0]], Goal(speed=1.25), 10)
    Worth(seconds=80.0, quality=42.0, share=0.4)
    """
    if goal.quality is not None:
        share = refresh_share(curves, goal, goal.quality + margin)
        shown = [value for curve in curves for value in _leading(curve, goal.quality + margin)]
        return Worth(film_seconds(frames, times, share), _low(shown), share)
    refresh = times.reference + times.block + times.tail
    wanted = (times.teacher / (goal.speed or 1.0) - times.shortcut) / (refresh - times.shortcut)
    share = min(1.0, max(wanted, goal.share(goal.horizon)))
    reach = math.ceil(round(goal.run(share), 6))
    shown = [value for curve in curves for value in curve[:reach]]
    return Worth(film_seconds(frames, times, share), _low(shown), share)


def _leading(curve: Sequence[float], quality: float) -> Sequence[float]:
    return curve[: next((n for n, value in enumerate(curve) if value < quality), len(curve))]


def _low(values: Sequence[float]) -> float:
    return round(percentile(values, 0.05), 6) if values else -math.inf


def expected(curves: Curves) -> Curves:
    """Return the curves that a trained block should reach, from those of plain reuse."""
    return [[value + LIFT for value in curve] for curve in curves]


def attainable(field: Sequence[Curves], goal: Goal) -> Goal:
    """Return the goal to judge a round by: a lower quality while not even the best holds the goal two frames on.

    >>> attainable([[[39.0, 37.0]], [[38.0, 36.0]]], Goal(40.0)).quality
    37.0
    """
    if goal.quality is None:
        return goal
    best = max(median(curve[min(1, len(curve) - 1)] for curve in curves) for curves in field)
    return Goal(min(goal.quality, best), None, goal.both, goal.horizon)


def hopeless(times: Times, goal: Goal, frames: int, best: float) -> bool:
    """Return True if a cut, even with a block that takes no time and never fails, is slower than the best's `best` s.

    >>> hopeless(Times(10, 10, 9, 4, 1, 4), Goal(40.0, both=False, horizon=1), 10, best=85.0)
    True
    """
    share = goal.share(goal.horizon)
    return frames * (share * times.teacher + (1 - share) * (times.head + times.tail)) > best


@dataclass(frozen=True)
class Budget:
    """Limits to the cost of a search.

    Attributes:
        seconds: that it may take; 0 if it does not pay.
        break_even: number of frames from which it pays; None if it never does.
    """

    seconds: float
    break_even: int | None


def budget(frames: int, now: float, then: float, least: float, most: float) -> Budget:
    """Work out what a search may cost: half of what it should save, between the least that is of use and a bound.

    Args:
        frames: of the film.
        now: seconds a frame without a search.
        then: seconds a frame that are expected after one.
        least: seconds of the shortest search.
        most: seconds that it may take at most.

    >>> budget(1000, 0.4, 0.2, 60, 1800), budget(200, 0.4, 0.2, 60, 1800), budget(9, 0.4, 0.5, 60, 1800)
    (Budget(seconds=100.0, break_even=300), Budget(seconds=0.0, break_even=300), Budget(seconds=0.0, break_even=None))
    """
    if then >= now:
        return Budget(0.0, None)
    pays = math.ceil(round(least / (now - then), 6))
    saved = round(frames * (now - then), 6)
    return Budget(min(most, max(least, _SHARE * saved)) if frames >= pays else 0.0, pays)


@dataclass(frozen=True)
class Round:
    """A round of a search.

    Attributes:
        kept: number of candidates that train in it.
        until: seconds, or steps, that each has been trained for in all at its end.
    """

    kept: int
    until: float


def halving(field: int, amount: float) -> list[Round]:
    """Divide an amount of training: half among rounds of equal cost, each with half the field; the winner gets half.

    >>> halving(4, 600)
    [Round(kept=4, until=37.5), Round(kept=2, until=112.5), Round(kept=1, until=412.5)]
    >>> halving(1, 600)
    [Round(kept=1, until=600.0)]
    """
    count = math.ceil(math.log2(field)) if field > 1 else 0
    found, until = list[Round](), 0.0
    for number in range(count):
        kept = math.ceil(field / 2**number)
        until += amount / 2 / count / kept
        found.append(Round(kept, until))
    return [*found, Round(1, until + (amount / 2 if count else float(amount)))]


def field_size(seconds: float, most: int, shortest: float) -> int:
    """Return how many candidates can begin, so that the first round trains each for `shortest` seconds at least.

    >>> field_size(60, 6, 20), field_size(300, 6, 20), field_size(1200, 6, 20)
    (1, 3, 6)
    """
    sizes = (size for size in range(2, most + 1) if halving(size, seconds)[0].until >= shortest)
    return max(sizes, default=1)


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
    found: dict[str, str] = {}
    for name, mine in points.items():
        for other, theirs in points.items():
            if all(a <= b for a, b in zip(mine, theirs, strict=True)) and tuple(mine) != tuple(theirs):
                better = found.get(name)
                found[name] = other if better is None or tuple(points[better]) < tuple(theirs) else better
    return found


def spread(frames: int, learn: int, held: int, most: int) -> list[tuple[int, int, int]]:
    """Return places spread evenly over a film: (start, middle, stop), to learn from before the middle, to test after.

    >>> spread(100, 16, 9, 3)
    [(0, 16, 25), (38, 54, 63), (75, 91, 100)]
    >>> spread(10, 16, 9, 3)
    [(0, 7, 10)]
    """
    unit = learn + held
    if frames < unit:
        return [(0, frames - max(2, frames * held // unit), frames)]
    count = max(1, min(most, frames // unit))
    starts = [round(n * (frames - unit) / max(1, count - 1)) for n in range(count)]
    return [(start, start + learn, start + unit) for start in starts]
