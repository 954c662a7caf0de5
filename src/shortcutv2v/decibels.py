"""Signals and errors in dB, without torch."""

from __future__ import annotations

import math

__all__ = ["BEST", "decibels", "error_of", "psnr_of"]

BEST = 100.0
"""The largest PSNR in dB that is told: that of equal pictures."""
_FLOOR = 1e-12
"""Smallest size that is told from zero."""


def decibels(size: float) -> float:
    """Return the size of a signal in dB.

    >>> decibels(0.01)
    -20.0
    """
    return 10 * math.log10(max(size, _FLOOR))


def psnr_of(error: float) -> float:
    """Return the PSNR in dB of pictures in [0, 1] with this mean square error, 100 at most; reverse of `error_of`.

    >>> psnr_of(1e-4), psnr_of(0.0)
    (40.0, 100.0)
    """
    return min(BEST, -decibels(error))


def error_of(psnr: float) -> float:
    """Return the mean square error of pictures in [0, 1] that have this PSNR in dB.

    >>> error_of(20.0)
    0.01
    """
    return float(10 ** (-psnr / 10))
