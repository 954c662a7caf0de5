"""Run teacher and wrapped model side by side on a clip, with baselines that need no block."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.blocks import Prediction
from shortcutv2v.lookahead import LookAhead
from shortcutv2v.measure.interpolation import moved
from shortcutv2v.measure.latency import Timed
from shortcutv2v.measure.metrics import Panel, Setting
from shortcutv2v.measure.scores import METHODS, FrameScore, Scores
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.player import Inputs, Player, cropped
from shortcutv2v.translate import from_uint8
from shortcutv2v.types import Carry, Reference

__all__ = ["Pictures", "compare", "measure"]

Interpolate = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Pictures:
    """The pictures of one frame, all float in [0, 1].

    Attributes:
        score: its numbers.
        frame: the input, (3, H, W).
        teacher: the teacher's picture, (3, H', W').
        ours: the wrapped model's picture, (3, H', W').
        reuse: the picture with `f_ref` reused unchanged, (3, H', W').
        predictions: of the block, one per branch; empty unless asked for, and at reference frames.
    """

    score: FrameScore
    frame: Tensor
    teacher: Tensor
    ours: Tensor
    reuse: Tensor
    predictions: tuple[Prediction, ...] = ()


@dataclass
class _Frame:
    """A frame that waits for the next refresh; its score has no values yet."""

    score: FrameScore
    source: Tensor
    teacher: Tensor
    ours: Tensor
    inputs: Inputs


@dataclass(frozen=True)
class _Anchor:
    """A full pass: number, picture, and the reference that it leaves."""

    number: int
    picture: Tensor
    reference: Reference


def compare(
    model: ShortcutV2V,
    adapter: Adapter,
    frames: Iterable[Tensor],
    *,
    panel: Panel | None = None,
    lookahead: bool = False,
    analyse: bool = False,
    target: Adapter | None = None,
    interpolate: Interpolate | None = None,
    **goal: Any,
) -> Iterator[Pictures]:
    """Run teacher and wrapped model over a clip, frame by frame in turn: one run, one machine, one state.

    A recurrent teacher gets its own outputs back, and the wrapped model its own. Frames that the adapter makes without
    the teacher (`Adapter.opening`, the first frames of vid2vid) are made alike for both and not scored. Frames are
    yielded in order, at the next refresh, because one baseline needs it.

    Args:
        model: the wrapped teacher.
        adapter: how frames become inputs, and outputs frames.
        frames: uint8 (3, H, W), in order.
        panel: the metrics; default: PSNR and SSIM. Call its `finish()` afterwards.
        lookahead: predict from references on both sides, as `translate` does; a recurrent adapter cannot.
        analyse: yield the block's predictions, too. With references on both sides at the same distance, those from the
            earlier one.
        target: adapter of the teacher to compare with, if it is not the wrapped one but, for example, the same network
            in float32.
        interpolate: one more baseline: from the teacher's pictures at the refreshes before and after, (1, 3, H', W'),
            and the share of the way, to the picture between; see `Interpolator`.
        goal: `refresh`, `quality` or `speed` instead of the model's policy, as `ShortcutV2V.stream()` takes them.

    Yields:
        `Pictures`, one per frame. Collect `.score` in a `Scores`.
    """
    model.picture = adapter.image
    baselines = _Baselines(model, adapter, panel or Panel(["psnr", "ssim"]), analyse, interpolate)
    waiting: list[_Frame] = []
    for frame in _run(model, adapter, target or adapter, frames, lookahead and not adapter.recurrent, goal):
        waiting.append(frame)
        if not frame.score.distance:
            yield from baselines.finish(waiting)
            waiting = []
    yield from baselines.finish(waiting)


def measure(
    model: ShortcutV2V,
    adapter: Adapter,
    frames: Iterable[Tensor],
    metrics: Sequence[str] | None = None,
    *,
    rate: float = 25.0,
    files: Mapping[str, str] | None = None,
    **options: Any,
) -> Scores:
    """Return the quality and the times of a wrapped teacher on a clip, beside baselines that cost little.

    Args:
        model: the wrapped teacher.
        adapter: how frames become inputs, and outputs frames.
        frames: uint8 (3, H, W), in order.
        metrics: names; None for all. Those that cannot be computed are in `left_out`, with what is missing.
        rate: frames per second, for metrics that model time.
        files: values that metrics need, by name, such as `{"fvd": "i3d.pt"}`.
        options: `lookahead`, `target`, `interpolate`, and `refresh`, `quality` or `speed`, as `compare` takes them.

    Raises:
        InputError: there is no such metric.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> adapter = shortcutv2v.Adapter(teacher, "0", "2")
        >>> model = adapter.wrap(torch.rand(1, 3, 24, 24))
        >>> clip = torch.randint(0, 256, (5, 3, 24, 24), dtype=torch.uint8)
        >>> scores = measure(model, adapter, clip, ["psnr", "fvd"])
        >>> scores.spread("psnr", "ours") == scores.spread("psnr", "reuse")  # an untrained block
        True
        >>> scores.left_out["fvd"]
        'it needs a network for its features: give a TorchScript file by --use fvd=FILE'
    """
    panel = Panel(metrics, Setting(rate, adapter, dict(files or {})))
    scores = [pictures.score for pictures in compare(model, adapter, frames, panel=panel, **options)]
    return Scores(scores).close(panel)


def _run(
    model: ShortcutV2V,
    adapter: Adapter,
    target: Adapter,
    frames: Iterable[Tensor],
    lookahead: bool,
    goal: dict[str, Any],
) -> Iterator[_Frame]:
    """Translate the clip with both, and note times, distances and reasons."""
    stream = model.stream(**goal)
    timed_teacher, timed = Timed(target.teacher), Timed(stream)
    teacher, own = Player(target, timed_teacher), Player(adapter, timed)
    read, inputs = deque[Tensor](), deque[Inputs]()

    def given() -> Iterator[Tensor]:
        for raw in frames:
            read.append(raw)
            yield from_uint8(raw, adapter.teacher)

    def causal() -> Iterator[Tensor]:
        for frame in given():
            played = own(frame)
            inputs.append((played.args, played.kwargs))
            yield own.picture(played.output)

    with torch.no_grad():
        pictures = own.ahead(given(), LookAhead(stream).play) if lookahead else causal()
        counted, before = 0, stream.refreshes.copy()
        for number, ours in enumerate(pictures):
            raw = read.popleft()
            source = from_uint8(raw, adapter.teacher)
            wanted = shown(teacher.picture(teacher(from_uint8(raw, target.teacher)).output))
            opening = stream.shortcuts + stream.refreshes.total() == counted
            reason = next(iter(stream.refreshes - before), None)
            counted, before = stream.shortcuts + stream.refreshes.total(), stream.refreshes.copy()
            seconds = timed_teacher.seconds, stream.record.seconds if lookahead else timed.seconds
            score = FrameScore(number, 0 if opening else stream.distance, {}, *seconds, opening, reason)
            yield _Frame(score, source, wanted, shown(ours), inputs.popleft() if inputs else adapter.example(source))


class _Baselines:
    """The baselines between two refreshes, and the values of the metrics."""

    def __init__(
        self, model: ShortcutV2V, adapter: Adapter, panel: Panel, analyse: bool, interpolate: Interpolate | None
    ) -> None:
        self.model, self.adapter, self.panel, self.analyse = model, adapter, panel, analyse
        self.interpolate = interpolate
        self.methods = [*METHODS, *([] if interpolate is None else ["rival"])]
        self._before: _Anchor | None = None

    @torch.no_grad()
    def finish(self, frames: list[_Frame]) -> Iterator[Pictures]:
        """Yield shortcut frames, then the full or opening frame at their end, if there is one."""
        full = [frame for frame in frames if not frame.score.distance]
        after = None if not full or full[0].score.opening else self._anchor(full[0])
        for frame in frames:
            if frame.score.distance and self._before is not None:
                yield self._shortcut(frame, self._before, after)
            else:
                yield self._scored(frame, dict.fromkeys(self.methods, frame.ours))
        self._before = after or self._before

    def _anchor(self, frame: _Frame) -> _Anchor:
        carry = self._head(frame)
        return _Anchor(frame.score.number, frame.ours, self.model.make_reference(carry, self.model.middle(carry)))

    def _head(self, frame: _Frame) -> Carry:
        args, kwargs = frame.inputs
        return self.model.head(*args, **kwargs)

    def _shortcut(self, frame: _Frame, before: _Anchor, after: _Anchor | None) -> Pictures:
        carry = self._head(frame)
        picture = self.adapter.image(self.model.tail(carry, before.reference.f))
        reuse = shown(cropped(picture, frame.source.shape[-2:], self.adapter.pad(frame.source).shape[-2:]))
        made = {"ours": frame.ours, "reuse": reuse, "repeat": before.picture}
        made |= self._between(frame, carry, before, after)
        used = before if after is None or frame.score.number - before.number == frame.score.distance else after
        return self._scored(frame, made, self.model.analyse(used.reference, carry) if self.analyse else ())

    def _between(self, frame: _Frame, carry: Carry, before: _Anchor, after: _Anchor | None) -> dict[str, Tensor]:
        """Return the pictures interpolated between two refreshes; after the last one, those of its own."""
        ends = [anchor for anchor in (before, after) if anchor is not None]
        share = 0.0 if after is None else (frame.score.number - before.number) / (after.number - before.number)
        sizes = zip(frame.teacher.shape, self.adapter.pad(frame.source).shape, frame.source.shape, strict=True)
        size = [large * padded // own for large, padded, own in sizes]
        motions = [moved(end.picture, self.model.analyse(end.reference, carry)[0], (size[2], size[3])) for end in ends]
        made = {
            "blend": torch.lerp(before.picture, ends[-1].picture, share),
            "motion": torch.lerp(motions[0], motions[-1], share),
        }
        if self.interpolate is not None:
            made["rival"] = shown(self.interpolate(before.picture, after.picture, share)) if after else before.picture
        return made

    def _scored(self, frame: _Frame, made: dict[str, Tensor], predictions: tuple[Prediction, ...] = ()) -> Pictures:
        score, given = frame.score, (made, frame.teacher, frame.source.float())
        if not score.opening:
            score = replace(score, values=self.panel.frame(*given, bool(score.distance)))
        source, teacher, ours, reuse = (x[0].cpu() for x in (frame.source, frame.teacher, frame.ours, made["reuse"]))
        return Pictures(score, source, teacher, ours, reuse, predictions)


def shown(picture: Tensor) -> Tensor:
    """Return a picture as it is shown: float, clipped to [0, 1]."""
    return picture.float().clamp(0, 1)
