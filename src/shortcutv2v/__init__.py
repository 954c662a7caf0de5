"""Make a pretrained video-to-video generator fast: wrap it, distil a small block, skip its heavy middle.

    model = shortcutv2v.wrap(teacher, enc_layer="down1", dec_layer="up1")
    shortcutv2v.fit(model, "clip.mp4", minutes=5)
    output = model(frame)          # in a video loop: full passes at reference frames, shortcut passes between

Training lives in `shortcutv2v.distill`, clips in `shortcutv2v.video`, counting and timing in `shortcutv2v.measure`;
each is imported on first use, so that `import shortcutv2v` needs none of their dependencies.
"""

import importlib
import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or importlib.util.find_spec("torch"):
    from shortcutv2v.adapter import Adapter
    from shortcutv2v.checkpoint import load
    from shortcutv2v.cuts import suggest_cuts
    from shortcutv2v.errors import ShortcutError
    from shortcutv2v.model import ShortcutV2V
    from shortcutv2v.refresh import BothSides, Every, Look, RefreshPolicy
    from shortcutv2v.stream import Stream
    from shortcutv2v.types import Carry, Reference
    from shortcutv2v.wrap import wrap
# Without torch, this is a host of exported programs: it imports `shortcutv2v.runtime`.

__all__ = [
    "Adapter",
    "BothSides",
    "Carry",
    "Every",
    "Look",
    "Reference",
    "RefreshPolicy",
    "ShortcutError",
    "ShortcutV2V",
    "Stream",
    "load",
    "suggest_cuts",
    "wrap",
]

_LAZY = {
    *("batch", "blocks", "deploy", "distill", "examples", "graph", "labels", "live"),
    *("measure", "memory", "ops", "report", "runtime", "search", "show", "video"),
}
_FUNCTIONS = {"auto": "search", "export": "deploy", "fit": "distill", "tune": "search"}

if TYPE_CHECKING:
    from shortcutv2v import batch as batch
    from shortcutv2v import blocks as blocks
    from shortcutv2v import deploy as deploy
    from shortcutv2v import distill as distill
    from shortcutv2v import examples as examples
    from shortcutv2v import graph as graph
    from shortcutv2v import labels as labels
    from shortcutv2v import live as live
    from shortcutv2v import measure as measure
    from shortcutv2v import memory as memory
    from shortcutv2v import ops as ops
    from shortcutv2v import report as report
    from shortcutv2v import runtime as runtime
    from shortcutv2v import search as search
    from shortcutv2v import show as show
    from shortcutv2v import video as video
    from shortcutv2v.deploy import export as export
    from shortcutv2v.distill import fit as fit
    from shortcutv2v.search import auto as auto
    from shortcutv2v.search import tune as tune

    __version__: str
else:  # a type checker would take a module with `__getattr__` to have any name

    def __getattr__(name: str) -> Any:
        if name in _FUNCTIONS:
            return getattr(importlib.import_module(f"shortcutv2v.{_FUNCTIONS[name]}"), name)
        if name == "__version__":
            return importlib.metadata.version("shortcutv2v")
        if name in _LAZY:
            return importlib.import_module(f"shortcutv2v.{name}")
        if name in __all__:
            raise ImportError(f"shortcutv2v.{name} needs torch; without it, shortcutv2v.runtime alone can be used")
        raise AttributeError(f"module 'shortcutv2v' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_FUNCTIONS, "__version__"})
