"""From a goal as a user types it, a quality or a speed, to the policy that holds it."""

from __future__ import annotations

import re

from shortcutv2v.errors import InputError
from shortcutv2v.quality import Calibration, Quality, Speed
from shortcutv2v.refresh import Every, RefreshPolicy

__all__ = ["parse_quality", "policy_for"]


def parse_quality(text: str | float) -> tuple[float, float] | None:
    """Return the quality in dB and the share of frames that shall hold it; None for "lossless".

    Args:
        text: 40, "40", "40dB", "40dB@99%" or "lossless".

    Raises:
        InputError: it is none of these.

    Examples:
        >>> parse_quality(40), parse_quality("38.5dB@99%"), parse_quality("lossless")
        ((40.0, 0.95), (38.5, 0.99), None)
    """
    if str(text).strip().lower() == "lossless":
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:dB)?\s*(?:@\s*(\d+(?:\.\d+)?)\s*%)?\s*", str(text), re.IGNORECASE)
    if isinstance(text, bool) or found is None:
        raise InputError(f"quality={text!r}: expected a PSNR in dB such as 40, 40dB@99% (of the frames), or lossless")
    return float(found[1]), float(found[2]) / 100 if found[2] else 0.95


def policy_for(
    quality: str | float | None,
    speed: float | None,
    interval: int,
    calibration: Calibration | None,
    guarantee: int = 0,
) -> RefreshPolicy:
    """Return the policy that holds a quality or a speed.

    Args:
        quality: as `parse_quality` takes it, or None.
        speed: times as fast as the teacher, or None.
        interval: the horizon.
        calibration: of the model; None for values that suit most footage, with audits from the first frame on.
        guarantee: see `Quality`.

    Raises:
        InputError: both or neither are given, or one is out of range.

    Examples:
        >>> policy_for("lossless", None, 9, None)
        Every(interval=1)
    """
    if (quality is None) == (speed is None):
        raise InputError("give either quality= or speed=")
    if speed is not None:
        return Speed(speed, interval)
    asked = parse_quality(quality) if quality is not None else None
    if asked is None:
        return Every(1)
    known = calibration or Calibration()
    return Quality(*asked, interval, guarantee, known.slope, known.level, known.margin)
