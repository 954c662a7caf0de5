"""The errors that the package raises on purpose.

    ShortcutError(ValueError)
    ├── CutError                 the cut cannot be made as asked
    │   ├── UnknownLayerError    no module of that name
    │   ├── NeverCalledError     the module exists, but did not run
    │   ├── AmbiguousCallError   the module ran more than once
    │   ├── OutputTypeError      the module's output is not a single feature map
    │   ├── CutOrderError        dec_layer does not depend on enc_layer
    │   ├── SpatialMismatchError a and f have different spatial sizes
    │   └── LeakError            the tail needs other features from inside the middle
    ├── CaptureError             no strategy reproduced the teacher
    ├── InputError               an argument or input does not fit
    ├── CheckpointError          a saved block cannot be read, or belongs to another cut or teacher
    ├── NonFiniteError           a picture holds values that are infinite or not a number
    ├── ExportError              a model cannot become programs for another engine
    ├── NonFiniteLossError       a loss became infinite or not a number
    └── VideoError               a clip cannot be read or written

One `except shortcutv2v.ShortcutError` catches them all, and so does `except ValueError`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

__all__ = [
    "AmbiguousCallError",
    "CaptureError",
    "CheckpointError",
    "CutError",
    "CutOrderError",
    "ExportError",
    "InputError",
    "LeakError",
    "NeverCalledError",
    "NonFiniteError",
    "NonFiniteLossError",
    "OutputTypeError",
    "ShortcutError",
    "SpatialMismatchError",
    "UnknownLayerError",
    "VideoError",
    "check_number",
    "near_matches",
]


class ShortcutError(ValueError):
    """Base of every error raised on purpose by this package."""


class CutError(ShortcutError):
    """The cut given by `enc_layer` and `dec_layer` cannot be made."""


class UnknownLayerError(CutError):
    """The teacher has no module of that name; the message lists near matches."""


class NeverCalledError(CutError):
    """The module exists, but the teacher did not call it on the example inputs."""


class AmbiguousCallError(CutError):
    """The module is called more than once; the message says how to name one call."""


class OutputTypeError(CutError):
    """The module returns another value than one (B, C, H, W) tensor."""


class CutOrderError(CutError):
    """`f` does not depend on `a`: the layers are swapped, or lie on independent paths."""


class SpatialMismatchError(CutError):
    """`a` and `f` differ in height or width; the message states both shapes."""


class LeakError(CutError):
    """The tail needs features from inside the middle that do not pass through `f`."""


class CaptureError(ShortcutError):
    """No capture strategy reproduced the teacher; the message gives the reason of each."""


class InputError(ShortcutError):
    """An argument has a wrong value, or inputs do not fit the model, its reference or its adapter."""


class CheckpointError(ShortcutError):
    """A saved block is damaged, of another format, or belongs to another cut or teacher."""


class NonFiniteError(ShortcutError):
    """A picture to be shown holds values that are infinite or not a number; the message counts them."""


class ExportError(ShortcutError):
    """A model cannot become programs for another engine, or the programs do not give what the model gives."""


class NonFiniteLossError(ShortcutError):
    """A loss or its gradient became infinite or not a number; the message names it and the file with the batch."""


class VideoError(ShortcutError):
    """A video or a folder of frames cannot be read or written."""


def near_matches(name: str, known: Iterable[str], n: int = 5) -> list[str]:
    """Return the entries of `known` closest to `name` in spelling, best first.

    >>> near_matches("down_1", ["down1", "down2", "up1"])
    ['down1', 'down2']
    """
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)


def check_number(
    name: str, value: object, low: float, high: float = math.inf, *, whole: bool = False, inside: bool = False
) -> None:
    """Raise `InputError` if `value` is not a number from `low` to `high`.

    Args:
        name: the argument's name.
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
        limits = f"{least} {low:.10g}" + ("" if high == math.inf else f" and {most} {high:.10g}")
        raise InputError(f"{name} must be a {'whole ' if whole else ''}number {limits}, got {value!r}")
