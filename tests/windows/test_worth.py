"""Signals of a change, the gain between them and errors, and the choice of windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shortcutv2v.windows import Grid
from shortcutv2v.windows.worth import Gains, budgeted, changes

ERRORS = st.lists(st.floats(0, 10), min_size=1, max_size=30)


@given(ERRORS, st.floats(0, 5), st.floats(0, 8))
def test_what_is_kept_holds_the_budget_and_no_less_would(errors: list[float], budget: float, cap: float) -> None:
    shares = [1 / len(errors)] * len(errors)
    chosen = budgeted(errors, shares, budget, cap)
    left = sum(e * s for i, (e, s) in enumerate(zip(errors, shares, strict=True)) if i not in chosen)
    assert left <= budget + 1e-9 or len(chosen) == len(errors)
    assert all(error <= cap for i, error in enumerate(errors) if i not in chosen)
    if chosen:  # the last one was needed
        last = errors[chosen[-1]]
        assert last > cap or left + last * shares[0] > budget - 1e-9


def test_noise_counts_as_noise_and_motion_as_motion() -> None:
    grid, still = Grid.of((96, 128), 32, 4), torch.rand(1, 3, 96, 128)
    noisy = still + torch.randn_like(still) / 255
    moved = still.clone()
    moved[..., 40:56, 40:56] += 0.1
    noise, motion = (changes([now], [still], grid, 4) for now in (noisy, moved))
    assert all(fine > 5 * rough for rough, fine in noise)
    assert sum(rough + fine for rough, fine in noise) / len(grid) < 3e-5 * 2
    place = max(range(len(grid)), key=lambda window: motion[window])
    top, bottom, left, right = grid.cores[place]
    assert top < 56 and bottom > 40 and left < 56 and right > 40  # noqa: PT018
    assert motion[place][0] > motion[place][1]
    assert motion[-1] == (0.0, 0.0)


def test_a_change_in_the_halo_counts() -> None:
    grid, before = Grid.of((64, 64), 32, 8), torch.zeros(1, 3, 64, 64)
    now = before.clone()
    top, _, left, _ = grid.cores[-1]
    now[..., top - 7, left + 2] = 1
    assert changes([now], [before], grid, 8)[-1][0] > 0
    assert changes([now], [before], grid, 2)[-1] == (0.0, 0.0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_counts_as_a_change_where_it_is(value: float) -> None:
    grid, before = Grid.of((64, 64), 24, 2), torch.zeros(1, 3, 64, 64)
    now = before.clone()
    now[..., 1, 1] = value
    first, *others = (sum(signal) for signal in changes([now], [before], grid, 2))
    assert first > 1
    assert max(others) == 0


def test_gains_follow_the_errors_that_were_found() -> None:
    gains = Gains(2)
    for _ in range(300):
        gains.learn((1e-3, 1e-6), 4e-3)
        gains.learn((1e-6, 1e-3), 5e-4)
    assert gains.gains == pytest.approx([4, 0.5], rel=0.05)
    gains.learn((float("nan"), 0.0), 1.0)
    gains.learn((1e3, 0.0), 1.0)
    assert gains.gains == pytest.approx([4, 0.5], rel=0.05)


def test_a_gain_that_nothing_is_known_of_comes_from_the_first_pairs() -> None:
    gains = Gains(1, weight=1e-6)
    for _ in range(3):
        gains.learn((0.02,), 1e-4)
    assert gains.estimate((0.02,)) == pytest.approx(1e-4, rel=0.01)
