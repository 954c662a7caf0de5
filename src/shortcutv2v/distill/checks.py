"""Checks of what a user gives, made before anything is read or built."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from shortcutv2v.errors import InputError, check_number
from shortcutv2v.locks import held, locked
from shortcutv2v.model import ShortcutV2V

__all__ = [
    "check_end",
    "check_kind",
    "check_model",
    "check_number",
    "check_path",
    "check_precision",
    "check_samples",
    "check_size",
    "checked_folder",
    "only_run_in",
]

_LARGEST_SIDE = 16384
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables in which launchers number the processes of a run."""


def check_samples(length: int, seed: int, crop: object) -> None:
    """Raise `InputError` if no samples can be drawn with these arguments.

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


def check_kind(name: str, value: object, kind: type, advice: str, *, optional: bool = True) -> None:
    """Raise `InputError` if an argument is neither of its kind nor, where that is allowed, None.

    Args:
        name: the argument's name.
        value: what the user gave.
        kind: the class it must be of.
        advice: what to give instead.
        optional: whether None is allowed.

    Examples:
        >>> check_kind("settings", 3, dict, "give a dictionary")
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: settings must be a dict, got a int: give a dictionary
    """
    if not (isinstance(value, kind) or (optional and value is None)):
        given = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise InputError(f"{name} must be a {kind.__name__}, got {given}: {advice}")


def check_model(model: Any) -> None:
    """Raise `InputError` if the blocks of `model` cannot be trained."""
    check_kind("model", model, ShortcutV2V, "wrap the teacher with shortcutv2v.wrap()", optional=False)
    held = itertools.chain(*(each() for part in (model, model.teacher) for each in (part.parameters, part.buffers)))
    if any(tensor.is_inference() for tensor in held):
        raise InputError("the model was made under torch.inference_mode() and cannot be trained: make it outside")
    if any(weight.dtype == torch.float16 for weight in model.blocks.parameters()):
        raise InputError(
            "the blocks are in float16, which becomes NaN under Adam at the first step: wrap the teacher in float32 "
            'and train with precision="16-mixed" (--trainer.precision 16-mixed), then call model.half()'
        )


def check_path(name: str, value: object) -> None:
    """Raise `InputError` unless `value` is a path or None.

    Examples:
        >>> check_path("folder", 5)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: folder must be a path or None, got 5
    """
    if not isinstance(value, str | Path | None):
        raise InputError(f"{name} must be a path or None, got {value!r:.80}")


def check_size(size: object) -> None:
    """Raise `InputError` unless `size` is None, a height, or (height, width), of 1 to 16384 pixels.

    Examples:
        >>> check_size((180, 320))
        >>> check_size(20000)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: size must be a whole number of at least 1 and at most 16384, got 20000
    """
    if size is None:
        return
    for side in size if isinstance(size, tuple | list) else (size,):
        check_number("size", side, 1, _LARGEST_SIDE, whole=True)


def check_precision(precision: object) -> None:
    """Raise `InputError` for a precision with which Lightning would convert the teacher's own weights.

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


def check_end(minutes: float | None, steps: int | None) -> None:
    """Raise `InputError` if a run would have no end, or would end before it begins.

    Args:
        minutes: length of the run, None if it ends by steps.
        steps: number of steps, None if it ends by time.

    Examples:
        >>> check_end(minutes=None, steps=None)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: give minutes, a number of steps, or both: training would never end
    """
    if steps is not None:
        check_number("the number of steps", steps, 1, whole=True)
    if minutes is None and steps is None:
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


@contextlib.contextmanager
def only_run_in(folder: str | Path | None) -> Iterator[None]:
    """Lock a run's folder, unless this process has done so; the first of several processes does it for all.

    Raises:
        InputError: another run is training there.
    """
    first = all(os.environ.get(name, "0") == "0" for name in _RANKS)
    if folder is None or not first or held(Path(folder)):
        yield
        return
    with locked(Path(folder), f"another run is training in {folder}: wait for its end, or give another folder"):
        yield
