"""Base of all metrics: a class with a name, a direction and state for one video."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError

__all__ = ["Metric", "Setting", "Unavailable", "Windowed", "needed"]


class Unavailable(Exception):  # noqa: N818 (not an error: the metric is left out, by name)
    """A metric cannot be computed here; the message says what is missing and how to get it."""


def needed(module: str, package: str = "") -> Any:
    """Import a module of an optional package, whose name is the module's unless it is given.

    Raises:
        Unavailable: the package is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = package or module.partition(".")[0]
        raise Unavailable(f"{name} is missing: pip install 'shortcutv2v[measure]'") from None


@dataclass(frozen=True)
class Setting:
    """The things that metrics may need besides pictures.

    Attributes:
        rate: frames per second.
        adapter: the teacher's adapter, whose `reads` and `writes` say where label maps are.
        files: values that the user gave, by name of the metric, such as the file of a network.
    """

    rate: float = 25.0
    adapter: Adapter | None = None
    files: Mapping[str, str] = field(default_factory=dict)


class Metric:
    """One distance of a video to the teacher's; an object measures one video by one method.

    Subclasses set the class attributes and write `frame`, or `finish`, or both.

    Attributes:
        name: for `--metrics`, JSON and CSV; unique.
        title: for tables.
        unit: such as "dB", or empty.
        higher: True if a larger value is better.
        every: True if the value of every frame counts; False if only those of shortcut frames do, because the others
            are the teacher's own.
        absolute: True if the value of the teacher's own video says something, too.
        digits: decimals in tables.

    Raises:
        Unavailable: by the constructor or the first frame, if something is missing.
        InputError: while a second metric of the same name is defined.
    """

    known: ClassVar[dict[str, type[Metric]]] = {}
    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    higher: ClassVar[bool] = True
    every: ClassVar[bool] = False
    absolute: ClassVar[bool] = False
    digits: ClassVar[int] = 2

    def __init_subclass__(cls) -> None:
        """Register the class under its name, if it has one of its own."""
        if "name" not in vars(cls):
            return
        other = Metric.known.get(cls.name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(
                f"there is a metric named {cls.name!r} already, in {other.__module__}: choose another name"
            )
        Metric.known[cls.name] = cls

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float | None:
        """Take the next frame; return its value, or None if it has none.

        Args:
            made: the picture to judge, (1, 3, H', W') in [0, 1].
            teacher: the teacher's picture of the same frame, (1, 3, H', W') in [0, 1].
            source: the input frame, (1, 3, H, W) in [0, 1].
        """
        return None

    def finish(self) -> float | None:
        """Return the value that belongs to the whole video, or to what is left of it; None if there is none."""
        return None

    def note(self) -> str:
        """Return the settings that a reader needs beside the number; empty if there are none."""
        return ""

    @classmethod
    def arrow(cls) -> str:
        """Return an arrow in the direction of the better values."""
        return "\N{UPWARDS ARROW}" if cls.higher else "\N{DOWNWARDS ARROW}"

    @classmethod
    def heading(cls) -> str:
        """Return title, unit and arrow: the name of a row or an axis."""
        return f"{cls.title}{f', {cls.unit}' if cls.unit else ''} {cls.arrow()}"


class Windowed(Metric):
    """A metric that needs several frames at once: one value per window of `length` frames, shown at its last frame.

    A shorter window at the end counts only if it is the only one.
    """

    every = True
    length: ClassVar[int] = 32

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.windows = 0
        self._made: list[Tensor] = []
        self._teacher: list[Tensor] = []

    def window(self, made: Tensor, teacher: Tensor) -> float | None:
        """Return the value of a window: uint8 (T, 3, H, W) each; None if there is only one at the end."""
        raise NotImplementedError

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float | None:
        """Keep the frame as uint8, and judge the window once it is full."""
        self._made.append(_uint8(made))
        self._teacher.append(_uint8(teacher))
        return self._judged() if len(self._made) == self.length else None

    def finish(self) -> float | None:
        """Judge a clip that is shorter than a window."""
        return self._judged() if self._made and not self.windows else None

    def _judged(self) -> float | None:
        made, teacher = torch.cat(self._made), torch.cat(self._teacher)
        self._made, self._teacher = [], []
        self.windows += 1
        return self.window(made, teacher)


def _uint8(picture: Tensor) -> Tensor:
    return (picture.float().clamp(0, 1) * 255).round().byte().cpu()
