"""The variants that `tests.loops` does not know, one formula each, over its loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests import loops
from torch import Tensor

from shortcutv2v.blocks import ShortcutBlock


def f_hat(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> Tensor:
    """What `block` must predict for one sample (1, C, H, W)."""
    if block.variant in FORMULAS:
        return FORMULAS[block.variant](block, f_ref, a_ref, a_t)[0]
    return loops.predict(block, f_ref, a_ref, a_t)


def _without_reference(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> tuple[Tensor, Tensor]:
    return block.reconstruct(F.conv2d(block.reduce_a(a_t), block.blend.weight, padding=1)), f_ref


def _without_current(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> tuple[Tensor, Tensor]:
    f_star = block.reconstruct(_aligned(block, f_ref, a_ref, a_t))
    return f_star, f_star


def _without_blending(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> tuple[Tensor, Tensor]:
    aligned = _aligned(block, f_ref, a_ref, a_t)
    return block.reconstruct(aligned + block.reduce_a(a_t)), block.reconstruct(aligned)


def _single_stage(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> tuple[Tensor, Tensor]:
    f, current, weight = block.reduce_f(f_ref), block.reduce_a(a_t), block.blend.weight
    raw = _generate(block.local_generator, current, block.reduce_a(a_ref))
    offset, mask = raw[:18], raw[18:].sigmoid()
    blended = loops.adabd(f[0], current[0], offset, mask, weight)
    return block.reconstruct(blended[None]), block.reconstruct(loops.deform(f[0], offset, weight)[None])


def _aligned(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> Tensor:
    """The published two steps, and the shared kernel without a mask (equation 7)."""
    size = tuple(a_t.shape[-2:])
    half = tuple((n + 1) // 2 for n in size)
    every_tap = _generate(block.global_alignment.generator, loops.resize(a_t, half), loops.resize(a_ref, half))
    every_tap, weight = every_tap.repeat(9, 1, 1), block.global_alignment.weight
    f, a = (
        loops.resize(loops.deform(loops.resize(reduced, half)[0], every_tap, weight)[None], size)
        for reduced in (block.reduce_f(f_ref), block.reduce_a(a_ref))
    )
    offset = _generate(block.local_generator, block.reduce_a(a_t), a)
    assert len(offset) == 18
    return loops.deform(f[0], offset, block.blend.weight)[None]


def _generate(generator, current: Tensor, reference: Tensor) -> Tensor:

    return generator.head(loops.layers(generator.layers, torch.cat((current, reference), 1)))[0]


FORMULAS = {
    "without_reference": _without_reference,
    "without_current": _without_current,
    "single_stage": _single_stage,
    "without_blending": _without_blending,
}
"""variant -> `f_hat` and `f_star` of one sample"""


def excite(module: torch.nn.Module, scale: float = 0.4) -> torch.nn.Module:
    """Random values everywhere, so that no term of an equation hides behind a zero."""
    g = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=g, dtype=torch.float64).to(parameter)
    return module


def maps(a: int, f: int, size: tuple[int, int], batch: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """`f_ref`, `a_ref`, `a_t`: the same at every call."""
    g = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, *size, generator=g, dtype=torch.float64).to(dtype) for c in (f, a, a)]
