"""The Shortcut block written as slow loops from equations 2-7 of the paper: what the fast code is held against."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.blocks import PaperBlock, ShortcutBlock


def sample(feature: Tensor, y: float, x: float) -> Tensor:
    """Bilinear sample of (C, H, W) at (y, x) with zeros outside."""
    height, width = feature.shape[-2:]
    out = torch.zeros(feature.shape[0], dtype=feature.dtype)
    y0, x0 = math.floor(y), math.floor(x)
    for yy, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
        for xx, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
            if 0 <= yy < height and 0 <= xx < width:
                out = out + wy * wx * feature[:, yy, xx]
    return out


def deform(feature: Tensor, offset: Tensor, weight: Tensor, modulation: Tensor | None = None) -> Tensor:
    """Equation 2: sum_k w(k) f(p + k + dp(k)) m(k), for one (C, H, W) and offsets (2*9, H, W)."""
    height, width = offset.shape[-2:]
    out = torch.zeros(weight.shape[0], height, width, dtype=feature.dtype)
    for y in range(height):
        for x in range(width):
            for k, (ky, kx) in enumerate((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
                value = sample(feature, y + ky + float(offset[2 * k, y, x]), x + kx + float(offset[2 * k + 1, y, x]))
                if modulation is not None:
                    value = value * modulation[k, y, x]
                out[:, y, x] += weight[:, :, ky + 1, kx + 1] @ value
    return out


def adabd(f_ref: Tensor, a_t: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Equations 5-7: the two deformable convolutions under one weight."""
    still = deform(a_t, torch.zeros_like(offset), weight, mask)
    return still + deform(f_ref, offset, weight, 1 - mask)


def warp(feature: Tensor, offset: Tensor) -> Tensor:
    """f(p + dp(p)), positions held inside the map, for one (C, H, W) and (2, H, W)."""
    height, width = feature.shape[-2:]
    out = torch.zeros_like(feature)
    for y in range(height):
        for x in range(width):
            yy = min(max(y + float(offset[0, y, x]), 0), height - 1)
            xx = min(max(x + float(offset[1, y, x]), 0), width - 1)
            out[:, y, x] = sample(feature, yy, xx)
    return out


def hetconv(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """Each output sees its group through 3x3, everything through 1x1, its group's 1x1 taken out again."""
    full, grouped, own = layer.pointwise, layer.grouped, layer.grouped_pointwise
    inputs, outputs = full.in_channels, full.out_channels
    per_in, per_out = inputs // grouped.groups, outputs // grouped.groups
    padded = F.pad(x, (1, 1, 1, 1))
    out = torch.zeros(x.shape[0], outputs, *x.shape[2:], dtype=x.dtype)
    for o in range(outputs):
        first = o // per_out * per_in
        out[:, o] = full.bias[o] + grouped.bias[o] - own.bias[o]
        for i in range(inputs):
            out[:, o] += full.weight[o, i, 0, 0] * x[:, i]
            if first <= i < first + per_in:
                out[:, o] -= own.weight[o, i - first, 0, 0] * x[:, i]
                for ky in range(3):
                    for kx in range(3):
                        shifted = padded[:, i, ky : ky + x.shape[2], kx : kx + x.shape[3]]
                        out[:, o] += grouped.weight[o, i - first, ky, kx] * shifted
    return out


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def layers(module: torch.nn.Sequential, x: Tensor) -> Tensor:
    for i in range(0, len(module), 2):
        x = hetconv(module[i], x).relu()
    return x


def predict(block: ShortcutBlock, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> Tensor:
    """`f_hat` of one sample (1, C, H, W) by the loops."""
    assert isinstance(block, PaperBlock)
    height, width = a_t.shape[-2:]
    half = ((height + 1) // 2, (width + 1) // 2)
    generator = block.global_alignment.generator
    pair = torch.cat((resize(a_t, half), resize(a_ref, half)), 1)
    offset = generator.head(layers(generator.layers, pair))[0]
    every_tap = offset.repeat(9, 1, 1)
    weight = block.global_alignment.weight
    aligned = [
        resize(deform(resize(reduced, half)[0], every_tap, weight)[None], (height, width))
        for reduced in (block.reduce_f(f_ref), block.reduce_a(a_ref))
    ]
    current = block.reduce_a(a_t)
    raw = block.local_generator.head(layers(block.local_generator.layers, torch.cat((current, aligned[1]), 1)))[0]
    blended = adabd(aligned[0][0], current[0], raw[:18], raw[18:].sigmoid(), block.blend.weight)[None]
    return block.reconstruct(blended)
