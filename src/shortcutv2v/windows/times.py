"""Seconds that windows and whole frames take, so that windows run only where they are faster."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shortcutv2v.windows.levels import Cell, Job, Levels

__all__ = ["Times"]

_PREDICTS, _SHORTCUT = 0.4, 0.3
"""Time of a prediction and of a shortcut frame, as a share of the teacher's, until they are known."""
_PAYS = 0.9
"""Windows run if they are expected to take less than this share of a whole frame's time."""
_PATIENCE = 4
"""Frames in a row whose windows are slower before whole frames run, with a block."""
_LONGEST_REST = 32
_NEW = 0.3
"""Weight of a new time."""


class Times:
    """Seconds of crops and of whole frames, learnt from the frames that were run.

    Args:
        levels: the windows.
        pixel: seconds of the teacher for a pixel, as a probe has measured them.
        interval: frames from one full pass to the next, if frames are run as wholes; 1 without a block.
        device: type of the device.

    Attributes:
        refresh: seconds of a refreshed crop, per level.
        predict: seconds of a predicted crop, per level.
        full: seconds of a whole frame in full.
        seconds: what the windows of the last frame took.
        rest: whole frames to come before windows are looked for again.
    """

    def __init__(self, levels: Levels, pixel: float, interval: int, device: str) -> None:
        self._areas = [math.prod(grid.crop) for grid in levels.grids]
        self.refresh = [pixel * area for area in self._areas]
        self.predict = [_PREDICTS * seconds for seconds in self.refresh]
        self._interval, self.device = interval, device
        self._picture = math.prod(levels.grids[0].size)
        self.full, self._shortcut = pixel * self._picture, math.inf
        self._warm: set[tuple[str, int, int]] = set()
        self._wholes = self._fulls = self._rests = self._slow = 0
        self.rest = 0
        self._fixed = self.seconds = 0.0

    @property
    def whole(self) -> float:
        """Seconds of a frame as a whole, in the mean.

        With a block, some frames are full passes: one per interval to begin with, then as many as there were.
        """
        if self._interval == 1:
            return self.full
        shortcut = min(self._shortcut, _SHORTCUT * self.full) if self._shortcut == math.inf else self._shortcut
        share = (1 + self._fulls) / (self._interval + self._wholes)
        return share * self.full + (1 - share) * shortcut

    def cost(self, refreshed: Sequence[Cell], predicted: Sequence[Cell]) -> float:
        """Return the seconds that these cells are expected to take."""
        return sum(self.refresh[c.level] for c in refreshed) + sum(self.predict[c.level] for c in predicted)

    def pay(self, cost: float, *, steady: bool = False) -> bool:
        """Return True if windows are to run; if not, rest, longer each time.

        They run if they are faster than whole frames. With a block, whole frames begin with a full pass: then a frame
        or two whose windows are slower run all the same.

        Args:
            cost: expected seconds of the windows.
            steady: compare with the slowest whole frame, which a rolling refresh avoids.
        """
        seconds = self._fixed + cost
        self._slow = 0 if seconds < _PAYS * (self.full if steady else self.whole) else self._slow + 1
        if not self._slow:
            self._rests = 0
            return True
        if self._interval > 1 and self._slow < _PATIENCE and seconds < _PAYS * self.full:
            return True
        self._rests = min(2 * self._rests + 1 if self._rests else self._interval, _LONGEST_REST)
        self.rest = self._rests
        return False

    def measured(self, level: int, refresh: float, predict: float) -> None:
        """Take in the seconds of a crop, measured when the windows were made; larger ones cost as much per pixel.

        Args:
            level: of the crop.
            refresh: seconds.
            predict: seconds; infinite if there is no block.
        """
        self.full = refresh * self._picture / self._areas[level]
        for above in range(level, len(self._areas)):
            ratio = self._areas[above] / self._areas[level]
            self.refresh[above], self.predict[above] = refresh * ratio, predict * ratio

    def note_whole(self, seconds: float, full: bool) -> None:
        """Take in the time of a whole frame; the first one prepares the network."""
        self._wholes += 1
        self.rest = max(0, self.rest - 1)
        if self._wholes == 1:
            self.full = min(seconds, self.full)
        elif full:
            self._fulls += 1
            self.full = _NEW * seconds + (1 - _NEW) * self.full
            if self._interval == 1 and self._areas[-1] == self._picture:
                self.refresh[-1] = self.full  # without a block, all windows as one crop are a whole frame
        else:
            self._shortcut = seconds if self._shortcut == math.inf else _NEW * seconds + (1 - _NEW) * self._shortcut

    def note_windows(self, refreshed: Sequence[Job], predicted: Sequence[Job], seconds: float) -> None:
        """Take in the time of windows, unless a batch of this size ran for the first time."""
        self.seconds = seconds
        sizes = {("refresh", job.level, len(job.places)) for job in refreshed}
        sizes |= {("predict", job.level, len(job.places)) for job in predicted}
        if sizes and sizes <= self._warm:
            expected = sum(self.refresh[job.level] * len(job.places) for job in refreshed)
            expected += sum(self.predict[job.level] * len(job.places) for job in predicted)
            for name, level in {size[:2] for size in sizes}:
                times = getattr(self, name)
                times[level] *= (seconds / expected) ** _NEW
        self._warm |= sizes

    def note_frame(self, seconds: float) -> None:
        """Take in the time of a whole frame; what its windows did not take went into finding and pasting them."""
        seconds -= self.seconds
        self._fixed = _NEW * seconds + (1 - _NEW) * self._fixed if self._fixed else seconds
