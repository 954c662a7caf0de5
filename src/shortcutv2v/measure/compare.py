"""Run teacher and wrapped model side by side on a clip, with the two baselines that cost nothing."""

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
from shortcutv2v.player import Played, Player
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
        teacher_seconds: the teacher's time for this frame.
        seconds: the wrapped model's time for it.
        opening: the adapter made this frame (`Adapter.opening`), and neither teacher nor block ran: it has no scores,
            and its times do not count.
    """

    number: int
    distance: int
    psnr: dict[str, float]
    ssim: dict[str, float]
    teacher_seconds: float
    seconds: float
    opening: bool = False


@dataclass(frozen=True)
class Pictures:
    """The pictures of one frame: `frame` (3, H, W), the others (3, H', W'), all float in [0, 1]."""

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
        """Return the shortcut frames, all or those at one distance from the reference.

        Raises:
            InputError: there is none.
        """
        found = [s for s in self.frames if s.distance and distance in (None, s.distance)]
        if not found:
            where = "" if distance is None else f" at distance {distance}"
            raise InputError(f"no shortcut frame{where} was measured: give a longer clip or a longer interval")
        return found

    def psnr(self, method: str, distance: int | None = None) -> float:
        """Return the mean PSNR in dB over the shortcut frames, all or at one distance."""
        return mean(s.psnr[method] for s in self.at(distance))

    def ssim(self, method: str, distance: int | None = None) -> float:
        """Return the mean SSIM over the shortcut frames, all or at one distance."""
        return mean(s.ssim[method] for s in self.at(distance))

    def worst_psnr(self, method: str) -> float:
        """Return the PSNR of the worst shortcut frame, in dB."""
        return min(s.psnr[method] for s in self.at())

    def worst(self, count: int = 3) -> list[FrameScore]:
        """Return the shortcut frames of lowest PSNR, worst first, at most one from each reference to the next."""
        worst: dict[int, FrameScore] = {}
        for score in self.at():
            reference = score.number - score.distance
            if reference not in worst or score.psnr["ours"] < worst[reference].psnr["ours"]:
                worst[reference] = score
        return sorted(worst.values(), key=lambda score: score.psnr["ours"])[:count]

    @property
    def teacher_seconds(self) -> float:
        """Median time of a teacher frame."""
        return median(s.teacher_seconds for s in self._timed())

    @property
    def shortcut_seconds(self) -> float:
        """Median time of a shortcut frame."""
        return median(s.seconds for s in self.at())

    @property
    def average_seconds(self) -> float:
        """Mean time of a frame of the video, each kind of frame at its median, without opening frames."""
        full = [s.seconds for s in self._timed() if not s.distance]
        short = self.at()
        return (median(full) * len(full) + self.shortcut_seconds * len(short)) / (len(full) + len(short))

    def _timed(self) -> list[FrameScore]:
        """Return the frames that teacher and model made themselves."""
        found = [s for s in self.frames if not s.opening]
        if not found:
            raise InputError("the teacher made no frame: give a clip that is longer than the adapter's opening")
        return found


def compare(model: ShortcutV2V, adapter: Adapter, frames: Iterable[Tensor], **goal: Any) -> Iterator[Pictures]:
    """Run teacher and wrapped model over a clip, frame by frame in turn: one run, one machine, one state.

    A recurrent teacher gets its own outputs back, and the wrapped model its own. Frames that the adapter makes without
    the teacher (`Adapter.opening`, the first frames of vid2vid) are made alike for both and not scored.

    Args:
        model: the wrapped teacher.
        adapter: how frames become inputs, and outputs frames.
        frames: uint8 (3, H, W), in order.
        goal: `refresh`, `quality` or `speed` instead of the model's policy, as `ShortcutV2V.stream()` takes them.

    Yields:
        `Pictures`, one per frame. Collect `.score` in a `Scores`.
    """
    model.picture = adapter.image
    stream = model.stream(**goal)
    timed_teacher, timed_stream = Timed(adapter.teacher), Timed(stream)
    teacher, own = Player(adapter, timed_teacher), Player(adapter, timed_stream)
    where = placement(adapter.teacher)
    repeated: Tensor  # the last output that was not predicted
    for number, raw in enumerate(frames):
        frame = from_uint8(raw).to(*where)
        with torch.no_grad():
            target = _shown(teacher, teacher(frame).output)
            played = own(frame)
            ours = _shown(own, played.output)
            if played.opening or not stream.distance:
                pictures, repeated, reuse = {}, ours, ours
            else:
                reuse = _reuse(model, own, stream, played)
                pictures = {"ours": ours, "reuse": reuse, "repeat": repeated}
        score = FrameScore(
            number=number,
            distance=stream.distance if pictures else 0,
            psnr={name: psnr(picture, target) for name, picture in pictures.items()},
            ssim={name: ssim(picture, target) for name, picture in pictures.items()},
            teacher_seconds=timed_teacher.seconds,
            seconds=timed_stream.seconds,
            opening=played.opening,
        )
        yield Pictures(score, frame[0].cpu(), target[0].cpu(), ours[0].cpu(), reuse[0].cpu())


class Timed:
    """A callable with a clock that waits for every device.

    Attributes:
        seconds: the time of the last call, 0 before the first.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run, self.seconds = run, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        synchronise()
        begun = time.perf_counter()
        result = self.run(*args, **kwargs)
        synchronise()
        self.seconds = time.perf_counter() - begun
        return result


def _shown(player: Player, output: Any) -> Tensor:
    return player.picture(output).float().clamp(0, 1)


def _reuse(model: ShortcutV2V, player: Player, stream: Stream, played: Played) -> Tensor:
    """Return the picture with `f_ref` in place of a prediction."""
    assert stream.reference is not None  # noqa: S101  (the stream has just answered a frame)
    return _shown(player, model.tail(model.head(*played.args, **played.kwargs), stream.reference.f))
