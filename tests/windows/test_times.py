"""Windows run only where they are faster than whole frames."""

from __future__ import annotations

import pytest

from shortcutv2v.windows import Grid
from shortcutv2v.windows.times import Times

GRID = Grid.of((96, 128), window=32, halo=0)  # twelve windows of 32x32: no overhead
PIXEL = 1e-6
WINDOW, FRAME = 32 * 32 * PIXEL, 96 * 128 * PIXEL


def times(predicts: bool = False) -> Times:
    return Times(GRID, PIXEL, predicts, "cuda")  # where the sizes of a batch do not depend on threads


def test_few_windows_pay_and_all_do_not() -> None:
    assert times().pay(3, 0)
    assert not times().pay(12, 0)
    assert times(predicts=True).pay(3, 0)
    assert not times(predicts=True).pay(4, 0)  # a shortcut frame would be faster
    assert times(predicts=True).pay(0, 6)


def test_rests_grow_while_windows_do_not_pay() -> None:
    found, rests = times(), []
    for _ in range(8):
        assert not found.pay(12, 0)
        rests.append(found.rest)
        while found.rest:
            found.note_whole(FRAME, full=True)
    assert rests == [1, 3, 7, 15, 31, 32, 32, 32]
    assert found.pay(1, 0)
    assert not found.pay(12, 0)
    assert found.rest == 1


def test_times_follow_what_frames_took() -> None:
    found = times()
    for _ in range(30):
        found.note_windows([0, 1, 2, 3], [], 8 * WINDOW)
        found.note_frame(9 * WINDOW)
    assert found.refresh == pytest.approx(2 * WINDOW, rel=0.01)
    assert found.predict == pytest.approx(0.8 * WINDOW, rel=0.01)
    assert found.pay(4, 0)
    assert not found.pay(5, 0)  # five windows at two, and one to find and paste them, of twelve


def test_first_runs_do_not_count() -> None:
    found = times()
    found.note_windows([0, 1, 2, 3], [], 100 * WINDOW)
    assert found.refresh == pytest.approx(WINDOW)
    found.note_windows([0], [], 100 * WINDOW)
    assert found.refresh == pytest.approx(WINDOW)
    found.note_windows([0], [], 2 * WINDOW)
    assert found.refresh > 1.1 * WINDOW
    found.note_whole(100 * FRAME, full=True)
    assert found.full == pytest.approx(FRAME)
    found.note_whole(2 * FRAME, full=True)
    assert found.full > 1.1 * FRAME


def test_a_shortcut_frame_is_what_windows_compete_with() -> None:
    found = times(predicts=True)
    found.note_whole(FRAME, full=True)
    found.note_whole(0.2 * FRAME, full=False)
    assert found.whole == pytest.approx(0.2 * FRAME)
