"""The frame protocol of an adapter, in the one place that runs it: opening, inputs, run, advance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.adapter_check import CheckedAdapter

__all__ = ["Played", "Player", "cropped"]


@dataclass(frozen=True)
class Played:
    """One frame that went through a `Player`.

    Attributes:
        output: what `run` returned, or the adapter's own output for an opening frame.
        opening: whether the adapter made the output itself (`Adapter.opening`), so that `run` was not called.
        args: the positional inputs that `run` got.
        kwargs: the keyword inputs that `run` got.
    """

    output: Any
    opening: bool
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


class Player:
    """Plays a video through anything that takes a teacher's inputs: the teacher, a stream, parts of a model.

    Args:
        adapter: how frames become inputs, and what is carried from frame to frame.
        run: called with the teacher's inputs; returns the teacher's output.

    Raises:
        InputError: from a frame, if a method of the adapter returned a value of the wrong form, see `check_adapter`.

    Attributes:
        state: the adapter's recurrent state for the next frame. It may be replaced, for example to detach it.

    Examples:
        >>> player = Player(Adapter(torch.nn.Identity()), torch.nn.Identity())
        >>> player(torch.ones(1, 3, 2, 2)).output.shape
        torch.Size([1, 3, 2, 2])
    """

    def __init__(self, adapter: Adapter, run: Callable[..., Any]) -> None:
        self.adapter = adapter
        self.run = run
        self._checked = CheckedAdapter(adapter)
        self._size = self._padded = torch.Size((1, 1))
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.state: Any = self.adapter.start()

    def __call__(self, frame: Tensor) -> Played:
        """Play the next frame, (B, C, H, W) in [0, 1]; it is padded to a size that the teacher takes."""
        self._size = frame.shape[-2:]
        frame = self.adapter.pad(frame)
        self._padded = frame.shape[-2:]
        output = self._checked.opening(frame, self.state)
        if output is not None:
            played = Played(output, opening=True)
        else:
            args, kwargs = self._checked.inputs(frame, self.state)
            played = Played(self._checked.run(self.run, args, kwargs), False, args, kwargs)
        self.state = self._checked.advance(self.state, frame, played.output)
        return played

    def picture(self, output: Any) -> Tensor:
        """Return the picture in an output that belongs to the last frame, (B, 3, H', W'), values not yet clipped.

        Of a padded frame, the part that belongs to the padding is cropped.
        """
        return cropped(self._checked.image(output), self._size, self._padded)


def cropped(picture: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Return the part of a picture that belongs to a frame of `size`, if the teacher saw it `padded`.

    Examples:
        >>> import torch
        >>> cropped(torch.zeros(1, 3, 16, 24), size=(7, 12), padded=(8, 12)).shape
        torch.Size([1, 3, 14, 24])
    """
    height, width = (
        -(-side * given // whole) for side, given, whole in zip(picture.shape[-2:], size, padded, strict=True)
    )
    return picture[..., :height, :width]
