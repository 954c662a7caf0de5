"""The frame protocol of an adapter, in the one place that runs it: opening, inputs, run, advance."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.adapter_check import CheckedAdapter
from shortcutv2v.errors import InputError
from shortcutv2v.passes import Passes
from shortcutv2v.types import Carry

__all__ = ["FullPass", "Inputs", "Played", "Player", "cropped"]

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""A teacher's positional and keyword inputs."""


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


@dataclass(frozen=True)
class _Prepared:
    """A frame on its way: its own size, the padded one, and what the adapter made of it."""

    size: torch.Size
    padded: torch.Size
    frame: Tensor = field(default_factory=lambda: torch.empty(0))
    opened: Any = None
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
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.state: Any = self.adapter.start()
        self._latest = _Prepared(torch.Size((1, 1)), torch.Size((1, 1)))

    def __call__(self, frame: Tensor) -> Played:
        """Play the next frame, (B, C, H, W) in [0, 1]; it is padded to a size that the teacher takes."""
        self._latest = now = self._prepare(frame)
        if now.opened is not None:
            played = Played(now.opened, opening=True)
        else:
            played = Played(self._checked.run(self.run, now.args, now.kwargs), False, now.args, now.kwargs)
        self.state = self._checked.advance(self.state, now.frame, played.output)
        return played

    def _prepare(self, frame: Tensor) -> _Prepared:
        """Pad a frame, and ask the adapter for its opening output or the teacher's inputs."""
        padded = self.adapter.pad(frame)
        opened = self._checked.opening(padded, self.state)
        args, kwargs = ((), {}) if opened is not None else self._checked.inputs(padded, self.state)
        return _Prepared(frame.shape[-2:], padded.shape[-2:], padded, opened, args, kwargs)

    def ahead(self, frames: Iterable[Tensor], run: Callable[[Iterator[Inputs]], Iterator[Any]]) -> Iterator[Tensor]:
        """Play a whole video, and yield its pictures; `run` may read the inputs of later frames before it answers.

        Args:
            frames: (B, C, H, W) each, in [0, 1].
            run: called with the teacher's inputs of frames in a row, `(args, kwargs)` each; yields an output for each.

        Raises:
            InputError: the adapter is recurrent: its inputs need the outputs before them.
        """
        if self.adapter.recurrent:
            raise InputError(
                f"the {type(self.adapter).__name__} is recurrent: its frames need the outputs of the frames before, so "
                "nothing can look ahead"
            )
        for opening, group in itertools.groupby(map(self._prepare, frames), lambda now: now.opened is not None):
            waiting: deque[_Prepared] = deque()
            inputs = _inputs(group, waiting)
            for output in _opened(inputs, waiting) if opening else run(inputs):
                self._latest = waiting.popleft()
                yield self.picture(output)

    def picture(self, output: Any) -> Tensor:
        """Return the picture in an output that belongs to the last frame, (B, 3, H', W'), values not yet clipped.

        Of a padded frame, the part that belongs to the padding is cropped.
        """
        return cropped(self._checked.image(output), self._latest.size, self._latest.padded)


class FullPass:
    """A full pass of a model, which a `Player` can run; keeps what the last one left.

    Args:
        model: the wrapped teacher.
        tail: False leaves out the tail, and returns None.

    Attributes:
        carry: what the head handed on.
        f: what the middle returned.
    """

    carry: Carry
    f: tuple[Tensor, ...]

    def __init__(self, model: Passes, tail: bool = True) -> None:
        self.model, self.tail = model, tail

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on the teacher's inputs."""
        self.carry = self.model.head(*args, **kwargs)
        self.f = self.model.middle(self.carry)
        return self.model.tail(self.carry, self.f) if self.tail else None


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


def _inputs(frames: Iterable[_Prepared], waiting: deque[_Prepared]) -> Iterator[Inputs]:
    """Hand out the inputs of frames; the frames wait for their outputs."""
    for frame in frames:
        waiting.append(frame)
        yield frame.args, frame.kwargs


def _opened(inputs: Iterator[Inputs], waiting: deque[_Prepared]) -> Iterator[Any]:
    for _ in inputs:
        yield waiting[-1].opened
