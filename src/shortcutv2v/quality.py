"""Policies by name of the goal: a quality that shortcut frames shall hold, or a speed.

The block's own correction, `Prediction.unexplained`, orders the frames of a clip by their error; its level differs from
clip to clip. So the error is estimated as

    psnr = level + slope * 10 log10(unexplained)

where `slope` is learnt once (`model.calibrate()`) and `level` comes from audits: at a refresh the true features are
there, and the prediction is measured against them. A margin on top follows the share of frames that shall hold the
quality: it grows with every audit that came out worse than estimated, and shrinks slowly with the others. This is
quantile tracking, the step of adaptive conformal inference (Gibbs and Candes 2021, arXiv 2106.00170, equation 2) taken
on the quantile itself (Angelopoulos, Candes and Tibshirani 2023, arXiv 2307.16895, equation 6).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from shortcutv2v.decibels import decibels
from shortcutv2v.errors import InputError, check_number
from shortcutv2v.refresh import FromBoth, Look, RefreshPolicy

if TYPE_CHECKING:
    from shortcutv2v.blocks import Prediction

__all__ = ["Calibration", "Quality", "Speed", "unexplained"]

_LEVELS = 3
"""Audits that the level is taken from."""
_NEAR = 6.0
"""Audits farther from the asked quality than so many dB say nothing about frames that hold it."""
_AGREE = 3.0
"""Levels farther apart than so many dB are not of one scene."""
_WASTED = 1.0
"""A refusal was needless if its prediction holds so many dB more than asked."""
_BOTH = 0.2
"""dB by which a prediction from both sides is at least better than one from one that leaves as much unexplained."""
_STEP = 0.2
"""Step of the margin in dB."""
_LOOK, _ALL = 0.35, 0.95
"""Cost of a look where it was not measured; cost of a look and gain of a shortcut frame together: in teacher frames."""
_KEPT = 10_000
"""Frames whose estimates are kept."""
_CREDIT, _SLACK = 0.7, 0.02
"""Teacher frames that looks may cost at most without a gain: at once, and per frame of the video."""


@dataclass(frozen=True)
class Calibration:
    """The map from the block's own signal to its error, learnt by `model.calibrate()`.

    Attributes:
        slope: dB of PSNR per dB of `unexplained`.
        level: PSNR in dB where `unexplained` is 1, on the clips of the calibration.
        margin: dB by which 95 % of the estimates there are at most too good.
        frames: predictions that it was learnt from; 0 for the values that are used without a calibration.
        look: time of a look that ends in a refresh, its audit included, as a share of a teacher frame's; 0.35 at most.
            It is kept here and not measured by streams, so that what they show does not depend on the clock.
    """

    slope: float = -0.74
    level: float | None = None
    margin: float = 0.9
    frames: int = 0
    look: float = _LOOK

    def with_look(self, share: float) -> Calibration:
        """Return the same with a measured cost of a look, unless it is dearer than the one that is known."""
        return replace(self, look=min(self.look, round(share, 3)))

    @staticmethod
    def from_recipe(saved: Mapping[str, Any] | None) -> Calibration | None:
        """Return the calibration that `dataclasses.asdict` has written; None for none, or if values are missing."""
        if saved is None:
            return None
        try:
            slope, level, margin = (float(saved[name]) for name in ("slope", "level", "margin"))
            return Calibration(slope, level, margin, saved["frames"], float(saved.get("look", _LOOK)))
        except (KeyError, TypeError, ValueError):
            return None


@dataclass
class Quality(RefreshPolicy):
    """Refresh when the prediction would fall below a quality: PSNR to the teacher, for a share of the shortcut frames.

    Args:
        target: PSNR in dB of the shown picture to the teacher's own.
        share: share of the shortcut frames that shall hold it, above 0.5 and below 1.
        interval: the horizon, see `RefreshPolicy`.
        guarantee: run every so many-th shortcut frame in full, too, and show that; 0 for never. These audits measure
            what the others are worth, on this very video.
        slope: see `Calibration`.
        level: see `Calibration`.
        margin: see `Calibration`; where a stream begins.
        look: see `Calibration`.

    Raises:
        InputError: a value is out of range.

    Examples:
        >>> policy = Quality(40.0, level=10.0)
        >>> policy.estimate(1e-4)
        39.6
    """

    guarded: ClassVar[bool] = True
    audits: ClassVar[bool] = True
    from_both: ClassVar[FromBoth] = "refused"

    target: float
    share: float = 0.95
    interval: int = 9
    guarantee: int = 0
    slope: float = -0.74
    level: float | None = None
    margin: float = 0.9
    look: float = _LOOK

    def __post_init__(self) -> None:
        if not (isinstance(self.target, int | float) and 0 < self.target < 100):
            raise InputError(f"quality must be a PSNR above 0 and below 100 dB, got {self.target!r}")
        if not 0.5 < self.share < 1:
            raise InputError(f"the share of frames must be above 50 % and below 100 %, got {self.share:.0%}")
        check_number("interval", self.interval, 1, whole=True)
        self.reset()

    def reset(self) -> None:
        """Forget the video: levels, margin and waiting begin anew."""
        self._levels: list[float] = []
        self._margin = self.margin
        self._seen: list[float] = []
        self._settled: deque[float] = deque(maxlen=_KEPT)
        self._open: list[float] = []
        self._frames = self._shown = self._waited = 0
        self._lost = 0.0
        self._best: float | None = None
        self._last = -math.inf
        self._cut, self._needed, self._former = False, 1, math.nan
        self._wasted, self._begin = 0, math.nan if self.level is None else self.level

    def estimate(self, unexplained: float) -> float:
        """Return the expected PSNR in dB of a prediction, by the latest audits."""
        return round(self._scene + self.slope * decibels(unexplained), 6)

    @property
    def _scene(self) -> float:
        """Level of the estimates: that of the latest audits."""
        return _recent(self._seen) if self._seen else self._begin

    def _part(self, look: Look) -> float:
        """The signal's share of the estimate, in dB."""
        return self.slope * decibels(unexplained(look.predictions)) + _BOTH * look.both

    def _level(self) -> float:
        """Return the last audits' level; the lowest if the newest disagrees: right after a flash one may mislead.

        After two needless refusals in a row the newest counts more, until the next audit.
        """
        if not self._levels:
            return self._begin
        near = [level for level in self._levels if abs(level - self._levels[-1]) < _AGREE]
        level = _recent(near) if len(near) > 1 or len(self._levels) == 1 else min(self._levels)
        return min(self._levels[-1], level + _WASTED / 2) if self._wasted > 1 else level

    def __call__(self, look: Look) -> str:
        """Return "estimate", "cut", "audit", "unreachable", or nothing if the frame may be a shortcut frame."""
        self._frames += 1
        if self._lost + self.look > _CREDIT + _SLACK * self._frames:
            self._waited += 1
            return "unreachable"
        part = self._part(look)
        look.estimate = round(self._scene + part, 6)
        reason = self._reason(look.distance, self._level() + part)
        self._lost = max(0.0, self._lost + (self.look if reason else self.look - _ALL))
        if not reason and math.isfinite(look.estimate):
            self._open.append(look.estimate)
        return reason

    def _reason(self, distance: int, expected: float) -> str:
        if len(self._levels) < self._needed:
            return "audit"
        before, self._last = self._last, expected
        falls = expected - (self._margin / 2 if self._wasted > 1 else self._margin) < self.target
        if falls and before - expected > _NEAR:
            # Another scene: its level is another, which this frame, predicted from the old scene, says nothing of.
            self._settle(0.0)
            self._former, self._levels, self._seen, self._cut = self._level(), [], [], True
            self._needed, self._wasted = 2, 0
            return "cut"
        if distance >= self.interval:
            return "distance"
        if falls:
            return "estimate"
        self._shown += 1
        return "audit" if self.guarantee and self._shown % self.guarantee == 0 else ""

    @property
    def estimates(self) -> Sequence[float]:
        """PSNR in dB of the latest shortcut frames, estimated by the audits before and after each."""
        return [*self._settled, *self._open]

    def audit(self, look: Look, psnr: float) -> None:
        """Move the level to what was found, and the margin by whether the estimate was too good."""
        if self._cut:
            self._cut = False
            return
        part = self._part(look)
        expected = self._level() + part - self._margin
        missed = expected > psnr
        self._wasted = self._wasted + 1 if look.reason == "estimate" and psnr >= self.target + _WASTED else 0
        counts = abs(psnr - self.target) < _NEAR or psnr < self.target <= expected
        if self._levels and counts:
            self._margin = max(0.0, self._margin + _STEP * (missed - (1 - self.share)))
        if self._seen:  # the frames since the last audit lie between two audits: take the mean of what both say
            self._settle((psnr - part - _recent(self._seen)) / 2)
        self._seen = [*self._seen, psnr - part][-_LEVELS:]
        if not self._levels and abs(psnr - part - self._former) < _AGREE:
            self._needed = 1  # after a cut, one audit will do if it finds the level of before
        if counts or len(self._levels) < self._needed:
            self._levels = [*self._levels, psnr - part][-_LEVELS:]
        if psnr - self._margin >= self.target:
            self._lost = max(0.0, self._lost - _LOOK)  # it would have held: looking pays here
        if look.distance == 1:
            self._best = psnr if self._best is None else max(self._best, psnr)

    def _settle(self, shift: float) -> None:
        self._settled.extend(estimate + shift for estimate in self._open)
        self._open = []

    def note(self) -> str:
        """Return what the block reached, if frames got a full pass without a look because looks did not pay."""
        if self._waited <= _SLACK * self._frames or self._best is None:
            return ""
        reached = f"one frame after a refresh the block reaches {self._best:.1f} dB"
        if self._best < self.target:
            return f"{self.target:g} dB cannot be held: {reached}"
        places = f"in places ({self._waited} of {self._frames} frames)"
        return f"{self.target:g} dB cannot be held {places}: {reached} at best"


