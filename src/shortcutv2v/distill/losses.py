"""The losses of sections 3.3 and C.2 as pure functions, and their weights as the paper sets them.

Every `|.|_1` is the mean over all elements, so that weights hold at every size of picture and features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.errors import InputError, check_number

__all__ = [
    "FORMS",
    "LossWeights",
    "alignment_loss",
    "feature_loss",
    "gan_discriminator_loss",
    "gan_generator_loss",
    "output_loss",
    "perceptual_loss",
]

Scores: TypeAlias = Tensor | Sequence[Tensor]
"""A discriminator's result for a batch: a map of scores, or one map per scale."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss in the total, equation 9; the defaults are the paper's (section C.2). 0 switches one off.

    Attributes:
        feature: of `feature_loss`.
        alignment: of `alignment_loss`.
        output: of `output_loss`.
        perceptual: of `perceptual_loss`, or of another distance; see `distill.perceptual`.
        gan: of `gan_generator_loss` on pictures; see `Adversary`.
        temporal_gan: of `gan_generator_loss` on (reference, current) pictures; see `Adversary`.

    Raises:
        InputError: a weight is negative, not finite or no number.

    Examples:
        >>> LossWeights(temporal_gan=0).perceptual
        10.0
    """

    feature: float = 5.0
    alignment: float = 5.0
    output: float = 10.0
    perceptual: float = 10.0
    gan: float = 1.0
    temporal_gan: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(f"the weight of the {name} loss", value, 0)

    @classmethod
    def plain(cls, **changes: float) -> LossWeights:
        """The three losses that need neither downloaded weights nor discriminators, weighted as in the paper.

        Args:
            changes: weights that differ, by name.

        >>> LossWeights.plain()
        LossWeights(feature=5.0, alignment=5.0, output=10.0, perceptual=0.0, gan=0.0, temporal_gan=0.0)
        """
        return cls(**{"perceptual": 0.0, "gan": 0.0, "temporal_gan": 0.0, **changes})


def feature_loss(f_hat: Tensor, f: Tensor) -> Tensor:
    """`L_feat = |f_t - f_hat_t|_1` (equation 11).

    Args:
        f_hat: predicted features, (B, C, H, W).
        f: the teacher's, (B, C, H, W).

    Examples:
        >>> feature_loss(torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 0.5))
        tensor(0.5000)
    """
    return F.l1_loss(f_hat, f)


def alignment_loss(f_star: Tensor, f: Tensor) -> Tensor:
    """`L_align = |f_t - f*_ref|_1`, where `f*_ref` is the aligned reference without blending (equations 7 and 8).

    It teaches the offsets to align on their own, before blending can hide what they miss.

    Args:
        f_star: aligned reference features, (B, C, H, W).
        f: the teacher's features of the current frame, (B, C, H, W).
    """
    return F.l1_loss(f_star, f)


def output_loss(output: Tensor, target: Tensor) -> Tensor:
    """`L_out = |O_t - O_hat_t|_1` (equation 12).

    Args:
        output: the picture from the shortcut pass, (B, 3, H, W).
        target: the teacher's own, (B, 3, H, W).
    """
    return F.l1_loss(output, target)


def perceptual_loss(features_of_picture: Sequence[Tensor], features_of_target: Sequence[Tensor]) -> Tensor:
    """`L_perc = sum over j of |VGG_j(O_t) - VGG_j(O_hat_t)|_1` (equation 13): mean within a layer, sum over layers.

    Args:
        features_of_picture: of the picture from the shortcut pass, one tensor per layer.
        features_of_target: of the teacher's picture, of the same shapes.

    Raises:
        InputError: not the same number of layers, or none.

    Examples:
        >>> zeros = [torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 4, 4)]
        >>> perceptual_loss(zeros, [layer + 0.5 for layer in zeros])
        tensor(1.)
    """
    layers, expected = len(features_of_picture), len(features_of_target)
    if layers != expected or not layers:
        raise InputError(f"features of {layers} layers cannot be compared with {expected}: give the same, at least one")
    pairs = zip(features_of_picture, features_of_target, strict=True)
    return torch.stack([F.l1_loss(mine, theirs) for mine, theirs in pairs]).sum()


class _Form(NamedTuple):
    """A GAN loss by its three terms; each maps scores to penalties of the same shape."""

    generator: Callable[[Tensor], Tensor]
    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]


_FORMS = {
    "least_squares": _Form(lambda s: (s - 1).square(), lambda s: (s - 1).square(), lambda s: s.square()),
    "log": _Form(lambda s: F.softplus(-s), lambda s: F.softplus(-s), F.softplus),
    "hinge": _Form(lambda s: -s, lambda s: F.relu(1 - s), lambda s: F.relu(1 + s)),
}
FORMS = tuple(_FORMS)
"""The forms that the GAN losses come in."""


def gan_generator_loss(scores_fake: Scores, form: str = "least_squares") -> Tensor:
    """Loss of the Shortcut block: small if its pictures are taken for the teacher's.

    With scores `s = D(O_hat_t)`, the mean over all of `(s - 1)^2` ("least_squares", which the authors train with),
    `-log sigmoid(s)` ("log") or `-s` ("hinge"). "log" is equations 14 and 15 with the usual `-log D` instead of
    `log(1 - D)`: the same aim, and a gradient that does not vanish while the discriminator is ahead.

    Args:
        scores_fake: of pictures from the shortcut pass, of any shape; several maps (scales) count alike.
        form: one of `FORMS`.

    Raises:
        InputError: an unknown form, or no scores.

    Examples:
        >>> gan_generator_loss(torch.full((1, 1, 4, 4), 0.5))
        tensor(0.2500)
    """
    return _mean(_form(form).generator, scores_fake)


def gan_discriminator_loss(scores_real: Scores, scores_fake: Scores, form: str = "least_squares") -> Tensor:
    """Loss of a discriminator: small if it tells the teacher's pictures (real) from the block's (fake).

    With scores `r` of real and `s` of fake pictures, the means of `(r - 1)^2 + s^2` ("least_squares"),
    `-log sigmoid(r) - log(1 - sigmoid(s))` ("log", equations 14 and 15) or `max(0, 1 - r) + max(0, 1 + s)` ("hinge").

    Args:
        scores_real: of the teacher's pictures, of any shape; several maps (scales) count alike.
        scores_fake: of pictures from the shortcut pass, detached from the block.
        form: one of `FORMS`.

    Raises:
        InputError: an unknown form, or no scores.

    Examples:
        >>> gan_discriminator_loss(torch.ones(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5))
        tensor(0.2500)
    """
    return _mean(_form(form).real, scores_real) + _mean(_form(form).fake, scores_fake)


def _form(name: str) -> _Form:
    if name not in _FORMS:
        raise InputError(f"unknown form of GAN loss {name!r}: expected one of {', '.join(FORMS)}")
    return _FORMS[name]


def _mean(penalty: Callable[[Tensor], Tensor], scores: Scores) -> Tensor:
    """Mean over each map, then over maps: the weight of the loss does not grow with the number of scales."""
    maps = [scores] if isinstance(scores, Tensor) else list(scores)
    if not maps:
        raise InputError("a GAN loss needs scores: the discriminator returned an empty list")
    # At least in float32, because squares of half-precision scores overflow.
    exact = torch.promote_types(maps[0].dtype, torch.float32)
    return torch.stack([penalty(found.to(exact)).mean() for found in maps]).mean()
