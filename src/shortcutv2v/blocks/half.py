"""`flow` at half the resolution: a quarter of the work in the most expensive part."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v import ops
from shortcutv2v.blocks.alignment import channels_last, enlarge_offset, half_size, resize
from shortcutv2v.blocks.change import FlowBlock, stay_inside, zeroed

__all__ = ["FlowHalfBlock", "HalfState"]


class HalfState(NamedTuple):
    """Everything that the block computes from the reference alone.

    Shapes: `f` (B, C_f, H, W); `maps` (B, 2h, H/2, W/2), `reduced_f` and `reduced_a` concatenated, because they are
    warped together; `reduced_a` (B, h, H/2, W/2); `a_down` (B, h, H/4, W/4).
    """

    f: Tensor
    maps: Tensor
    reduced_a: Tensor
    a_down: Tensor


class _Even(nn.Module):
    """Repeat the last row or column of odd sizes."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2] % 2, x.shape[-1] % 2
        return F.pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x


class FlowHalfBlock(FlowBlock):
    """`flow` with motion and correction at half the resolution; only the warp of `f_ref` runs at full resolution.

    The reductions merge cells of 2x2 pixels into one pixel; the reconstruction does the reverse. Motion is estimated at
    a quarter of the resolution, refined at half, and enlarged for the warp. A still scene returns `f_ref` bit for bit,
    as in `flow`. In the `Prediction`, `global_offset` is (B, 2, H/4, W/4) and `local_offset` is (B, 2, H/2, W/2), each
    in pixels of its own map.
    """

    variant = "flow_half"

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        self.reduce_f = nn.Sequential(_Even(), nn.Conv2d(f_channels, channels, 2, stride=2))
        self.reduce_a = nn.Sequential(_Even(), nn.Conv2d(a_channels, channels, 2, stride=2))
        self.reconstruct = zeroed(nn.ConvTranspose2d(channels, f_channels, 2, stride=2, bias=False))

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> Any:
        """Halve and reduce the reference; see the base class."""
        f_ref = channels_last(f_ref)
        reduced_f, reduced_a = self.reduce_f(f_ref), self.reduce_a(channels_last(a_ref))
        quarter = half_size((reduced_a.shape[-2], reduced_a.shape[-1]))
        return HalfState(f_ref, torch.cat((reduced_f, reduced_a), 1), reduced_a, resize(reduced_a, quarter))

    def _warp(self, state: Any, motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reduced_f, reduced_a = ops.warp(state.maps, motion).chunk(2, 1)
        height, width = motion.shape[-2:]
        whole = _crop(enlarge_offset(motion, (2 * height, 2 * width)), state.f)
        return ops.warp(state.f, stay_inside(whole)), reduced_f, reduced_a

    def _correct(self, aligned: Tensor, correction: Tensor) -> Tensor:
        full = _crop(self.reconstruct(correction), aligned)
        if full.dtype != aligned.dtype:  # autocast
            return aligned + full
        return full.add_(aligned)  # in place: at full width, allocating a second map takes longer than adding


def _crop(x: Tensor, like: Tensor) -> Tensor:
    """Drop the surplus row and column of odd sizes."""
    return x[..., : like.shape[-2], : like.shape[-1]]
