"""Adapter of the demosaicking networks: a video of mosaics, or one to make mosaics of, becomes a video in colour."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v import Adapter
from shortcutv2v.errors import InputError

from .teacher import BayerNet, load_pretrained

__all__ = ["PATTERNS", "DemosaicAdapter", "build_adapter", "colour_filter"]

PATTERNS: dict[str, tuple[int, ...]] = {"grbg": (), "rggb": (-1,), "bggr": (-2,), "gbrg": (-2, -1)}
"""Bayer patterns, row by row from the upper left, and the sides to flip so that each becomes `grbg`, the network's."""

_CELLS = {
    "bayer": ("GR", "BG"),
    "xtrans": ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG"),
}


class DemosaicAdapter(Adapter):
    """Adapter of both networks.

    Every frame is multiplied by the colour filter. So a frame in colour becomes a mosaic; and a mosaic that was stored
    as a grey video, which is read with three equal channels, becomes the mosaic that the network takes.

    All cuts end at the last features: the residual of the Bayer network, with 12 channels, and the last activation of
    the X-Trans network.

    | cut      | begins after        |
    |----------|---------------------|
    | `low`    | the 1st convolution |
    | `medium` | the 2nd convolution |
    | `high`   | the 4th convolution |

    Args:
        teacher: `BayerNet` or `XTransNet`.
        cut: `low`, `medium` or `high`.
        pattern: a key of `PATTERNS`, the Bayer pattern of the frames; the X-Trans pattern is always the network's.

    Raises:
        InputError: an unknown cut or pattern, or a pattern for an X-Trans network.

    Examples:
        >>> adapter = DemosaicAdapter(BayerNet(depth=8, width=4))
        >>> (mosaic,), _ = adapter.inputs(torch.ones(1, 3, 4, 4), adapter.start())
        >>> mosaic[0].sum(0).unique()  # one colour per pixel
        tensor([1.])
    """

    def __init__(self, teacher: nn.Module, cut: str = "medium", pattern: str = "grbg") -> None:
        self.mosaic = "bayer" if isinstance(teacher, BayerNet) else "xtrans"
        if pattern not in PATTERNS or (pattern != "grbg" and self.mosaic != "bayer"):
            raise InputError(f"pattern={pattern!r}: expected one of {', '.join(PATTERNS)}, and for Bayer mosaics only")
        self.cuts = _cuts(teacher)
        if cut not in self.cuts:
            raise InputError(f"no cut {cut!r}: expected {', '.join(self.cuts)}")
        super().__init__(teacher, *self.cuts[cut])
        self.flips = PATTERNS[pattern]
        self.multiple = 2 if self.mosaic == "bayer" else 1

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the mosaic of a frame (B, 3, H, W)."""
        frame = frame.flip(self.flips) if self.flips else frame
        height, width = frame.shape[-2:]
        return (frame * colour_filter(self.mosaic, height, width).to(frame),), {}

    def image(self, output: Tensor) -> Tensor:
        """Return the picture, (B, 3, H, W)."""
        return output.flip(self.flips) if self.flips else output


def colour_filter(mosaic: str, height: int, width: int) -> Tensor:
    """Return the mask of a colour filter array, (3, height, width): 1 where a colour passes, else 0.

    Examples:
        >>> colour_filter("bayer", 2, 2)[0]  # red
        tensor([[0., 1.],
                [0., 0.]])
    """
    rows = _CELLS[mosaic]
    cell = torch.tensor([[[float(colour == seen) for seen in row] for row in rows] for colour in "RGB"])
    side = len(rows)
    return cell.repeat(1, -(-height // side), -(-width // side))[:, :height, :width]


def build_adapter(
    mosaic: str = "bayer", cut: str = "medium", pattern: str = "grbg", checkpoint: str | None = None
) -> DemosaicAdapter:
    """Return the adapter for the published weights.

    Args:
        mosaic: the colour filter array, `bayer` or `xtrans`.
        cut: `low`, `medium` or `high`.
        pattern: the Bayer pattern of the frames: `grbg`, `rggb`, `bggr` or `gbrg`.
        checkpoint: a file with other weights of the network, instead of the wheel `demosaicnet`.

    Raises:
        InputError: an unknown setting, or the wheel is not installed.
        CheckpointError: the weights do not fit.
    """
    return DemosaicAdapter(load_pretrained(mosaic, checkpoint), cut, pattern)


def _cuts(teacher: nn.Module) -> dict[str, tuple[str, str]]:
    """Return cuts from after an activation to the last features."""
    layers = teacher.get_submodule("main_processor")._modules
    end = "residual_predictor" if isinstance(teacher, BayerNet) else f"main_processor.{next(reversed(layers))}"
    return {level: (f"main_processor.relu{number}", end) for level, number in _LEVELS.items()}


_LEVELS = {"low": 1, "medium": 2, "high": 4}
