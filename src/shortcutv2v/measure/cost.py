"""Multiply-adds and parameters of any callable, counted while it runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.ops import flops

__all__ = ["Convention", "Cost", "Macs", "amortised", "cost", "macs", "uncompiled"]

Convention = Literal["true", "paper"]


@dataclass(frozen=True)
class Cost:
    """The cost of one call.

    Attributes:
        macs: multiply-adds.
        parameters: numbers in the parameters that the call read.
    """

    macs: int
    parameters: int


def cost(function: Callable[..., Any], *args: Any, convention: Convention = "true", **kwargs: Any) -> Cost:
    """Run `function` once, without gradients, and count.

    Args:
        function: any callable: a module, `model.head`, a lambda.
        *args: its arguments.
        convention: "true" counts every matrix product and convolution as the multiply-adds it really takes,
            deformable ones included. "paper" counts as the tables of the paper do (thop): transposed convolutions
            at the size of their output, two operations per element of a norm (four with weights), deformable
            convolutions and their parameters not at all. The paper's way prices the published operators; run it with
            `ops.use("reference")` where a block folds or fuses them.
        **kwargs: its keyword arguments.

    Returns:
        The cost of this call; compiled code is counted as the eager code it was made from. A parameter that is read
        twice counts once. Elementwise steps, resizing and the bilinear sampling itself are free in both conventions;
        so is what torch gives no shapes of, such as quantised kernels and FFTs.

    Raises:
        InputError: an unknown convention.

    Examples:
        >>> layer = torch.nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1)
        >>> x = torch.zeros(1, 4, 8, 8)
        >>> cost(layer, x)
        Cost(macs=24576, parameters=390)
        >>> cost(layer, x, convention="paper").macs // cost(layer, x).macs
        4
    """
    if convention not in ("true", "paper"):
        raise InputError(f"`convention` is {convention!r}, but must be 'true' or 'paper'")
    if convention == "paper":
        with torch.no_grad(), uncompiled(), _PaperCounter() as paper:
            function(*args, **kwargs)
        return Cost(paper.macs, paper.parameters)
    return _counted(function, *args, **kwargs)[1]


def _counted(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Cost]:
    flops.register()
    with torch.no_grad(), uncompiled(), _Parameters() as seen, FlopCounterMode(display=False) as counter:
        result = function(*args, **kwargs)
    return result, Cost(counter.get_total_flops() // 2, seen.parameters)


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of each part of a wrapped model, for one call.

    Attributes:
        head: runs on every frame.
        middle: runs at reference frames only.
        tail: runs on every frame.
        reference: of the blocks, once per refresh: all that depends on the reference alone.
        block: of the blocks, on every shortcut frame.
    """

    head: int
    middle: int
    tail: int
    reference: int
    block: int

    @property
    def teacher(self) -> int:
        """A frame of the teacher."""
        return self.head + self.middle + self.tail

    @property
    def refresh(self) -> int:
        """A reference frame: the teacher, and the state that the blocks prepare."""
        return self.teacher + self.reference

    @property
    def shortcut(self) -> int:
        """A shortcut frame."""
        return self.head + self.block + self.tail

    def amortised(self, interval: int) -> float:
        """An average frame of a video with a refresh every `interval` frames."""
        return amortised(self.refresh, self.shortcut, interval)


def macs(model: ShortcutV2V, *args: Any, **kwargs: Any) -> Macs:
    """Count the parts of a wrapped model on the teacher's inputs.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> frame = torch.rand(1, 3, 10, 10)
        >>> macs(shortcutv2v.wrap(teacher, "0", "2", example_inputs=(frame,)), frame).teacher == 4 * 81 * 100
        True
    """
    carry, head = _counted(model.head, *args, **kwargs)
    f, middle = _counted(model.middle, carry)
    reference, state = _counted(model.make_reference, carry, f)
    parts = (head, middle, cost(model.tail, carry, f), state, cost(model.predict, reference, carry))
    return Macs(*(part.macs for part in parts))


def amortised(reference: float, shortcut: float, interval: int) -> float:
    """Return the mean of one reference frame and `interval - 1` shortcut frames, in seconds or multiply-adds.

    >>> amortised(10, 2.5, 3)
    5.0
    """
    return (reference + (interval - 1) * shortcut) / interval


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled and fused code operator by operator, so that it can be counted.

    Fused code is the fast path that `nn.MultiheadAttention` and `nn.TransformerEncoder` take in eval mode.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        # torch's counter follows modules by global hooks, of which a compiled module warns.
        warnings.filterwarnings("ignore", "Using `torch.compile", UserWarning)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


class _Parameters(TorchDispatchMode):
    """Collect the parameters that operators read."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, Tensor] = {}

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._seen.values())

    def note(self, values: Any) -> None:
        for value in pytree.tree_leaves(values):
            if isinstance(value, nn.Parameter):
                self._seen[id(value)] = value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.note((args, kwargs))
        return func(*args, **(kwargs or {}))


class _PaperCounter(_Parameters):
    """thop's arithmetic on the operators that its module hooks know."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if name in _PAPER:
            self.macs += _PAPER[name](args, out)
        if name not in _UNSEEN:
            self.note((args, kwargs))
        return out


def _paper_convolution(args: Any, out: Tensor) -> int:
    """Output elements x input channels per group x kernel area, whether transposed or not."""
    x, weight, groups = args[0], args[1], int(args[8])
    area: int = math.prod(weight.shape[2:])
    return out.numel() * (int(x.shape[1]) // groups) * area


def _paper_norm(args: Any, out: Any) -> int:
    """Two operations per element, four with weights; args[1] is the weight."""
    return int(args[0].numel()) * (2 if args[1] is None else 4)


def _paper_linear(args: Any, out: Tensor) -> int:
    return out.numel() * int(args[-2].shape[-1])


_UNSEEN = {"deform_conv2d", "rows_blend"}  # functional calls, which thop's hooks pass by

_PAPER: dict[str, Callable[[Any, Any], int]] = {
    "convolution": _paper_convolution,
    "native_batch_norm": _paper_norm,
    "_native_batch_norm_legit": _paper_norm,
    "_native_batch_norm_legit_no_training": _paper_norm,
    "_batch_norm_with_update": _paper_norm,
    "cudnn_batch_norm": _paper_norm,
    "native_layer_norm": lambda args, out: int(args[0].numel()) * (2 if args[2] is None else 4),
    "addmm": _paper_linear,
    "mm": _paper_linear,
}
