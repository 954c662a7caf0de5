"""`auto.json`: all that a search has found, written whole after each step, so that a killed run goes on."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shortcutv2v.errors import InputError
from shortcutv2v.fingerprint import differences
from shortcutv2v.show.page import save

__all__ = ["NAME", "Record"]

NAME = "auto.json"
_FORMAT = 1


class Record:
    """The steps of a search by name, with what they found and how long they took.

    Args:
        path: of the file; the folder must exist. Steps that it holds already are not run again.
        setting: what the steps depend on, as plain values: film, teacher, adapter, goal. A file with another setting is
            refused.

    Raises:
        InputError: the file is damaged, of another version, or of another setting.
    """

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "format": _FORMAT,
            "shortcutv2v": importlib.metadata.version("shortcutv2v"),
            "setting": dict(setting),
            "steps": {},
            "seconds": {},
        }
        if path.exists():
            found = Record.read(path)
            changed = [name for name in setting if not _same(name, found["setting"].get(name), setting[name])]
            if changed:
                raise InputError(
                    f"{path} is of another search, its {', '.join(changed)} differs: expected the same command as "
                    "before; give another --folder, or remove the file to begin anew"
                )
            self.data = found

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
            self.write()
        return self.data["steps"][name]

    def put(self, **values: Any) -> None:
        """Write some values beside the steps."""
        self.data.update(values)
        self.write()

    @property
    def spent(self) -> float:
        """Seconds of all steps so far."""
        return float(sum(self.data["seconds"].values()))

    def write(self) -> None:
        """Write the file, all of it or nothing."""
        save(json.dumps(self.data, indent=1), self.path)


def _same(name: str, saved: Any, given: Any) -> bool:
    if name != "teacher":
        return bool(saved == json.loads(json.dumps(given)))
    try:
        return differences(saved, given) is None
    except (ValueError, TypeError, KeyError):
        return False
