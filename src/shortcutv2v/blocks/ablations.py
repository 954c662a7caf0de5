"""The published block without one of its parts: ablations (a) to (d) of Table 3; (e) is `paper` itself.

The paper gives each a sentence (section 4.3), and its code has none of them. Where the paper leaves a choice, the
ablation changes one thing only, and everything else, initialisation included, is that of `PaperBlock`. A block does not
hold parts that it does not use: all parameters that are counted are needed, and each gets a gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.blocks.alignment import OffsetGenerator, channels_last, half_size, laid_out_like
from shortcutv2v.blocks.base import Prediction
from shortcutv2v.blocks.blend import TAPS
from shortcutv2v.blocks.paper import PaperBlock, PaperState

__all__ = ["ReducedState", "SingleStageBlock", "WithoutBlendingBlock", "WithoutCurrentBlock", "WithoutReferenceBlock"]


class ReducedState(NamedTuple):
    """Everything that (c) computes from the reference alone: `reduced_f` and `reduced_a`, (B, h, H, W)."""

    reduced_f: Tensor
    reduced_a: Tensor


class WithoutReferenceBlock(PaperBlock):
    """(a) Use the current features alone, under a plain convolution: equation 5 with `m_b = 1`.

        f_hat = R sum_k w_l(k) a_t(p+k)

    Nothing is aligned, so `f_star` is `f_ref` itself: the alignment loss is constant and trains nothing.
    """

    variant = "without_reference"

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        del self.reduce_f, self.global_alignment, self.local_generator

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> Any:
        """Keep `f_ref` for `f_star`, and compute nothing; see the base class."""
        return (f_ref,)

    def predict(self, state: Any, a_t: Tensor) -> Tensor:
        """See the base class; the state is not used."""
        reduced_a_t = self.reduce_a(channels_last(a_t))
        return laid_out_like(self.reconstruct(F.conv2d(reduced_a_t, self.blend.weight, padding=1)), a_t)

    def analyse(self, state: Any, a_t: Tensor) -> Prediction:
        """See the base class; the offsets are zero."""
        return Prediction(self.predict(state, a_t), state[0], _no_global_offset(a_t), _no_offset(a_t, TAPS), None)


class _Unmasked(PaperBlock):
    """Common part of (b) and (d): the local generator gives offsets only, and no mask weights `f*_ref`."""

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        self.local_generator = OffsetGenerator(2 * channels, channels, 2 * TAPS, depth=3)

    def predict(self, state: PaperState, a_t: Tensor) -> Tensor:
        """See the base class."""
        aligned = self._align(state, a_t)
        f_star = self.blend.aligned(aligned.f_ref, aligned.local_offset)
        return laid_out_like(self.reconstruct(self._with_current(f_star, aligned.a_t)), a_t)

    def analyse(self, state: PaperState, a_t: Tensor) -> Prediction:
        """See the base class."""
        aligned = self._align(state, a_t)
        f_star = self.blend.aligned(aligned.f_ref, aligned.local_offset)
        f_hat = self.reconstruct(self._with_current(f_star, aligned.a_t))
        return Prediction(f_hat, self.reconstruct(f_star), aligned.global_offset, aligned.local_offset, None)

    def _with_current(self, f_star: Tensor, a_t: Tensor) -> Tensor:
        raise NotImplementedError


class WithoutCurrentBlock(_Unmasked):
    """(b) Use the reference alone, aligned in both steps: equation 5 with `m_b = 0`.

        f_hat = R f*_ref,  f*_ref = sum_k w_l(k) f_ref'(p+k+dp_l(k))

    The current frame still gives the offsets, but its features are not blended in. `f_star` is `f_hat`.
    """

    variant = "without_current"

    def _with_current(self, f_star: Tensor, a_t: Tensor) -> Tensor:
        return f_star


class SingleStageBlock(PaperBlock):
    """(c) Leave out the coarse step: one generator at full resolution reads `a_t` and `a_ref`; AdaBD deforms `f_ref`.

        f_hat = R sum_k w_l(k) { a_t(p+k) m_b(k) + f_ref(p+k+dp_l(k)) (1-m_b(k)) }

    `f_star` is the same without mask and current features, as in the published block; `dp_g` is zero.
    """

    variant = "single_stage"

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__(a_channels, f_channels, channels, variant)
        del self.global_alignment

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> Any:
        """Reduce the reference; see the base class."""
        return ReducedState(self.reduce_f(channels_last(f_ref)), self.reduce_a(channels_last(a_ref)))

    def _coarse(self, state: Any, a_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _no_global_offset(a_t), state.reduced_f, state.reduced_a


class WithoutBlendingBlock(_Unmasked):
    """(d) Add the aligned reference and the current features instead of blending them.

    f_hat = R (f*_ref + a_t),  f*_ref = sum_k w_l(k) f_ref'(p+k+dp_l(k))
    """

    variant = "without_blending"

    def _with_current(self, f_star: Tensor, a_t: Tensor) -> Tensor:
        return f_star + a_t


def _no_offset(a_t: Tensor, taps: int) -> Tensor:
    """Return zero offsets (B, 2 * taps, H, W)."""
    return a_t.new_zeros(()).expand(a_t.shape[0], 2 * taps, *a_t.shape[2:])


def _no_global_offset(a_t: Tensor) -> Tensor:
    """Return zero offsets (B, 2, H/2, W/2)."""
    return a_t.new_zeros(()).expand(a_t.shape[0], 2, *half_size((a_t.shape[-2], a_t.shape[-1])))
