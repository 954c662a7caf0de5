"""Redundancy of neighbouring frames at both layers of a cut, as the paper's Table 5 gives it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.player import FullPass, Player
from shortcutv2v.translate import from_uint8

__all__ = ["Redundancy", "redundancy"]


@dataclass(frozen=True)
class Redundancy:
    """One layer, over the pairs of neighbouring frames.

    Attributes:
        layer: its name.
        correlation: mean Pearson correlation of the features, -1 to 1; 1 is a still scene.
        rmse: mean root of the mean squared difference of the features, each scaled to a length (L2 norm) of 1.
        pairs: number of pairs.
    """

    layer: str
    correlation: float
    rmse: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.layer}: correlation {self.correlation:.3f}, normalised RMSE {self.rmse:.3e} ({self.pairs} pairs)"


@torch.no_grad()
def redundancy(model: ShortcutV2V, adapter: Adapter, frames: Iterable[Tensor]) -> list[Redundancy]:
    """Measure how much neighbouring frames share at the layers of the model's cut, encoder first.

    The paper does not write how it normalises. Scaling to a length of 1 fits its Table 5: there, correlation and RMSE
    of every layer then belong together.

    Args:
        model: the wrapped teacher.
        adapter: how frames become inputs.
        frames: uint8 (3, H, W), in order, two or more.

    Raises:
        InputError: there are fewer than two frames.
    """
    before: list[Tensor] = []
    found: list[list[tuple[float, float]]] = []
    full = FullPass(model, tail=adapter.recurrent)
    player = Player(adapter, full)
    for raw in frames:  # only two frames are held
        if player(from_uint8(raw, adapter.teacher)).opening:
            continue
        features = [x.float().flatten() for x in (*full.carry.a, *full.f[: len(full.carry.a)])]
        if before:
            found.append([_pair(*layer) for layer in zip(before, features, strict=True)])
        before = features
    if not found:
        raise InputError("redundancy needs two frames or more: give a longer clip")
    enc = [" + ".join(layer.name for layer in branch.enc) for branch in model.cut.branches]
    names = [*enc, *(branch.dec.name for branch in model.cut.branches)]
    layers = zip(*found, strict=True)
    return [
        Redundancy(name, fmean(c for c, _ in pairs), fmean(r for _, r in pairs), len(pairs))
        for name, pairs in zip(names, layers, strict=True)
    ]


def _pair(one: Tensor, other: Tensor) -> tuple[float, float]:
    correlation = torch.corrcoef(torch.stack((one, other)))[0, 1].nan_to_num(1.0)
    unit = [x / x.norm().clamp_min(1e-12) for x in (one, other)]
    return float(correlation), float((unit[0] - unit[1]).square().mean().sqrt())
