"""What a `Distiller` is given, looked at before anything is built of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from torch import nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.checks import check_number
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V

__all__ = ["check_kinds", "check_numbers", "check_used"]

_KINDS: dict[str, tuple[type, str]] = {
    "model": (ShortcutV2V, "wrap the teacher with shortcutv2v.wrap()"),
    "adapter": (Adapter, "give an object"),
    "weights": (LossWeights, "give LossWeights(feature=5, ...)"),
    "perceptual": (nn.Module, "give an object, such as VGGPerceptual()"),
    "adversary": (Adversary, "give an object, such as Adversary(form='hinge')"),
}


def check_kinds(**given: object) -> None:
    """Refuse what is easily given in another's place."""
    for name, value in given.items():
        kind, how = _KINDS[name]
        if not (isinstance(value, kind) or (value is None and name != "model")):
            raise InputError(f"{name} must be a {kind.__name__}, got {_described(value)}: {how}")
    model: Any = given["model"]
    held = itertools.chain(*(each() for part in (model, model.teacher) for each in (part.parameters, part.buffers)))
    if any(tensor.is_inference() for tensor in held):
        raise InputError("the model was made under torch.inference_mode() and cannot be trained: make it outside")


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def check_used(
    weights: LossWeights, perceptual: object, adversary: object, feedback: str, truncate: int | None
) -> None:
    """Refuse what would change nothing."""
    if perceptual is not None and not weights.perceptual:
        raise InputError(
            "perceptual is given, but the weight of the perceptual loss is 0: give it one, weights=LossWeights(...) or "
            "--weights.perceptual 10, or leave perceptual out"
        )
    if adversary is not None and not (weights.gan or weights.temporal_gan):
        raise InputError(
            "adversary is given, but the weights gan and temporal_gan are 0: give one of them a weight, "
            "weights=LossWeights(...) or --weights.gan 1, or leave adversary out"
        )
    if truncate is not None and feedback != "own":
        raise InputError('truncate is for feedback="own": give both, or neither')


def check_numbers(
    lr: float, lr_discriminator: float, betas: Sequence[float], decay: float, schedule: int | None, truncate: int | None
) -> None:
    """Refuse what would train backwards, or not at all."""
    check_number("lr", lr, 0)
    check_number("lr_discriminator", lr_discriminator, 0)
    check_number("decay", decay, 0, 1)
    if not (isinstance(betas, tuple | list) and len(betas) == 2):
        raise InputError(f"betas must be two numbers, such as (0.9, 0.99), got {betas!r}")
    for beta in betas:
        check_number("each of betas", beta, 0, 0.999999)
    for name, value in (("schedule", schedule), ("truncate", truncate)):
        if value is not None:
            check_number(name, value, 1, whole=True)
