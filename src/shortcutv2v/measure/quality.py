"""Distance of pictures to the teacher's: PSNR, SSIM (kornia's, imported on first use), and flicker."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shortcutv2v import summary
from shortcutv2v.errors import InputError

__all__ = ["flicker", "psnr", "ssim"]

LEAST = 6
"""Pixels; the window of 11 is mirrored at the border."""


def psnr(output: Tensor, teacher: Tensor, max_value: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in dB over all pictures together; infinite if they are equal.

    Args:
        output: pictures of any shape, values in [0, max_value].
        teacher: the teacher's pictures, same shape.
        max_value: the largest possible value.

    Raises:
        InputError: the shapes differ.

    Examples:
        >>> round(psnr(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.6)), 2)
        20.0
    """
    _same_shape(output, teacher)
    if torch.equal(output, teacher):
        return math.inf
    rows = (picture.float().reshape(1, -1) / max_value for picture in (output, teacher))
    return float(summary.psnr(*rows))


def ssim(output: Tensor, teacher: Tensor, max_value: float = 1.0) -> float:
    """Return the structural similarity, mean over pictures and channels, window 11; 1 if they are equal.

    Args:
        output: pictures (B, C, H, W), values in [0, max_value].
        teacher: the teacher's pictures, same shape.
        max_value: the largest possible value.

    Raises:
        InputError: the shapes differ, or a side is below 6.
        ImportError: kornia is missing; it comes with `pip install shortcutv2v[train]`.

    Examples:
        >>> picture = torch.rand(1, 3, 16, 16)
        >>> round(ssim(picture, picture), 4)
        1.0
    """
    _same_shape(output, teacher)
    if min(output.shape[-2:]) < LEAST:
        raise InputError(f"SSIM needs pictures of {LEAST}x{LEAST} pixels or more, got {tuple(output.shape)}")
    return float(_kornia().ssim(output, teacher, 11, max_value).mean())


def flicker(output: Tensor, teacher: Tensor) -> float:
    """Return the temporal error: mean absolute difference between the frame-to-frame changes of both videos.

    A constant error does not flicker; one that jumps at every refresh does.

    Args:
        output: a video (T, C, H, W), T at least 2.
        teacher: the teacher's video, same shape.

    Raises:
        InputError: the shapes differ, or there is only one frame.

    Examples:
        >>> video = torch.rand(4, 3, 8, 8)
        >>> flicker(video + 0.1, video) < 1e-6
        True
    """
    _same_shape(output, teacher)
    if output.shape[0] < 2:
        raise InputError("flicker needs at least two frames (T, C, H, W)")
    return float((output.diff(dim=0) - teacher.diff(dim=0)).abs().mean())


def _kornia():  # type: ignore[no-untyped-def]
    try:
        from kornia import metrics
    except ImportError as error:
        raise ImportError("SSIM needs kornia: pip install 'shortcutv2v[train]'") from error
    return metrics


def _same_shape(output: Tensor, teacher: Tensor) -> None:
    if output.shape != teacher.shape:
        raise InputError(f"the pictures differ in shape: {tuple(output.shape)} and {tuple(teacher.shape)}")
