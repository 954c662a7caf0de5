"""Keep results that a CUDA graph, as `torch.compile` records it, overwrites at its next replay.

A program recorded as a CUDA graph writes its results into the same memory at every replay. Within one step torch keeps
the results of one program apart from those of the next. Copy what must outlive the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from .structure import flatten

__all__ = ["keep", "replays"]

T = TypeVar("T")

_MODES = ("reduce-overhead", "max-autotune")


def replays(options: Mapping[str, Any]) -> bool:
    """Return True if `torch.compile(**options)` may record CUDA graphs.

    >>> replays({"mode": "reduce-overhead"}), replays({"mode": "max-autotune-no-cudagraphs"}), replays({})
    (True, False, False)
    """
    inductor = options.get("options") or {}
    asked = options.get("mode") in _MODES or bool(inductor.get("triton.cudagraphs"))
    return asked or options.get("backend") == "cudagraphs"


def keep(value: T) -> T:
    """Return the same nested value in memory of its own; a tensor that occurs twice is copied once.

    >>> x = torch.zeros(2)
    >>> first, second = keep((x, [x]))
    >>> first is second[0], first is x
    (True, False)
    """
    tensors, structure = flatten(value)
    copies = {id(tensor): tensor.clone() for tensor in tensors}
    made: T = structure.rebuild([copies[id(tensor)] for tensor in tensors])
    return made
