"""Run the network on windows: the whole teacher to refresh one, head, block and tail to predict one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shortcutv2v.blocks import Prediction
from shortcutv2v.graph import flatten
from shortcutv2v.quality import Calibration
from shortcutv2v.types import Carry, Reference
from shortcutv2v.windows.locality import Call
from shortcutv2v.windows.tiles import Grid
from shortcutv2v.windows.worth import Gains

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["AUDITED", "Guess", "Patches", "Predictor", "batches"]

_FEW, _MANY, _ELSEWHERE = (1,), (16, 4, 1), (64, 16, 4, 1)
"""Sizes of a batch: few, because a capture serves one size. A window alone keeps two threads busy."""
_FEW_THREADS = 2
_FIRST_AUDITS, AUDITED = 3, 4
"""Audits before a prediction is shown, and windows that are predicted for them."""
_LONGEST_WAIT = 16


def batches(windows: Sequence[int], device: str) -> Iterator[list[int]]:
    """Divide windows into batches of the few sizes that programs are made for.

    Examples:
        >>> [len(batch) for batch in batches(range(22), "cuda")]
        [16, 4, 1, 1]
    """
    rest = list(windows)
    on_cpu = _FEW if torch.get_num_threads() <= _FEW_THREADS else _MANY
    for size in on_cpu if device == "cpu" else _ELSEWHERE:
        while len(rest) >= size:
            yield rest[:size]
            del rest[:size]


class Patches:
    """The reference, patched window by window.

    Args:
        a: `a_ref` per branch, (1, C_a, H, W); written into.
        f: `f_ref` per branch, (1, C_f, H, W); written into.
    """

    def __init__(self, a: Sequence[Tensor], f: Sequence[Tensor]) -> None:
        self.a, self.f = tuple(a), tuple(f)

    def put(self, grid: Grid, windows: Sequence[int], carry: Carry, f: Sequence[Tensor]) -> None:
        """Take over the features of refreshed windows."""
        for whole, parts in zip((*self.a, *self.f), (*carry.a, *f), strict=True):
            grid.paste(whole, parts, windows)

    def reference(self, model: ShortcutV2V, grid: Grid, windows: Sequence[int], carry: Carry) -> Reference:
        """Return the reference of some windows, cropped like their current features."""
        a, f = ([grid.cut(w, windows, c.shape[-2:]) for w, c in zip(x, carry.a, strict=True)] for x in (self.a, self.f))
        return model.make_reference(dataclasses.replace(carry, a=tuple(a)), tuple(f))


@dataclass
class Guess:
    """A predicted window: its output, the block's signal, and the error that this lets expect."""

    window: int
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

    def begin(self, count: int, patches: Patches | None, distance: int) -> None:
        """Begin with a whole frame.

        Args:
            count: number of windows.
            patches: the reference; None to predict nothing.
            distance: frames since it was made.
        """
        self.patches = patches
        self.ages, self._lags = [distance] * count, [distance] * count
        self._waits, self._refusals = [0] * count, [0] * count

    def divided(self, todo: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the windows that need the teacher, and those that are worth a prediction."""
        if self.patches is None:
            return list(todo), []
        guessed = [w for w in todo if self._lags[w] + 1 < self.interval and not self._waits[w]]
        guessed = guessed if self.known else guessed[:AUDITED]
        return [w for w in todo if w not in set(guessed)], guessed

    @property
    def known(self) -> bool:
        """True once audits have shown what the signal means."""
        return self.gains.seen >= _FIRST_AUDITS

    def run(self, call: Call, grid: Grid, windows: Sequence[int]) -> Iterator[Guess]:
        """Predict windows in batches."""
        for batch in batches(windows, call.tensors[0].device.type):
            args, kwargs = call.with_pictures(partial(grid.cut, chosen=batch))
            carry = self.model.head(*args, **kwargs)
            assert self.patches is not None  # noqa: S101  (without it, no window is worth a prediction)
            reference = self.patches.reference(self.model, grid, batch, carry)
            predictions = self.model.analyse(reference, carry)
            leaves, _ = flatten(self.model.tail(carry, self.model.compose(reference, carry, predictions)))
            for row, (window, signal) in enumerate(zip(batch, self._signals(grid, batch, predictions), strict=True)):
                guess = signal**-self.slope
                yield Guess(window, [leaf[row : row + 1] for leaf in leaves], guess, self.gains.estimate((guess,)))

    def _signals(self, grid: Grid, batch: list[int], predictions: Sequence[Prediction]) -> list[float]:
        """Return the size of what motion did not explain in each core, summed over the branches."""
        assert self.patches is not None  # noqa: S101  (as above)
        found = [0.0] * len(batch)
        for prediction, whole in zip(predictions, self.patches.f, strict=True):
            cores = grid.inner((prediction.f_hat - prediction.f_star).float().square(), whole, batch)
            found = [known + float(core.mean()) for known, core in zip(found, cores, strict=True)]
        return found

    def refused(self, found: Sequence[Guess], over: Sequence[int]) -> list[int]:
        """Return the predicted windows that need the teacher after all: those in `over`; at the beginning all."""
        known = self.known
        refused = [guess.window for guess in found if not known or guess.window in set(over)]
        self._waits = [max(0, wait - 1) for wait in self._waits]
        for guess in found:
            # After refusals, try less and less often: the teacher alone costs less than both.
            self._refusals[guess.window] = self._refusals[guess.window] + 1 if guess.window in refused and known else 0
            if self._refusals[guess.window] > 1:
                self._waits[guess.window] = min(2 ** self._refusals[guess.window], _LONGEST_WAIT)
        return refused

    def refresh(self, call: Call, grid: Grid, windows: Sequence[int]) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Run the whole teacher on windows in batches, and patch the reference; yield windows and outputs."""
        for batch in batches(windows, call.tensors[0].device.type):
            args, kwargs = call.with_pictures(partial(grid.cut, chosen=batch))
            if self.patches is None:
                yield batch, flatten(self.model.teacher(*args, **kwargs))[0]
                continue
            carry = self.model.head(*args, **kwargs)
            f = self.model.middle(carry)
            leaves, _ = flatten(self.model.tail(carry, f))
            self.patches.put(grid, batch, carry, f)
            yield batch, leaves

    def passed(self, refreshed: Sequence[int], predicted: Sequence[int]) -> None:
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
