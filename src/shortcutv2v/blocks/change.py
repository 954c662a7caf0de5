"""Blocks that predict what changed since the reference. A still scene, `a_t == a_ref`, returns `f_ref` bit for bit.

The guarantee holds for any weights, by construction: offsets are a product with `a_t - a_ref`, no bias follows it, and
the sum that corrects the warped reference consists of differences only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v import ops
from shortcutv2v.blocks.alignment import (
    OffsetGenerator,
    channels_last,
    enlarge_offset,
    half_size,
    laid_out_like,
    positions,
    resize,
)
from shortcutv2v.blocks.base import Prediction, ShortcutBlock
from shortcutv2v.blocks.blend import TAPS, AdaBD
from shortcutv2v.blocks.hetconv import HetConv2d

__all__ = ["ChangeState", "DeltaBlock", "FlowBlock", "MotionGenerator", "stay_inside", "zeroed"]


class ChangeState(NamedTuple):
    """Everything that these blocks compute from the reference alone.

    Shapes: `maps` (B, C_f + 2h, H, W) is `f_ref`, `reduced_f` and `reduced_a` concatenated, because they are warped
    together; `reduced_f`, `reduced_a` (B, h, H, W); `a_down` (B, h, H/2, W/2).
    """

    maps: Tensor
    reduced_f: Tensor
    reduced_a: Tensor
    a_down: Tensor


class MotionGenerator(nn.Module):
    """Predict offsets that are exactly zero where the two maps, and their neighbourhoods, are equal.

        offset = W ( trunk(current, reference) * gate(current - reference) )

    To first order, motion is the product of a spatial gradient (which the trunk can compute) and a change in time
    (which the gate can compute). Neither the gate nor `W` has a bias. `W` starts at zero.

    Args:
        in_channels: channels of one map.
        channels: hidden width h.
        depth: number of HetConv layers in the trunk.

    Shape:
        two maps (B, in_channels, H, W) -> (B, 2, H, W), (dy, dx) in pixels.
    """

    def __init__(self, in_channels: int, channels: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in [2 * in_channels] + [channels] * (depth - 1):
            layers += [HetConv2d(width, channels), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.gate = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.head = nn.Conv2d(channels, 2, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """Estimate the motion from `current` back to `reference`; see the class."""
        context = self.trunk(torch.cat((current, reference), 1))
        offset: Tensor = self.head(context * self.gate(current - reference))
        return offset


class _ChangeBlock(ShortcutBlock):
    """Common part of `delta` and `flow`: coarse motion, warp of the whole reference, reconstruction without bias."""

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        self.reduce_f: nn.Module = nn.Conv2d(f_channels, channels, 1)
        self.reduce_a: nn.Module = nn.Conv2d(a_channels, channels, 1)
        self.global_generator = MotionGenerator(channels, channels, depth=2)
        self.reconstruct: nn.Module = zeroed(nn.Conv2d(channels, f_channels, 1, bias=False))

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> ChangeState:
        """Reduce the reference; see the base class."""
        f_ref, a_ref = channels_last(f_ref), channels_last(a_ref)
        reduced_f, reduced_a = self.reduce_f(f_ref), self.reduce_a(a_ref)
        half = half_size((a_ref.shape[-2], a_ref.shape[-1]))
        return ChangeState(torch.cat((f_ref, reduced_f, reduced_a), 1), reduced_f, reduced_a, resize(reduced_a, half))

    def predict(self, state: ChangeState, a_t: Tensor) -> Tensor:
        """See the base class."""
        return laid_out_like(self.analyse(state, a_t).f_hat, a_t)

    def _coarse(self, state: ChangeState, a_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reduced current features, `dp_g`, and `dp_g` enlarged to their size."""
        current = self.reduce_a(channels_last(a_t))
        size = (current.shape[-2], current.shape[-1])
        global_offset = self.global_generator(resize(current, half_size(size)), state.a_down)
        return current, global_offset, stay_inside(enlarge_offset(global_offset, size))

    def _warp(self, state: ChangeState, motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `f_ref`, its reduction and that of `a_ref`, warped together."""
        f, reduced_f, reduced_a = ops.warp(state.maps, motion).split([self.f_channels, self.channels, self.channels], 1)
        return f, reduced_f, reduced_a


class DeltaBlock(_ChangeBlock):
    """The published block on differences: AdaBD blends the changes, and corrects `f_ref` warped at full width.

        f_hat = warp(f_ref, DP)
                + R sum_k w_l(k) { (a_t - a_ref')(p+k) m_b(k) + (f_ref' - f_ref)(p+k+dp_l(k)) (1-m_b(k)) }

    `DP` is `dp_g` enlarged to full size; `a_ref'` and `f_ref'` are the reduced maps warped by it; the reconstruction
    `R` has no bias and starts at zero. The published block blends `a_t` and `f_ref'` themselves, and neither is zero in
    a still scene.
    """

    variant = "delta"

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        self.reduce_f = nn.Sequential(self.reduce_f, nn.ReLU())
        self.reduce_a = nn.Sequential(self.reduce_a, nn.ReLU())
        self.local_generator = OffsetGenerator(2 * channels, channels, 3 * TAPS, depth=3)
        self.blend = AdaBD(channels)

    def analyse(self, state: ChangeState, a_t: Tensor) -> Prediction:
        """See the base class; `f_star` is the coarsely aligned reference."""
        current, global_offset, motion = self._coarse(state, a_t)
        aligned, f_ref, a_ref = self._warp(state, motion)
        raw = self.local_generator(current, a_ref)
        offset, mask = raw[:, : 2 * TAPS], raw[:, 2 * TAPS :].sigmoid()
        changed = self.blend(f_ref - state.reduced_f, current - a_ref, offset, mask)
        return Prediction(aligned + self.reconstruct(changed), aligned, global_offset, offset, mask)


class FlowBlock(_ChangeBlock):
    """Coarse-to-fine motion, one warp of the whole reference, and a gated convolutional correction.

        f_warp = warp(f_ref, DP + dp_l)                            one offset per position, full width
        d      = a_t - warp(a_ref, DP + dp_l)                      reduced: the change that motion does not explain
        f_hat  = f_warp + R { relu(C(a_t, f_warp)) * G d + L d }   C, G, L: 3x3; G, L and R without bias

    The published block deforms h channels with nine offsets per position. This block warps all channels with one offset
    and spends its multiply-adds on plain convolutions, which every device runs at full speed.
    """

    variant = "flow"

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        self.local_generator = MotionGenerator(channels, channels, depth=3)
        self.context = nn.Conv2d(2 * channels, channels, 3, padding=1)
        # Gate and linear part read the same map, so one convolution computes both.
        self.change = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)

    def analyse(self, state: ChangeState, a_t: Tensor) -> Prediction:
        """See the base class; `f_star` is the warped reference."""
        current, global_offset, motion = self._coarse(state, a_t)
        local_offset = self.local_generator(current, ops.warp(state.reduced_a, motion))
        motion = stay_inside(motion + local_offset)
        aligned, f_ref, a_ref = self._warp(state, motion)
        gate, linear = self.change(current - a_ref).chunk(2, 1)
        correction = F.relu(self.context(torch.cat((current, f_ref), 1))) * gate + linear
        return Prediction(self._correct(aligned, correction), aligned, global_offset, local_offset, None)

    def _correct(self, aligned: Tensor, correction: Tensor) -> Tensor:
        out: Tensor = aligned + self.reconstruct(correction)
        return out


def zeroed(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Set the weight of a layer without bias to zero; return the layer."""
    nn.init.zeros_(layer.weight)
    return layer


def stay_inside(offset: Tensor) -> Tensor:
    """Shorten offsets that point outside the map, so that they end on its border.

    Args:
        offset: (B, 2, H, W), (dy, dx) in pixels.

    Examples:
        >>> stay_inside(torch.full((1, 2, 1, 3), 5.0))[0, 1]
        tensor([[2., 1., 0.]])
    """
    offset = positions(offset)
    height, width = offset.shape[-2:]
    y = torch.arange(height, device=offset.device, dtype=offset.dtype).view(1, height, 1)
    x = torch.arange(width, device=offset.device, dtype=offset.dtype).view(1, 1, width)
    dy = torch.minimum(torch.maximum(offset[:, 0], -y), height - 1 - y)
    dx = torch.minimum(torch.maximum(offset[:, 1], -x), width - 1 - x)
    return torch.stack((dy, dx), 1)
