"""`inspect()`: the teacher as a chain of stages, the cuts that it allows, and the one to begin with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.cuts import suggest_cuts
from shortcutv2v.errors import CaptureError, CutError, InputError
from shortcutv2v.graph import Suggestion, untouched
from shortcutv2v.measure.compare import shown
from shortcutv2v.measure.redundancy import Redundancy, redundancy
from shortcutv2v.measure.stages import Stage, stages
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.player import FullPass, Player
from shortcutv2v.summary import psnr
from shortcutv2v.translate import from_uint8

__all__ = ["Cut", "Inspection", "inspect"]

_APART = 0.03
"""Cuts whose savings differ by less, at one resolution, count as one; the better is tried."""
_ALIKE = 0.05
"""Differences in dB that are none. In a plain chain, `f` of the frame before gives one picture wherever it is taken."""
_WITHIN = 3.0
"""The recommended cut's reuse is at most so many dB below that of the best cut."""


@dataclass(frozen=True)
class Cut:
    """A cut, and what it is worth on the clip before any training.

    Attributes:
        suggestion: names, savings, sizes, leaks and reach.
        reuse: mean PSNR in dB to the teacher where a frame takes `f` from the frame before; None without a clip.
        redundancy: of its two layers; empty without a clip.
    """

    suggestion: Suggestion
    reuse: float | None = None
    redundancy: tuple[Redundancy, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect()`.

    Attributes:
        stages: in the order in which they run.
        suggestions: all cuts, the best first.
        tried: a few distinct cuts without leaks, the one that saves most first, with their reuse on the clip.
        recommended: the cut to begin with; None if there is none.
        reason: why, in a sentence.
    """

    stages: tuple[Stage, ...]
    suggestions: tuple[Suggestion, ...]
    tried: tuple[Cut, ...]
    recommended: Cut | None
    reason: str

    def tried_rows(self) -> list[list[str]]:
        """Return headings and one row of cells per cut that was tried."""
        rows = [["cut", "saves", "reuse, dB", "correlation of a", "of f", "normalised RMSE of a", "of f"]]
        for cut in self.tried:
            cells = [f"{cut.suggestion.enc_layer} -> {cut.suggestion.dec_layer}", f"{cut.suggestion.net:.1%}"]
            if cut.reuse is not None:
                ends = (cut.redundancy[0], cut.redundancy[-1])
                cells += [f"{cut.reuse:.1f}", *(f"{x.correlation:.3f}" for x in ends), *(f"{x.rmse:.2e}" for x in ends)]
            rows.append([*cells, *[""] * (len(rows[0]) - len(cells))])
        return rows

    def recommendation(self) -> str:
        """Return the recommended cut and the reason, in a sentence."""
        if self.recommended is None:
            return f"recommended: {self.reason}"
        cut = self.recommended.suggestion
        return f"recommended: enc_layer={cut.enc_layer!r}, dec_layer={cut.dec_layer!r}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return stages, tried cuts and the recommendation as plain values, for JSON."""
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "cuts": [asdict(cut) for cut in self.tried],
            "recommended": asdict(self.recommended) if self.recommended else None,
            "reason": self.reason,
        }


def inspect(adapter: Adapter, frames: Sequence[Tensor], *, count: int = 5, pairs: int = 4) -> Inspection:
    """Show where a teacher can be cut.

    Args:
        adapter: of the teacher; it needs no cut.
        frames: uint8 (3, H, W), in order. With one frame nothing is run on a clip.
        count: number of distinct cuts to try on the clip.
        pairs: pairs of neighbouring frames to try them on, spread over the clip.

    Raises:
        InputError: there is no frame, or no cut.
        CaptureError: no strategy can follow the teacher.

    Examples:
        >>> from torch import nn
        >>> net = nn.Sequential(*[nn.Conv2d(c, d, 3, padding=1) for c, d in [(3, 64), (64, 64), (64, 64), (64, 3)]])
        >>> found = inspect(Adapter(net), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
        >>> found.recommended.suggestion.enc_layer, found.recommended.suggestion.dec_layer
        ('0', '3')
    """
    if not len(frames):
        raise InputError("inspect needs a frame at least")
    example = adapter.example(from_uint8(frames[0], adapter.teacher))
    chain = stages(adapter, frames[0])
    with untouched(adapter.teacher):
        found = suggest_cuts(adapter.teacher, *example)
    if not found:
        raise InputError(
            "no two layers of this teacher give maps (B, C, H, W) of one size: tokens need layout=, see docs/capture.md"
        )
    tried = tuple(
        Cut(one) if len(frames) < 2 else _tried(adapter, one, frames, pairs) for one in _distinct(found, count)
    )
    recommended = _recommended(tried)
    return Inspection(chain, tuple(found), tried, recommended, _reason(recommended, tried))


def _distinct(found: Iterable[Suggestion], count: int) -> list[Suggestion]:
    """Return cuts without leaks that save something, and differ in their savings or their resolution.

    The one of them that goes to the teacher's end comes first: nothing is left of the tail.
    """
    found = [cut for cut in found if not cut.leaks and cut.net > 0]
    kept: list[Suggestion] = []
    for cut in found:
        alike = (abs(cut.net - other.net) < _APART and cut.resolution == other.resolution for other in kept)
        if not cut.picture and not any(alike):
            kept.append(cut)
    return [*[cut for cut in found if cut.to_the_end][:1], *kept][:count]


def _recommended(tried: Sequence[Cut]) -> Cut | None:
    """Return the cut that saves most among those that are not much harder to predict than the easiest."""
    best = max((cut.reuse for cut in tried if cut.reuse is not None), default=None)
    easy = [cut for cut in tried if best is None or (cut.reuse is not None and cut.reuse >= best - _WITHIN)]
    return max(easy, key=lambda cut: cut.suggestion.net, default=None)


def _reason(cut: Cut | None, tried: Sequence[Cut]) -> str:
    if cut is None:
        return "no cut without leaks saves anything: see the remarks, and docs/capture.md for on_leak='reuse'"
    saves = f"it saves {cut.suggestion.net:.0%} of a shortcut frame's multiply-adds, the block already subtracted"
    if cut.reuse is None:
        return f"{saves}, more than any other without leaks; give a clip to see how well its features can be reused"
    found = [other.reuse for other in tried if other.reuse is not None]
    best = max(found)
    if len(found) > 1 and best - min(found) < _ALIKE:
        return (
            f"{saves}; all cuts hold {cut.reuse:.1f} dB with features of the frame before, so without training none is "
            "easier; the later the cut ends, the less of the teacher is left to repair errors: train two and compare"
        )
    near = "the best of all" if best == cut.reuse else f"at most {_WITHIN:g} dB below the easiest cut ({best:.1f} dB)"
    return f"{saves}; features of the frame before hold {cut.reuse:.1f} dB without any training, {near}"


def _tried(adapter: Adapter, cut: Suggestion, frames: Sequence[Tensor], pairs: int) -> Cut:
    """Wrap the teacher at the cut, and reuse `f` within pairs of neighbouring frames."""
    steps = max(1, (len(frames) - 1) // pairs)
    starts = range(0, len(frames) - 1, steps)[:pairs] if not adapter.recurrent else range(pairs)[: len(frames) - 1]
    first = from_uint8(frames[0], adapter.teacher)
    try:
        model = adapter.wrap(first, enc_layer=cut.enc_layer, dec_layer=cut.dec_layer, channels=1)
    except (CutError, CaptureError):
        return Cut(cut)
    values: list[float] = []
    shared: list[list[Redundancy]] = []
    for start in starts:
        pair = frames[start : start + 2]
        values.append(_reused(model, adapter, pair))
        shared.append(redundancy(model, adapter, pair))
    means = [
        Redundancy(layer[0].layer, fmean(x.correlation for x in layer), fmean(x.rmse for x in layer), len(layer))
        for layer in zip(*shared, strict=True)
    ]
    return Cut(cut, fmean(values), tuple(means))


@torch.no_grad()
def _reused(model: ShortcutV2V, adapter: Adapter, pair: Sequence[Tensor]) -> float:
    """Return the PSNR of the second frame with `f` of the first."""
    full = FullPass(model)
    player = Player(adapter, full)
    kept = []
    for frame in pair:
        played = player(from_uint8(frame, adapter.teacher))
        kept += [] if played.opening else [full.f]
    made = model.tail(full.carry, kept[0])
    return float(psnr(shown(player.picture(made)), shown(player.picture(played.output))))
