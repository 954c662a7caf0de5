"""The paper's training settings, named after its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.errors import InputError, near_matches

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True)
class Preset:
    """The paper's settings for one task. It trains for 3200 epochs (Unsup) or 40 (vid2vid), see section C.3.

    Attributes:
        lr: learning rate of the blocks (section C.3).
        lr_discriminator: learning rate of the discriminators (section C.3).
        max_interval: alpha, frames from one reference to the next (section 4).
        kind: "pairs", random pairs within the interval, or "sequences", consecutive frames as the teacher generates
            them (section C.3).
        betas: of Adam (the authors' code; the paper does not give them).
        batch_size: samples per step (the authors' code).
        decay: last share of the run, in which the rates fall linearly to zero (constant, then linear, as in the
            authors' code; half of the run is our choice).
        weights: of all six losses (section C.2). The perceptual and adversarial losses need VGG weights and time;
            `replace(preset, weights=LossWeights.plain())` leaves them out.
        feedback: what a recurrent teacher gets back on shortcut frames, see `Settings`.
    """

    lr: float
    lr_discriminator: float
    max_interval: int
    kind: str = "pairs"
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 16
    decay: float = 0.5
    weights: LossWeights = field(default_factory=LossWeights)
    feedback: str = "teacher"


_UNSUP = Preset(lr=2e-4, lr_discriminator=2e-7, max_interval=3)
_VID2VID = Preset(lr=1e-4, lr_discriminator=2e-5, max_interval=6, kind="sequences")

PRESETS = {
    "v2c": _UNSUP,
    "l2v": _UNSUP,
    "e2f": _VID2VID,
    "l2c": replace(_VID2VID, lr=5e-5, max_interval=3),
    "vtoonify": _UNSUP,
}
"""Unsup V2C and L2V (V2L has the same settings), vid2vid E2F and L2C, and VToonify.

The paper does not say how it trained VToonify's blocks, nor at which interval they run. VToonify translates frame by
frame without memory, as Unsup does, so it gets Unsup's settings.
"""


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InputError: there is none; the message lists near matches.

    Examples:
        >>> find_preset("e2f").max_interval
        6
        >>> find_preset("e2g")
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: no preset 'e2g': expected one of e2f
    """
    if name not in PRESETS:
        known = near_matches(name, PRESETS) or list(PRESETS)
        raise InputError(f"no preset {name!r}: expected one of {', '.join(known)}")
    return PRESETS[name]
