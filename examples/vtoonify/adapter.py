"""How a portrait video goes through VToonify: style code, style degree and parsing maps beside every frame.

The networks that make the parsing maps (BiSeNet) and the style code (pSp) are not part of this example: bring their
results. Parsing maps come with the frames, as channels 3 to 21, or from a function of the picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from examples._checkpoints import read_tensor
from examples.vtoonify.teacher import VToonify, published_cut
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError, ShortcutError

__all__ = ["VToonifyAdapter", "read_style"]


class VToonifyAdapter(Adapter):
    """Adapter of VToonify; two branches, the generator's features and its RGB skip, share one `a`.

    Args:
        teacher: the network.
        style: style code, (style_channels,) or (n_latent, style_channels) in W+; see `read_style`.
        degree: style degree of a dualstylegan network, 0 (photo) to 1 (cartoon).
        parse: makes the 19 parsing maps (B, 19, H, W), unscaled, of a picture (B, 3, H, W) in [-1, 1]. Only for
            frames of 3 channels; without it such frames get empty maps, and the picture suffers.
        level: the cut to use: `medium` is the paper's, see `published_cut`.

    Attributes:
        input_channels: 22 channels of a frame: the picture in [0, 1] and the unscaled parsing maps; 3 will do.
        channels: width h of the blocks, the same for both branches: half of the features' channels.
        max_interval: the paper names no interval for VToonify; 3 is that of the other teachers at this frame rate.
    """

    input_channels = 22
    max_interval = 3
    show_shortcut = False

    def __init__(
        self,
        teacher: VToonify,
        style: Tensor,
        degree: float = 0.5,
        *,
        parse: Callable[[Tensor], Tensor] | None = None,
        level: str = "medium",
    ) -> None:
        super().__init__(teacher, *published_cut(teacher.backbone, teacher.in_size, level))
        self.cuts = {name: cut for name in ("low", "medium", "high") if (cut := _cut(teacher, name))}
        expected = (teacher.stylegan().n_latent, teacher.style_channels)
        if tuple(style.shape) not in (expected, expected[1:]):
            raise InputError(f"the style code is {tuple(style.shape)}; this network reads {expected[1:]} or {expected}")
        self.style, self.degree, self.parse = style.detach(), degree, parse
        self.channels = teacher.channels // 2
        self._degree = {"d_s": degree} if teacher.dual else {}

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Picture and parsing maps, the style code for every frame of the batch, and the degree.

        Raises:
            InputError: neither 3 nor 22 channels, or a size that is no multiple of 8.
        """
        channels, height, width = frame.shape[1:]
        if channels not in (3, self.input_channels):
            raise InputError(f"a frame has 3 channels, or 22 with its parsing maps; this one has {channels}")
        if height % 8 or width % 8:
            raise InputError(f"VToonify wants multiples of 8, the frame is {height}x{width}: resize or crop")
        picture, maps = frame[:, :3] * 2 - 1, frame[:, 3:]
        if channels == 3:
            maps = picture.new_zeros(len(frame), 19, height, width) if self.parse is None else self.parse(picture)
        style = self.style.to(frame).expand(len(frame), *self.style.shape)
        return (torch.cat((picture, maps / 16), 1), style), dict(self._degree)

    def image(self, output: Tensor) -> Tensor:
        """The output in [0, 1]."""
        return (output + 1) / 2


def read_style(path: str | os.PathLike[str]) -> Tensor:
    """A style code from a `.npy`, `.pt` or `.safetensors` file that holds one array; leading 1s are dropped.

    Raises:
        CheckpointError: no such file, or it holds anything else. The authors' `exstyle_code.npy` is a pickled
            dictionary and is not opened; the message says how to take one code out.
    """
    style = read_tensor(path)
    while style.ndim > 1 and style.shape[0] == 1:
        style = style[0]
    return style.float()


def _cut(teacher: VToonify, level: str) -> tuple[Any, Any] | None:
    try:
        return published_cut(teacher.backbone, teacher.in_size, level)
    except ShortcutError:  # the encoder is too short for this level
        return None
