"""The block of choices without training: `f_ref` reused unchanged, with a signal that tells when to stop."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from shortcutv2v.blocks.base import Prediction, ShortcutBlock

__all__ = ["ReuseBlock", "ReuseState"]


class ReuseState(NamedTuple):
    """The reference itself: `f` (B, C_f, H, W) and `a` (B, C_a, H, W)."""

    f: Tensor
    a: Tensor


class ReuseBlock(ShortcutBlock):
    """Reuse of `f_ref`: no weights, nothing to train, no work but a copy.

    `unexplained`, by which a stream holds a quality, is the mean square of `a_t - a_ref`: how far the frame has moved
    away from its reference.

    Examples:
        >>> import torch
        >>> block = ShortcutBlock(2, 3, 1, variant="reuse")
        >>> f, a = torch.rand(1, 3, 4, 4), torch.rand(1, 2, 4, 4)
        >>> seen = block.analyse(block.encode_reference(f, a), a + 0.5)
        >>> torch.equal(seen.f_hat, f), round(float(seen.unexplained), 4)
        (True, 0.25)
    """

    variant = "reuse"

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> ReuseState:
        """Keep the reference."""
        return ReuseState(f_ref, a_ref)

    def predict(self, state: ReuseState, a_t: Tensor) -> Tensor:
        """Return `f_ref`."""
        return state.f

    def analyse(self, state: ReuseState, a_t: Tensor) -> Prediction:
        """Return `f_ref`, no motion, and an `f_star` that is as far from it as `a_t` is from `a_ref`."""
        moved = (a_t - state.a).float().square().mean(1, keepdim=True).sqrt().to(state.f.dtype)
        height, width = a_t.shape[-2:]
        still = a_t.new_zeros((a_t.shape[0], 2, height, width))
        coarse = a_t.new_zeros((a_t.shape[0], 2, -(-height // 2), -(-width // 2)))
        return Prediction(state.f, state.f - moved, coarse, still, None)
