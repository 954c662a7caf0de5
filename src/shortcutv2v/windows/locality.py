"""Find out whether a teacher may run on windows: run it on a crop, and compare with the whole picture.

A crop shows an error near its edges, where the network looks over them. How fast it falls with the distance is the
price of a halo in dB. It does not fall for instance norm, attention and global pooling: then there are no windows. A
crop that does not begin at a multiple of the network's stride differs everywhere, too; so the probe finds the stride.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.decibels import decibels
from shortcutv2v.errors import InputError
from shortcutv2v.graph import untouched
from shortcutv2v.graph.signature import take_apart
from shortcutv2v.graph.structure import flatten

__all__ = ["Call", "Locality", "probe"]

_STRIDES = (1, 2, 4, 8, 16, 32)
_EXACT = 1e-10
"""Mean square error of pictures in [0, 1] that rounding alone may cause: 100 dB."""
_SHARES = 30
"""A halo may cost a tenth of the allowed error in windows, which have three times as much edge as the probe's crop."""
_LOCAL = 1e-6
"""The most that a crop may differ in its middle: 60 dB."""


class Call:
    """The inputs of one call of the teacher, and which of them are pictures that can be cut.

    Args:
        args: positional inputs.
        kwargs: keyword inputs.

    Attributes:
        tensors: all tensors, in order.
        pictures: places in it of the tensors that have the first picture's batch size, height and width.
        size: (H, W) of the pictures.

    Raises:
        InputError: no tensor is a picture (1, C, H, W).
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.tensors, self.structure = take_apart(args, kwargs)
        maps = [t for t in self.tensors if t.dim() == 4 and t.is_floating_point()]
        if not maps or maps[0].shape[0] != 1:
            found = "none" if not maps else f"a batch of {maps[0].shape[0]}"
            raise InputError(f"windows take one picture (1, C, H, W) at a time, got {found}: make a stream per video")
        self.size = (int(maps[0].shape[-2]), int(maps[0].shape[-1]))
        shape = (1, *self.size)
        self.pictures = [i for i, t in enumerate(self.tensors) if t.dim() == 4 and (t.shape[0], *t.shape[2:]) == shape]

    @property
    def key(self) -> Hashable:
        """Equal for calls of the same form."""
        return self.structure.key, tuple((t.shape, t.dtype, t.device) for t in self.tensors)

    @property
    def others(self) -> list[Tensor]:
        """The tensors that are no pictures, such as a style vector: they belong to all windows."""
        return [tensor for i, tensor in enumerate(self.tensors) if i not in self.pictures]

    def with_pictures(self, change: Callable[[Tensor], Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the inputs with changed pictures; the rest is repeated for every row of a batch of crops."""
        made = {i: change(self.tensors[i]) for i in self.pictures}
        rows = next(iter(made.values())).shape[0]
        args, kwargs = self.structure.rebuild([_given(made.get(i), t, rows) for i, t in enumerate(self.tensors)])
        return args, kwargs


def _given(made: Tensor | None, tensor: Tensor, rows: int) -> Tensor:
    if made is not None:
        return made
    return tensor.expand(rows, *tensor.shape[1:]) if rows > 1 and tensor.dim() and tensor.shape[0] == 1 else tensor


@dataclass(frozen=True)
class Locality:
    """The findings of a probe.

    Attributes:
        align: windows begin at multiples of so many pixels: the stride of the network.
        prices: mean square error of a window's core, for a halo of 0, 1, 2, ... pixels; pictures in [0, 1].
        edges: the same of the core's outermost pixels alone, where neighbours meet.
        seconds: time of the teacher for a pixel of a crop.
    """

    align: int
    prices: tuple[float, ...]
    edges: tuple[float, ...]
    seconds: float

    def price(self, halo: int) -> float:
        """Return the error of a halo; that of the widest halo of the probe for wider ones."""
        return self.prices[min(halo, len(self.prices) - 1)]

    def halo(self, allowed: float) -> int:
        """Return the smallest halo that costs a tenth of an allowed error at most, and all of it at a core's edge.

        Wider ones do not cost more. Returns the widest halo of the probe if none is good enough.
        """
        cost = [max(_SHARES * price, edge) for price, edge in zip(self.prices, self.edges, strict=True)]
        return next((halo for halo in range(len(cost)) if max(cost[halo:]) <= allowed), len(cost) - 1)

    def __str__(self) -> str:
        exact = next((halo for halo, price in enumerate(self.prices) if price <= _EXACT), len(self.prices) - 1)
        known = f"exact from {exact} pixels on" if self.price(exact) <= _EXACT else "never exact in the probe"
        shown = ", ".join(f"{h}: {-decibels(self.price(h)):.0f} dB" for h in (2, 4, 8, 16))
        return f"halo {known} ({shown}), stride {self.align}"


