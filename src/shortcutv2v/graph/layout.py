"""Token features as maps: which height and width a row of tokens has, and the way there and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..errors import OutputTypeError

__all__ = ["Layout"]

_MAP = "b c h w"


@dataclass(frozen=True)
class Layout:
    """The way from one feature to (B, C, H, W), and back.

    Attributes:
        pattern: einops pattern of the feature as the layer gives it, such as "b (h w) c".
        height: H, needed where the pattern folds h and w.
    """

    pattern: str
    height: int

    def to_map(self, feature: Tensor) -> Tensor:
        """The feature as (B, C, H, W); a view wherever possible.

        >>> Layout("b (h w) c", 2).to_map(torch.zeros(1, 6, 5)).shape
        torch.Size([1, 5, 2, 3])
        """
        if self.pattern == _MAP:
            return feature
        axes = {"h": self.height} if "(" in self.pattern else {}
        return rearrange(feature, f"{self.pattern} -> {_MAP}", **axes)

    def from_map(self, feature: Tensor) -> Tensor:
        """The inverse of `to_map`."""
        return feature if self.pattern == _MAP else rearrange(feature, f"{_MAP} -> {self.pattern}")

    def map_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `to_map`'s result for a feature of that shape."""
        return tuple(self.to_map(torch.empty(shape, device="meta")).shape)

    @classmethod
    def of(cls, shape: tuple[int, ...], layout: str | None, picture: tuple[int, int] | None, layer: str) -> Layout:
        """Find the layout of a feature.

        Args:
            shape: the feature's shape as the layer gives it.
            layout: as the user gave it, `None` for (B, C, H, W).
            picture: (H, W) of the teacher's input, which gives the ratio of height to width.
            layer: the layer's name, for messages.

        Raises:
            OutputTypeError: the shape does not fit.
        """
        if layout is None or (len(shape) == 4 and "(" in layout):
            if len(shape) != 4:
                raise OutputTypeError(_advice(shape, layer))
            return cls(_MAP, shape[2])
        pattern = layout.partition("->")[0].strip()
        tokens = _tokens(pattern)
        if len(shape) != len(tokens):
            raise OutputTypeError(f"{layer!r} gives {shape}, which does not fit layout={layout!r} ({len(tokens)} axes)")
        if "(" not in pattern:
            return cls(pattern, shape[tokens.index("h")])
        length = shape[tokens.index("hw")]
        return cls(pattern, _height(length, picture, layer, layout))


def _tokens(pattern: str) -> list[str]:
    return pattern.replace("(h w)", "hw").split()


def _height(length: int, picture: tuple[int, int] | None, layer: str, layout: str) -> int:
    ratio = picture[0] / picture[1] if picture else 1.0
    height = max(1, round(math.sqrt(length * ratio)))
    if length % height == 0 and abs(height / (length // height) - ratio) <= 0.25 * ratio:
        return height
    raise OutputTypeError(
        f"{layer!r} gives {length} tokens, which do not form a grid in the ratio of the input {picture} "
        f"(layout={layout!r}); a class token in front of the others, or padding, must be taken off by the cut: choose "
        "a layer that gives maps of (B, C, H, W)"
    )


def _advice(shape: tuple[int, ...], layer: str) -> str:
    text = f"{layer!r} gives a tensor of shape {shape}; the cut needs feature maps (B, C, H, W)"
    if len(shape) == 3:
        return (
            f'{text}. For tokens (B, N, C) say layout="b (h w) c -> b c h w"; otherwise choose a layer that gives maps'
        )
    return f"{text}. Choose a layer that gives maps"
