"""Adversary of the Shortcut block: discriminators of pictures and of pairs in time, and the losses of both sides."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from shortcutv2v.distill.discriminators import MultiScale, PatchDiscriminator, TemporalDiscriminator
from shortcutv2v.distill.losses import FORMS, gan_discriminator_loss, gan_generator_loss
from shortcutv2v.distill.rollout import frozen
from shortcutv2v.errors import InputError
from shortcutv2v.graph.protect import same_modes

__all__ = ["Adversary"]


class Adversary(nn.Module):
    """`L_GAN` and `L_T-GAN` (equations 14 and 15): the teacher's pictures are real, those of the block fake.

    The temporal discriminator sees pairs: (O_ref; O_t) as real, (O_ref; O_hat_t) as fake. The block is pushed towards
    "real" by both terms. (The authors' code pushes it towards "fake" by the temporal one.)

    Args:
        form: of the losses, one of `FORMS`: "least_squares" as in the authors' code, "log" as in the paper, "hinge".
        n_layers: strided layers of a discriminator.
        scales: discriminators of each kind, each at half the size of the one before.
        width: channels after a discriminator's first layer.
        spectral_norm: of the discriminators' weights.
        spatial: whether pictures are judged, or the discriminator to use: (B, 3, H, W) in [-1, 1] to scores or a list
            of them.
        temporal: whether pairs of pictures are judged, or the discriminator to use: (B, 3, 2, H, W) in [-1, 1] to
            scores or a list of them.

    Shape:
        pictures are (B, 3, H, W) in [0, 1].

    Raises:
        InputError: an unknown form, a number below 1, or neither kind of discriminator.

    Examples:
        >>> adversary = Adversary(width=8)
        >>> picture, target, reference = torch.rand(3, 1, 3, 16, 16)
        >>> list(adversary.generator(picture, reference))
        ['gan', 'temporal_gan']
        >>> list(adversary.discriminator(picture, target, reference))
        ['discriminator', 'temporal_discriminator']
    """

    def __init__(
        self,
        form: str = "least_squares",
        *,
        n_layers: int = 1,
        scales: int = 1,
        width: int = 64,
        spectral_norm: bool = True,
        spatial: bool | nn.Module = True,
        temporal: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise InputError(f"unknown form of GAN loss {form!r}: expected one of {', '.join(FORMS)}")
        if spatial is False and temporal is False:
            raise InputError("an adversary needs a discriminator: set spatial=True, temporal=True or both")
        self.form = form

        def made(kind: type[PatchDiscriminator], choice: bool | nn.Module) -> nn.Module | None:
            if isinstance(choice, nn.Module):
                return choice
            return MultiScale(lambda: kind(3, n_layers, width, spectral_norm=spectral_norm), scales) if choice else None

        self.spatial = made(PatchDiscriminator, spatial)
        self.temporal = made(TemporalDiscriminator, temporal)

    def generator(self, picture: Tensor, reference_picture: Tensor) -> dict[str, Tensor]:
        """Return the block's losses. The discriminators get no gradient and do not change.

        Args:
            picture: O_hat_t, from the shortcut pass.
            reference_picture: O_ref, the teacher's picture of the reference frame.

        Returns:
            "gan" and "temporal_gan", those that are judged.
        """
        # In eval mode, spectral norm takes no step of its power iteration.
        with same_modes(self), frozen(self.eval()):
            return {
                name: gan_generator_loss(discriminator(seen), self.form)
                for name, discriminator, seen in self._views("gan", picture, reference_picture)
            }

    def discriminator(self, picture: Tensor, target: Tensor, reference_picture: Tensor) -> dict[str, Tensor]:
        """Return the discriminators' losses. Pictures are detached; all parameters of discriminators get a gradient.

        Args:
            picture: O_hat_t, from the shortcut pass.
            target: O_t, the teacher's own.
            reference_picture: O_ref, the teacher's picture of the reference frame.

        Returns:
            "discriminator" and "temporal_discriminator", those that judge.
        """
        # One call for both kinds: a step of the power iteration of spectral norm per training step.
        pictures, references = torch.cat((target, picture)).detach(), torch.cat((reference_picture, reference_picture))
        found = {}
        for name, discriminator, seen in self._views("discriminator", pictures, references):
            scores = discriminator(seen)
            maps = [scores] if isinstance(scores, Tensor) else scores
            real, fake = zip(*(each.chunk(2) for each in maps), strict=True)
            found[name] = gan_discriminator_loss(real, fake, self.form)
        return found

    def _views(self, name: str, picture: Tensor, reference: Tensor) -> Iterator[tuple[str, nn.Module, Tensor]]:
        """Yield the name of each loss, the discriminator and its input."""
        if self.spatial is not None:
            yield name, self.spatial, _signed(picture)
        if self.temporal is not None:
            yield f"temporal_{name}", self.temporal, _signed(torch.stack((reference.detach(), picture), dim=2))


def _signed(pictures: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return pictures * 2 - 1
