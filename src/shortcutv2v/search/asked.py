"""The wishes of a user, and the record of the search for them: `auto.json`, from which a killed run goes on."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcutv2v.adapter import Adapter
from shortcutv2v.batch.plan import file_print
from shortcutv2v.distill.checks import check_number
from shortcutv2v.errors import InputError
from shortcutv2v.fingerprint import differences, fingerprint
from shortcutv2v.goals import parse_quality, policy_for
from shortcutv2v.model import DEFAULT_HORIZON
from shortcutv2v.refresh import Every
from shortcutv2v.search.decide import Goal
from shortcutv2v.show.page import save

__all__ = ["NAME", "QUALITY", "Asked", "Record", "identity", "open_record"]

NAME = "auto.json"
QUALITY = 40.0
"""PSNR in dB that is held if nothing is asked for."""
_FORMAT = 2


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

    @property
    def decibels(self) -> float | None:
        """PSNR in dB that is asked for; None for a speed and for "lossless"."""
        found = None if self.quality is None else parse_quality(self.quality)
        return None if found is None else found[0]

    def goal(self, adapter: Adapter) -> Goal | None:
        """Return the goal that choices are judged by; None for "lossless"."""
        lossless = self.speed is None and self.decibels is None
        return None if lossless else Goal(self.decibels, self.speed, not adapter.recurrent, DEFAULT_HORIZON - 1)

    def __str__(self) -> str:
        if self.speed is not None:
            return f"{self.speed:g} times as fast"
        return "lossless" if self.decibels is None else f"{self.decibels:g} dB"


class Record:
    """The steps of a search by name, with what they found and how long they took; written whole after each.

    Args:
        path: of the file; the folder must exist. Steps that it holds already are not run again.
        setting: what the steps depend on, as plain values: film, teacher, adapter, goal. A file with another setting is
            refused.

    Raises:
        InputError: the file is damaged, of another version, or of another setting.
    """

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        self.path = path
        about = {"format": _FORMAT, "shortcutv2v": importlib.metadata.version("shortcutv2v")}
        self.data: dict[str, Any] = {**about, "setting": dict(setting), "steps": {}, "seconds": {}}
        if path.exists():
            self.data = Record.read(path)
            saved = self.data["setting"]
            changed = [name for name in setting if not _same(name, saved.get(name), setting[name])]
            if changed:
                raise InputError(
                    f"{path} is of another search, its {', '.join(changed)} differs: expected the same command as "
                    "before; give another --folder, or remove the file to begin anew"
                )

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """Return the content of a file that a `Record` has written.

        Raises:
            InputError: it is none.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            right = found["format"] == _FORMAT and all(
                isinstance(found[key], dict) for key in ("setting", "steps", "seconds")
            )
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{path} cannot be used ({error}): expected an {NAME} that `auto` wrote") from None
        if not right:
            raise InputError(f"{path} is of another version: expected an {NAME} that this release wrote; search again")
        return dict(found)

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """Return what a step found, plain values: from the file if it was done before, else do it and write it down."""
        if name not in self.data["steps"]:
            begun = time.perf_counter()
            found = json.loads(json.dumps(work()))  # a resumed run gets what this one got
            self.data["steps"][name] = found
            self.data["seconds"][name] = round(time.perf_counter() - begun, 3)
            self.put()
        return self.data["steps"][name]

    def put(self, **values: Any) -> None:
        """Put some values beside the steps, and write the file, all of it or nothing."""
        self.data.update(values)
        save(json.dumps(self.data, indent=1), self.path)

    @property
    def spent(self) -> float:
        """Seconds of all steps so far."""
        return float(sum(self.data["seconds"].values()))


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
    return Record(place / NAME, what | identity(adapter))


def identity(adapter: Adapter) -> dict[str, Any]:
    """Return what tells an adapter and its teacher from others; the cut may differ."""
    own = {name: value for name, value in vars(adapter).items() if name not in ("enc_layer", "dec_layer")}
    plain = (f"{name}={value!r}" for name, value in sorted(own.items()) if isinstance(value, str | int | float | tuple))
    named = f"{type(adapter).__name__}({', '.join(plain)})"
    return {"adapter": named, "teacher": fingerprint(adapter.teacher)}


def _same(name: str, saved: Any, given: Any) -> bool:
    if name != "teacher":
        return bool(saved == json.loads(json.dumps(given)))
    try:
        return differences(saved, given) is None
    except (ValueError, TypeError, KeyError):
        return False
