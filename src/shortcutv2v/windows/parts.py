"""Run the network on windows: the whole teacher to refresh one, head, block and tail to predict one."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.blocks import Prediction
from shortcutv2v.graph import flatten
from shortcutv2v.quality import Calibration
from shortcutv2v.rows import finite
from shortcutv2v.types import Carry, Reference
from shortcutv2v.windows.levels import Cell, Job, Levels
from shortcutv2v.windows.locality import Call
from shortcutv2v.windows.times import Times
from shortcutv2v.windows.worth import Gains

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["AUDITED", "Guess", "Patches", "Predictor", "measure"]

_FIRST_AUDITS, AUDITED = 3, 4
"""Audits before a prediction is shown, and windows that are predicted for them."""
_LONGEST_WAIT = 16
_FORGET, _FEW = 0.9, 4
"""Weight of earlier frames in the share of predictions that served; so many predictions are all taken to serve."""


class Patches:
    """The reference, patched window by window.

    Args:
        a: `a_ref` per branch, (1, C_a, H, W); written into.
        f: `f_ref` per branch, (1, C_f, H, W); written into.
    """

    def __init__(self, a: Sequence[Tensor], f: Sequence[Tensor]) -> None:
        self.a, self.f = tuple(a), tuple(f)

    def put(self, levels: Levels, job: Job, carry: Carry, f: Sequence[Tensor]) -> None:
        """Take over the features of refreshed windows."""
        for whole, parts in zip((*self.a, *self.f), (*carry.a, *f), strict=True):
            levels.paste(whole, parts, job)

    def reference(self, model: ShortcutV2V, levels: Levels, job: Job, carry: Carry) -> Reference:
        """Return the reference of some crops, cut like their current features."""
        cut = partial(levels.grids[job.level].cut, chosen=job.places)
        a, f = ([cut(w, crop=c.shape[-2:]) for w, c in zip(x, carry.a, strict=True)] for x in (self.a, self.f))
        return model.make_reference(dataclasses.replace(carry, a=tuple(a)), tuple(f))


@dataclass
class Guess:
    """A predicted window.

    Attributes:
        window: its number.
        job: the crop that it was predicted in, with this window alone.
        leaves: the output of that crop.
        signal: the block's, as a mean square error up to a gain.
        error: mean square error that this lets expect.
    """

    window: int
    job: Job
    leaves: list[Tensor]
    signal: float
    error: float


class Predictor:
    """Predicts windows, and learns from audits what the block's signal means.

    Args:
        model: the wrapped teacher.
        interval: a window is refreshed after so many frames at most that changed it.

    Attributes:
        patches: the reference; None predicts nothing.
        ages: per window, frames since its reference was made.
    """

    def __init__(self, model: ShortcutV2V, interval: int) -> None:
        self.model, self.interval = model, interval
        self.slope = (model.calibration or Calibration()).slope
        self.gains = Gains(1, weight=1e-6)  # the unit of features differs from teacher to teacher: audits alone tell
        self.patches: Patches | None = None
        self._tried = self._served = 0.0

    def begin(self, count: int, patches: Patches | None, distance: int) -> None:
        """Begin with a whole frame.

        Args:
            count: number of windows.
            patches: the reference; None to predict nothing.
            distance: frames since it was made.
        """
        self.patches = patches
        self.ages, self._lags = [distance] * count, [distance] * count
        self._waits, self._refusals, self._last = [0] * count, [0] * count, [0.0] * count

    @property
    def known(self) -> bool:
        """True once audits have shown what the signal means."""
        return self.gains.seen >= _FIRST_AUDITS

    @property
    def success(self) -> float:
        """Share of the latest predictions that were shown."""
        return (self._served + _FEW) / (self._tried + _FEW)

    def outlook(self, window: int) -> float:
        """Return the error that the next prediction is expected to have: errors grow with the distance.

        Infinite where the reference is too old, or after refusals.
        """
        lag = self._lags[window]
        if self.patches is None or lag + 1 >= self.interval or self._waits[window]:
            return math.inf
        return self._last[window] * (lag + 1) / lag if lag else 0.0

    def run(self, call: Call, levels: Levels, job: Job) -> Iterator[Guess]:
        """Predict the windows of a job."""
        args, kwargs = call.with_pictures(partial(levels.grids[job.level].cut, chosen=job.places))
        carry = self.model.head(*args, **kwargs)
        assert self.patches is not None  # noqa: S101  (without it, no window is worth a prediction)
        reference = self.patches.reference(self.model, levels, job, carry)
        predictions = self.model.analyse(reference, carry)
        leaves, _ = flatten(self.model.tail(carry, self.model.compose(reference, carry, predictions)))
        signals = iter(self._signals(levels, job, predictions))
        for row, (place, windows) in enumerate(zip(job.places, job.windows, strict=True)):
            own = [leaf[row : row + 1] for leaf in leaves]
            for window in windows:
                guess = next(signals) ** -self.slope
                part = Job(job.level, [place], [[window]])
                yield Guess(window, part, own, guess, self.gains.estimate((guess,)))

    def _signals(self, levels: Levels, job: Job, predictions: Sequence[Prediction]) -> list[float]:
        """Return the size of what motion did not explain in each core, summed over the branches."""
        assert self.patches is not None  # noqa: S101  (as above)
        sums = []
        for prediction, whole in zip(predictions, self.patches.f, strict=True):
            squares = (prediction.f_hat - prediction.f_star).float().square().mean(1, keepdim=True)
            sums.append(torch.stack([core.mean() for _, _, core in levels.cores(job, whole, squares)]))
        found: list[float] = torch.stack(sums).sum(0).tolist()
        return found

    def refused(self, found: Sequence[Guess], over: Collection[int]) -> list[int]:
        """Return the predicted windows that need the teacher after all: those in `over`; at the beginning all."""
        known = self.known
        refused = {guess.window for guess in found if not known or guess.window in over}
        self._waits = [max(0, wait - 1) for wait in self._waits]
        if known:
            self._tried = _FORGET * self._tried + len(found)
            self._served = _FORGET * self._served + len(found) - len(refused)
        for guess in found:
            window = guess.window
            self._last[window] = guess.error
            # After refusals, try less and less often: the teacher alone costs less than both.
            self._refusals[window] = self._refusals[window] + 1 if window in refused and known else 0
            if self._refusals[window] > 1:
                self._waits[window] = min(2 ** self._refusals[window], _LONGEST_WAIT)
        return sorted(refused)

    def refresh(self, call: Call, levels: Levels, job: Job) -> list[Tensor]:
        """Run the whole teacher on the crops of a job, patch the reference, and return the output's tensors."""
        args, kwargs = call.with_pictures(partial(levels.grids[job.level].cut, chosen=job.places))
        if self.patches is None:
            return flatten(self.model.teacher(*args, **kwargs))[0]
        carry = self.model.head(*args, **kwargs)
        f = self.model.middle(carry)
        leaves, _ = flatten(self.model.tail(carry, f))
        self.patches.put(levels, job, carry, f)
        return leaves

    def passed(self, refreshed: Collection[int], predicted: Sequence[int]) -> None:
        """Note the end of a frame. Where a window is kept, nothing has changed, and its reference serves as before."""
        self.ages = [age + 1 for age in self.ages]
        for window in predicted:
            self._lags[window] += 1
        for window in refreshed:
            self.ages[window] = self._lags[window] = 0

    @property
    def distance(self) -> int:
        """Predictions in a row from one reference, of the window with most."""
        return max(self._lags)

    def audit(self, guess: Guess, error: float) -> None:
        """Take in the true error of a prediction."""
        self.gains.learn((guess.signal,), error)


def measure(predictor: Predictor, call: Call, levels: Levels, times: Times) -> None:
    """Capture and time the network at the size of every crop but the whole picture.

    Args:
        predictor: has begun with a whole frame.
        call: its inputs.
        levels: the crops.
        times: takes in what they took.
    """
    for level, grid in enumerate(levels.grids[:-1]):
        job = next(levels.jobs([Cell(level, place) for place in range(len(grid))], times.device))
        refresh = _seconds(lambda job=job: all(finite(predictor.refresh(call, levels, job))))  # type: ignore[misc]
        predict = math.inf
        if predictor.patches is not None:
            predict = _seconds(lambda job=job: list(predictor.run(call, levels, job)))  # type: ignore[misc]
        times.measured(level, refresh / len(job.places), predict / len(job.places))


def _seconds(run: Callable[[], Any]) -> float:
    """Return the time of the second run; the first one prepares the network."""
    run()
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
