"""Choose what becomes of each window: keep, predict or refresh, by expected errors and measured times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shortcutv2v.decibels import error_of
from shortcutv2v.windows.levels import Levels
from shortcutv2v.windows.times import Times
from shortcutv2v.windows.worth import budgeted

__all__ = ["Budget", "Plan", "planned", "rolled", "worthwhile"]

_MARGIN = 0.8
"""Share of the allowed error that is planned for: 1 dB of reserve, because windows are chosen by estimates."""
_CAP = 4.0
"""Largest error of one window, in errors that the picture may have: 6 dB."""
_TRIED = 4
"""Windows that are predicted where predictions do not pay, to find out when they do."""


@dataclass(frozen=True)
class Budget:
    """The errors that a picture and its windows may have.

    Args:
        quality: PSNR in dB of the picture.
        shares: share of the picture per window.
    """

    quality: float
    shares: Sequence[float]

    @property
    def planned(self) -> float:
        """Mean square error that is planned for."""
        return allowed(self.quality)

    def over(self, errors: Sequence[float]) -> list[int]:
        """Return the windows that must lose their errors, worst first, so that the others stay within the budget."""
        return budgeted(errors, self.shares, self.planned, _CAP * error_of(self.quality))


@dataclass(frozen=True)
class Plan:
    """The windows of a frame that are computed.

    Attributes:
        refresh: windows for the teacher.
        predict: windows for the block; those that it predicts too badly are refreshed after all.
    """

    refresh: list[int]
    predict: list[int]


def allowed(quality: float) -> float:
    """Return the mean square error that is planned for, given a PSNR in dB.

    Examples:
        >>> allowed(40)
        8e-05
    """
    return _MARGIN * error_of(quality)


def planned(errors: Sequence[float], outlooks: Sequence[float], budget: Budget) -> Plan:
    """Return the plan that holds a budget.

    Args:
        errors: expected error of every window if it is kept.
        outlooks: the same if it is predicted; infinite where a prediction would not serve.
        budget: of the picture.

    Examples:
        >>> budget = Budget(40, [0.25] * 4)
        >>> planned([1e-3, 1e-3, 1e-3, 1e-5], [1e-4, 1e-2, float("inf"), 0.0], budget)
        Plan(refresh=[1, 2], predict=[0])
    """
    left, refresh, predict = list(errors), set[int](), set[int]()
    for _ in range(2):  # predictions leave less for the windows that are kept
        for window in budget.over(left):
            serves = window not in predict and outlooks[window] < left[window]
            (predict.add if serves else refresh.add)(window)
            left[window] = outlooks[window] if serves else 0.0
    return Plan(sorted(refresh), sorted(predict - refresh))


def rolled(plan: Plan, worth: Callable[[int], tuple[float, ...]], count: int, windows: int) -> Plan:
    """Return a plan that refreshes at least so many windows: those that are worth most, besides those of the plan."""
    due = sorted(range(windows), key=worth, reverse=True)
    rest = [window for window in due if window not in set(plan.refresh)]
    refresh = [*plan.refresh, *rest[: max(0, count - len(plan.refresh))]]
    return Plan(refresh, [window for window in plan.predict if window not in set(refresh)])


def worthwhile(plan: Plan, levels: Levels, times: Times, success: float) -> Plan:
    """Return the plan without predictions where they would take longer than refreshes; a few are tried all the same.

    Args:
        plan: the plan.
        levels: the windows.
        times: what they take.
        success: share of the predictions that serve; the others are followed by a refresh.
    """
    predict = times.cost([], levels.cover(plan.predict, times.predict))
    refresh = times.cost(levels.cover(plan.predict, times.refresh), [])
    if predict < success * refresh:
        return plan
    return Plan([*plan.refresh, *plan.predict[_TRIED:]], plan.predict[:_TRIED])
