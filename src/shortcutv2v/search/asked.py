"""The arguments that `auto` and `tune` share: the goal, the record of a search, and a plan to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcutv2v import checkpoint
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.batch.plan import file_print
from shortcutv2v.distill.checks import check_number
from shortcutv2v.errors import InputError
from shortcutv2v.fingerprint import fingerprint
from shortcutv2v.goals import parse_quality, policy_for
from shortcutv2v.model import DEFAULT_HORIZON, ShortcutV2V
from shortcutv2v.refresh import Every
from shortcutv2v.search.decide import Goal
from shortcutv2v.search.record import NAME, Record

__all__ = ["BLOCK", "Asked", "open_record", "repeated"]

QUALITY = 40.0
"""PSNR in dB that is held if nothing is asked for."""
BLOCK = "block"
"""Folder of the chosen block, beside the record."""


@dataclass(frozen=True)
class Asked:
    """The wishes of a user.

    Attributes:
        quality: as `goals.parse_quality` takes it; None if a speed is asked for.
        speed: times as fast as the teacher; None if a quality is asked for.
        minutes: of the search; None for what pays.
        steps: of training, instead of a time; None to go by time.
        block: folder of a trained block to try, too; None without one.

    Raises:
        InputError: a quality and a speed are given, or a value is out of range.
    """

    quality: str | float | None = None
    speed: float | None = None
    minutes: float | None = None
    steps: int | None = None
    block: str | Path | None = None

    def __post_init__(self) -> None:
        if self.quality is None and self.speed is None:
            object.__setattr__(self, "quality", QUALITY)
        policy_for(Every(), DEFAULT_HORIZON, None, quality=self.quality, speed=self.speed)
        if self.minutes is not None:
            check_number("minutes", self.minutes, 0, 1e6, inside=True)
        if self.steps is not None:
            check_number("steps", self.steps, 1, whole=True)

    @property
    def stream(self) -> dict[str, Any]:
        """The goal of a stream, by name."""
        return {"quality": self.quality} if self.speed is None else {"speed": self.speed}

    def goal(self, adapter: Adapter) -> Goal | None:
        """Return the goal that choices are judged by; None for "lossless"."""
        both, farthest = not adapter.recurrent, DEFAULT_HORIZON - 1
        found = None if self.quality is None else parse_quality(self.quality)
        if self.speed is None and found is None:
            return None
        return Goal(None if found is None else found[0], self.speed, both, farthest)

    def __str__(self) -> str:
        if self.quality is None:
            return f"{self.speed:g} times as fast"
        found = parse_quality(self.quality)
        return "lossless" if found is None else f"{found[0]:g} dB"


def open_record(place: Path, adapter: Adapter, films: Sequence[Path], asked: Asked, part: Sequence[Any]) -> Record:
    """Open the record of a search.

    Args:
        place: its folder.
        adapter: of the teacher.
        films: to search on.
        asked: goal and limits.
        part: size and range in which the films are read.

    Raises:
        InputError: the folder holds another search.
    """
    block = None if asked.block is None else str(asked.block)
    limits = {"minutes": asked.minutes, "steps": asked.steps, "block": block}
    what = {"film": [file_print(film) for film in films], "part": part, "goal": asked.stream, **limits}
    return Record(place / NAME, what | _identity(adapter))


def repeated(planned: dict[str, Any], path: Path, adapter: Adapter) -> ShortcutV2V | None:
    """Return the model of a plan; None if the teacher does every frame.

    Raises:
        InputError: the plan is unfinished, or of another adapter or network.
    """
    choice, saved = planned.get("choice"), planned["setting"]
    if choice is None:
        raise InputError(f"--plan {path}: its search has not ended: run the same `auto` again, without --plan")
    try:
        Record(path, _identity(adapter))
    except InputError:
        raise InputError(
            f"--plan {path} is of {saved.get('adapter')} and a {saved['teacher']['class']}; this is "
            f"{_identity(adapter)['adapter']} and a {type(adapter.teacher).__name__}, of other settings, layers or "
            "weights: give the adapter and the --set of that search, or search anew"
        ) from None
    say(f"plan {path}: {choice['why']}")
    return None if choice["kind"] == "teacher" else checkpoint.load(path.parent / BLOCK, adapter.teacher)


def _identity(adapter: Adapter) -> dict[str, Any]:
    """Return what tells an adapter and its teacher from others; the cut may differ."""
    own = {name: value for name, value in vars(adapter).items() if name not in ("enc_layer", "dec_layer")}
    plain = (f"{name}={value!r}" for name, value in sorted(own.items()) if isinstance(value, str | int | float | tuple))
    named = f"{type(adapter).__name__}({', '.join(plain)})"
    return {"adapter": named, "teacher": fingerprint(adapter.teacher)}
