"""What a window would lose if its output were kept or predicted: signals at hand, and their gain learnt on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.windows.tiles import Grid

__all__ = ["Gains", "budgeted", "changes"]

_CELL = 4
"""Side in pixels of the cells over which a change is averaged: sensor noise cancels out in them, motion does not."""
_AROUND = 8
"""Pixels around a core whose changes count for it, at most."""
_HUGE = 1e3
"""Stands for NaN and infinity: such a window is never kept."""
_FORGET = 0.98
_SMALL = 1e-5
"""Signals below this one say less and less: 50 dB."""


class Gains:
    """Mean square error of an output per unit of several signals, learnt from pairs of signals and true errors.

    The gain of a signal is the mean ratio over the pairs in which it weighs most. Small signals count as much as large
    ones, because errors grow more slowly than signals, and windows of small signals are those that are kept. Old pairs
    are forgotten slowly.

    Args:
        count: number of signals.
        gain: of every signal before anything is learnt.
        weight: of this gain, in pairs.

    Examples:
        >>> gains = Gains(1)
        >>> for _ in range(200):
        ...     gains.learn((0.01,), 0.04)
        >>> round(gains.estimate((0.01,)), 3)
        0.04
    """

    def __init__(self, count: int, gain: float = 1.0, weight: float = 1.0) -> None:
        self.errors, self.signals = [gain * weight] * count, [weight] * count
        self.seen = 0

    @property
    def gains(self) -> list[float]:
        """The gains as they stand."""
        return [error / signal for error, signal in zip(self.errors, self.signals, strict=True)]

    def estimate(self, signals: Sequence[float]) -> float:
        """Return the expected error."""
        return sum(gain * signal for gain, signal in zip(self.gains, signals, strict=True))

    def learn(self, signals: Sequence[float], error: float) -> None:
        """Take in a true error."""
        shares = [gain * signal for gain, signal in zip(self.gains, signals, strict=True)]
        first = max(range(len(shares)), key=shares.__getitem__)
        rest = sum(shares) - shares[first]
        if not error < _HUGE or not signals[first] < _HUGE:
            return
        weight = 1 / (signals[first] + _SMALL)
        self.errors[first] = _FORGET * self.errors[first] + weight * max(error - rest, 0.0)
        self.signals[first] = _FORGET * self.signals[first] + weight * signals[first]
        self.seen += 1


def changes(now: Sequence[Tensor], before: Sequence[Tensor], grid: Grid, around: int) -> list[tuple[float, float]]:
    """Return per window the size of what changed: of the local mean, and of the rest, which noise dominates.

    Args:
        now: pictures (1, C, H, W).
        before: the same when the windows were last computed.
        grid: the windows.
        around: halo of the windows; changes in it count, too.

    Returns:
        Mean squares per pixel of the core.
    """
    rough = fine = torch.zeros(grid.size, device=now[0].device)
    for x, y in zip(now, before, strict=True):
        change = (x - y).float()
        mean = F.avg_pool2d(change, _CELL, ceil_mode=True, count_include_pad=False)
        mean = mean.square().mean(1)[0].repeat_interleave(_CELL, 0).repeat_interleave(_CELL, 1)
        rough = rough + mean[: grid.size[0], : grid.size[1]]
        fine = fine + change.square().mean(1)[0]
    around = min(around, _AROUND)
    sums = [_sums(x, grid, around) for x in (rough, fine)]
    return [(low, max(whole - low, 0.0)) for low, whole in zip(*sums, strict=True)]


def _sums(error: Tensor, grid: Grid, around: int) -> list[float]:
    """Return sums over each core and its surroundings, per pixel of the core, by a summed-area table."""
    error = error.nan_to_num(nan=_HUGE, posinf=_HUGE).clamp_max(_HUGE)
    table = F.pad(error.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    height, width = grid.size
    cores = torch.tensor(grid.cores, device=error.device)
    top, left = (cores[:, i] - around for i in (0, 2))
    bottom, right = cores[:, 1] + around, cores[:, 3] + around
    top, bottom, left, right = top.clamp_min(0), bottom.clamp_max(height), left.clamp_min(0), right.clamp_max(width)
    total = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    area = (cores[:, 1] - cores[:, 0]) * (cores[:, 3] - cores[:, 2])
    found: list[float] = (total / area).clamp_min(0).tolist()
    return found


def budgeted(errors: Sequence[float], weights: Sequence[float], budget: float, cap: float) -> list[int]:
    """Return the windows that must be computed, worst first, so that the rest holds the budget.

    Args:
        errors: mean square error per window if it is not computed.
        weights: share of the picture per window.
        budget: largest mean square error of the picture.
        cap: largest error of one window.

    Examples:
        >>> budgeted([3.0, 0.1, 9.0], [0.2, 0.4, 0.4], budget=1.0, cap=5.0)
        [2]
    """
    order = sorted(range(len(errors)), key=errors.__getitem__, reverse=True)
    left = sum(error * weight for error, weight in zip(errors, weights, strict=True))
    for place, window in enumerate(order):
        if left <= budget and errors[window] <= cap:
            return order[:place]
        left -= errors[window] * weights[window]
    return order
