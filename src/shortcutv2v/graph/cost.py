"""Multiply-adds of whatever runs inside a block, counted at the dispatcher."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..ops import flops

__all__ = ["MacCounter"]


class MacCounter(TorchDispatchMode):
    """Counts multiply-adds (half the floating-point operations) by torch's formulas and those of `shortcutv2v.ops`.

    >>> import torch
    >>> with MacCounter() as count:
    ...     _ = torch.nn.Conv2d(2, 3, 1)(torch.zeros(1, 2, 4, 4))
    >>> count.total
    96
    """

    def __init__(self) -> None:
        super().__init__()
        flops.register()  # torchvision may have been imported since
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        nested = bool(args) and isinstance(args[0], Tensor) and args[0].is_nested  # has no shape to count by
        if formula is not None and not nested:
            self.total += int(formula(*args, **kwargs, out_val=out)) // 2
        return out
