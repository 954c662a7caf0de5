"""FLOP formulas, so that `torch.utils.flop_counter.FlopCounterMode` counts deformable convolutions correctly.

torch counts an operator without a formula as zero. It has no formula for `torchvision::deform_conv2d`, for attention on
CPUs, for LSTMs and for products with a vector. As in torch's own formulas, a multiply-add is two operations, and only
matrix products count. Bilinear sampling (four multiply-adds per sample and channel) and element-wise operations do not
count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

__all__ = ["MacCounter", "register"]

Shape = Sequence[int]


def _deform(features: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """The operator of torchvision: weight (C_out, C / groups, kh, kw), output (B, C_out, H', W')."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def _blend(f: Shape, a: Shape | None, offset: Shape, mask: Shape | None, weight: Shape, **_: Any) -> int:
    """AdaBD blends the columns of both features first, so it takes one product."""
    return 2 * f[0] * f[2] * f[3] * math.prod(weight)


def _blend_backward(
    grad: Shape, f: Shape, a: Shape | None, offset: Shape, mask: Shape | None, weight: Shape, **_: Any
) -> int:
    return 4 * f[0] * f[2] * f[3] * math.prod(weight)


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Query (.., heads, L, E) with key (.., S, E), and with value (.., S, E_v); keys may serve several heads."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _multi_head_attention(query: Shape, key: Shape, value: Shape, width: int, *_: Any, **__: Any) -> int:
    """The fused operator of `nn.MultiheadAttention`, (B, L, E): three projections in, one out, and the attention."""
    batch, length, other = query[0], query[1], key[1]
    return 4 * batch * width * width * (length + other) + _attention(query, key, value)


def _encoder_layer(source: Shape, width: int, *rest: Any, **_: Any) -> int:
    """The fused operator of `nn.TransformerEncoderLayer`; the weights of its linear layers are arguments 14 and 16."""
    products: int = math.prod(rest[12]) + math.prod(rest[14])
    return _multi_head_attention(source, source, source, width) + 2 * source[0] * source[1] * products


def _recurrent(x: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    """Each matrix runs once per step of each sequence; the last size of `x` is that of the channels."""
    return 2 * math.prod(x[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)


_FORMULAS: dict[str, Callable[..., int]] = {
    "torchvision.deform_conv2d": _deform,
    "torchvision._deform_conv2d_backward": lambda grad, f, w, *_, **__: 4 * math.prod(grad) * math.prod(w[1:]),
    "shortcutv2v.rows_blend": _blend,
    "shortcutv2v.rows_blend_backward": _blend_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._native_multi_head_attention": _multi_head_attention,
    "aten._transformer_encoder_layer_fwd": _encoder_layer,
    "aten.mkldnn_rnn_layer": lambda x, w_x, w_h, *_, **__: _recurrent(x, [w_x, w_h]),
    "aten._cudnn_rnn": _recurrent,
    "aten.mv": lambda matrix, vector, **_: 2 * math.prod(matrix),
    "aten.addmv": lambda added, matrix, vector, **_: 2 * math.prod(matrix),
    "aten.dot": lambda one, other, **_: 2 * math.prod(one),
    "aten.addbmm": lambda added, one, other, **_: 2 * math.prod(one) * other[-1],
}


def register() -> None:
    """Register the formulas of all operators that are loaded, except where another formula is registered already.

    The operators of torchvision exist after its import only. `shortcutv2v` imports it at the first call of the
    `reference` implementation, which may lie inside a counter: counters that are running get the formulas, too.
    """
    for name, formula in _FORMULAS.items():
        namespace, operator = name.split(".")
        packet = getattr(getattr(torch.ops, namespace), operator, None)
        if packet is not None and packet not in flop_registry:
            register_flop_formula(packet)(formula)
    for mode in _get_current_dispatch_mode_stack():
        counter = getattr(mode, "counter", None)
        if isinstance(counter, FlopCounterMode):
            counter.flop_registry = {**flop_registry, **counter.flop_registry}


class MacCounter(TorchDispatchMode):
    """Counts multiply-adds (half the floating-point operations) by torch's formulas and those of `shortcutv2v.ops`.

    >>> with MacCounter() as count:
    ...     _ = torch.nn.Conv2d(2, 3, 1)(torch.zeros(1, 2, 4, 4))
    >>> count.total
    96
    """

    def __init__(self) -> None:
        super().__init__()
        register()  # torchvision may have been imported since
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        nested = bool(args) and isinstance(args[0], Tensor) and args[0].is_nested  # has no shape to count by
        if formula is not None and not nested:
            self.total += int(formula(*args, **kwargs, out_val=out)) // 2
        return out
