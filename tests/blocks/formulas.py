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


def _generate(generator: torch.nn.Module, current: Tensor, reference: Tensor) -> Tensor:
    return generator.head(loops.layers(generator.layers, torch.cat((current, reference), 1)))[0]


def _flow(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> tuple[Tensor, Tensor]:
    current, a, f = _cells(block.reduce_a[1], a_t), _cells(block.reduce_a[1], a_ref), _cells(block.reduce_f[1], f_ref)
    half, wide = tuple(current.shape[-2:]), current.shape[1]
    quarter = tuple((n + 1) // 2 for n in half)
    motion = _motion(block.global_generator, loops.resize(current, quarter), loops.resize(a, quarter))
    motion = _inside(_enlarge(motion, half))
    motion = _inside(motion + _motion(block.local_generator, current, loops.warp(a[0], motion[0])[None]))
    change = block.change(current - loops.warp(a[0], motion[0])[None])
    context = block.context(torch.cat((current, loops.warp(f[0], motion[0])[None]), 1)).relu()
    correction = context * change[:, :wide] + change[:, wide:]
    height, width = f_ref.shape[-2:]
    whole = _inside(_enlarge(motion, (2 * half[0], 2 * half[1]))[..., :height, :width])[0]
    f_star = loops.warp(f_ref[0], whole)[None]
    detail = block.detail(a_t) - loops.warp(block.detail(a_ref)[0], whole)[None]
    gate = _pixels(block.detail_gate, context, (height, width))
    sharp = block.reconstruct_detail(torch.cat((detail, detail * gate), 1))
    return f_star + _pixels(block.reconstruct, correction, (height, width)) + sharp, f_star


def _pixels(enlarge: torch.nn.ConvTranspose2d, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Every pixel to 2x2, without those outside `size`."""
    out = x.new_zeros(1, enlarge.out_channels, *size)
    for y in range(size[0]):
        for x_ in range(size[1]):
            out[0, :, y, x_] = x[0, :, y // 2, x_ // 2] @ enlarge.weight[:, :, y % 2, x_ % 2]
            if enlarge.bias is not None:
                out[0, :, y, x_] += enlarge.bias
    return out


def _cells(reduce: torch.nn.Conv2d, x: Tensor) -> Tensor:
    """Every 2x2 pixels to one; where a pixel is missing, its neighbour stands in."""
    height, width = x.shape[-2:]
    out = x.new_zeros(1, reduce.out_channels, (height + 1) // 2, (width + 1) // 2)
    for y in range(out.shape[-2]):
        for x_ in range(out.shape[-1]):
            out[0, :, y, x_] = reduce.bias
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                pixel = x[0, :, min(2 * y + dy, height - 1), min(2 * x_ + dx, width - 1)]
                out[0, :, y, x_] += reduce.weight[:, :, dy, dx] @ pixel
    return out


def _motion(generator: torch.nn.Module, current: Tensor, reference: Tensor) -> Tensor:
    seen = loops.layers(generator.trunk, torch.cat((current, reference), 1))
    return generator.head(seen * generator.gate(current - reference))


def _enlarge(offset: Tensor, size: tuple[int, int]) -> Tensor:
    scale = offset.new_tensor([n / m for n, m in zip(size, offset.shape[-2:], strict=True)])
    return loops.resize(offset, size) * scale.view(2, 1, 1)


def _inside(offset: Tensor) -> Tensor:
    height, width = offset.shape[-2:]
    y, x = torch.arange(height).view(-1, 1), torch.arange(width)
    at_y, at_x = (y + offset[:, 0]).clamp(0, height - 1), (x + offset[:, 1]).clamp(0, width - 1)
    return torch.stack((at_y - y, at_x - x), 1)


FORMULAS = {
    "without_reference": _without_reference,
    "without_current": _without_current,
    "single_stage": _single_stage,
    "without_blending": _without_blending,
    "flow": _flow,
}
"""variant -> `f_hat` and `f_star` of one sample"""


def excite(block: torch.nn.Module, scale: float = 0.4) -> None:
    """Random values everywhere, so that no term of an equation hides behind a zero."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=scale)


def maps(a: int, f: int, size: tuple[int, int], batch: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Random `f_ref`, `a_ref` and `a_t`."""
    return [torch.randn(batch, c, *size, dtype=dtype) for c in (f, a, a)]
