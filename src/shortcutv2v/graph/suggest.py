"""List the cuts that a teacher allows, and what each would save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import CaptureError
from ..teacher import require_module
from .protect import capturing, untouched
from .ranking import Price, Ranking, Suggestion
from .reach import layer_reaches
from .signature import take_apart
from .strategies import STRATEGIES, follow
from .structure import Structure
from .traced import Traced, Untraceable
from .twin import Twin

__all__ = ["Suggestion", "nearest", "suggest_cuts"]


def suggest_cuts(
    teacher: nn.Module,
    example_inputs: Sequence[Any] | Tensor,
    example_kwargs: dict[str, Any] | None = None,
    price: Price | None = None,
) -> list[Suggestion]:
    """List all pairs of layers of the same spatial size between which a teacher can be cut.

    Args:
        teacher: the network; it is left as found.
        example_inputs: a tuple of inputs, or one tensor; smaller inputs give the same list faster.
        example_kwargs: keyword inputs.
        price: multiply-adds of a Shortcut block for a shape of `a` and a shape of `f`; None for a free block.

    Returns:
        One entry per distinct cut, see `shortcutv2v.suggest_cuts`. Of names for the same tensor the outermost is given.

    Raises:
        InputError: the teacher is not a module.
        CaptureError: no strategy can follow the teacher.

    >>> import torch
    >>> net = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)])
    >>> print(suggest_cuts(net, torch.zeros(1, 3, 8, 8))[0])
     75.0%  0 -> 3  3 and 3 channels of 8x8 (1/1), reach 3 pixels or more, nearly a picture
    """
    require_module(teacher)
    args = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    tensors, structure = take_apart(args, example_kwargs or {})
    with capturing():
        given = [t.detach().clone() for t in tensors]
        twin = Twin(teacher)
        traced = survey(twin, given, structure)
        with untouched(twin.teacher):
            reaches = layer_reaches(twin.teacher, given, structure)
    return Ranking(traced, reaches, price).ranked()


def survey(twin: Twin, tensors: list[Tensor], structure: Structure) -> Traced:
    """Follow the teacher down to its single layers, with the first strategy that can."""
    met = []
    for name in STRATEGIES:
        try:
            with untouched(twin.teacher):
                return follow(name, twin, [t.clone() for t in tensors], structure)
        except Exception as error:
            text = str(error).strip().partition("\n")[0]
            met.append(f"  {name}: {'' if isinstance(error, Untraceable) else type(error).__name__ + ': '}{text}")
    raise CaptureError("no strategy can follow the teacher:\n" + "\n".join(met))


def nearest(twin: Twin, tensors: list[Tensor], structure: Structure, enc: str, dec: str) -> list[Suggestion]:
    """Return the leak-free cuts nearest to a given one, in calls; those that keep one of its layers come first."""
    traced = survey(twin, tensors, structure)
    place: dict[str, int] = {}
    for call in traced.calls:
        place.setdefault(call.name, call.index)

    def distance(s: Suggestion) -> tuple[bool, int]:
        ends = ((s.enc_layer, enc), (s.dec_layer, dec))
        steps = [abs(place.get(x.partition(":")[0], 0) - place.get(y.partition(":")[0], 0)) for x, y in ends]
        return all(x != y for x, y in ends), sum(steps)

    good = [s for s in Ranking(traced).ranked() if not s.leaks and s.saved > 0]
    return sorted(good, key=distance)[:3]
