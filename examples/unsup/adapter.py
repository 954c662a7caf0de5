"""How a video goes through the Unsup teacher: frames in [0, 1] to [-1, 1] and back; no memory."""

from __future__ import annotations

from typing import Any

from examples.unsup.teacher import ResnetGenerator, published_cut
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError

__all__ = ["UnsupAdapter"]


class UnsupAdapter(Adapter):
    """Adapter of the Unsup generator (V2C and V2L at 256x512 and 256x256, L2V at 256x256).

    Args:
        teacher: the generator.
        level: the paper's cut to use, `low`, `medium` or `high`.

    Attributes:
        show_shortcut: the paper shows the block's output at reference frames too: no "pop" when the teacher runs.
        max_interval: the paper's alpha for this teacher.

    >>> import torch
    >>> adapter = UnsupAdapter(ResnetGenerator(ngf=4))
    >>> adapter.enc_layer, adapter.dec_layer
    ('model.4', 'model.16')
    >>> (picture,), _ = adapter.inputs(torch.ones(1, 3, 16, 16), adapter.start())
    >>> float(picture.min())
    1.0
    """

    show_shortcut = True
    max_interval = 3

    def __init__(self, teacher: ResnetGenerator, level: str = "medium") -> None:
        super().__init__(teacher, *published_cut(teacher.n_blocks, level))
        self.cuts = {name: published_cut(teacher.n_blocks, name) for name in ("low", "medium", "high")}

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The frame in [-1, 1].

        Raises:
            InputError: height or width is no multiple of 4.
        """
        height, width = frame.shape[-2:]
        if height % 4 or width % 4:
            raise InputError(f"the Unsup generator wants multiples of 4, the frame is {height}x{width}: resize or crop")
        return (frame * 2 - 1,), {}

    def image(self, output: Tensor) -> Tensor:
        """The output in [0, 1]."""
        return (output + 1) / 2
