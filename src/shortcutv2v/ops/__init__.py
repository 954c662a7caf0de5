"""Sampling operators of the Shortcut block: AdaBD, deformable convolution, global alignment and warp.

Each operator is one function with several implementations (`ops.implementations()` lists them). The device decides
which one runs; `implementation=` overrides it for a call, `ops.use(...)` for a `with` block. All implementations return
the same numbers up to rounding; `docs/speed.md` gives their speed.
"""

from __future__ import annotations

from shortcutv2v.ops import flops
from shortcutv2v.ops.functions import adabd, align, deform, warp
from shortcutv2v.ops.selection import implementations, use

__all__ = ["adabd", "align", "deform", "implementations", "use", "warp"]

flops.register()
