"""Frame by frame through a teacher or a wrapped model: uint8 pictures in, uint8 pictures out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError, NonFiniteError
from shortcutv2v.lookahead import LookAhead
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.player import Player
from shortcutv2v.stream import Stream

__all__ = ["Translator", "from_uint8", "to_uint8"]


class Translator:
    """Translate one video: turn each frame into the teacher's inputs, and the output back into a frame.

    Args:
        adapter: how frames become inputs, and outputs frames.
        model: the wrapped teacher; None sends every frame through the teacher itself.
        lookahead: predict frames from references on both sides where the whole video is at hand, see `play` and
            `LookAhead`. A recurrent adapter cannot, nor can windows or `rolling`; then this is ignored.
        goal: `quality`, `speed`, `guarantee`, `refresh`, `windows` or `rolling`, as `ShortcutV2V.stream()` takes them.

    Attributes:
        stream: the model's stream; None if the teacher does every frame.

    Raises:
        InputError: on a frame that is not uint8 (3, H, W), or if a method of the adapter returned a value of the wrong
            form.
        NonFiniteError: on a frame whose picture holds infinite values or NaN.

    Examples:
        >>> adapter = Adapter(torch.nn.Identity())
        >>> frame = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
        >>> torch.equal(Translator(adapter)(frame), frame)
        True
    """

    def __init__(
        self,
        adapter: Adapter,
        model: ShortcutV2V | None = None,
        *,
        lookahead: bool = False,
        **goal: Any,
    ) -> None:
        if model is None and goal:
            raise InputError(f"{', '.join(goal)} need a model: without one the teacher does every frame")
        self.adapter = adapter
        if model is not None:
            model.picture = adapter.image
        self.stream: Stream | None = None if model is None else model.stream(**goal)
        alone = adapter.recurrent or goal.get("windows") or goal.get("rolling")
        self.lookahead = lookahead and model is not None and not alone
        self._player = Player(adapter, adapter.teacher if self.stream is None else self.stream)
        self.frames = 0

    def use(self, model: ShortcutV2V, **goal: Any) -> None:
        """Go on with another goal, or with another block of the same teacher, whose first frame is a full pass."""
        if self.stream is not None and self.stream.model is model:
            self.stream.refresh = model.stream(**goal).refresh
            return
        model.picture = self.adapter.image
        self.stream = self._player.run = model.stream(**goal)

    @torch.no_grad()
    def __call__(self, frame: Tensor) -> Tensor:
        """Return the picture for the next frame: uint8 (3, H, W) -> uint8 (3, H', W'). Looks at no later frame."""
        return self._shown(self._player.picture(self._player(from_uint8(frame, self.adapter.teacher)).output))

    @torch.no_grad()
    def play(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the pictures of a whole video, in order; with `lookahead`, some frames later than they are read."""
        if self.lookahead and self.stream is not None:
            given = (from_uint8(frame, self.adapter.teacher) for frame in frames)
            pictures = self._player.ahead(given, LookAhead(self.stream).play)
            yield from map(self._shown, pictures)
        else:
            yield from map(self, frames)

    def _shown(self, picture: Tensor) -> Tensor:
        self.frames += 1
        try:
            return to_uint8(picture)
        except NonFiniteError as error:
            raise NonFiniteError(f"frame {self.frames - 1}: {error}") from None


def from_uint8(frame: Tensor, teacher: nn.Module | None = None) -> Tensor:
    """uint8 (3, H, W) in 0..255 -> float (1, 3, H, W) in [0, 1], on `teacher`'s device and in its dtype.

    Raises:
        InputError: the frame is something else.
    """
    if frame.dtype != torch.uint8 or frame.dim() != 3 or frame.shape[0] != 3:
        raise InputError(f"a frame is uint8 (3, H, W), got {frame.dtype} {tuple(frame.shape)}")
    picture = frame[None].float() / 255
    return picture if teacher is None else picture.to(*placement(teacher))


def to_uint8(picture: Tensor) -> Tensor:
    """Float (1, 3, H, W) -> uint8 (3, H, W), clipped to [0, 1] and rounded.

    Raises:
        NonFiniteError: a value is infinite or NaN, which has no colour.
    """
    finite = picture.isfinite()
    if not finite.all():
        raise NonFiniteError(
            f"{int((~finite).sum())} of the picture's {finite.numel()} values are infinite or NaN: the teacher "
            "overflows (half precision does so easily; try float32 or bfloat16), or weights are damaged"
        )
    return (picture[0].float().clamp(0, 1) * 255).round().byte().cpu()
