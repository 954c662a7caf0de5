"""The losses of section 3.3 as pure functions, and their weights as the paper sets them."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.errors import InputError

__all__ = ["LossWeights", "alignment_loss", "feature_loss", "output_loss"]


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss in the total (section C.2); 0 switches a loss off.

    Attributes:
        feature: of `feature_loss`.
        alignment: of `alignment_loss`.
        output: of `output_loss`.

    Raises:
        InputError: a weight is negative.
    """

    feature: float = 5.0
    alignment: float = 5.0
    output: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise InputError(f"the weight of the {name} loss must not be negative, got {value}")


def feature_loss(f_hat: Tensor, f: Tensor) -> Tensor:
    """`L_feat = |f_t - f_hat_t|_1`, the mean over all elements (section 3.3).

    Args:
        f_hat: predicted features, (B, C, H, W).
        f: the teacher's, (B, C, H, W).

    Example:
        >>> import torch
        >>> feature_loss(torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 0.5))
        tensor(0.5000)
    """
    return F.l1_loss(f_hat, f)


def alignment_loss(f_star: Tensor, f: Tensor) -> Tensor:
    """`L_align = |f_t - f*_ref|_1`, where `f*_ref` is the aligned reference without blending (equation 8).

    It teaches the offsets to align on their own, before blending can hide what they miss.

    Args:
        f_star: aligned reference features, (B, C, H, W).
        f: the teacher's features of the current frame, (B, C, H, W).
    """
    return F.l1_loss(f_star, f)


def output_loss(output: Tensor, target: Tensor) -> Tensor:
    """`L_out = |O_t - O_hat_t|_1`, the mean over all elements (section 3.3).

    Args:
        output: the picture from the shortcut pass, (B, 3, H, W).
        target: the teacher's own, (B, 3, H, W).
    """
    return F.l1_loss(output, target)
