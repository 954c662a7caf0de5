"""A teacher as a chain of stages: sizes, multiply-adds, parameters and measured time, by hooks on its layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from shortcutv2v.adapter import Adapter
from shortcutv2v.devices import synchronise
from shortcutv2v.graph import MacCounter, untouched
from shortcutv2v.measure.cost import uncompiled
from shortcutv2v.translate import from_uint8

__all__ = ["Stage", "stage_rows", "stages"]

_SHARE = 0.125
"""Share of the multiply-adds at which a stage of equal layers ends."""


@dataclass(frozen=True)
class Stage:
    """Neighbouring layers whose outputs have one size.

    Attributes:
        first: name of the first layer.
        last: name of the last layer.
        channels: of the last layer's output.
        size: (H, W) of the outputs; empty if they are no maps.
        share: of the teacher's multiply-adds, 0 to 1.
        parameters: numbers in its parameters.
        seconds: median time of its layers.
    """

    first: str
    last: str
    channels: int
    size: tuple[int, ...]
    share: float
    parameters: int
    seconds: float


def stage_rows(found: Sequence[Stage]) -> list[list[str]]:
    """Return headings and one row of cells per stage, with a bar for its share of the multiply-adds."""
    rows = [["stage", "channels", "size", "multiply-adds", "", "parameters", "ms"]]
    for stage in found:
        name = stage.first if stage.first == stage.last else f"{stage.first} ... {stage.last}"
        work = [f"{stage.share:.1%}", "\N{FULL BLOCK}" * round(40 * stage.share)]
        size = "x".join(map(str, stage.size))
        rows.append([name, str(stage.channels), size, *work, f"{stage.parameters:,}", f"{stage.seconds * 1e3:.2f}"])
    return rows


def stages(adapter: Adapter, frame: Tensor) -> tuple[Stage, ...]:
    """Return the teacher as a chain of stages, each with its share of the work; it is left as found.

    Args:
        adapter: of the teacher.
        frame: uint8 (3, H, W).
    """
    args, kwargs = adapter.example(from_uint8(frame, adapter.teacher))
    with untouched(adapter.teacher):
        return _stages(adapter.teacher, args, kwargs)


@dataclass
class _Call:
    name: str
    shape: tuple[int, ...]
    macs: int
    parameters: int
    seconds: float


def _stages(teacher: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stage, ...]:
    """Run the teacher a few times under hooks, and gather its layers into stages."""
    counted = _calls(teacher, lambda: teacher(*args, **kwargs), MacCounter())
    timed = [_calls(teacher, lambda: teacher(*args, **kwargs), None) for _ in range(3)]
    for number, call in enumerate(counted):
        call.seconds = median(run[number].seconds for run in timed) if {len(counted)} == {*map(len, timed)} else 0.0
    total = max(sum(call.macs for call in counted), 1)
    groups: list[list[_Call]] = []
    for call in counted:
        before = groups[-1] if groups else []
        alike = before and (call.macs == 0 or before[-1].shape[1:] == call.shape[1:])
        if (alike and sum(c.macs for c in before) < _SHARE * total) or (before and not call.macs):
            before.append(call)
        else:
            groups.append([call])
    return tuple(_stage(group, total) for group in groups)


def _stage(calls: Sequence[_Call], total: int) -> Stage:
    shape = calls[-1].shape
    return Stage(
        calls[0].name,
        calls[-1].name,
        shape[1] if len(shape) > 1 else 0,
        shape[2:] if len(shape) == 4 else (),
        sum(call.macs for call in calls) / total,
        sum(call.parameters for call in calls),
        sum(call.seconds for call in calls),
    )


@torch.no_grad()
def _calls(teacher: nn.Module, run: Callable[[], Any], counter: MacCounter | None) -> list[_Call]:
    """Return one entry per call of a module without children, in order."""
    found: list[_Call] = []
    begun: list[tuple[float, int]] = []

    def before(*_: Any) -> None:
        synchronise()
        begun.append((time.perf_counter(), counter.total if counter else 0))

    def after(name: str, module: nn.Module, _: Any, output: Any) -> None:
        synchronise()
        start, macs = begun.pop()
        tensors = [x for x in pytree.tree_leaves(output) if isinstance(x, Tensor)]
        shape = tuple(tensors[0].shape) if tensors else ()
        parameters = sum(p.numel() for p in module.parameters()) if name not in {call.name for call in found} else 0
        done = (counter.total if counter else 0) - macs
        found.append(_Call(name, shape, done, parameters, time.perf_counter() - start))

    with ExitStack() as hooks, uncompiled(), counter or nullcontext():
        for name, module in teacher.named_modules():
            if not any(True for _ in module.children()):
                hooks.enter_context(module.register_forward_pre_hook(before))
                hooks.enter_context(module.register_forward_hook(partial(after, name or "teacher")))
        run()
    return found
