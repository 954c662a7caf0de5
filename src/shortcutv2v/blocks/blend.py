"""Adaptive blending and deformation, AdaBD (section 3.2, equations 5-7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shortcutv2v import ops

__all__ = ["TAPS", "AdaBD"]

TAPS = 9
"""Sampling positions of the 3x3 kernel."""


class AdaBD(nn.Module):
    """Deform the reference and blend it with the current frame, under one shared 3x3 kernel.

        f_hat(p) = sum_k w_l(k) { a_t(p+k) m_b(k) + f_ref'(p+k+dp_l(k)) (1 - m_b(k)) }        (equation 5)

    Args:
        channels: reduced width h.

    Examples:
        >>> blend = AdaBD(4)
        >>> f_ref, a_t = torch.rand(2, 1, 4, 6, 5)
        >>> blend(f_ref, a_t, torch.zeros(1, 18, 6, 5), torch.full((1, 9, 6, 5), 0.5)).shape
        torch.Size([1, 4, 6, 5])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, f_ref: Tensor, a_t: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """Blend.

        Args:
            f_ref: coarsely aligned reference features `f_ref'`, (B, h, H, W).
            a_t: current encoder features, (B, h, H, W).
            offset: `dp_l`, (B, 18, H, W): (dy, dx) per tap, in pixels.
            mask: `m_b`, (B, 9, H, W), in [0, 1]; 1 takes the current frame.

        Returns:
            (B, h, H, W)
        """
        return ops.adabd(f_ref, a_t, offset, mask, self.weight)

    def aligned(self, f_ref: Tensor, offset: Tensor) -> Tensor:
        """Return `f*_ref`, the deformed reference alone, without mask, for the alignment loss (equation 7)."""
        return ops.deform(f_ref, offset, self.weight)
