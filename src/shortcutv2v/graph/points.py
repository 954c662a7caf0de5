"""Find the layers of a cut in a recording, and the shapes of their outputs."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..errors import AmbiguousCallError, CutOrderError, NeverCalledError, OutputTypeError, SpatialMismatchError
from .cut import Cut, Layer
from .info import info
from .layout import Layout
from .partition import Points
from .split import Maps
from .traced import Call, Traced

__all__ = ["find_maps", "find_points"]


def find_points(traced: Traced, cut: Cut) -> Points:
    """The nodes of the cut's layers.

    Raises:
        NeverCalledError: a layer did not run.
        AmbiguousCallError: a layer ran more than once and the cut does not say which call.
        OutputTypeError: a layer's output is not a single tensor.
        CutOrderError: a layer's output is not needed.
    """
    return Points(
        tuple(tuple(_call(traced, layer).node for layer in branch.enc) for branch in cut.branches),  # type: ignore[misc]
        tuple(_call(traced, branch.dec).node for branch in cut.branches),  # type: ignore[misc]
    )


def _call(traced: Traced, layer: Layer) -> Call:
    calls = traced.calls_of(layer.name)
    if not calls:
        raise NeverCalledError(
            f"{layer.name!r} did not run for the example inputs. It may be a container (name one of the modules "
            "inside), be switched off by an option, be used without being called (its weights read directly), or lie "
            "inside a ScriptModule (name the ScriptModule itself)"
        )
    if layer.call is None and len(calls) > 1:
        raise AmbiguousCallError(
            f"{layer.name!r} is called {len(calls)} times; say which call: "
            f"'{layer.name}:0' is the first, '{layer.name}:{len(calls) - 1}' the last"
        )
    if layer.call is not None and layer.call >= len(calls):
        raise AmbiguousCallError(
            f"{layer.name!r} is called {len(calls)} time{'s' if len(calls) > 1 else ''}, so '{layer}' does not exist; "
            f"the last call is '{layer.name}:{len(calls) - 1}'"
        )
    call = calls[layer.call or 0]
    if call.node is None and call.kind == "Tensor":
        raise CutOrderError(f"the teacher's output does not depend on {str(layer)!r}; choose a layer that it needs")
    if call.node is None:
        raise OutputTypeError(
            f"{layer.name!r} returns a {call.kind}, the cut needs one tensor (B, C, H, W); choose a module inside "
            "it, or the one that makes the tensor you mean"
        )
    return call


def find_maps(points: Points, cut: Cut, tensors: list[Tensor]) -> Maps:
    """The layouts and shapes of `a` and `f`.

    Raises:
        OutputTypeError: a feature is not a map and no layout fits it, or it holds no floating-point values.
        SpatialMismatchError: `a` and `f`, or two parts of `a`, differ in batch size, height or width.
    """
    dtypes = [
        _floating(info(node).dtype, layer)
        for branch, a, f in zip(cut.branches, points.a, points.f, strict=True)
        for layer, node in zip((*branch.enc, branch.dec), (*a, f), strict=True)
    ]
    picture = next(((t.shape[-2], t.shape[-1]) for t in tensors if t.ndim == 4), None)
    place = {n: i for i, n in enumerate(points.flat_a)}
    enc, a_shapes, f_shapes, dec, widths = [], [], [], [], []
    for branch, a, f in zip(cut.branches, points.a, points.f, strict=True):
        layouts = [Layout.of(info(n).shape, cut.layout, picture, str(e)) for e, n in zip(branch.enc, a, strict=True)]
        shapes = [lay.map_shape(info(n).shape) for lay, n in zip(layouts, a, strict=True)]
        last = Layout.of(info(f).shape, cut.layout, picture, str(branch.dec))
        f_shape = last.map_shape(info(f).shape)
        for layer, shape in zip(branch.enc, shapes, strict=True):
            if (shape[0], *shape[2:]) != (f_shape[0], *f_shape[2:]):
                raise SpatialMismatchError(
                    f"a and f must have the same batch size, height and width: {str(layer)!r} gives {shape}, "
                    f"{str(branch.dec)!r} gives {f_shape}. Choose layers at the same resolution "
                    "(shortcutv2v.suggest_cuts lists them)"
                )
        enc.append(tuple((place[n], lay) for n, lay in zip(a, layouts, strict=True)))
        widths.append(tuple(s[1] for s in shapes))
        a_shapes.append((shapes[0][0], sum(widths[-1]), *shapes[0][2:]))
        dec.append(last)
        f_shapes.append(f_shape)
    dtype = functools.reduce(torch.promote_types, dtypes)
    return Maps(tuple(enc), tuple(dec), tuple(a_shapes), tuple(f_shapes), tuple(widths), dtype)


def _floating(dtype: torch.dtype, layer: Layer) -> torch.dtype:
    if not dtype.is_floating_point:
        raise OutputTypeError(
            f"{str(layer)!r} returns values of {dtype}, the cut needs floating-point features: choose a layer outside "
            "the quantised part, such as the one that dequantises"
        )
    return dtype
