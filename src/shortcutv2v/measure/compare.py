"""Teacher and wrapped model side by side on a clip, beside the two baselines that cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure.latency import synchronise
from shortcutv2v.measure.quality import psnr, ssim
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.stream import Stream
from shortcutv2v.translate import from_uint8

__all__ = ["METHODS", "FrameScore", "Pictures", "Scores", "compare"]

METHODS = ("ours", "reuse", "repeat")
"""The block; `f_ref` reused unchanged; the reference frame's output repeated."""


@dataclass(frozen=True)
class FrameScore:
    """One frame.

    Attributes:
        number: of the frame in the clip.
        distance: frames since the reference, 0 at a reference frame.
        psnr: by method, in dB against the teacher's output on this frame; empty at reference frames.
        ssim: by method, in [-1, 1]; empty at reference frames.
        teacher_seconds: what the teacher took for this frame.
        seconds: what the wrapped model took for it.
    """

    number: int
    distance: int
    psnr: dict[str, float]
    ssim: dict[str, float]
    teacher_seconds: float
    seconds: float


@dataclass(frozen=True)
class Pictures:
    """What one frame looked like: `frame` (3, H, W), the rest (3, H', W'), all float in [0, 1]."""

    score: FrameScore
    frame: Tensor
    teacher: Tensor
    ours: Tensor
    reuse: Tensor


@dataclass
class Scores:
    """The frames of a clip, and their summary."""

    frames: list[FrameScore] = field(default_factory=list)

    def at(self, distance: int | None = None) -> list[FrameScore]:
        """The shortcut frames, all or those at one distance from the reference.

        Raises:
            InputError: there is none.
        """
        found = [s for s in self.frames if s.distance and distance in (None, s.distance)]
        if not found:
            where = "" if distance is None else f" at distance {distance}"
            raise InputError(f"no shortcut frame{where} was measured: give a longer clip or a longer interval")
        return found

    def psnr(self, method: str, distance: int | None = None) -> float:
        """Mean PSNR in dB over the shortcut frames, all or at one distance."""
        return mean(s.psnr[method] for s in self.at(distance))

    def ssim(self, method: str, distance: int | None = None) -> float:
        """Mean SSIM over the shortcut frames, all or at one distance."""
        return mean(s.ssim[method] for s in self.at(distance))

    def worst_psnr(self, method: str) -> float:
        """PSNR of the worst shortcut frame, in dB."""
        return min(s.psnr[method] for s in self.at())

    @property
    def teacher_seconds(self) -> float:
        """Median time of a teacher frame."""
        return median(s.teacher_seconds for s in self.frames)

    @property
    def shortcut_seconds(self) -> float:
        """Median time of a shortcut frame."""
        return median(s.seconds for s in self.at())

    @property
    def average_seconds(self) -> float:
        """Mean time of a frame of the video, each kind of frame at its median."""
        full = [s.seconds for s in self.frames if not s.distance]
        short = self.at()
        return (median(full) * len(full) + self.shortcut_seconds * len(short)) / len(self.frames)


def compare(model: ShortcutV2V, adapter: Adapter, frames: Iterable[Tensor]) -> Iterator[Pictures]:
    """Run teacher and wrapped model over a clip, frame by frame in turn: one run, one machine, one state.

    A recurrent teacher gets its own outputs back, and the wrapped model its own.

    Args:
        model: the wrapped teacher, refreshing by its own policy.
        adapter: how frames become inputs, and outputs frames.
        frames: uint8 (3, H, W), in order.

    Yields:
        `Pictures`, one per frame. Collect `.score` in a `Scores`.
    """
    stream = model.stream()
    teacher_state, own_state = adapter.start(), adapter.start()
    where = placement(adapter.teacher)
    repeated: Tensor | None = None
    for number, raw in enumerate(frames):
        frame = from_uint8(raw).to(*where)
        with torch.no_grad():
            inputs = adapter.inputs(frame, own_state)
            target, teacher_state, teacher_seconds = _step(adapter, adapter.teacher, frame, teacher_state)
            ours, own_state, seconds = _step(adapter, stream, frame, own_state)
            repeated = ours if repeated is None or not stream.distance else repeated
            reuse = _reuse(model, adapter, stream, *inputs) if stream.distance else ours
        pictures = {"ours": ours, "reuse": reuse, "repeat": repeated} if stream.distance else {}
        score = FrameScore(
            number=number,
            distance=stream.distance,
            psnr={name: psnr(picture, target) for name, picture in pictures.items()},
            ssim={name: ssim(picture, target) for name, picture in pictures.items()},
            teacher_seconds=teacher_seconds,
            seconds=seconds,
        )
        yield Pictures(score, frame[0].cpu(), target[0].cpu(), ours[0].cpu(), reuse[0].cpu())


def _step(adapter: Adapter, run: Callable[..., Any], frame: Tensor, state: Any) -> tuple[Tensor, Any, float]:
    args, kwargs = adapter.inputs(frame, state)
    synchronise()
    begun = time.perf_counter()
    output = run(*args, **kwargs)
    synchronise()
    seconds = time.perf_counter() - begun
    return adapter.image(output).float().clamp(0, 1), adapter.advance(state, frame, output), seconds


def _reuse(model: ShortcutV2V, adapter: Adapter, stream: Stream, args: Any, kwargs: Any) -> Tensor:
    """The picture with `f_ref` in place of a prediction."""
    assert stream.reference is not None  # noqa: S101  (the stream has just answered a frame)
    output = model.tail(model.head(*args, **kwargs), stream.reference.f)
    return adapter.image(output).float().clamp(0, 1)
