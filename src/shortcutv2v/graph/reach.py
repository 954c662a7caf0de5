"""Measure how far a change travels: change a picture at one place, and compare."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .calls import module_names, patched_calls
from .structure import Structure, flatten

__all__ = ["Reach", "changed_place", "layer_reaches", "measured", "part_reaches"]


@dataclasses.dataclass(frozen=True)
class Reach:
    """The distance that a change travels.

    Attributes:
        pixels: to the farthest changed place, in pixels of the input.
        whole: everything changed: the distance is at least this, and without a limit if the picture was large.
    """

    pixels: int
    whole: bool

    def __str__(self) -> str:
        return f"{self.pixels} pixels or more" if self.whole else f"{self.pixels} pixels"

    def since(self, earlier: Reach) -> Reach:
        """The part of the way that lies after `earlier`."""
        return Reach(max(0, self.pixels - earlier.pixels), self.whole)


def changed_place(picture: Tensor) -> Tensor:
    """A copy with other values at its middle, (B, C, H, W)."""
    changed = picture.clone()
    y, x = picture.shape[-2] // 2, picture.shape[-1] // 2
    changed[..., y, x] = 0.5 - changed[..., y, x].sign() * 0.75
    return changed


def measured(before: Tensor, after: Tensor, height: int, cell: float = 1) -> Reach | None:
    """The reach of a change at the middle of a picture.

    Args:
        before: what was computed from the picture, (..., H, W) at whatever resolution.
        after: the same from `changed_place(picture)`.
        height: of the picture, in pixels.
        cell: size of the changed place, in pixels.
    """
    if before.shape != after.shape or before.ndim < 2:
        return None
    felt = ((before != after) & ~(before.isnan() & after.isnan())).reshape(-1, *before.shape[-2:]).any(0)
    if not felt.any():
        return Reach(0, False)
    scale = height / before.shape[-2]
    far = 0.0
    for axis in (0, 1):
        places = felt.any(1 - axis).nonzero()
        middle = (felt.shape[axis] * scale) // 2
        far = max(far, middle - int(places[0]) * scale, (int(places[-1]) + 1) * scale - cell - middle)
    return Reach(round(far), bool(felt.any(0).all() and felt.any(1).all()))


def part_reaches(split: Any, tensors: list[Tensor], structure: Structure) -> tuple[tuple[str, Reach], ...]:
    """The reach of head, middle and tail: from the input to `a`, from `a` to `f`, from `f` to the output.

    Args:
        split: a `Split` that may be run; the caller protects the teacher's state.
        tensors: the inputs; the first of shape (B, C, H, W) is the picture.
        structure: rebuilds `(args, kwargs)` from them.
    """
    place = _picture(tensors)
    if place is None:
        return ()
    height = tensors[place].shape[-2]
    found: dict[str, Reach] = {}

    def compare(part: str, run: Callable[[Any], Any], given: Any, changed: Any, cell: float = 1) -> Any:
        torch.manual_seed(0)
        before = run(given)
        torch.manual_seed(0)
        pairs = zip(flatten(before)[0], flatten(run(changed))[0], strict=False)
        reaches = [r for x, y in pairs if x.ndim == 4 and (r := measured(x, y, height, cell))]
        if reaches:
            found[part] = max(reaches, key=lambda r: (r.whole, r.pixels))
        return before

    with torch.no_grad(), contextlib.suppress(Exception):
        given = [t.clone() for t in tensors]
        other = [changed_place(t) if i == place else t for i, t in enumerate(given)]
        compare("head", lambda inputs: split.begin(inputs).a, given, other)
        carry = split.begin(given)
        moved = dataclasses.replace(carry, a=tuple(map(changed_place, carry.a)))
        f = compare("middle", split.middle, carry, moved, height / carry.a[0].shape[-2])
        branches = len(carry.a)
        changed = (*map(changed_place, f[:branches]), *f[branches:])
        compare("tail", lambda value: split.tail(carry, value), f, changed, height / f[0].shape[-2])
    return tuple(found.items())


def _picture(tensors: list[Tensor]) -> int | None:
    return next((i for i, t in enumerate(tensors) if t.ndim == 4 and t.is_floating_point()), None)


class _Sketches:
    """Watcher that keeps a thin sketch, (H, W), of what each call of a layer returned."""

    def __init__(self, teacher: nn.Module) -> None:
        self.names = module_names(teacher)
        self.counts: dict[str, int] = {}
        self.found: dict[tuple[str, int], Tensor] = {}
        self.quiet = 0

    def call_module(self, module: nn.Module, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        """See `calls.Watcher`."""
        out = run(*args, **kwargs)
        name = self.names[id(module)]
        number = self.counts[name] = self.counts.get(name, -1) + 1
        if isinstance(out, Tensor) and out.ndim == 4 and out.is_floating_point():
            maps = out.detach().flatten(0, 1).float()
            weights = torch.linspace(1, 2, len(maps), device=maps.device)
            self.found[name, number] = torch.einsum("c,chw->hw", weights, maps)
        return out


def layer_reaches(teacher: nn.Module, tensors: list[Tensor], structure: Structure) -> dict[tuple[str, int], Reach]:
    """The reach of a change in the input at every layer that gives maps, by the layer's name and the call's number.

    Args:
        teacher: a network that may be run; the caller protects its state.
        tensors: the inputs; the first of shape (B, C, H, W) is the picture.
        structure: rebuilds `(args, kwargs)` from them.
    """
    place = _picture(tensors)
    if place is None:
        return {}
    seen: list[dict[tuple[str, int], Tensor]] = []
    for change in (torch.clone, changed_place):
        sketches = _Sketches(teacher)
        args, kwargs = structure.rebuild([change(t) if i == place else t.clone() for i, t in enumerate(tensors)])
        torch.manual_seed(0)
        with contextlib.suppress(Exception), patched_calls(sketches, teacher), torch.no_grad():
            teacher(*args, **kwargs)
        seen.append(sketches.found)
    height = tensors[place].shape[-2]
    both = seen[0].keys() & seen[1].keys()
    found = {key: measured(seen[0][key], seen[1][key], height) for key in both}
    return {key: reach for key, reach in found.items() if reach is not None}
