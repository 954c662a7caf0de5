"""Every loss against its formula written out by hand, and both GAN terms by the direction in which they push."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shortcutv2v.distill import losses
from shortcutv2v.distill.losses import FORMS, LossWeights
from shortcutv2v.errors import InputError


def by_hand(term: object, values: Tensor) -> float:
    """The mean of `term` over all values, one by one."""
    flat = [float(value) for value in values.flatten()]
    return math.fsum(term(value) for value in flat) / len(flat)  # type: ignore[operator]


def minus_log_sigmoid(score: float) -> float:
    return -math.log(1 / (1 + math.exp(-score)))


FORMULAS = {
    "least_squares": (lambda s: (s - 1) ** 2, lambda s: (s - 1) ** 2, lambda s: s**2),
    "log": (minus_log_sigmoid, minus_log_sigmoid, lambda s: -math.log(1 - 1 / (1 + math.exp(-s)))),
    "hinge": (lambda s: -s, lambda s: max(0, 1 - s), lambda s: max(0, 1 + s)),
}
"""form -> what the generator pays for a fake's score, and the discriminator for a real one's and a fake's."""


def test_default_weights_are_the_papers() -> None:
    assert vars(LossWeights()) == {
        "feature": 5, "alignment": 5, "output": 10, "perceptual": 10, "gan": 1, "temporal_gan": 1,
    }  # fmt: skip
    assert vars(LossWeights.plain()) == vars(LossWeights(perceptual=0, gan=0, temporal_gan=0))


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_weights_must_make_sense(value: float) -> None:
    with pytest.raises(InputError, match="weight of the temporal_gan loss"):
        LossWeights(temporal_gan=value)


@pytest.mark.parametrize("name", ["feature_loss", "alignment_loss", "output_loss"])
def test_l1_losses_are_means_of_absolute_differences(name: str) -> None:
    one, other = torch.randn(2, 2, 3, 5, 4, dtype=torch.float64)
    assert getattr(losses, name)(one, other).item() == pytest.approx(by_hand(abs, one - other))


def test_perceptual_loss_is_a_mean_in_layers_and_a_sum_over_them() -> None:
    mine = [torch.randn(2, 3, 8, 6, dtype=torch.float64), torch.randn(2, 5, 4, 3, dtype=torch.float64)]
    theirs = [torch.randn_like(layer) for layer in mine]
    expected = sum(by_hand(abs, a - b) for a, b in zip(mine, theirs, strict=True))
    assert losses.perceptual_loss(mine, theirs).item() == pytest.approx(expected)
    with pytest.raises(InputError, match="2 layers cannot be compared with 1"):
        losses.perceptual_loss(mine, theirs[:1])
    with pytest.raises(InputError, match="at least one"):
        losses.perceptual_loss([], [])


def test_every_form_is_checked() -> None:
    assert set(FORMULAS) == set(FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_gan_losses_are_their_formulas(form: str) -> None:
    real, fake = torch.randn(2, 2, 3, 5, 4) * 2
    generator, on_real, on_fake = FORMULAS[form]
    assert losses.gan_generator_loss(fake, form).item() == pytest.approx(by_hand(generator, fake), rel=1e-5)
    expected = by_hand(on_real, real) + by_hand(on_fake, fake)
    assert losses.gan_discriminator_loss(real, fake, form).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_scales_count_alike_whatever_their_size(form: str) -> None:
    fine, coarse = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 2, 2)
    apart = [losses.gan_generator_loss(scores, form) for scores in (fine, coarse)]
    torch.testing.assert_close(losses.gan_generator_loss([fine, coarse], form), sum(apart) / 2)
    apart = [losses.gan_discriminator_loss(scores, -scores, form) for scores in (fine, coarse)]
    torch.testing.assert_close(losses.gan_discriminator_loss([fine, coarse], [-fine, -coarse], form), sum(apart) / 2)


@pytest.mark.parametrize("form", FORMS)
def test_the_two_sides_pull_scores_their_ways(form: str) -> None:
    real, fake = torch.rand(2, 1, 1, 4, 4, requires_grad=True) * 3 - 1.5
    fake = fake.clamp(max=0.9)  # beyond 1, least squares holds a fake back
    (toward_real,) = torch.autograd.grad(losses.gan_generator_loss(fake, form), fake)
    assert (toward_real < 0).all()  # descent raises the scores of fakes
    of_real, of_fake = torch.autograd.grad(losses.gan_discriminator_loss(real, fake, form), (real, fake))
    if form == "least_squares":  # pulls to 1 and 0 from both sides
        assert torch.equal(of_real.sign(), (real - 1).sign())
        assert torch.equal(of_fake.sign(), fake.sign())
    else:
        assert (of_real <= 0).all()
        assert (of_fake >= 0).all()


def test_half_precision_scores_do_not_overflow() -> None:
    scores = torch.full((1, 1, 2, 2), 400.0, dtype=torch.float16)  # squared: beyond 65504
    assert losses.gan_generator_loss(scores).item() == 399.0**2
    assert losses.gan_generator_loss(scores.double()).dtype == torch.float64


def test_unusable_scores_and_forms_are_refused() -> None:
    with pytest.raises(InputError, match="unknown form of GAN loss 'wgan': expected one of least_squares"):
        losses.gan_generator_loss(torch.zeros(1), "wgan")
    with pytest.raises(InputError, match="empty list"):
        losses.gan_generator_loss([])
