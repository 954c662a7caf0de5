"""From what a user types after `--adapter` to an adapter."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError, near_matches

__all__ = ["bundled_examples", "find_adapter"]

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE.parents[1], _PACKAGE / "_bundled")
"""Where the folder `examples` lies: in a source checkout, and in an installed wheel."""


def bundled_examples() -> dict[str, Path]:
    """Names of the examples that come with the package, and their folders."""
    for root in _ROOTS:
        found = {path.parent.name: path.parent for path in sorted(root.glob("examples/*/adapter.py"))}
        if found:
            return found
    return {}


def find_adapter(spec: str, settings: Sequence[str] = ()) -> Adapter:
    """The adapter that `spec` names.

    Args:
        spec: a bundled example ("unsup"), a file ("my/adapter.py") or a module ("package.module"); it must define
            `build_adapter(**settings)`.
        settings: "key=value" each; numbers, True, False and None are understood, anything else is text.

    Raises:
        InputError: there is no such adapter, or it refuses the settings.
    """
    module = _import(spec)
    build = getattr(module, "build_adapter", None)
    if build is None:
        raise InputError(f"{spec} defines no build_adapter(): add one that returns a shortcutv2v.Adapter")
    options = dict(_setting(entry) for entry in settings)
    try:
        adapter = build(**options)
    except TypeError as error:
        raise InputError(f"the adapter {spec} cannot be built with {options or 'no --set'}: {error}") from error
    if not isinstance(adapter, Adapter):
        raise InputError(f"build_adapter() of {spec} returned a {type(adapter).__name__}, not a shortcutv2v.Adapter")
    return adapter


def _import(spec: str) -> ModuleType:
    examples = bundled_examples()
    path = Path(spec)
    if spec in examples:
        path = examples[spec] / "adapter.py"
    if path.suffix == ".py":
        return _import_file(path, list(examples.values()))
    parts = spec.split(".")
    try:
        if all(part.isidentifier() for part in parts):
            return importlib.import_module(spec)
    except ModuleNotFoundError as error:
        if error.name != parts[0]:
            raise
    hint = near_matches(spec, examples) or sorted(examples)
    raise InputError(f"no adapter {spec!r}: expected a file.py, a module, or one of {', '.join(hint)}")


def _import_file(path: Path, examples: Sequence[Path]) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"no adapter file {path}")
    if path.parent in examples:
        _reach(path.parents[2])
        return importlib.import_module(f"examples.{path.parent.name}.{path.stem}")
    _reach(path.parent)
    # A name of its own: `types.py` is a good name for an adapter, too.
    spec = importlib.util.spec_from_file_location(f"_adapter_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _reach(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _setting(entry: str) -> tuple[str, Any]:
    key, equals, value = entry.partition("=")
    if not equals or not key.isidentifier():
        raise InputError(f"--set {entry!r}: expected key=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
