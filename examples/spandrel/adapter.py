"""Adapter of every picture network that spandrel recognises: give the file, the rest is read from it.

spandrel (MIT) tells some forty architectures of super-resolution and restoration apart by the names in their state
dict, and builds the network. Enlargement, channels and size rules come from its descriptor. It is an optional extra.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v import Adapter, ShortcutV2V, suggest_cuts
from shortcutv2v.errors import CheckpointError, CutError, InputError

__all__ = ["Called", "SpandrelAdapter", "build_adapter"]

_SIDE = 64
"""Pixels; cuts are compared on a small picture, which gives the same list faster."""

_LUMA = (0.299, 0.587, 0.114)


class Called(nn.Module):
    """A network with the call that its architecture needs; its layers have names that begin with `model.`.

    Args:
        model: the network.
        call: from network and picture to picture, such as `lambda model, picture: model(picture)[0]`.
    """

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self, picture: Tensor) -> Tensor:
        """Return the network's picture."""
        return self._call(self.model, picture)


class SpandrelAdapter(Adapter):
    """Adapter of a network that spandrel loaded.

    Args:
        descriptor: spandrel's `ImageModelDescriptor`.
        enc_layer: default cut, as `wrap()` takes it. Default: the first of `suggest_cuts`, found at the first `wrap()`.
        dec_layer: likewise.

    Attributes:
        name: of the architecture.
        scale: enlargement of the pictures.
        minimum: smaller frames are padded to this side.
        square: frames are padded to squares.

    Raises:
        InputError: the network needs a mask, or reads or writes other pictures than grey or RGB ones; or only one of
            `enc_layer` and `dec_layer` is given.
    """

    def __init__(self, descriptor: Any, enc_layer: str | None = None, dec_layer: str | None = None) -> None:
        self.name: str = descriptor.architecture.name
        if descriptor.purpose == "Inpainting":
            raise InputError(f"{self.name} fills in a masked area and needs a mask with each frame: write an adapter")
        channels = descriptor.input_channels, descriptor.output_channels
        if not {*channels} <= {1, 3}:
            raise InputError(f"this {self.name} turns {channels[0]} channels into {channels[1]}: expected 1 or 3 each")
        if (enc_layer is None) != (dec_layer is None):
            raise InputError("only one end of the cut is given: give enc_layer= and dec_layer=, or neither")
        super().__init__(Called(descriptor.model, descriptor._call_fn).eval(), enc_layer, dec_layer)
        self.scale: int = descriptor.scale
        self.grey = descriptor.input_channels == 1
        rules = descriptor.size_requirements
        self.multiple, self.minimum, self.square = rules.multiple_of, rules.minimum, rules.square

    def pad(self, frame: Tensor) -> Tensor:
        """Repeat the last row and column until the size rules hold; see the base class."""
        height, width = frame.shape[-2:]
        least = max(self.minimum, max(height, width) if self.square else 0)
        if height < least:
            frame = frame[..., torch.arange(least, device=frame.device).clamp(max=height - 1), :]
        if width < least:
            frame = frame[..., torch.arange(least, device=frame.device).clamp(max=width - 1)]
        return super().pad(frame)

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the frame; its luma for a network of grey pictures."""
        if self.grey:
            frame = (frame * frame.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        return (frame,), {}

    def image(self, output: Tensor) -> Tensor:
        """Return the picture, (B, 3, scale*H, scale*W); grey ones with three equal channels."""
        return output if output.shape[1] == 3 else output.expand(-1, 3, -1, -1)

    def wrap(self, frame: Tensor, **changes: Any) -> ShortcutV2V:
        """Choose the cut unless one is given, then wrap the teacher; see the base class.

        Raises:
            CutError: no cut saves anything.
        """
        if self.enc_layer is None and not {"enc_layer", "dec_layer"} <= changes.keys():
            self.enc_layer, self.dec_layer = self._recommended(frame)
        return super().wrap(frame, **changes)

    def _recommended(self, frame: Tensor) -> tuple[str, str]:
        """Return the cut that saves most without leaks, the block included."""
        side = max(self.minimum, -(-_SIDE // self.multiple) * self.multiple)
        args, kwargs = self.example(F.interpolate(frame, size=(side, side)))
        found = suggest_cuts(self.teacher, args, kwargs)
        if not found or found[0].leaks or found[0].net <= 0:
            raise CutError(
                f"no cut of this {self.name} saves anything without leaks: `shortcutv2v inspect` lists all cuts; give "
                "one with --set enc_layer=... --set dec_layer=..."
            )
        return found[0].enc_layer, found[0].dec_layer


def build_adapter(
    checkpoint: str | None = None, enc_layer: str | None = None, dec_layer: str | None = None
) -> SpandrelAdapter:
    """Return the adapter for a file.

    Args:
        checkpoint: a `.pth`, `.pt`, `.ckpt` or `.safetensors` file of an architecture that spandrel recognises.
        enc_layer: the cut; default: the first of `suggest_cuts`.
        dec_layer: likewise.

    Raises:
        InputError: no file is given, spandrel is missing, or the network cannot run on video frames.
        CheckpointError: the file cannot be read, or spandrel does not recognise the architecture.
    """
    if checkpoint is None:
        raise InputError("this adapter needs the file with the weights: --set checkpoint=network.pth")
    return SpandrelAdapter(_load(checkpoint), enc_layer, dec_layer)


def _load(path: str) -> Any:
    """Return spandrel's descriptor of a file."""
    try:
        from spandrel import ModelLoader, UnsupportedModelError
    except ImportError as error:
        raise InputError("spandrel is missing: pip install 'shortcutv2v[spandrel]'") from error
    if not os.path.isfile(path):
        raise CheckpointError(f"no checkpoint at {path!r}")
    try:
        return ModelLoader().load_from_file(path)
    except UnsupportedModelError:
        raise CheckpointError(
            f"spandrel recognises no architecture in {path!r}: build the network yourself and write an adapter"
        ) from None
    except Exception as error:  # spandrel lets the errors of pickle, torch and safetensors through
        text = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"spandrel cannot read {path!r}: {type(error).__name__}: {text}") from error
