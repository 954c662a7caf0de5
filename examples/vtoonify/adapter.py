"""Adapter of VToonify, for portrait videos: every frame comes with style code, style degree and parsing maps.

The networks that make the parsing maps (BiSeNet) and the style code (pSp) are not part of this example: bring their
results. Parsing maps come with the frames, as channels 3 to 21, or from a function of the picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v import Adapter
from shortcutv2v.errors import InputError, ShortcutError

from .._checkpoints import read_tensor, untrained
from .checkpoint import load_teacher
from .teacher import VToonify, build_teacher, published_cut

__all__ = ["VToonifyAdapter", "build_adapter", "read_style"]


class VToonifyAdapter(Adapter):
    """Adapter of VToonify; two branches, the generator's features and its RGB skip, share one `a`.

    Args:
        teacher: the network.
        style: style code, (style_channels,) or (n_latent, style_channels) in W+; see `read_style`.
        degree: style degree of a dualstylegan network, 0 (photo) to 1 (cartoon).
        parse: makes the 19 parsing maps (B, 19, H, W), unscaled, of a picture (B, 3, H, W) in [-1, 1]. Only for
            frames of 3 channels; without it such frames get empty maps, and the picture suffers.
        cut: `low`, `medium` or `high`, see `published_cut`; `medium` is the paper's.

    Attributes:
        input_channels: 22 channels of a frame: the picture in [0, 1] and the unscaled parsing maps; 3 will do.
        channels: width h of the blocks, the same for both branches: half of the features' channels.
    """

    input_channels = 22
    multiple = 8

    def __init__(
        self,
        teacher: VToonify,
        style: Tensor,
        degree: float = 0.5,
        *,
        parse: Callable[[Tensor], Tensor] | None = None,
        cut: str = "medium",
    ) -> None:
        super().__init__(teacher, *published_cut(teacher.backbone, teacher.in_size, cut))
        levels = {name: _cut(teacher, name) for name in ("low", "medium", "high")}
        self.cuts = {name: found for name, found in levels.items() if found is not None}
        expected = (teacher.stylegan().n_latent, teacher.style_channels)
        if tuple(style.shape) not in (expected, expected[1:]):
            raise InputError(f"the style code is {tuple(style.shape)}; this network reads {expected[1:]} or {expected}")
        self.style, self.degree, self.parse = style.detach(), degree, parse
        self.channels = teacher.channels // 2
        self._degree = {"d_s": degree} if teacher.dual else {}

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return picture and parsing maps, the style code for every frame of the batch, and the degree.

        Raises:
            InputError: neither 3 nor 22 channels.
        """
        channels = frame.shape[1]
        if channels not in (3, self.input_channels):
            raise InputError(f"a frame has 3 channels, or 22 with its parsing maps; this one has {channels}")
        picture, maps = frame[:, :3] * 2 - 1, frame[:, 3:]
        if channels == 3:
            maps = self._parsed(picture)
        style = self.style.to(frame).expand(len(frame), *self.style.shape)
        return (torch.cat((picture, maps / 16), 1), style), dict(self._degree)

    def _parsed(self, picture: Tensor) -> Tensor:
        if self.parse is None:
            return picture.new_zeros(picture.shape[0], 19, *picture.shape[2:])
        if isinstance(self.parse, nn.Module):
            self.parse.to(picture.device)  # follows the teacher, which it is no part of
        with torch.no_grad():
            return self.parse(picture.float()).to(picture)

    def image(self, output: Tensor) -> Tensor:
        """Return the output in [0, 1]."""
        return (output + 1) / 2


def read_style(path: str | os.PathLike[str]) -> Tensor:
    """Read a style code from a `.npy`, `.pt` or `.safetensors` file that holds one array; leading 1s are dropped.

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


def build_adapter(
    checkpoint: str | None = None,
    style: str | None = None,
    degree: float = 0.5,
    parse: str | None = None,
    cut: str = "medium",
    random: bool = False,
    **config: Any,
) -> VToonifyAdapter:
    """Return the adapter for one of the authors' files.

    Args:
        checkpoint: `vtoonify_s_d.pt`, `vtoonify.pt`, ...; see README.md for where to get them.
        style: file with one style code in W+, see `read_style`.
        degree: style degree of a dualstylegan network.
        parse: a face parser as `torch.export.save` writes it: pictures (B, 3, H, W) in [-1, 1] to maps
            (B, 19, H, W), unscaled. Without it parsing maps are empty.
        cut: `low`, `medium` or `high`.
        random: an untrained network, and without `style` a random code, to try the commands.
        config: options of the network (`backbone`, `in_size`, ...); default: those of the file.

    Raises:
        InputError: neither checkpoint nor `random`, or no style.
    """
    if checkpoint is not None:
        teacher = load_teacher(checkpoint, config or None)
    elif random:
        with untrained():
            teacher = build_teacher(config)
    else:
        raise InputError("the VToonify teacher needs weights: checkpoint=vtoonify_s_d.pt, or random=True for a trial")
    if style is None and not random:
        raise InputError("VToonify needs a style code: style=FILE with one array, see README.md")
    with untrained():
        code = torch.randn(teacher.style_channels) if style is None else read_style(style)
    parser = None if parse is None else torch.export.load(parse).module()
    return VToonifyAdapter(teacher, code, degree, parse=parser, cut=cut)
