"""Find the adapter that a user names after `--adapter`."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError, ShortcutError, near_matches
from shortcutv2v.examples import bundled_examples

__all__ = ["bundled_examples", "find_adapter"]

T = TypeVar("T")

_WORDS = {"true": True, "false": False}
"""Understood in any case: as text, "false" would count as true."""


def find_adapter(spec: str, settings: Sequence[str] = ()) -> Adapter:
    """Return the adapter that `spec` names.

    Args:
        spec: a bundled example ("unsup"), a file ("my/adapter.py") or a module ("package.module"); it must define
            `build_adapter(**settings)`.
        settings: "key=value" each; numbers, true, false and None are understood, anything else is text.

    Raises:
        InputError: there is no such adapter, its code fails, or it refuses the settings.
    """
    module = _import(spec)
    build = getattr(module, "build_adapter", None)
    if build is None:
        raise InputError(f"{spec} defines no build_adapter(): add one that returns a shortcutv2v.Adapter")
    options = dict(_setting(entry) for entry in settings)
    adapter = _run(spec, lambda: build(**options), f"build_adapter() failed with {options or 'no --set'}: ")
    if not isinstance(adapter, Adapter):
        raise InputError(f"build_adapter() of {spec} returned a {type(adapter).__name__}, not a shortcutv2v.Adapter")
    return adapter


def _import(spec: str) -> ModuleType:
    examples = bundled_examples()
    if spec in examples:
        return _run(spec, lambda: importlib.import_module(f"shortcutv2v.examples.{spec}.adapter"))
    if Path(spec).suffix == ".py":
        return _import_file(spec, list(examples.values()))
    if all(part.isidentifier() for part in spec.split(".")) and _exists(spec.split(".", maxsplit=1)[0]):
        return _run(spec, lambda: importlib.import_module(spec))
    hint = near_matches(spec, examples) or sorted(examples)
    raise InputError(f"no adapter {spec!r}: expected a file.py, a module, or one of {', '.join(hint)}")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module such as __main__, which has no spec
        return True


def _import_file(spec: str, examples: Sequence[Path]) -> ModuleType:
    if "\0" in spec or not Path(spec).is_file():
        raise InputError(f"no adapter file {spec!r}")
    path = Path(spec).resolve()
    if path.parent in examples:
        return _run(spec, lambda: importlib.import_module(f"shortcutv2v.examples.{path.parent.name}.{path.stem}"))
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # an adapter may import the files beside it
    # A name of its own: `types.py` is a good name for an adapter, too, and two folders may each hold an `adapter.py`.
    name = f"_adapter_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    source = importlib.util.spec_from_file_location(name, path)
    if source is None or source.loader is None:
        raise InputError(f"{spec} cannot be imported")
    module = importlib.util.module_from_spec(source)
    sys.modules[name] = module  # dataclasses look their module up there
    _run(spec, lambda: source.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def _run(spec: str, code: Callable[[], T], context: str = "") -> T:
    """Run a user's code; whatever it raises becomes one line that names the file and the line."""
    try:
        return code()
    except (ShortcutError, OSError):
        raise
    except SyntaxError as error:
        raise InputError(f"{spec}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}, line {frame.lineno}: " if frame.filename != __file__ else ""
        raise InputError(f"{spec}: {context}{where}{type(error).__name__}: {error}") from error


def _setting(entry: str) -> tuple[str, Any]:
    key, equals, value = entry.partition("=")
    if not equals or not key.isidentifier():
        raise InputError(f"--set {entry!r}: expected key=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, _WORDS.get(value.lower(), value)
