"""Multiply-adds of whatever runs inside a block, counted at the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["MacCounter"]


class MacCounter(TorchDispatchMode):
    """Counts multiply-adds (half the floating-point operations) of matrix products, convolutions and attention.

    >>> import torch
    >>> with MacCounter() as count:
    ...     _ = torch.nn.Conv2d(2, 3, 1)(torch.zeros(1, 2, 4, 4))
    >>> count.total
    96
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out)) // 2
        elif func._overloadpacket.__name__ == "deform_conv2d":
            # torchvision::deform_conv2d(input, weight, ...): one multiply-add per output and weight of a filter.
            self.total += out.numel() * args[1][0].numel()
        elif func._overloadpacket.__name__ in _FUSED and not args[0].is_nested:
            self.total += _FUSED[func._overloadpacket.__name__](*args)
        return out


def _attention(query: Tensor, key: Tensor, value: Tensor, width: int, *_: Any) -> int:
    """Three projections in, one out; the scores, and the sum that they weight."""
    batch, length, other = query.shape[0], query.shape[1], key.shape[1]
    return 2 * batch * width * (width * (length + other) + length * other)


def _encoder_layer(source: Tensor, width: int, *rest: Any) -> int:
    """Self-attention, and two linear layers, whose weights are arguments 14 and 16."""
    tokens = source.shape[0] * source.shape[1]
    return _attention(source, source, source, width) + tokens * (int(rest[12].numel()) + int(rest[14].numel()))


_FUSED: dict[str, Callable[..., int]] = {
    "_native_multi_head_attention": _attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
}
"""What `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` run in eval mode; torch has no formula for it."""
