"""The published block (equations 3-7)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from shortcutv2v.blocks.alignment import (
    GlobalAlignment,
    OffsetGenerator,
    channels_last,
    half_size,
    laid_out_like,
    resize,
)
from shortcutv2v.blocks.base import Prediction, ShortcutBlock
from shortcutv2v.blocks.blend import TAPS, AdaBD

__all__ = ["PaperBlock", "PaperState"]


class PaperState(NamedTuple):
    """Everything that the published block computes from the reference alone.

    Shapes: `a_down` (B, C_a, H/2, W/2); `reduced_f`, `reduced_a` (B, h, H/2, W/2), as
    `GlobalAlignment.prepare` returns them.
    """

    a_down: Tensor
    reduced_f: Tensor
    reduced_a: Tensor


class _Aligned(NamedTuple):
    """The reduced and aligned features and their offsets, which `predict` and `analyse` share."""

    f_ref: Tensor
    a_t: Tensor
    global_offset: Tensor
    local_offset: Tensor
    mask: Tensor


class PaperBlock(ShortcutBlock):
    """The published block: reduce, align coarsely, align finely while blending, reconstruct."""

    variant = "paper"

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        self.reduce_f = nn.Sequential(nn.Conv2d(f_channels, channels, 1), nn.ReLU())
        self.reduce_a = nn.Sequential(nn.Conv2d(a_channels, channels, 1), nn.ReLU())
        self.global_alignment = GlobalAlignment(a_channels, channels)
        self.local_generator = OffsetGenerator(2 * channels, channels, 3 * TAPS, depth=3)
        self.blend = AdaBD(channels)
        self.reconstruct = nn.Conv2d(channels, f_channels, 1)

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> PaperState:
        """Reduce and halve the reference; see the base class."""
        half = half_size((a_ref.shape[-2], a_ref.shape[-1]))
        a_ref, prepare = channels_last(a_ref), self.global_alignment.prepare
        return PaperState(
            a_down=resize(a_ref, half),
            reduced_f=prepare(resize(self.reduce_f(channels_last(f_ref)), half)),
            reduced_a=prepare(resize(self.reduce_a(a_ref), half)),
        )

    def predict(self, state: PaperState, a_t: Tensor) -> Tensor:
        """Equation 5, reconstructed to C_f channels."""
        aligned = self._align(state, a_t)
        f_hat = self.reconstruct(self.blend(aligned.f_ref, aligned.a_t, aligned.local_offset, aligned.mask))
        return laid_out_like(f_hat, a_t)

    def analyse(self, state: PaperState, a_t: Tensor) -> Prediction:
        """See the base class."""
        aligned = self._align(state, a_t)
        blended = self.blend(aligned.f_ref, aligned.a_t, aligned.local_offset, aligned.mask)
        f_star = self.blend.aligned(aligned.f_ref, aligned.local_offset)
        return Prediction(
            f_hat=self.reconstruct(blended),
            f_star=self.reconstruct(f_star),
            global_offset=aligned.global_offset,
            local_offset=aligned.local_offset,
            mask=aligned.mask,
        )

    def _align(self, state: PaperState, a_t: Tensor) -> _Aligned:
        a_t = channels_last(a_t)
        global_offset, f_ref, a_ref = self._coarse(state, a_t)
        reduced_a_t = self.reduce_a(a_t)
        # As published, the local generator sends no gradient into the coarse kernel.
        raw = self.local_generator(reduced_a_t, a_ref.detach())
        return _Aligned(f_ref, reduced_a_t, global_offset, raw[:, : 2 * TAPS], raw[:, 2 * TAPS :].sigmoid())

    def _coarse(self, state: PaperState, a_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `dp_g`, and the reduced `f_ref'` and `a_ref'` aligned by it, (B, h, H, W)."""
        size = (a_t.shape[-2], a_t.shape[-1])
        global_offset = self.global_alignment.offsets(resize(a_t, half_size(size)), state.a_down)
        f_ref = self.global_alignment(state.reduced_f, global_offset, size)
        a_ref = self.global_alignment(state.reduced_a, global_offset, size)
        return global_offset, f_ref, a_ref
