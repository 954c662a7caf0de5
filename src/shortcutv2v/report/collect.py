"""The pictures of a report: collected frame by frame, then encoded so that the page keeps to its size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.measure.compare import Pictures
from shortcutv2v.show.figures import ERROR_RANGE, coloured, motion
from shortcutv2v.show.page import data_uri

__all__ = ["FRAMES", "LARGEST", "Reel"]

FRAMES = 300
"""Frames that a report shows: 10 seconds at 30 frames per second."""
LARGEST = 7_500_000
"""Bytes of the pictures in a page, as text."""
_WIDTH = 640
_MAP = 96
_ARROWS = 16
"""Arrows from left to right."""
_LADDER = [(1.0, 80), (0.75, 75), (0.6, 70), (0.5, 65), (0.4, 60), (0.3, 50), (0.2, 40), (0.12, 30)]
"""Share of the width, and quality of WebP: the first that fits is taken."""
_NAMES = ("input", "teacher", "ours", "error")


@dataclass
class Reel:
    """Everything that is drawn for each frame.

    Attributes:
        pictures: per frame, uint8 pictures (4, 3, h, w): input, teacher, ours, error; at most 640 wide.
        arrows: per frame, x, y, dx, dy of every arrow in thousandths of the picture's sides, pointing to where the
            block takes features from; None at reference frames.
        masks: per frame, blending mask (h, w) in [0, 1], mean over the taps; None where there is none.
        energies: per frame, size of the correction that motion did not explain, (h, w), root of the mean square over
            the channels; None at reference frames.
    """

    pictures: list[Tensor] = field(default_factory=list)
    arrows: list[list[int] | None] = field(default_factory=list)
    masks: list[Tensor | None] = field(default_factory=list)
    energies: list[Tensor | None] = field(default_factory=list)

    def add(self, seen: Pictures) -> None:
        """Take the next frame."""
        error = coloured((seen.ours - seen.teacher).abs().mean(0), ERROR_RANGE)
        height, width = seen.teacher.shape[-2:]
        size = (max(1, round(height * min(1, _WIDTH / width))), min(width, _WIDTH))
        source = F.interpolate(seen.frame[None], (height, width), mode="nearest")[0]
        four = torch.stack([source, seen.teacher, seen.ours, error / 255])
        self.pictures.append(_uint8(_resized(four, size)))
        first = seen.predictions[0] if seen.predictions else None
        self.arrows.append(None if first is None else _arrows(motion(first)))
        mask = None if first is None or first.mask is None else first.mask[0].float().mean(0)
        self.masks.append(None if mask is None else _small(mask))
        self.energies.append(
            None if first is None else _small((first.f_hat - first.f_star)[0].float().square().mean(0).sqrt())
        )

    def to_dict(self, largest: int = LARGEST) -> dict[str, Any]:
        """Return pictures as URIs, by name, of at most `largest` bytes in all."""
        top = max([float(e.quantile(0.99)) for e in self.energies if e is not None], default=0.0) or 1.0
        maps = {
            "mask": [None if m is None else data_uri(_uint8(m), 60) for m in self.masks],
            "energy": [None if e is None else data_uri(coloured(e, top), 60) for e in self.energies],
        }
        left = largest - sum(len(uri) for uris in maps.values() for uri in uris if uri)
        share, quality = self._rung(left)
        found: dict[str, list[str]] = {name: [] for name in _NAMES}
        for four in self.pictures:
            for name, uri in zip(_NAMES, _encoded(four, share, quality), strict=True):
                found[name].append(uri)
        return {"pictures": found, "arrows": self.arrows, **{name: m for name, m in maps.items() if any(m)}}

    def _rung(self, left: int) -> tuple[float, int]:
        """Return the first rung of the ladder on which the pictures fit, judged by a few of them."""
        some = self.pictures[:: max(1, len(self.pictures) // 6)]
        for share, quality in _LADDER:
            size = sum(len(uri) for four in some for uri in _encoded(four, share, quality)) / max(len(some), 1)
            if 1.1 * size * len(self.pictures) <= left:
                break
        return share, quality


def _encoded(four: Tensor, share: float, quality: int) -> Iterable[str]:
    if share < 1:
        height, width = four.shape[-2:]
        four = _uint8(_resized(four.float() / 255, (max(1, round(height * share)), max(1, round(width * share)))))
    return [data_uri(picture, quality) for picture in four]


def _resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(pictures.shape[-2:]) == size:
        return pictures
    return F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)


def _small(values: Tensor) -> Tensor:
    height, width = values.shape
    share = min(1.0, _MAP / width)
    return F.adaptive_avg_pool2d(values[None, None], (max(1, round(height * share)), round(width * share)))[0, 0].cpu()


def _arrows(field_: Tensor) -> list[int]:
    """(2, H, W), (dy, dx) in pixels -> x, y, dx, dy in thousandths, on a coarse grid."""
    height, width = field_.shape[-2:]
    rows = max(2, round(_ARROWS * height / width))
    coarse = F.adaptive_avg_pool2d(field_[None].float(), (rows, _ARROWS))[0].cpu()
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(_ARROWS) + 0.5) / _ARROWS, indexing="ij")
    values = torch.stack((x, y, coarse[1] / width, coarse[0] / height), -1)
    return [int(v) for v in (1000 * values).round().flatten()]


def _uint8(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255).round().byte()
