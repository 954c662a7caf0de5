"""FLOP formulas, so that `torch.utils.flop_counter.FlopCounterMode` counts deformable convolutions truly.

torch counts an operator it has no formula for as nothing, and has none for `torchvision::deform_conv2d`. As in torch's
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


def register() -> None:
    """Registers the formulas; those that something else has registered already stay."""
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.torchvision.deform_conv2d: _deform,
        torch.ops.torchvision._deform_conv2d_backward: _deform_backward,
        torch.ops.shortcutv2v.rows_blend: _blend,
        torch.ops.shortcutv2v.rows_blend_backward: _blend_backward,
    }
    for operator, formula in formulas.items():
        if operator not in flop_registry:
            register_flop_formula(operator)(formula)
