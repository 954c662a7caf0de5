"""Other cuts of a wrapped teacher: the speedup that their multiply-adds allow, and their time on this device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from shortcutv2v import graph
from shortcutv2v.blocks import default_width
from shortcutv2v.cuts import block_macs
from shortcutv2v.errors import CaptureError, CutError
from shortcutv2v.measure.cost import amortised, cost
from shortcutv2v.measure.latency import latency
from shortcutv2v.wrap import wrap

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["Candidate", "candidates", "gain", "timed"]

_NARROWEST = 4
"""Maps with fewer channels than this share of the present cut's are no candidates, but for an `f` at the end."""


@dataclass(frozen=True)
class Candidate:
    """Another cut, with a block of the same width relative to `f` as the present one. It says nothing about quality.

    Attributes:
        enc_layer: name to give to `wrap` for `a`.
        dec_layer: name to give to `wrap` for `f`.
        channels: width h of its block.
        bound: the speedup of a video over the teacher that the multiply-adds allow, block included.
        speedup: the measured speedup; None before it is measured.
    """

    enc_layer: str
    dec_layer: str
    channels: int
    bound: float
    speedup: float | None = None

    def __str__(self) -> str:
        ran = "not measured" if self.speedup is None else f"{self.speedup:.2f}x measured"
        return f"{self.enc_layer} -> {self.dec_layer}, h {self.channels}: {ran}, multiply-adds allow {self.bound:.2f}x"


def gain(teacher: float, reference: float, shortcut: float, interval: int) -> float:
    """Return how many times as fast a video is as with the teacher alone; seconds or multiply-adds per frame.

    >>> gain(10, 10, 2.5, 3)
    2.0
    """
    return teacher / max(amortised(reference, shortcut, interval), 1e-12)


def candidates(
    model: ShortcutV2V, args: tuple[Any, ...], kwargs: Mapping[str, Any], interval: int, count: int = 3
) -> list[Candidate]:
    """Return the cuts that promise most, one per size of feature maps: those without leaks, priced with a block.

    Args:
        model: the wrapped teacher; its block sets variant, relative width and the narrowest maps considered.
        args: positional inputs of the teacher.
        kwargs: keyword inputs of the teacher.
        interval: frames from one refresh to the next.
        count: return at most this many.

    Returns:
        Best bound first, without the present cut; empty if the teacher cannot be captured.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(6)))
        >>> frame = torch.rand(1, 8, 16, 16)
        >>> model = shortcutv2v.wrap(teacher, "2", "3", example_inputs=(frame,), channels=2)
        >>> [(cut.enc_layer, cut.dec_layer, cut.bound > 1) for cut in candidates(model, (frame,), {}, interval=3)]
        [('0', '5', True)]
    """
    try:
        found = graph.suggest_cuts(model.teacher, args, dict(kwargs))
    except CaptureError:
        return []
    block = next(iter(model.blocks))
    narrowest = min(block.a_channels, block.f_channels) / _NARROWEST
    share = block.channels / default_width(block.a_channels, block.f_channels)
    teacher = cost(model.teacher, *args, **kwargs).macs
    best: dict[tuple[int, ...], Candidate] = {}
    for cut in found:
        a_channels, f_channels = cut.a_shape[1], cut.f_shape[1]
        if cut.leaks or a_channels < narrowest or (f_channels < narrowest and not cut.to_the_end):
            continue
        width = max(1, round(default_width(a_channels, f_channels) * share))
        state, predicted = block_macs(cut.a_shape, cut.f_shape, width, block.variant)
        bound = gain(teacher, teacher + state, teacher * (1 - cut.saved) + predicted, interval)
        size = cut.f_shape[2:]
        if size not in best or bound > best[size].bound:
            best[size] = Candidate(cut.enc_layer, cut.dec_layer, width, bound)
    present = (model.cut.enc_layer, model.cut.dec_layer)
    others = [c for c in best.values() if c.bound > 1 and (c.enc_layer, c.dec_layer) != present]
    return sorted(others, key=lambda c: -c.bound)[:count]


def timed(
    model: ShortcutV2V,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    found: Sequence[Candidate],
    interval: int,
    *,
    runs: int = 5,
    seconds: float = 30.0,
) -> list[Candidate]:
    """Return the candidates with their `speedup`, best first, without those that `wrap` refuses.

    Each is wrapped with an untrained block, and all are timed beside the teacher in one run.
    """
    work: dict[str, Callable[[], Any]] = {"teacher": lambda: model.teacher(*args, **kwargs)}
    wrapped: dict[int, Candidate] = {}
    for number, candidate in enumerate(found):
        try:
            work |= _work(model, candidate, args, kwargs, number)
        except (CutError, CaptureError):
            continue
        wrapped[number] = candidate
    times = {name: value.median for name, value in latency(work, warmup=1, runs=runs, seconds=seconds).items()}
    ran = [
        replace(c, speedup=gain(times["teacher"], times[f"{n} reference"], times[f"{n} shortcut"], interval))
        for n, c in wrapped.items()
    ]
    return sorted(ran, key=lambda c: -(c.speedup or 0))


def _work(
    model: ShortcutV2V, cut: Candidate, args: tuple[Any, ...], kwargs: Mapping[str, Any], number: int
) -> dict[str, Callable[[], Any]]:
    other = wrap(
        model.teacher,
        cut.enc_layer,
        cut.dec_layer,
        example_inputs=args,
        example_kwargs=kwargs,
        channels=cut.channels,
        variant=next(iter(model.blocks)).variant,
    ).eval()
    with torch.no_grad():
        _, reference = other.reference(*args, **kwargs)
    return {
        f"{number} reference": lambda: other.reference(*args, **kwargs),
        f"{number} shortcut": lambda: other.shortcut(reference, *args, **kwargs),
    }
