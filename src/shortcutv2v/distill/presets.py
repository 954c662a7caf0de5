"""The paper's training settings, named after its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.distill.module import Distiller
from shortcutv2v.errors import InputError, near_matches
from shortcutv2v.model import ShortcutV2V

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True)
class Preset:
    """How the paper trains one task.

    Attributes:
        lr: learning rate of the blocks (section C.3).
        lr_discriminator: of the discriminators (section C.3).
        epochs: passes over the clips, one sample per clip and pass (section C.3).
        max_interval: alpha, frames from one reference to the next (section 4).
        data: "pairs", random pairs within the interval, or "sequences", consecutive frames as the teacher generates
            them (section C.3).
        betas: of Adam (the authors' code; the paper names no optimiser's settings).
        batch_size: samples per step (the authors' code).
        decay: share of the run over which the rates fall to zero, linearly (constant, then linear, as in the authors'
            code; that it is half of the run is our choice).
        weights: of all six losses (section C.2). Those of the perceptual and the adversarial terms need VGG weights
            and time; `replace(preset, weights=LossWeights.plain())` does without.
        feedback: what a recurrent teacher gets back on shortcut frames, see `Distiller`.
    """

    lr: float
    lr_discriminator: float
    epochs: int
    max_interval: int
    data: str = "pairs"
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 16
    decay: float = 0.5
    weights: LossWeights = field(default_factory=LossWeights)
    feedback: str = "teacher"

    def distiller(
        self, model: ShortcutV2V, adapter: Adapter | None = None, kind: type[Distiller] = Distiller, **changes: Any
    ) -> Distiller:
        """A `Distiller` with these settings.

        Args:
            model: a wrapped teacher; its interval stays as it is.
            adapter: as `Distiller` takes it.
            kind: `Distiller` or a subclass.
            changes: arguments of `Distiller` that replace or add to the preset's.
        """
        settings = {name: getattr(self, name) for name in _OF_DISTILLER}
        return kind(model, adapter, **{**settings, **changes})


_OF_DISTILLER = ("weights", "lr", "lr_discriminator", "betas", "decay", "feedback")

_UNSUP = Preset(lr=2e-4, lr_discriminator=2e-7, epochs=3200, max_interval=3)
_VID2VID = Preset(lr=1e-4, lr_discriminator=2e-5, epochs=40, max_interval=6, data="sequences")

PRESETS = {
    "v2c": _UNSUP,
    "l2v": _UNSUP,
    "e2f": _VID2VID,
    "l2c": replace(_VID2VID, lr=5e-5, max_interval=3),
    "vtoonify": _UNSUP,
}
"""Unsup V2C and L2V (V2L has the same settings), vid2vid E2F and L2C, and VToonify.

The paper does not say how it trained VToonify's blocks, nor at which interval they run; the Unsup settings stand in,
since VToonify too translates frame by frame without memory.
"""


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InputError: there is none; the message lists them.

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
