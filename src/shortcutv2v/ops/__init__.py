"""Sampling operators of the Shortcut block: AdaBD, deformable convolution, global alignment and warp.

One function per operator, several implementations behind it (`ops.implementations()` lists them), chosen by device
and dtype, overridden per call with `implementation=` or for a block of code with `ops.use(...)`. All of them return
the same numbers up to rounding; `docs/speed.md` says how fast each one is and where.
"""

from __future__ import annotations

from shortcutv2v.ops import flops
from shortcutv2v.ops.functions import adabd, align, deform, warp
from shortcutv2v.ops.selection import implementations, use

__all__ = ["adabd", "align", "deform", "implementations", "use", "warp"]

flops.register()
