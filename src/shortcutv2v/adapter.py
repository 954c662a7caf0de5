"""How frames of a video become a teacher's inputs, and its outputs become frames.

The command line, distillation and the measurements see a teacher through an adapter, so that recurrent teachers
(vid2vid feeds its last outputs back in) and teachers with conditions (VToonify's style) are served like plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from shortcutv2v.model import ShortcutV2V
from shortcutv2v.wrap import wrap

__all__ = ["Adapter"]

_SETTINGS = ("enc_layer", "dec_layer", "max_interval", "channels", "on_leak", "layout", "show_shortcut")


class Adapter:
    """A plain teacher: one RGB frame in, one RGB frame out, values in [0, 1]. Subclass it for anything else.

    Args:
        teacher: the generator.
        enc_layer: default cut, as `wrap()` takes it.
        dec_layer: default cut, as `wrap()` takes it.

    Attributes:
        cuts: named alternative cuts, name -> (enc_layer, dec_layer).
        max_interval, channels, on_leak, layout, show_shortcut: what suits this teacher, as `wrap()` takes them.

    Examples:
        >>> import torch
        >>> adapter = Adapter(nn.Conv2d(3, 3, 3, padding=1), "", "")
        >>> frame = torch.rand(1, 3, 8, 8)
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

    def __init__(self, teacher: nn.Module, enc_layer: str | Sequence[Any], dec_layer: str | Sequence[Any]) -> None:
        self.teacher = teacher
        self.enc_layer = enc_layer
        self.dec_layer = dec_layer

    @staticmethod
    def of(model: ShortcutV2V) -> Adapter:
        """The plain adapter of a teacher that is wrapped already: what serves where none is given."""
        return Adapter(model.teacher, "", "")

    @property
    def recurrent(self) -> bool:
        """Whether anything is carried from frame to frame: whether `advance()` is overridden."""
        return type(self).advance is not Adapter.advance

    def wrap(self, frame: Tensor, **changes: Any) -> ShortcutV2V:
        """Wrap the teacher with this adapter's cut and settings.

        Args:
            frame: an example frame, (B, 3, H, W) in [0, 1].
            changes: arguments of `wrap()` that replace the adapter's.
        """
        args, kwargs = self.inputs(frame, self.start())
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return wrap(self.teacher, **{**settings, "example_inputs": args, "example_kwargs": kwargs, **changes})

    def start(self) -> Any:
        """The recurrent state before the first frame of a video; None for a teacher without memory."""
        return None

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The teacher's positional and keyword inputs for one frame.

        Args:
            frame: (B, 3, H, W) in [0, 1].
            state: what `start()` or the last `advance()` returned.
        """
        return (frame,), {}

    def opening(self, frame: Tensor, state: Any) -> Any:
        """An output for a frame that the teacher does not make, else None.

        vid2vid's first frames come from another network. Where this returns an output, neither teacher nor block
        runs on the frame; `image()` and `advance()` take the output as if the teacher had made it.

        Args:
            frame: (B, 3, H, W) in [0, 1].
            state: what `start()` or the last `advance()` returned.
        """
        return None

    def image(self, output: Any) -> Tensor:
        """The picture in the teacher's output: (B, 3, H', W') in [0, 1]; values outside are clipped when shown."""
        picture: Tensor = output
        return picture

    def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
        """The recurrent state for the next frame: a pytree, its tensors not detached.

        Whoever runs the video decides where gradients stop: inference runs without any, `distill.Rollout` cuts them.
        """
        return state
