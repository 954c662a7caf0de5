"""FLOP formulas, so that `torch.utils.flop_counter.FlopCounterMode` counts deformable convolutions truly.

torch counts an operator it has no formula for as nothing, and has none for `torchvision::deform_conv2d`, nor for
attention as CPUs run it, for LSTMs, and for products with a vector. As in torch's
own formulas a multiply-add is two operations, and only matrix products count: the bilinear sampling (four multiply-adds
per sample and channel) does not, nor do element-wise steps elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula

__all__ = ["register"]

Shape = Sequence[int]


def _deform(features: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """torchvision: weight (C_out, C / groups, kh, kw), output (B, C_out, H', W')."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def _deform_backward(grad: Shape, features: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 4 * math.prod(grad) * math.prod(weight[1:])


def _blend(f: Shape, a: Shape | None, offset: Shape, mask: Shape | None, weight: Shape, **_: Any) -> int:
    """AdaBD blends the columns of both features first: one product."""
    return 2 * f[0] * f[2] * f[3] * math.prod(weight)


def _blend_backward(
    grad: Shape, f: Shape, a: Shape | None, offset: Shape, mask: Shape | None, weight: Shape, **_: Any
) -> int:
    return 4 * f[0] * f[2] * f[3] * math.prod(weight)


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Query (.., heads, L, E) with key (.., S, E), and with value (.., S, E_v); keys may serve several heads."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(x: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    """Every matrix once for each step of each sequence; x ends with the channels."""
    return 2 * math.prod(x[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)


def _recurrent_layer(x: Shape, w_x: Shape, w_h: Shape, *_: Any, **__: Any) -> int:
    return _recurrent(x, [w_x, w_h])


def _matrix_vector(matrix: Shape, vector: Shape, **_: Any) -> int:
    return 2 * math.prod(matrix)


def _add_matrix_vector(added: Shape, matrix: Shape, vector: Shape, **_: Any) -> int:
    return 2 * math.prod(matrix)


def _dot(one: Shape, other: Shape, **_: Any) -> int:
    return 2 * math.prod(one)


def _add_batches(added: Shape, one: Shape, other: Shape, **_: Any) -> int:
    return 2 * math.prod(one) * other[-1]


def register() -> None:
    """Registers the formulas; those that something else has registered already stay."""
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.torchvision.deform_conv2d: _deform,
        torch.ops.torchvision._deform_conv2d_backward: _deform_backward,
        torch.ops.shortcutv2v.rows_blend: _blend,
        torch.ops.shortcutv2v.rows_blend_backward: _blend_backward,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.aten.mkldnn_rnn_layer: _recurrent_layer,
        torch.ops.aten._cudnn_rnn: _recurrent,
        torch.ops.aten.mv: _matrix_vector,
        torch.ops.aten.addmv: _add_matrix_vector,
        torch.ops.aten.dot: _dot,
        torch.ops.aten.addbmm: _add_batches,
    }
    for operator, formula in formulas.items():
        if operator not in flop_registry:
            register_flop_formula(operator)(formula)
