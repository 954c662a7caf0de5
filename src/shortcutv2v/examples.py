"""The bundled examples as a package: `shortcutv2v.examples.unsup.adapter` is the file `examples/unsup/adapter.py`.

The files lie in the folder `examples` of a source checkout, and in `_bundled/examples` of an installed wheel.
Under this name they never meet a package `examples` of yours.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundled_examples"]

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = (_PACKAGE.parents[1] / "examples", _PACKAGE / "_bundled" / "examples")

__path__ = [str(folder) for folder in _FOLDERS if (folder / "_checkpoints.py").is_file()][:1]


def bundled_examples() -> dict[str, Path]:
    """Return the names of the examples that have an adapter, and their folders.

    Examples:
        >>> "unsup" in bundled_examples()
        True
    """
    return {path.parent.name: path.parent for folder in __path__ for path in sorted(Path(folder).glob("*/adapter.py"))}