@dataclass
class Speed(RefreshPolicy):
    """Hold a mean speed, and refresh the frames that need it most.

    Refreshes where the block's correction is largest, as often as the measured times of this stream allow.

    Args:
        target: how many times as fast as the teacher the stream shall be.
        interval: the horizon, see `RefreshPolicy`; it is kept even if the speed is not reached.

    Raises:
        InputError: `target` is not above 1.
    """

    guarded: ClassVar[bool] = True

    target: float
    interval: int = 9

    def __post_init__(self) -> None:
        if not (isinstance(self.target, int | float) and 1 < self.target < math.inf):
            raise InputError(f"speed must be a number above 1, times as fast as the teacher, got {self.target!r}")
        check_number("interval", self.interval, 1, whole=True)
        self.reset()

    def reset(self) -> None:
        """Forget the video."""
        self._threshold: float | None = None

    def __call__(self, look: Look) -> str:
        """Return "budget" if the frame is worth one of the refreshes that the speed allows."""
        share = self._share(*look.times)
        signal = decibels(unexplained(look.predictions))
        self._threshold = signal if self._threshold is None else self._threshold
        due = look.distance >= self.interval or signal > self._threshold
        self._threshold += due - share  # so that a share of the frames lies above it
        return "budget" if due else ""

    def _share(self, teacher: float | None, shortcut: float | None) -> float:
        """Share of frames that may be refreshed: solves `share * full + (1 - share) * shortcut = teacher / target`."""
        if teacher is None or shortcut is None:
            return 1 / self.interval
        full = teacher + shortcut  # the policy looks at every frame
        return min(1.0, max(0.0, (teacher / self.target - shortcut) / (full - shortcut)))


def _recent(levels: Sequence[float]) -> float:
    """Return the mean of some levels, in which each counts twice as much as the one before it."""
    weights = [2.0**place for place in range(len(levels))]
    return sum(level * weight for level, weight in zip(levels, weights, strict=True)) / sum(weights)


def unexplained(predictions: Iterable[Prediction]) -> float:
    """Return the size of what motion did not explain, summed over the branches."""
    return sum(float(prediction.unexplained) for prediction in predictions)
