"""A block that predicts what changed since the reference. A still scene, `a_t == a_ref`, returns `f_ref` bit for bit.

The guarantee holds for any weights, by construction: offsets are a product with `a_t - a_ref`, no bias follows it, and
the sums that correct the warped reference consist of differences only.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v import ops
from shortcutv2v.blocks.alignment import (
    axis_of,
    channels_last,
    enlarge_offset,
    half_size,
    laid_out_like,
    positions,
    resize,
)
from shortcutv2v.blocks.base import Prediction, ShortcutBlock
from shortcutv2v.blocks.both import share_of_second
from shortcutv2v.blocks.hetconv import HetConv2d, is_plain

_Layer = TypeVar("_Layer", nn.Conv2d, nn.ConvTranspose2d)
_CELL = 4
"""Pixels, of half the resolution, of the cells in which two references are weighed."""

__all__ = ["FlowBlock", "FlowState", "MotionGenerator", "stay_inside"]


class FlowState(NamedTuple):
    """Everything that the block computes from the reference alone.

    Shapes: `maps` (B, C_f + t, H, W) is `f_ref` and the detail of `a_ref`, concatenated, because they are warped
    together; `halves` (B, 2w, H/2, W/2), `f_ref` and `a_ref` reduced, likewise; `reduced_a` (B, w, H/2, W/2); `a_down`
    (B, w, H/4, W/4).
    """

    maps: Tensor
    halves: Tensor
    reduced_a: Tensor
    a_down: Tensor


class _Aligned(NamedTuple):
    """Motion, and a reference warped along it: `halves`, `f` and the detail of `a` as in `FlowState`."""

    global_offset: Tensor
    local_offset: Tensor
    halves: Tensor
    f: Tensor
    detail: Tensor


class MotionGenerator(nn.Module):
    """Predict offsets that are exactly zero where the two maps, and their neighbourhoods, are equal.

        offset = W ( trunk(current, reference) * gate(current - reference) )

    To first order, motion is the product of a spatial gradient (which the trunk can compute) and a change in time
    (which the gate can compute). Neither the gate nor `W` has a bias. `W` starts at zero.

    Args:
        channels: channels of one map, and hidden width.
        depth: number of HetConv layers in the trunk.

    Shape:
        two maps (B, channels, H, W) -> (B, 2, H, W), (dy, dx) in pixels.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in [2 * channels] + [channels] * (depth - 1):
            layers += [HetConv2d(width, channels), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.head = zeroed(nn.Conv2d(channels, 2, 1, bias=False))

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """Estimate the motion from `current` back to `reference`; see the class."""
        context = self.trunk(torch.cat((current, reference), 1))
        offset: Tensor = self.head(context * self.gate(current - reference))
        return offset


class FlowBlock(ShortcutBlock):
    """Motion and correction at half the resolution, one warp of the whole reference, and the frame's own detail.

        f_warp = warp(f_ref, DP + dp_l)                      one offset per position, full width, full resolution
        d      = A a_t - warp(A a_ref, DP + dp_l)            half resolution: the change that motion does not explain
        e      = B a_t - warp(B a_ref, DP + dp_l)            the same in full resolution, few channels
        c      = relu(C(A a_t, f_warp))                      half resolution
        f_hat  = f_warp + R { c * G d + L d } + D(e, e * U c)

    `A` merges cells of 2x2 pixels; `R` and `U` do the reverse. All but `C` and `U` have no bias after a difference.
    Motion is estimated at a quarter of the resolution, refined at half, and enlarged for the warp.

    The published block deforms h channels with nine offsets per position. This block warps all channels with one offset
    and spends its multiply-adds on plain convolutions, most of them at half the resolution, where they cost a quarter.

    Args:
        a_channels: channels C_a of the encoder features.
        f_channels: channels C_f of the features to predict.
        channels: width h; w = 3h/2 channels at half the resolution, t = h/2 at the full one.
    """

    variant = "flow"

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        wide, thin = max(1, 3 * channels // 2), max(1, channels // 2)
        self.thin = thin
        self.reduce_f = nn.Sequential(_Even(), nn.Conv2d(f_channels, wide, 2, stride=2))
        self.reduce_a = nn.Sequential(_Even(), nn.Conv2d(a_channels, wide, 2, stride=2))
        self.detail = nn.Conv2d(a_channels, thin, 1, bias=False)  # a bias would cancel
        self.global_generator = MotionGenerator(wide, depth=2)
        self.local_generator = MotionGenerator(wide, depth=3)
        self.context = nn.Conv2d(2 * wide, wide, 3, padding=1)
        # Gate and linear part read the same map, so one convolution computes both.
        self.change = nn.Conv2d(wide, 2 * wide, 3, padding=1, bias=False)
        self.reconstruct = zeroed(nn.ConvTranspose2d(wide, f_channels, 2, stride=2, bias=False))
        self.detail_gate = nn.ConvTranspose2d(wide, thin, 2, stride=2)
        self.reconstruct_detail = zeroed(nn.Conv2d(2 * thin, f_channels, 3, padding=1, bias=False))

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> FlowState:
        """Reduce the reference; see the base class."""
        f_ref, a_ref = channels_last(f_ref), channels_last(a_ref)
        reduced_f, reduced_a = self.reduce_f(f_ref), self.reduce_a(a_ref)
        quarter = half_size((reduced_a.shape[-2], reduced_a.shape[-1]))
        maps = torch.cat((f_ref, self.detail(a_ref)), 1)
        return FlowState(maps, torch.cat((reduced_f, reduced_a), 1), reduced_a, resize(reduced_a, quarter))

    def predict(self, state: FlowState, a_t: Tensor) -> Tensor:
        """See the base class."""
        return laid_out_like(self.analyse(state, a_t).f_hat, a_t)

    def analyse(self, state: FlowState, a_t: Tensor) -> Prediction:
        """See the base class; `f_star` is the warped reference."""
        a_t = channels_last(a_t)
        current = self.reduce_a(a_t)
        return self._corrected(self._align(state, current), current, a_t)

    def analyse_both(self, first: FlowState, second: FlowState, a_t: Tensor) -> Prediction:
        """See the base class: both references are aligned and mixed by `d`; motion runs twice, the correction once."""
        a_t = channels_last(a_t)
        current = self.reduce_a(a_t)
        one, other = (self._align(state, current) for state in (first, second))
        left, right = (current - warped.halves.chunk(2, 1)[1] for warped in (one, other))
        share = share_of_second(left, right, _CELL)
        small, large = (resize(share, (x.shape[-2], x.shape[-1])) for x in (current, a_t))
        mixed = one._replace(
            halves=torch.lerp(one.halves, other.halves, small),
            f=torch.lerp(one.f, other.f, large),
            detail=torch.lerp(one.detail, other.detail, large),
        )
        return self._corrected(mixed, current, a_t)

    def _align(self, state: FlowState, current: Tensor) -> _Aligned:
        """Find the motion, and warp the reference along it."""
        global_offset, local_offset, motion = self._motion(state, current)
        return _Aligned(global_offset, local_offset, ops.warp(state.halves, motion), *self._warp(state, motion))

    def _corrected(self, reference: _Aligned, current: Tensor, a_t: Tensor) -> Prediction:
        """Add what motion does not explain."""
        f_ref, a_ref = reference.halves.chunk(2, 1)
        gate, linear = self.change(current - a_ref).chunk(2, 1)
        context = F.relu(self.context(torch.cat((current, f_ref), 1)))
        changed = self.detail(a_t) - reference.detail
        changed = torch.cat((changed, changed * _crop(_doubled(self.detail_gate, context), changed)), 1)
        f_hat = _sum(
            _crop(_doubled(self.reconstruct, context * gate + linear), reference.f),
            self.reconstruct_detail(changed),
            reference.f,
        )
        return Prediction(f_hat, reference.f, reference.global_offset, reference.local_offset, None)

    def _motion(self, state: FlowState, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `dp_g`, `dp_l`, and the motion that they add up to, (B, 2, H/2, W/2), in pixels of that size."""
        size = (current.shape[-2], current.shape[-1])
        global_offset = self.global_generator(resize(current, half_size(size)), state.a_down)
        motion = stay_inside(enlarge_offset(global_offset, size))
        local_offset = self.local_generator(current, ops.warp(state.reduced_a, motion))
        return global_offset, local_offset, stay_inside(motion + local_offset)

    def _warp(self, state: FlowState, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Return `f_ref` and the detail of `a_ref`, warped at full resolution."""
        height, width = motion.shape[-2:]
        whole = stay_inside(_crop(enlarge_offset(motion, (2 * height, 2 * width)), state.maps))
        aligned, detail = ops.warp(state.maps, whole).split([self.f_channels, self.thin], 1)
        return aligned, detail


class _Even(nn.Module):
    """Repeat the last row or column of odd sizes."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2] % 2, x.shape[-1] % 2
        return F.pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x


def _doubled(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Run a transposed convolution of stride and kernel 2; on a GPU by cells, which is faster there."""
    if x.is_cuda and not layer.training and is_plain(layer, nn.ConvTranspose2d):
        return _by_cells(layer, x)
    made: Tensor = layer(x)
    return made


def _by_cells(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """The same layer as a 1x1 convolution that computes the 2x2 cell of every pixel."""
    width = layer.weight.shape[1]
    cells = F.conv2d(x, layer.weight.view(-1, 4 * width).t()[..., None, None])
    doubled = F.pixel_shuffle(cells, 2)
    return doubled if layer.bias is None else doubled + layer.bias.view(-1, 1, 1)


def _crop(x: Tensor, like: Tensor) -> Tensor:
    """Drop the surplus row and column of odd sizes."""
    return x[..., : like.shape[-2], : like.shape[-1]]


def _sum(first: Tensor, second: Tensor, aligned: Tensor) -> Tensor:
    """Add up, in place: at full width, allocating another map takes longer than adding."""
    if first.dtype != aligned.dtype:  # autocast
        return aligned + (first + second)
    return first.add_(second).add_(aligned)


def zeroed(layer: _Layer) -> _Layer:
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
    y = torch.arange(height, device=offset.device, dtype=offset.dtype).view(height, 1)
    x = torch.arange(width, device=offset.device, dtype=offset.dtype)
    axis = axis_of(offset)
    place, last = y * (1 - axis) + x * axis, (height - 1) * (1 - axis) + (width - 1) * axis
    return torch.minimum(torch.maximum(offset, -place), last - place)
