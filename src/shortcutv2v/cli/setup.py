"""The beginning that several commands share: the adapter, the device, the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shortcutv2v import checkpoint, precision
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.errors import InputError, near_matches
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.refresh import BothSides, Every

_LARGEST = 16384
"""Pixels of a side; no codec of ours writes larger pictures."""

LONGEST = 10**6
"""The largest interval that the commands take."""

__all__ = ["LONGEST", "frame_range", "frame_size", "load_model", "open_adapter"]


def open_adapter(options: Any, frames: Iterable[Tensor] | None = None, *, own_precision: bool = False) -> Adapter:
    """Return the adapter of `--adapter`, `--set` and `--cut`, with its teacher on `--device` and in `--dtype`.

    Args:
        options: of any command; `set` is a list of "key=value", or a mapping from a YAML file.
        frames: uint8 (3, H, W), the video from its beginning, for `--dtype auto`; None where it cannot be read twice.
        own_precision: leave the teacher as it is, whatever `--dtype` says.
    """
    settings = options.set
    if isinstance(settings, Mapping):
        settings = [f"{key}={value!r}" for key, value in settings.items()]
    adapter = find_adapter(options.adapter, settings)
    if options.cut is not None:
        if not adapter.cuts:
            raise InputError(f"the adapter has no named cuts: leave out --cut {options.cut}")
        if options.cut not in adapter.cuts:
            hint = near_matches(options.cut, adapter.cuts) or sorted(adapter.cuts)
            raise InputError(f"the adapter has no cut {options.cut!r}: expected one of {', '.join(hint)}")
        adapter.enc_layer, adapter.dec_layer = adapter.cuts[options.cut]
    adapter.teacher.to(_device(options.device))
    _set_precision(adapter, None if own_precision else getattr(options, "dtype", None), frames)
    return adapter


def _set_precision(adapter: Adapter, name: str | None, frames: Iterable[Tensor] | None) -> None:
    """Cast the teacher to the precision of `--dtype`; None leaves it as it is."""
    if name == "auto":
        if frames is None:
            raise InputError("--dtype auto tries the first frames of one file: name the precision, such as bfloat16")
        say(precision.choose(adapter, frames))
    elif name is not None:
        precision.cast(adapter, name)


def load_model(folder: Path, adapter: Adapter, interval: int | None = None, both: bool = False) -> ShortcutV2V:
    """Return the model saved in `folder`, around the adapter's teacher."""
    model = checkpoint.load(folder, adapter.teacher)
    if interval is not None:
        if not 1 <= interval <= LONGEST:
            raise InputError(f"--interval {interval}: expected a whole number from 1 to {LONGEST}")
        if both and adapter.recurrent:
            raise InputError(
                "--both: this teacher reads its last outputs, so no frame can be made before those before it"
            )
        model.refresh = BothSides(interval) if both else Every(interval)
    return model


def frame_size(given: str | int | None) -> int | tuple[int, int] | None:
    """Turn a size as it is typed into one for `shortcutv2v.video`.

    Args:
        given: "180x320", a height alone, or None.

    Raises:
        InputError: it is neither.

    Examples:
        >>> frame_size("180x320"), frame_size(180), frame_size(None)
        ((180, 320), 180, None)
    """
    if given is None:
        return None
    height, times, width = str(given).partition("x")
    if not all(side.isdecimal() and 0 < int(side) <= _LARGEST for side in (height, width if times else "1")):
        raise InputError(
            f"--size {given}: expected HEIGHTxWIDTH, such as 180x320, or a height, such as 180, each at most {_LARGEST}"
        )
    return (int(height), int(width)) if times else int(height)


def frame_range(text: str | None) -> tuple[int, int | None]:
    """Return first frame and the frame to stop before, as they are typed.

    Args:
        text: "43:63", "43:", ":63", or None for the whole clip.

    Raises:
        InputError: it is none of these.

    Examples:
        >>> frame_range("43:63"), frame_range(":63"), frame_range(None)
        ((43, 63), (0, 63), (0, None))
    """
    if text is None:
        return 0, None
    found = re.fullmatch(r"(\d*):(\d*)", text)
    start, stop = (int(found[1] or 0), int(found[2]) if found[2] else None) if found else (0, 0)
    if stop is not None and start >= stop:
        raise InputError(f"--frames {text!r}: expected START:STOP with START below STOP, such as 43:63")
    return start, stop


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # device "meta" has no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device
