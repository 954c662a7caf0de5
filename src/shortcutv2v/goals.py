"""From a goal as a user types it, a quality or a speed, to the policy that holds it."""

from __future__ import annotations

import re

from shortcutv2v.errors import InputError
from shortcutv2v.quality import Calibration, Quality, Speed
from shortcutv2v.refresh import Every, RefreshPolicy, as_policy

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
    usual: RefreshPolicy,
    horizon: int,
    calibration: Calibration | None,
    *,
    refresh: object = None,
    quality: str | float | None = None,
    speed: float | None = None,
    guarantee: int = 0,
) -> RefreshPolicy:
    """Return the policy that was asked for: by `refresh`, or by a quality or a speed that it holds.

    Args:
        usual: the policy if none is asked for; a function as `refresh` takes its horizon.
        horizon: of policies that hold a quality or a speed.
        calibration: of the model; None for values that suit most footage, with audits from the first frame on.
        refresh: as `as_policy` takes it.
        quality: as `parse_quality` takes it.
        speed: times as fast as the teacher.
        guarantee: see `Quality`.

    Raises:
        InputError: more than one of `refresh`, `quality` and `speed` is given, or one is out of range.

    Examples:
        >>> policy_for(Every(3), 9, None), policy_for(Every(3), 9, None, quality="lossless")
        (Every(interval=3), Every(interval=1))
    """
    if [refresh, quality, speed].count(None) < 2:
        raise InputError("give one of refresh=, quality= and speed=")
    if speed is not None:
        return Speed(speed, horizon)
    if quality is None:
        return usual if refresh is None else as_policy(refresh, usual=usual.interval)
    asked, known = parse_quality(quality), calibration or Calibration()
    if asked is None:
        return Every(1)
    return Quality(*asked, horizon, guarantee, known.slope, known.level, known.margin, known.look)
