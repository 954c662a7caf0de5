"""Adapters: how frames of a video become a teacher's inputs, and its outputs become frames.

The command line, distillation and the measurements run every teacher through an adapter. So recurrent teachers (vid2vid
feeds its last outputs back in) and teachers with conditions (VToonify's style) work in the same way as plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.errors import CutError, InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.teacher import require_module, say_once
from shortcutv2v.wrap import wrap

__all__ = ["Adapter"]

_SETTINGS = ("enc_layer", "dec_layer", "max_interval", "channels", "on_leak", "layout", "show_shortcut")


class Adapter:
    """Adapter of a plain teacher: one RGB frame in, one RGB picture out. Subclass it for any other teacher.

    Args:
        teacher: the generator.
        enc_layer: default cut, as `wrap()` takes it. A teacher that is only run, and never wrapped, needs no cut.
        dec_layer: default cut, as `wrap()` takes it.
        range: least and greatest value that the teacher reads and writes: (0, 1), which is the default, (-1, 1) for
            most networks that end in tanh, or (0, 255). A subclass may set it as a class attribute.

    Attributes:
        cuts: named alternative cuts, name -> (enc_layer, dec_layer).
        max_interval, channels, on_leak, layout, show_shortcut: settings for this teacher, as `wrap()` takes them.
        multiple: the teacher takes frames whose sides are multiples of this number. Other frames are padded, and the
            pictures cropped, exactly as if the frames were larger at their lower and right border.
        train_mode: set to True if the teacher is meant to run in train mode, as networks like pix2pix are. Otherwise a
            teacher in train mode, with batch norm or dropout, gives a warning.

    Raises:
        InputError: `teacher` is not a module, or `range` is not two increasing numbers.

    Examples:
        >>> adapter = Adapter(nn.Conv2d(3, 3, 3, padding=1), range=(-1, 1))
        >>> frame = torch.ones(1, 3, 8, 8)
        >>> state = adapter.start()
        >>> args, kwargs = adapter.inputs(frame, state)
        >>> output = adapter.teacher(*args, **kwargs)
        >>> state = adapter.advance(state, frame, output)
        >>> adapter.image(output).shape
        torch.Size([1, 3, 8, 8])
    """

    cuts: Mapping[str, tuple[Any, Any]] = {}
    max_interval: int = 3
    channels: int | Sequence[int] | None = None
    on_leak: str = "error"
    layout: str | None = None
    show_shortcut: bool = False
    multiple: int = 1
    train_mode: bool = False
    range: tuple[float, float] = (0, 1)

    def __init__(
        self,
        teacher: nn.Module,
        enc_layer: str | Sequence[Any] | None = None,
        dec_layer: str | Sequence[Any] | None = None,
        *,
        range: tuple[float, float] | None = None,  # noqa: A002 (the word for it)
    ) -> None:
        self.teacher = require_module(teacher)
        self.enc_layer = enc_layer
        self.dec_layer = dec_layer
        if range is not None:
            self.range = range
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise InputError(f"range={self.range} must be two numbers, the least value and the most, such as (-1, 1)")

    @staticmethod
    def of(model: ShortcutV2V) -> Adapter:
        """Return the plain adapter of a wrapped teacher, for calls that were given none."""
        return Adapter(model.teacher)

    @property
    def recurrent(self) -> bool:
        """True if the teacher has a state from frame to frame, that is, if `advance()` is overridden."""
        return type(self).advance is not Adapter.advance

    def wrap(self, frame: Tensor, **changes: Any) -> ShortcutV2V:
        """Check the adapter on a frame, then wrap the teacher with the adapter's cut and settings.

        Args:
            frame: an example frame, (B, 3, H, W) in [0, 1].
            changes: arguments of `wrap()` that replace the adapter's.

        Raises:
            CutError: the adapter names no cut, or `wrap()` refuses it.
            InputError: a method of the adapter returned a value of the wrong form.
        """
        settings = {**{name: getattr(self, name) for name in _SETTINGS}, **changes}
        if settings["enc_layer"] is None or settings["dec_layer"] is None:
            raise CutError(
                f"the {type(self).__name__} names no cut: give it enc_layer= and dec_layer=. `shortcutv2v inspect` and "
                "shortcutv2v.suggest_cuts(teacher, (frame,)) list the cuts that are possible"
            )
        check_adapter(self, frame)
        args, kwargs = self.example(frame)
        model = wrap(self.teacher, **{"example_inputs": args, "example_kwargs": kwargs, **settings})
        model.picture = self.image
        return model

    def example(self, frame: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the teacher's inputs for the first frame of a video, (B, 3, H, W) in [0, 1], padded if necessary."""
        return self.inputs(self.pad(frame), self.start())

    def pad(self, frame: Tensor) -> Tensor:
        """Repeat the last row and column of a frame until its sides are multiples of `multiple`; say so once.

        Args:
            frame: (B, C, H, W) or (C, H, W), of any dtype.

        Examples:
            >>> adapter = Adapter(nn.Identity())
            >>> adapter.pad(torch.zeros(1, 3, 5, 7)).shape
            torch.Size([1, 3, 5, 7])
        """
        height, width = frame.shape[-2:]
        rows, columns = -height % self.multiple, -width % self.multiple
        if rows or columns:
            say_once(
                self.teacher,
                (height, width, self.multiple),
                f"frames of {height}x{width} are padded to {height + rows}x{width + columns}, because the teacher "
                f"takes multiples of {self.multiple}; its pictures are cropped",
            )
            frame = torch.cat((frame, frame[..., -1:, :].expand(*frame.shape[:-2], rows, width)), -2)
            frame = torch.cat((frame, frame[..., -1:].expand(*frame.shape[:-1], columns)), -1)
        return frame

    def start(self) -> Any:
        """Return the recurrent state before the first frame of a video; None for a teacher without memory."""
        return None

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the teacher's positional and keyword inputs for one frame.

        Args:
            frame: (B, 3, H, W) in [0, 1].
            state: the value that `start()` or the last `advance()` returned.
        """
        least, most = self.range
        return (frame if (least, most) == (0, 1) else frame * (most - least) + least,), {}

    def opening(self, frame: Tensor, state: Any) -> Any:
        """Return an output for a frame that the teacher does not make, else None.

        vid2vid's first frames come from another network. If this returns an output, neither teacher nor block runs on
        the frame; `image()` and `advance()` take the output as if the teacher had made it.

        Args:
            frame: (B, 3, H, W) in [0, 1].
            state: the value that `start()` or the last `advance()` returned.
        """
        return None

    def image(self, output: Any) -> Tensor:
        """Return the picture in the teacher's output: (B, 3, H', W') in [0, 1]. Values outside are clipped when shown.

        The caller gives what the teacher returned, or what `opening()` made.
        """
        picture: Tensor = output
        least, most = self.range
        return picture if (least, most) == (0, 1) else (picture - least) / (most - least)

    def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
        """Return the recurrent state for the next frame: a pytree, its tensors not detached.

        The caller decides where gradients stop: inference runs without any, `distill.Rollout` cuts them.
        """
        return state
