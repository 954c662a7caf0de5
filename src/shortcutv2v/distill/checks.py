"""Numbers that a user gives, looked at where they come in and not where they do harm."""

from __future__ import annotations

import math
from numbers import Integral, Real
from pathlib import Path

from shortcutv2v.errors import InputError

__all__ = ["check_end", "check_number", "check_precision", "checked_folder"]


def check_number(name: str, value: object, low: float, high: float = math.inf, *, whole: bool = False) -> None:
    """Refuse what is no number from `low` to `high`, both included.

    Args:
        name: what the user called it.
        value: what the user gave.
        low: smallest value.
        high: largest value; infinity itself is refused.
        whole: whether it must be a whole number.

    Raises:
        InputError: naming what was expected.

    Example:
        >>> check_number("batch_size", 0, 1, whole=True)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: batch_size must be a whole number of at least 1, got 0
        >>> check_number("decay", 0.5, 0, 1)
    """
    right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not (right and low <= value <= high and math.isfinite(value)):  # type: ignore[operator, arg-type]
        limits = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise InputError(f"{name} must be a {'whole ' if whole else ''}number {limits}, got {value!r}")


def check_precision(precision: object) -> None:
    """Refuse a precision for which Lightning would round the teacher's own weights.

    Raises:
        InputError: it is "bf16-true" or "16-true".

    Example:
        >>> check_precision("bf16-mixed")
    """
    if precision in ("bf16-true", "16-true"):
        raise InputError(
            f"precision {precision!r} would round the teacher's weights for good: give "
            f"{str(precision).replace('true', 'mixed')!r}, or wrap a teacher that is in half precision already"
        )


def check_end(minutes: float | None, steps: int) -> None:
    """Refuse a run without an end, and one that would end before it begins.

    Args:
        minutes: length of the run, None where it ends by steps.
        steps: number of steps, -1 where it ends by time.

    Raises:
        InputError: saying what to give.

    Example:
        >>> check_end(minutes=None, steps=-1)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: give minutes, a number of steps, or both: training would never end
    """
    if steps != -1:
        check_number("the number of steps", steps, 1, whole=True)
    if minutes is None and steps == -1:
        raise InputError("give minutes, a number of steps, or both: training would never end")
    if minutes is not None:
        check_number("minutes", minutes, 0)
        if minutes == 0:
            raise InputError("minutes must be more than 0")


def checked_folder(folder: str | Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        InputError: it cannot be made.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be a folder to write to: {error.strerror}") from None
    return path
