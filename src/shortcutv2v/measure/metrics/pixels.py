"""PSNR, SSIM and MS-SSIM of single pictures."""

from __future__ import annotations

from torch import Tensor

from shortcutv2v import summary
from shortcutv2v.measure import quality
from shortcutv2v.measure.metrics.base import Metric, Unavailable, needed

__all__ = ["MSSSIM", "PSNR", "SSIM"]

_PYRAMID = 176
"""Smallest side that torchmetrics takes for five scales with a window of 11."""


class PSNR(Metric):
    """Peak signal-to-noise ratio over all values of a picture; equal pictures have 100 dB."""

    name, title, unit = "psnr", "PSNR", "dB"

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float:
        """See the base class."""
        return float(summary.psnr(made, teacher))


class SSIM(Metric):
    """Structural similarity (kornia), window 11, mean over the colours."""

    name, title, digits = "ssim", "SSIM", 4

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float:
        """See the base class."""
        if min(made.shape[-2:]) < quality.LEAST:
            raise Unavailable(f"the pictures are smaller than {quality.LEAST}x{quality.LEAST}")
        needed("kornia")
        return quality.ssim(made, teacher)


class MSSSIM(Metric):
    """SSIM at five scales (torchmetrics, Wang et al. 2003)."""

    name, title, digits = "ms_ssim", "MS-SSIM", 4

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float:
        """See the base class."""
        if min(made.shape[-2:]) < _PYRAMID:
            raise Unavailable(f"five scales need pictures of {_PYRAMID}x{_PYRAMID} or more: give a larger --size")
        ms_ssim = needed("torchmetrics.functional.image").multiscale_structural_similarity_index_measure
        return float(ms_ssim(made.float(), teacher.float(), data_range=1.0))
