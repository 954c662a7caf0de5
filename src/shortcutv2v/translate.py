"""Frame by frame through a teacher or a wrapped model: uint8 pictures in, uint8 pictures out."""

from __future__ import annotations

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.player import Player
from shortcutv2v.stream import Stream

__all__ = ["Translator", "from_uint8", "to_uint8"]


class Translator:
    """One video going through: turns each frame into the teacher's inputs and the output back into a frame.

    Args:
        adapter: how frames become inputs, and outputs frames.
        model: the wrapped teacher; None sends every frame through the teacher itself.

    Attributes:
        stream: the model's stream; None where the teacher does every frame.

    Raises:
        InputError: on a frame that is not uint8 (3, H, W).

    Examples:
        >>> adapter = Adapter(torch.nn.Identity())
        >>> frame = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
        >>> torch.equal(Translator(adapter)(frame), frame)
        True
    """

    def __init__(self, adapter: Adapter, model: ShortcutV2V | None = None) -> None:
        self.adapter = adapter
        self.stream: Stream | None = None if model is None else model.stream()
        self._player = Player(adapter, adapter.teacher if self.stream is None else self.stream)
        self._placement = placement(adapter.teacher)

    @torch.no_grad()
    def __call__(self, frame: Tensor) -> Tensor:
        """Return the picture for the next frame: uint8 (3, H, W) -> uint8 (3, H', W')."""
        played = self._player(from_uint8(frame).to(*self._placement))
        return to_uint8(self._player.picture(played.output))


def from_uint8(frame: Tensor) -> Tensor:
    """uint8 (3, H, W) in 0..255 -> float (1, 3, H, W) in [0, 1].

    Raises:
        InputError: the frame is something else.
    """
    if frame.dtype != torch.uint8 or frame.dim() != 3 or frame.shape[0] != 3:
        raise InputError(f"a frame is uint8 (3, H, W), got {frame.dtype} {tuple(frame.shape)}")
    return frame[None].float() / 255


def to_uint8(picture: Tensor) -> Tensor:
    """Float (1, 3, H, W) -> uint8 (3, H, W), clipped to [0, 1] and rounded."""
    return (picture[0].float().clamp(0, 1) * 255).round().byte().cpu()
