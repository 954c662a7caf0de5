"""The candidates of a search: cuts of the teacher, blocks and widths, with the times that were measured here."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.blocks import ShortcutBlock, default_width
from shortcutv2v.blocks.reuse import ReuseBlock
from shortcutv2v.distill import pace
from shortcutv2v.errors import CaptureError, CutError, InputError
from shortcutv2v.graph import Suggestion
from shortcutv2v.measure.advice import Times
from shortcutv2v.measure.cost import macs
from shortcutv2v.measure.inspect import inspect
from shortcutv2v.measure.latency import peak_memory
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.translate import from_uint8
from shortcutv2v.types import Carry

__all__ = ["Candidate", "cuts_of", "memory_of", "timed"]

_CROP = 64
"""Pixels of the side of a crop on which cuts are counted: their order does not depend on the size."""
_ALIKE = 0.03
"""Cuts that run shares of the teacher's multiply-adds that differ by less are one; the adapter's own is kept."""
_RUNS = 3


@dataclass(frozen=True)
class Candidate:
    """A cut with a block.

    Attributes:
        name: how it is called in lines and tables.
        enc: Python literal of the name, or the names, to give to `wrap` for `a`.
        dec: likewise for `f`.
        kept: share of the teacher's multiply-adds that head and tail take.
        reach: how far around a place the middle looks, in pixels; None if it is not known.
        variant: the block.
        divide: its width is `2 * default_width` divided by this.
    """

    name: str
    enc: str
    dec: str
    kept: float = 1.0
    reach: int | None = None
    variant: str = ReuseBlock.variant
    divide: int = 1

    @property
    def place(self) -> str:
        """The layers of the cut."""
        return f"{self.enc} to {self.dec}"

    def block(self, variant: str, divide: int) -> Candidate:
        """Return the same cut with a block."""
        return replace(self, name=f"{self.name}, {variant} 1/{divide}", variant=variant, divide=divide)

    def wrap(self, adapter: Adapter, frame: Tensor) -> ShortcutV2V:
        """Return the teacher cut here, with the reuse of features as its block.

        Args:
            adapter: of the teacher.
            frame: uint8 (3, H, W).
        """
        example = from_uint8(frame, adapter.teacher)
        enc, dec = ast.literal_eval(self.enc), ast.literal_eval(self.dec)
        return adapter.wrap(example, enc_layer=enc, dec_layer=dec, channels=1, variant=ReuseBlock.variant).eval()

    def on(self, cut: ShortcutV2V) -> ShortcutV2V:
        """Return a model that shares the capture of `cut`, with this candidate's block; equal seeds, equal weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            blocks = [
                ShortcutBlock(
                    b.a_channels,
                    b.f_channels,
                    max(1, 2 * default_width(b.a_channels, b.f_channels) // self.divide),
                    variant=self.variant,
                )
                for b in cut.blocks
            ]
        device, dtype = placement(cut.teacher)
        return ShortcutV2V(cut.capture, [block.to(device, dtype) for block in blocks], cut.refresh, cut.show_shortcut)