def probe(teacher: nn.Module, call: Call, picture: Callable[[Any], Tensor], window: int) -> Locality:
    """Compare crops of a picture with the whole.

    Args:
        teacher: the network; its state is as before afterwards.
        call: inputs of a real frame; the probe varies its brightness and contrast from place to place.
        picture: returns the picture in the teacher's output, (B, C, H, W) in [0, 1].
        window: side of the windows to come, in pixels.

    Raises:
        InputError: the teacher cannot run on crops, or is not local.
    """
    sides = [_shortened(side, max(3 * window, 4 * _STRIDES[-1]), 2 * _STRIDES[-1]) for side in call.size]
    most = window * 3 // 2
    args, kwargs = call.with_pictures(lambda x: _varied(x[..., : sides[0], : sides[1]]))
    varied, worst = Call(args, kwargs), math.inf
    try:
        with untouched(teacher):
            whole = _picture(picture, teacher(*args, **kwargs))
            for stride in _STRIDES:
                crops = [_shortened(side, most, stride) for side in sides]
                if crops != sides:
                    begun = time.perf_counter()
                    prices, edges = _prices(teacher, varied, picture, whole, crops, stride)
                    worst = min(worst, prices[-1])
                    # Exact, or still falling: what does not fall with the distance comes from everywhere.
                    if prices[-1] <= min(_LOCAL, max(_EXACT, prices[len(prices) // 3] / 2)):
                        return Locality(stride, prices, edges, (time.perf_counter() - begun) / math.prod(crops))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"windows need a teacher that runs on crops, such as {most}x{most}: {said[0]}") from error
    if worst == math.inf:
        raise InputError(f"frames of {call.size[0]}x{call.size[1]} have no room for windows of {window} pixels")
    raise InputError(
        f"windows need a local teacher: the middle of a crop of {most}x{most} pixels is "
        f"{-decibels(worst):.0f} dB from the whole picture, expected {-decibels(_LOCAL):.0f} or more. "
        "Instance norm, attention, global pooling and dropout are not local: use a stream without windows; "
        "stream(rolling=True) gives it constant latency"
    )


def _shortened(side: int, most: int, step: int) -> int:
    """Return `side`, or the smallest number not below `most` that differs from it by a multiple of `step`."""
    return side if side <= most else side - (side - most) // step * step


def _varied(picture: Tensor) -> Tensor:
    """Return a picture whose brightness and contrast change from place to place, unlike a crop's."""
    height, width = picture.shape[-2:]
    rows = torch.linspace(0.3, 1.0, height, device=picture.device).view(height, 1)
    ramp = (rows * torch.linspace(0.5, 1.0, width, device=picture.device)).to(picture.dtype)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(picture.shape, generator=generator).to(picture)
    scale = float(picture.float().nan_to_num().std()) or 1.0
    return (picture.nan_to_num() + (0.3 + 0.05 * noise) * scale) * ramp


def _picture(picture: Callable[[Any], Tensor], output: Any) -> Tensor:
    tensors, _ = flatten(output)
    if not all(t.dim() == 4 for t in tensors):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise ValueError(f"its outputs must all be maps (B, C, H, W), got {shapes}")
    return picture(output).float()


def _prices(
    teacher: nn.Module,
    call: Call,
    picture: Callable[[Any], Tensor],
    whole: Tensor,
    crops: Sequence[int],
    stride: int,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the errors of a crop by halo, of its core and of the core's edge; infinite if it fits no place."""
    corner = [_corner(side, crop, stride) for side, crop in zip(call.size, crops, strict=True)]
    area = tuple(slice(begin, begin + crop) for begin, crop in zip(corner, crops, strict=True))
    args, kwargs = call.with_pictures(lambda x: x[..., area[0], area[1]])
    part = _picture(picture, teacher(*args, **kwargs))
    places = []
    for n, crop, side, small, large in zip(corner, crops, call.size, part.shape[-2:], whole.shape[-2:], strict=True):
        if n * (large - small) % ((side - crop) or 1):
            return (math.inf,), (math.inf,)
        places.append(n * (large - small) // ((side - crop) or 1))
    (top, left), (rows, columns) = places, part.shape[-2:]
    error = (part - whole[..., top : top + rows, left : left + columns]).square().mean((0, 1))
    means, sums, sizes = [], [], []
    for halo in range(max(crops) // 2 - stride):
        cut = [halo if crop < side else 0 for crop, side in zip(crops, call.size, strict=True)]
        y, x = (n * out // crop for n, out, crop in zip(cut, (rows, columns), crops, strict=True))
        core = error[y : rows - y, x : columns - x]
        if core.numel():
            means.append(float(core.mean().nan_to_num(nan=math.inf)))
            sums.append(means[-1] * core.numel())
            sizes.append(core.numel())
    inner = zip(itertools.pairwise(sums), itertools.pairwise(sizes), strict=True)
    edges = [max(0.0, one - other) / max(1, large - small) for (one, other), (large, small) in inner]
    return tuple(means) or (math.inf,), (*edges, *means[-1:]) or (math.inf,)


def _corner(side: int, crop: int, stride: int) -> int:
    """Return an odd multiple of `stride` near the middle; 0 if the crop is the whole side."""
    return 0 if crop == side else ((side - crop) // 2 // (2 * stride) * 2 + 1) * stride
