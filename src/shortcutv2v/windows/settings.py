"""Settings of windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shortcutv2v.errors import InputError

__all__ = ["Windows"]

_LEAST = 32
"""Side of the smallest core: smaller ones cost more to run than they save."""


@dataclass(frozen=True)
class Windows:
    """Settings of windows.

    Args:
        size: side of a window with its halo, in pixels of the input, at most; more where the halo needs it. None weighs
            the halo's work against that of pixels that need none, for something a third as high as the picture.
        halo: pixels that a window shows around its core; None for the smallest whose measured error is a tenth of what
            the quality allows.
        quality: PSNR in dB to the teacher that the pictures shall hold; None for that of a `Quality` policy, else 40.
        predict: predict windows with the block, if it is trained; False uses no block, and whole frames are
            the teacher's.
        rolling: share of the windows that is refreshed on every frame, so that all frames take about as long; more only
            if a quality is asked for that needs it. 0 refreshes what the quality needs.

    Raises:
        InputError: a value is out of range.
    """

    size: int | None = None
    halo: int | None = None
    quality: float | None = None
    predict: bool = True
    rolling: float = 0.0

    def __post_init__(self) -> None:
        if (self.size or 8) < 8 or (self.halo is not None and self.halo < 0):
            raise InputError(f"windows of size {self.size} with halo {self.halo}: expected at least 8 and 0 pixels")
        if not 0 <= self.rolling <= 1:
            raise InputError(f"rolling={self.rolling!r}: expected a share of the windows, 0 to 1")
        if self.quality is not None and not 0 < self.quality < 100:
            raise InputError(f"quality must be a PSNR above 0 and below 100 dB, got {self.quality!r}")

    def side(self, height: int, halo: int) -> int:
        """Return the side of a window with its halo for pictures of this height, in pixels.

        A square of side L touches cores of side c over about (L + c)^2 pixels, and their crops cover (1 + 2 halo / c)^2
        times as many; c = sqrt(2 halo L) makes that least.

        Examples:
            >>> Windows().side(360, halo=4), Windows(size=64).side(360, halo=4)
            (40, 64)
        """
        if self.size is not None:
            return self.size
        return max(_LEAST, round(math.sqrt(2 * halo * height / 3))) + 2 * halo
