"""`profile()`: one table of the cost of each part and each kind of frame, and whether skipping pays on this device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.devices import device_name
from shortcutv2v.errors import InputError
from shortcutv2v.graph import keep, untouched
from shortcutv2v.graph.protect import same_modes
from shortcutv2v.measure.advice import Times, advise, pays
from shortcutv2v.measure.candidates import Candidate, candidates, timed
from shortcutv2v.measure.cost import Cost, amortised, cost
from shortcutv2v.measure.latency import Latency, latency, peak_memory
from shortcutv2v.model import ShortcutV2V

__all__ = ["Profile", "Row", "profile"]

_FRAMES = ("teacher frame", "reference frame", "shortcut frame")
_PARTS = ("head", "block", "tail", "middle", "reference state")
_NARROWER = (2, 4)  # the paper's Ours-1/2 and Ours-1/4
_TINY = 0.005  # seconds of a frame below which starting the operators takes much of the time
_UNSTEADY = 0.3  # spread of a frame's times beyond which a verdict may turn over


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: a part of the model or a kind of frame.
        cost: its multiply-adds and parameters.
        latency: its time.
        memory: bytes held at most while it runs; None for the parts.
    """

    name: str
    cost: Cost
    latency: Latency
    memory: int | None = None


@dataclass(frozen=True)
class Profile:
    """The result of `profile()`; `print` it.

    Attributes:
        rows: frames first (teacher, reference, shortcut), then the parts.
        interval: frames from one refresh to the next.
        device: the device that it ran on, in words.
        advice: plain sentences: whether skipping pays on this device, which part takes the time, what would help.
        cuts: other cuts that were tried, the fastest first.
    """

    rows: tuple[Row, ...]
    interval: int
    device: str
    advice: tuple[str, ...]
    cuts: tuple[Candidate, ...] = ()

    def __getitem__(self, name: str) -> Row:
        """Return the row of that name.

        Raises:
            InputError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"no row {name!r}: expected one of {', '.join(row.name for row in self.rows)}")

    @property
    def seconds_per_frame(self) -> float:
        """Mean time per frame of a video: one reference frame and `interval - 1` shortcut frames."""
        return self._amortised(lambda row: row.latency.median)

    @property
    def macs_per_frame(self) -> float:
        """Mean multiply-adds per frame of a video."""
        return self._amortised(lambda row: row.cost.macs)

    @property
    def speedup(self) -> float:
        """Speed of the video as a multiple of the teacher's."""
        return self["teacher frame"].latency.median / self.seconds_per_frame

    @property
    def bound(self) -> float:
        """The same ratio in multiply-adds: the speedup on a device that ran all operators equally well."""
        return self["teacher frame"].cost.macs / self.macs_per_frame

    def _amortised(self, value: Callable[[Row], float]) -> float:
        return amortised(value(self["reference frame"]), value(self["shortcut frame"]), self.interval)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, for JSON."""
        rows = [
            {
                "name": row.name,
                "macs": row.cost.macs,
                "parameters": row.cost.parameters,
                "seconds": row.latency.median,
                "best_seconds": row.latency.best,
                "spread": row.latency.spread,
                "peak_bytes": row.memory,
            }
            for row in self.rows
        ]
        return {
            "device": self.device,
            "interval": self.interval,
            "rows": rows,
            "seconds_per_frame": self.seconds_per_frame,
            "macs_per_frame": self.macs_per_frame,
            "speedup": self.speedup,
            "bound": self.bound,
            "advice": list(self.advice),
            "cuts": [asdict(cut) for cut in self.cuts],
        }

    def __str__(self) -> str:
        teacher = self["teacher frame"]
        large = teacher.cost.macs >= 1e8
        macs, parameters = (1e9, 1e6) if large else (1e6, 1e3)
        names = ("G multiply-adds", "M parameters") if large else ("M multiply-adds", "k parameters")
        lines = [
            f"on {self.device}, refresh every {self.interval} frames",
            f"{'':<18}{names[0]:>16}{names[1]:>14}{'ms':>10}{'spread':>8}{'peak MB':>9}{'speed':>8}",
        ]
        for row in self.rows:
            memory = "" if row.memory is None else f"{row.memory / 1e6:.1f}"
            speed = f"{teacher.latency.median / row.latency.median:.2f}x" if row.name in _FRAMES else ""
            lines.append(
                f"{row.name:<18}{row.cost.macs / macs:>16.3f}{row.cost.parameters / parameters:>14.3f}"
                f"{_milliseconds(row.latency.median):>10}{row.latency.spread:>8.0%}{memory:>9}{speed:>8}".rstrip()
            )
        lines.append(
            f"{'frame of a video':<18}{self.macs_per_frame / macs:>16.3f}{'':>14}"
            f"{_milliseconds(self.seconds_per_frame):>10}"
            f"{'':>17}{self.speedup:>7.2f}x   (multiply-adds allow {self.bound:.2f}x)"
        )
        if self.cuts:
            lines += ["other cuts, with blocks of the same width relative to f:", *(f"  {cut}" for cut in self.cuts)]
        return "\n".join([*lines, *self.advice])


def profile(
    model: ShortcutV2V,
    args: tuple[Any, ...] | Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    interval: int | None = None,
    cuts: int | None = None,
    runs: int = 15,
    seconds: float = 30.0,
) -> Profile:
    """Count and time a wrapped teacher on one set of inputs, all parts side by side in one run.

    The blocks are in eval mode while it runs, and get their mode back afterwards. The teacher runs in the mode that it
    has; its buffers, such as the running statistics of a teacher in train mode, are restored.

    Args:
        model: a wrapped teacher. The block need not be trained: its cost does not depend on its weights.
        args: positional inputs of the teacher, or a single tensor.
        kwargs: keyword inputs of the teacher.
        interval: frames from one refresh to the next; default: the model's own.
        cuts: how many other cuts to wrap and time, those whose multiply-adds promise most first. Default: 3 if skipping
            does not pay, else none.
        runs: timed rounds.
        seconds: stop timing after about this time.

    Returns:
        A `Profile`; `print` shows the table and the verdict.

    Raises:
        InputError: `model` is not wrapped, `interval` is below 1, or `cuts` below 0.
    """
    if not isinstance(model, ShortcutV2V):
        raise InputError(
            f"`model` is {type(model).__name__}, but must be what shortcutv2v.wrap(teacher, enc_layer, ...) returned"
        )
    interval = model.max_interval if interval is None else interval
    if interval < 1 or (cuts or 0) < 0:
        raise InputError(f"`interval` must be at least 1 and `cuts` at least 0, got {interval} and {cuts}")
    inputs, named = (args,) if isinstance(args, Tensor) else tuple(args), dict(kwargs or {})
    with same_modes(model.blocks), torch.no_grad(), untouched(model.teacher):
        model.blocks.eval()
        work, narrow = _work(model, inputs, named)
        times = latency({**work, **narrow}, runs=runs, seconds=seconds)
        rows = tuple(
            Row(name, cost(work[name]), times[name], peak_memory(work[name]) if name in _FRAMES else None)
            for name in (*_FRAMES, *_PARTS)
        )
        parts = {name: times[name].median for name in ("head", "block", "tail")}
        teacher, reference, shortcut = (times[name].median for name in _FRAMES)
        small = tuple((name, times[name].median) for name in narrow)
        medians = Times(teacher, reference, shortcut, **parts, narrow=small)
        wanted = (0 if pays(medians, interval) else 3) if cuts is None else cuts
        others = candidates(model, inputs, named, interval, wanted) if wanted else []
        tried = timed(model, inputs, named, others, interval, runs=min(runs, 5), seconds=seconds) if others else []
    weight = next(itertools.chain(model.blocks.parameters(), model.teacher.parameters()))
    device = f"{device_name(weight.device)}, {str(weight.dtype).removeprefix('torch.')}"
    found = Profile(rows, interval, device, advise(medians, interval, tried), tuple(tried))
    return replace(found, advice=(*found.advice, *_cautions(model, found)))


def _cautions(model: ShortcutV2V, found: Profile) -> Iterator[str]:
    """Warn of conditions that make the numbers less reliable."""
    frames = [found[name].latency for name in _FRAMES]
    spread = max(times.spread for times in frames)
    if found.bound > 1 > found.speedup and frames[0].median < _TINY:
        yield (
            "the frame is so small that the times are mostly those of starting operators: profile the size that you "
            "will run"
        )
    if spread > _UNSTEADY:
        yield (
            f"TAKE THE TIMES WITH CARE: the times of one frame spread by {spread:.0%} of their median; "
            "quit other programs and measure again"
        )
    if any(module.training for module in model.teacher.modules()):
        yield "the teacher ran in train mode; if you use it otherwise, call teacher.eval() first"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}"


def _work(
    model: ShortcutV2V, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """Return the callables to measure, by name; and those of the block alone at smaller widths."""
    _, reference = model.reference(*args, **kwargs)
    carry = keep(model.head(*args, **kwargs))  # copies: a model compiled to CUDA graphs overwrites its results
    f = keep(model.middle(carry))
    work: dict[str, Callable[[], Any]] = {
        "teacher frame": lambda: model.teacher(*args, **kwargs),
        "reference frame": lambda: model.reference(*args, **kwargs),
        "shortcut frame": lambda: model.shortcut(reference, *args, **kwargs),
        "head": lambda: model.head(*args, **kwargs),
        "block": lambda: model.predict(reference, carry),
        "tail": lambda: model.tail(carry, f),
        "middle": lambda: model.middle(carry),
        "reference state": lambda: model.make_reference(carry, f),
    }
    narrow = {f"channels / {factor}": _narrower(model, reference.f, carry.a, factor) for factor in _NARROWER}
    return work, narrow


def _narrower(
    model: ShortcutV2V, f_ref: tuple[Tensor, ...], a: tuple[Tensor, ...], factor: int
) -> Callable[[], list[Tensor]]:
    """Return a callable that runs the blocks at 1/factor of their width, with fresh weights."""
    ready = []
    for block, f, current in zip(model.blocks, f_ref, a, strict=False):
        small = type(block)(**{**block.arguments, "channels": max(1, block.channels // factor)})
        small = small.to(device=f.device, dtype=block.own_dtype(f).dtype).eval()
        f, current = small.own_dtype(f), small.own_dtype(current)
        ready.append((small, small.encode_reference(f, current), current))
    return lambda: [small.predict(state, current) for small, state, current in ready]
