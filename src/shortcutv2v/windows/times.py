"""Seconds that windows and whole frames take, so that windows run only where they are faster."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shortcutv2v.windows.parts import batches
from shortcutv2v.windows.tiles import Grid

__all__ = ["Times"]

_PREDICTS, _SHORTCUT = 0.4, 0.3
"""Time of a predicted window, and of a shortcut frame, as a share of the teacher's, until they are known."""
_PAYS = 0.9
"""Windows run if they are expected to take less than this share of a whole frame's time."""
_LONGEST_REST = 32
_NEW = 0.3
"""Weight of a new time."""


class Times:
    """Seconds of windows and of whole frames, learnt from the frames that were run.

    Args:
        grid: the windows.
        pixel: seconds of the teacher for a pixel, as a probe has measured them.
        predicts: whether a block can predict.
        device: type of the device.

    Attributes:
        refresh: seconds of a refreshed window.
        predict: seconds of a predicted window.
        full: seconds of the teacher on a whole frame.
        seconds: what the windows of the last frame took.
        rest: whole frames to come before windows are looked for again.
    """

    def __init__(self, grid: Grid, pixel: float, predicts: bool, device: str) -> None:
        self.refresh = pixel * math.prod(grid.crop)
        self.predict = _PREDICTS * self.refresh
        self._predicts, self._device = predicts, device
        self.full, self._shortcut = pixel * math.prod(grid.size), math.inf
        self._warm: set[tuple[str, int]] = set()
        self._wholes = self._rests = 0
        self.rest = 0
        self._fixed = self.seconds = 0.0

    @property
    def whole(self) -> float:
        """Seconds of a frame as a whole: of a shortcut frame if a block can predict."""
        return min(self._shortcut, _SHORTCUT * self.full) if self._predicts else self.full

    def pay(self, refreshed: int, predicted: int) -> bool:
        """Return True if so many windows take less time than a whole frame; if not, rest, longer each time."""
        if self._fixed + self._expected(refreshed, predicted) < _PAYS * self.whole:
            self._rests = 0
            return True
        self._rests = min(2 * self._rests + 1, _LONGEST_REST)
        self.rest = self._rests
        return False

    def note_whole(self, seconds: float, full: bool) -> None:
        """Take in the time of a whole frame; the first one prepares the network."""
        self._wholes += 1
        self.rest = max(0, self.rest - 1)
        if self._wholes == 1:
            self.full = min(seconds, self.full)
        elif full:
            self.full = _NEW * seconds + (1 - _NEW) * self.full
        else:
            self._shortcut = seconds if self._shortcut == math.inf else _NEW * seconds + (1 - _NEW) * self._shortcut

    def note_windows(self, refreshed: Sequence[int], predicted: Sequence[int], seconds: float) -> None:
        """Take in the time of windows, unless a batch of this size ran for the first time."""
        self.seconds = seconds
        sizes = {("refresh", len(batch)) for batch in batches(refreshed, self._device)}
        sizes |= {("predict", len(batch)) for batch in batches(predicted, self._device)}
        if sizes and sizes <= self._warm:
            ratio = (seconds / self._expected(len(refreshed), len(predicted))) ** _NEW
            self.refresh, self.predict = self.refresh * ratio, self.predict * ratio
        self._warm |= sizes

    def note_frame(self, seconds: float) -> None:
        """Take in the time of a whole frame; what its windows did not take went into finding and pasting them."""
        seconds -= self.seconds
        self._fixed = _NEW * seconds + (1 - _NEW) * self._fixed if self._fixed else seconds

    def _expected(self, refreshed: int, predicted: int) -> float:
        return refreshed * self.refresh + predicted * self.predict