def cuts_of(adapter: Adapter, frame: Tensor) -> list[Candidate]:
    """Return the cuts that leave something out: the adapter's own, and those that `inspect` finds; cheapest first.

    Args:
        adapter: of the teacher; it needs no cut.
        frame: uint8 (3, H, W). Cuts are counted on a crop of it where the teacher takes one.
    """
    top, left = (max(0, side - _CROP) // 2 for side in frame.shape[-2:])
    try:
        found = list(_cuts(adapter, frame[:, top : top + _CROP, left : left + _CROP].contiguous()))
    except (RuntimeError, ValueError):  # a teacher of one size; errors of this package are ValueErrors
        found = list(_cuts(adapter, frame))
    kept: list[Candidate] = []
    for cut in found:  # the adapter's own come first
        if cut.kept < 1 and all(abs(cut.kept - other.kept) >= _ALIKE for other in kept):
            kept.append(cut)
    return sorted(kept, key=lambda cut: (cut.kept, cut.reach or 0))


def _cuts(adapter: Adapter, frame: Tensor) -> Iterator[Candidate]:
    """Yield the adapter's own cuts, then other ones; those that cannot be made are left out."""
    named: dict[str, tuple[Any, Any]] = dict(adapter.cuts)
    if adapter.enc_layer is not None and (adapter.enc_layer, adapter.dec_layer) not in named.values():
        named["the adapter's cut"] = (adapter.enc_layer, adapter.dec_layer)
    suggested, tried = dict[tuple[Any, Any], Suggestion](), list[Suggestion]()
    with contextlib.suppress(InputError, CaptureError):
        found = inspect(adapter, [frame])
        suggested = {(one.enc_layer, one.dec_layer): one for one in found.suggestions}
        tried = [cut.suggestion for cut in found.tried]
    args, kwargs = adapter.example(from_uint8(frame, adapter.teacher))
    for name, (enc, dec) in named.items():
        if (enc, dec) in suggested:
            yield _candidate(name, suggested[enc, dec])
            continue
        with contextlib.suppress(CutError, CaptureError):  # such as one with several branches
            cut = Candidate(name, repr(enc), repr(dec))
            count = macs(cut.wrap(adapter, frame), *args, **kwargs)
            yield replace(cut, kept=round((count.head + count.tail) / count.teacher, 4))
    for one in tried:
        yield _candidate(f"{one.enc_layer} to {one.dec_layer}", one)


def _candidate(name: str, one: Suggestion) -> Candidate:
    reach = one.reach.pixels if one.reach and not one.reach.whole else None
    return Candidate(name, repr(one.enc_layer), repr(one.dec_layer), round(1 - one.saved, 4), reach)


@torch.no_grad()
def timed(adapter: Adapter, frame: Tensor, models: Mapping[str, ShortcutV2V]) -> dict[str, Times]:
    """Time the teacher and the parts of all models side by side, in seconds.

    All run in turn a few times; the shortest time of each counts, in which other processes do not.

    Args:
        adapter: of the teacher.
        frame: uint8 (3, H, W).
        models: by name; none for the teacher alone. Models of one cut share head, tail and features.

    Returns:
        The times by name, those of the teacher alone under "teacher".
    """
    args, kwargs = adapter.example(from_uint8(frame, adapter.teacher))
    work: dict[Any, Callable[[], Any]] = {"teacher": partial(adapter.teacher, *args, **kwargs)}
    made: dict[int, tuple[Carry, tuple[Tensor, ...]]] = {}
    for name, model in models.items():
        cut = id(model.capture)
        if cut not in made:
            carry = model.head(*args, **kwargs)
            made[cut] = carry, model.middle(carry)
            work |= {
                (cut, "head"): partial(model.head, *args, **kwargs),
                (cut, "tail"): partial(model.tail, *made[cut]),
            }
        work |= {(name, "state"): partial(model.make_reference, *made[cut]), (name, "block"): _block(model, *made[cut])}
    runs = [{name: pace.timed(call)[0] for name, call in work.items()} for _ in range(1 + _RUNS)]
    seconds = {name: min(run[name] for run in runs[1:]) for name in work}
    teacher = seconds["teacher"]
    times = {"teacher": Times(teacher, teacher, teacher, teacher, 0.0, 0.0)}
    for name, model in models.items():
        head, tail = (seconds[id(model.capture), part] for part in ("head", "tail"))
        block, state = seconds[name, "block"], seconds[name, "state"]
        times[name] = Times(teacher, teacher + state, head + block + tail, head, block, tail)
    return times


def _block(model: ShortcutV2V, carry: Carry, f: tuple[Tensor, ...]) -> Callable[[], Any]:
    reference = model.make_reference(carry, f)
    return lambda: model.compose(reference, carry, model.analyse(reference, carry))


@torch.no_grad()
def memory_of(model: ShortcutV2V, adapter: Adapter, frame: Tensor) -> int:
    """Return the most bytes that a reference frame and a shortcut frame hold."""
    args, kwargs = adapter.example(from_uint8(frame, adapter.teacher))
    _, reference = model.reference(*args, **kwargs)
    work = (partial(model.reference, *args, **kwargs), partial(model.shortcut, reference, *args, **kwargs))
    return max(map(peak_memory, work))
