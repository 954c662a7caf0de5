"""The choice between keeping, predicting and refreshing, on given errors and times."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortcutv2v.windows.levels import Levels
from shortcutv2v.windows.plan import Budget, Plan, allowed, planned, rolled, worthwhile
from shortcutv2v.windows.times import Times

LEVELS = Levels.of((96, 128), window=32, halo=0, between=False)  # twelve windows
SHARES = LEVELS.grids[0].shares
QUALITY = 40.0
ERRORS = st.lists(st.floats(0, 1e-3), min_size=12, max_size=12)


@given(ERRORS, ERRORS)
def test_a_plan_holds_the_quality_if_errors_come_out_as_expected(errors: list[float], outlooks: list[float]) -> None:
    plan = planned(errors, outlooks, Budget(QUALITY, SHARES))
    left = [
        0.0 if window in plan.refresh else outlooks[window] if window in plan.predict else error
        for window, error in enumerate(errors)
    ]
    assert not set(plan.refresh) & set(plan.predict)
    # Predictions in place of kept windows may leave too much: what they turn out to be decides again.
    assert sum(left) <= sum(errors)
    if not plan.predict:
        assert sum(error * share for error, share in zip(left, SHARES, strict=True)) <= allowed(QUALITY) + 1e-12
        assert max(left) <= 4 * 10 ** (-QUALITY / 10)


def test_nothing_is_computed_where_the_quality_is_held() -> None:
    assert planned([7e-5] * 12, [0.0] * 12, Budget(QUALITY, SHARES)) == Plan([], [])


def test_predictions_serve_where_they_are_good_and_the_teacher_elsewhere() -> None:
    errors, outlooks = [1e-3] * 3 + [0.0] * 9, [1e-5, 1e-2, math.inf] + [0.0] * 9
    assert planned(errors, outlooks, Budget(QUALITY, SHARES)) == Plan([1, 2], [0])


def test_what_predictions_are_expected_to_lose_is_taken_from_kept_windows() -> None:
    errors, outlooks = [1e-3] + [6e-5] * 11, [3.5e-4] + [0.0] * 11
    budget = Budget(QUALITY, SHARES)
    plan = planned(errors, outlooks, budget)
    assert plan.refresh == [0]  # predicted, it would leave too little for the eleven others
    assert plan.predict == []


def test_a_rolling_refresh_adds_the_windows_that_are_worth_most() -> None:
    plan = rolled(Plan([3], [5, 6]), lambda window: (window,), 3, 7)
    assert plan == Plan([3, 6, 5], [])
    assert rolled(Plan([0, 1, 2], [5]), lambda window: (window,), 2, 7) == Plan([0, 1, 2], [5])


@pytest.mark.parametrize(("success", "refreshed"), [(1.0, []), (0.5, []), (0.3, [4, 5, 6])])
def test_predictions_that_mostly_fail_give_way_to_refreshes_but_for_a_few(success: float, refreshed: list[int]) -> None:
    plan = Plan([], list(range(7)))
    found = worthwhile(plan, LEVELS, Times(LEVELS, 1e-6, 9, "cpu"), success)  # a prediction takes 0.4 of a refresh
    assert found.refresh == refreshed
    assert found.predict == [window for window in range(7) if window not in refreshed]
