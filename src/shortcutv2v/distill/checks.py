"""Numbers that a user gives, looked at where they come in and not where they do harm."""

from __future__ import annotations

import math
import tempfile
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from shortcutv2v.errors import InputError

__all__ = ["check_end", "check_number", "check_precision", "check_run", "check_samples", "checked_folder"]


def check_number(
    name: str, value: object, low: float, high: float = math.inf, *, whole: bool = False, inside: bool = False
) -> None:
    """Refuse what is no number from `low` to `high`.

    Args:
        name: what the user called it.
        value: what the user gave.
        low: smallest value.
        high: largest value; infinity itself is refused.
        whole: whether it must be a whole number.
        inside: whether `low` and `high` themselves are refused, too.

    Raises:
        InputError: naming what was expected.

    Examples:
        >>> check_number("batch_size", 0, 1, whole=True)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: batch_size must be a whole number of at least 1, got 0
        >>> check_number("decay", 0.5, 0, 1)
    """
    right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    number: Any = value
    if not right or not math.isfinite(number) or not (low < number < high if inside else low <= number <= high):
        least, most = ("above", "below") if inside else ("of at least", "at most")
        limits = f"{least} {low:g}" + ("" if high == math.inf else f" and {most} {high:g}")
        raise InputError(f"{name} must be a {'whole ' if whole else ''}number {limits}, got {value!r}")


def check_samples(length: int, seed: int, crop: object) -> None:
    """Refuse what no samples can be drawn by.

    Args:
        length: how many there are.
        seed: of all that is drawn.
        crop: (height, width), or None for whole frames.

    Raises:
        InputError: saying what was expected.

    Examples:
        >>> check_samples(1000, 0, 96)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: crop must be (height, width) or None, got 96
    """
    check_number("length, the number of samples,", length, 1, whole=True)
    check_number("seed", seed, 0, whole=True)
    if crop is None:
        return
    if not (isinstance(crop, tuple | list) and len(crop) == 2):
        raise InputError(f"crop must be (height, width) or None, got {crop}")
    for side in crop:
        check_number("each side of crop", side, 1, whole=True)


def check_run(
    *,
    minutes: float | None,
    steps: int,
    precision: object,
    seed: int,
    patience: int | None,
    save_every: int,
    ema: float | None,
) -> None:
    """Refuse what no run can be made of, before anything is read or built.

    Args:
        minutes: see `check_end`.
        steps: see `check_end`.
        precision: see `check_precision`.
        seed: of all that is drawn.
        patience: validations without a gain, None for no early end.
        save_every: steps from one checkpoint to the next.
        ema: decay of an average, None for none.

    Raises:
        InputError: naming what was expected.
    """
    check_end(minutes, steps)
    check_precision(precision)
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    check_number("save_every", save_every, 1, whole=True)
    if patience is not None:
        check_number("patience", patience, 1, whole=True)
    if ema is not None:
        check_number("ema", ema, 0, 1, inside=True)


def check_precision(precision: object) -> None:
    """Refuse a precision for which Lightning would convert the teacher's own weights.

    Raises:
        InputError: it is one of the "true" precisions other than float32, or one that exchanges layers.

    Examples:
        >>> check_precision("bf16-mixed")
    """
    name = str(precision)
    if name in ("bf16-true", "16-true"):
        raise InputError(
            f"precision {precision!r} would round the teacher's weights for good: give "
            f"{name.replace('true', 'mixed')!r}, or wrap a teacher that is in half precision already"
        )
    if name in ("64", "64-true") or name.startswith("transformer-engine"):
        raise InputError(
            f"precision {precision!r} would convert the teacher itself: give '32-true', '16-mixed' or 'bf16-mixed'; "
            "a teacher that is in another precision already is trained as it is"
        )


def check_end(minutes: float | None, steps: int) -> None:
    """Refuse a run without an end, and one that would end before it begins.

    Args:
        minutes: length of the run, None where it ends by steps.
        steps: number of steps, -1 where it ends by time.

    Raises:
        InputError: saying what to give.

    Examples:
        >>> check_end(minutes=None, steps=-1)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: give minutes, a number of steps, or both: training would never end
    """
    if steps != -1:
        check_number("the number of steps", steps, 1, whole=True)
    if minutes is None and steps == -1:
        raise InputError("give minutes, a number of steps, or both: training would never end")
    if minutes is not None:
        check_number("minutes", minutes, 0, 1e6, inside=True)


def checked_folder(folder: str | Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        InputError: it cannot be made or written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # not all that may be listed may be written to
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be a folder to write to: {error.strerror}") from None
    return path
