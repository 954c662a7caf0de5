"""From a teacher, a cut and example inputs to a checked split; the strategies in their order."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn

from ..errors import AmbiguousCallError, CaptureError, NeverCalledError, OutputTypeError, SpatialMismatchError
from ..types import Carry
from .cut import Cut, Layer
from .layout import Layout
from .partition import Points, check_order, partition
from .protect import protected
from .record import record
from .signature import signature, take_apart
from .split import GraphSplit, Maps, Split
from .traced import Call, Traced, Untraceable

__all__ = ["Capture"]


class Capture:
    """A teacher cut for every signature it has met.

    Args:
        teacher: the network; nothing in it is changed.
        cut: from `parse_cut`.
        args: positional example inputs; without args and kwargs the teacher is captured at the first call of `at`.
        kwargs: keyword example inputs.
        capture: "fx", "export" or "hooks" to force a strategy; None tries them in this order.
        on_leak: "error", or "reuse" to hand leaking features to the tail behind `f`.

    Attributes:
        teacher, cut, on_leak: as given.
        forced: the forced strategy, None where they are tried in order.

    Raises:
        CutError: the cut cannot be made; a subclass says why.
        CaptureError: no strategy reproduced the teacher.
    """

    def __init__(
        self,
        teacher: nn.Module,
        cut: Cut,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        capture: str | None = None,
        on_leak: str = "error",
    ) -> None:
        if capture not in (None, "fx", "export", "hooks"):
            raise CaptureError(f'capture={capture!r} is no strategy; choose "fx", "export", "hooks" or None')
        if on_leak not in ("error", "reuse"):
            raise CaptureError(f'on_leak={on_leak!r} is unknown; choose "error" or "reuse"')
        self.cut = cut
        self.teacher = teacher
        self._modules = list(teacher.modules())
        self.forced = capture
        self.on_leak = on_leak
        self._splits: dict[Hashable, Split] = {}
        if args is not None or kwargs is not None:
            self.first = self.at(tuple(args or ()), kwargs or {})

    def at(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Split:
        """The split for the signature of these inputs, captured now if it is new."""
        kwargs = kwargs or {}
        tensors, structure = take_apart(args, kwargs)
        key = signature(self._modules, tensors, structure)
        if key not in self._splits:
            copies, rebuilt = [t.detach().clone() for t in tensors], structure.rebuild
            args, kwargs = rebuilt(copies)
            self._splits[key] = self._capture(args, kwargs, copies, key)
        return self._splits[key]

    def of(self, carry: Carry) -> Split:
        """The split that made this carry.

        Raises:
            CaptureError: the carry belongs to another model.
        """
        if carry.signature not in self._splits:
            raise CaptureError("this carry was made by another model; pass what model.head returned")
        return self._splits[carry.signature]

    def _capture(self, args: Any, kwargs: Any, tensors: list[Tensor], key: Hashable) -> Split:
        marked = {layer.name for layer in self.cut.layers}
        try:
            with protected(self.teacher):
                traced = record(self.teacher, args, kwargs, marked)
        except Untraceable as reason:
            raise CaptureError(f"the teacher cannot be recorded: {reason}") from reason
        points = find_points(traced, self.cut)
        check_order(traced, points, self.cut)
        maps = find_maps(points, self.cut, tensors)
        part = partition(traced, points, self.cut, self.on_leak)
        return GraphSplit(self.teacher, traced, part, maps, key)


def find_points(traced: Traced, cut: Cut) -> Points:
    """The nodes of the cut's layers.

    Raises:
        NeverCalledError: a layer did not run.
        AmbiguousCallError: a layer ran more than once and the cut does not say which call.
        OutputTypeError: a layer's output is no single tensor.
    """
    return Points(
        tuple(tuple(_call(traced, layer).node for layer in branch.enc) for branch in cut.branches),  # type: ignore[misc]
        tuple(_call(traced, branch.dec).node for branch in cut.branches),  # type: ignore[misc]
    )


def _call(traced: Traced, layer: Layer) -> Call:
    calls = traced.calls_of(layer.name)
    if not calls:
        raise NeverCalledError(
            f"{layer.name!r} did not run for the example inputs. It may be a container (name one of the modules inside), "
            "be switched off by an option, or be used without being called (its weights read directly)"
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
    if call.node is None:
        raise OutputTypeError(
            f"{layer.name!r} returns a {call.kind}, the cut needs one tensor (B, C, H, W); choose a module inside it, or "
            "the one that makes the tensor you mean"
        )
    return call


def find_maps(points: Points, cut: Cut, tensors: list[Tensor]) -> Maps:
    """The layouts and shapes of `a` and `f`.

    Raises:
        OutputTypeError: a feature is no map and no layout fits it.
        SpatialMismatchError: `a` and `f`, or two parts of `a`, differ in height or width.
    """
    picture = next(((t.shape[-2], t.shape[-1]) for t in tensors if t.ndim == 4), None)
    place = {n: i for i, n in enumerate(points.flat_a)}
    enc, a_shapes, f_shapes, dec, widths = [], [], [], [], []
    for branch, a, f in zip(cut.branches, points.a, points.f, strict=True):
        layouts = [Layout.of(n.meta["shape"], cut.layout, picture, str(e)) for e, n in zip(branch.enc, a, strict=True)]
        shapes = [lay.map_shape(n.meta["shape"]) for lay, n in zip(layouts, a, strict=True)]
        last = Layout.of(f.meta["shape"], cut.layout, picture, str(branch.dec))
        f_shape = last.map_shape(f.meta["shape"])
        for layer, shape in zip(branch.enc, shapes, strict=True):
            if shape[2:] != f_shape[2:]:
                raise SpatialMismatchError(
                    f"a and f must have the same height and width: {str(layer)!r} gives {shape}, {str(branch.dec)!r} "
                    f"gives {f_shape}. Choose layers at the same resolution (shortcutv2v.suggest_cuts lists them)"
                )
        enc.append(tuple((place[n], lay) for n, lay in zip(a, layouts, strict=True)))
        widths.append(tuple(s[1] for s in shapes))
        a_shapes.append((shapes[0][0], sum(widths[-1]), *shapes[0][2:]))
        dec.append(last)
        f_shapes.append(f_shape)
    return Maps(tuple(enc), tuple(dec), tuple(a_shapes), tuple(f_shapes), tuple(widths))
