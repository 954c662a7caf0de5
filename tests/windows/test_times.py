"""Windows run only where they are faster than whole frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from shortcutv2v.windows.levels import Cell, Job, Levels
from shortcutv2v.windows.times import Times

LEVELS = Levels.of((96, 128), window=32, halo=0, between=False)  # twelve windows of 32x32, and the whole: no overhead
PIXEL = 1e-6
WINDOW, FRAME = 32 * 32 * PIXEL, 96 * 128 * PIXEL
INTERVAL = 9


def times(interval: int = 1) -> Times:
    return Times(LEVELS, PIXEL, interval, "cpu")


def cells(count: int, level: int = 0) -> list[Cell]:
    return [Cell(level, place) for place in range(count)]


def jobs(windows: Sequence[int], level: int = 0) -> list[Job]:
    return [Job(level, [window], [[window]]) for window in windows]


def pays(found: Times, refreshed: int, predicted: int = 0) -> bool:
    return found.pay(found.cost(cells(refreshed), cells(predicted)))


def test_few_windows_pay_and_all_do_not() -> None:
    assert pays(times(), 3)
    assert not pays(times(), 12)
    assert times().cost(cells(1, level=1), []) == pytest.approx(FRAME)


def test_rests_grow_while_windows_do_not_pay() -> None:
    found, rests = times(), []
    for _ in range(8):
        assert not pays(found, 12)
        rests.append(found.rest)
        while found.rest:
            found.note_whole(FRAME, full=True)
    assert rests == [1, 3, 7, 15, 31, 32, 32, 32]
    assert pays(found, 1)
    assert not pays(found, 12)
    assert found.rest == 1


def test_whole_frames_with_a_block_begin_with_a_full_pass_so_a_few_slow_frames_are_borne() -> None:
    found = times(INTERVAL)
    slow = 0.8 * FRAME  # slower than whole frames in the mean, faster than a full pass
    assert [found.pay(slow) for _ in range(4)] == [True, True, True, False]
    assert found.rest == INTERVAL
    assert [found.pay(slow) for _ in range(3)] == [False] * 3
    assert found.pay(0.1 * FRAME)
    assert found.pay(slow)
    assert not times(INTERVAL).pay(FRAME)  # slower than anything


def test_a_rolling_refresh_competes_with_the_slowest_whole_frame() -> None:
    found = times(INTERVAL)
    assert all(found.pay(0.8 * FRAME, steady=True) for _ in range(9))
    assert not found.pay(0.95 * FRAME, steady=True)


def test_times_follow_what_frames_took() -> None:
    found = times()
    for _ in range(30):
        found.note_windows(jobs([0, 1, 2, 3]), [], 8 * WINDOW)
        found.note_frame(9 * WINDOW)
    assert found.refresh == pytest.approx([2 * WINDOW, FRAME], rel=0.01)
    assert found.predict == pytest.approx([0.4 * WINDOW, 0.4 * FRAME], rel=0.01)  # none has run
    assert pays(found, 4)
    assert not pays(found, 5)  # five windows at two, and one to find and paste them, of twelve


def test_measured_crops_say_what_larger_ones_cost() -> None:
    found = times()
    found.measured(0, 3 * WINDOW, math.inf)
    assert found.refresh == pytest.approx([3 * WINDOW, 3 * FRAME])
    assert found.predict == [math.inf, math.inf]
    assert found.full == found.refresh[-1]
    assert not pays(found, 12)


def test_first_runs_do_not_count() -> None:
    found = times()
    found.note_windows(jobs([0, 1, 2, 3]), [], 100 * WINDOW)
    assert found.refresh[0] == pytest.approx(WINDOW)
    found.note_windows(jobs([0], level=1), [], 100 * FRAME)
    assert found.refresh[1] == pytest.approx(FRAME)
    found.note_windows(jobs([0]), [], 2 * WINDOW)
    assert found.refresh[0] > 1.1 * WINDOW
    found.note_whole(100 * FRAME, full=True)
    assert found.full == pytest.approx(FRAME)
    found.note_whole(2 * FRAME, full=True)
    assert found.full > 1.1 * FRAME


def test_whole_frames_cost_what_they_cost_with_their_full_passes() -> None:
    found = times(INTERVAL)
    assert found.whole == pytest.approx((1 + 8 * 0.3) / 9 * FRAME)
    found.note_whole(FRAME, full=True)
    for number in range(90):
        found.note_whole(FRAME if number % 3 == 0 else 0.2 * FRAME, full=number % 3 == 0)
    share = 31 / 100  # every third frame in full
    assert found.whole == pytest.approx((share + (1 - share) * 0.2) * FRAME, rel=0.01)
