"""Offline streams: references after a frame serve as well as those before it.

Blocks are trained in both directions of time. So a frame may be predicted from the reference after it, and a video
needs about half as many references for the same quality.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.devices import synchronise
from shortcutv2v.errors import InputError
from shortcutv2v.graph import keep
from shortcutv2v.rolling import RollingStream
from shortcutv2v.step import Step
from shortcutv2v.stream import Stream
from shortcutv2v.types import Reference

__all__ = ["LookAhead"]

_FIRST, _LEAST, _WIDER = 5, 2, 1.5
"""Frames from one reference to the next where one reference fails: at first, at least, and how many times as many after
a gap in which no frame was refused."""
_SCENE = 4.0
"""A scene begins where features change so many times as much as they usually do."""

_Inputs = tuple[tuple[Any, ...], dict[str, Any]]
_Other = Callable[[], Reference | None] | None


class LookAhead:
    """A video going through a model with references on both sides of the predicted frames.

    From a reference on, frames are predicted forwards until the policy refuses one, or half of its `gap` is reached.
    The next reference lies as far again after that frame, and the frames between are predicted backwards from it. A
    frame that is refused from both sides gets a full pass, and serves the frames before it as a reference. With a
    fixed interval n, references lie 2n - 1 frames apart, and every frame is predicted from the nearer one: no frame is
    farther from its reference than in a causal stream. At most `gap` frames are held.

    `RefreshPolicy.from_both` allows another way: the next reference comes first, and the frames between are predicted
    from the references on both sides, the middle one first. A frame that is refused becomes a reference itself. That
    takes longer per frame, and less often needs a full pass. `BothSides` always does so. `Quality` does so where one
    reference fails at the next frame; the references then lie as far apart as frames were not refused, farther each
    time, up to the horizon, where one may serve again. Before a new scene one reference serves, so that the policy sees
    where that begins.

    Args:
        stream: decides, keeps the reference and records what happens: `stream.distance` and `stream.summary()` are
            those of the frame yielded last. A batch is one video.

    Raises:
        InputError: the stream refreshes by parts, see `RollingStream`.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> stream = shortcutv2v.wrap(teacher, "0", "2").stream(refresh=4)
        >>> frames = (((frame,), {}) for frame in torch.rand(9, 1, 3, 8, 8))
        >>> [stream.distance for output in LookAhead(stream).play(frames)]
        [0, 1, 2, 3, 3, 2, 1, 0, 1]
    """

    def __init__(self, stream: Stream) -> None:
        if isinstance(stream, RollingStream):
            raise InputError(
                "rolling=True refreshes for the frames that follow: it cannot look ahead, leave one of them out"
            )
        self.stream, self.model = stream, stream.model

    def play(self, inputs: Iterable[_Inputs]) -> Iterator[Any]:
        """Yield the output for every frame's inputs, in order."""
        source, buffer = iter(inputs), list[Step]()
        self.stream.reference = None
        policy = self.stream.own_policies(1)[0]
        policy.reset()
        self._gap, self._unchecked = policy.gap if policy.from_both == "always" else 0, False
        while True:
            self._fill(buffer, itertools.islice(source, policy.gap - len(buffer)))
            if not buffer:
                return
            with torch.no_grad():
                done = self._segment(buffer)
            for frame in buffer[:done]:
                frame.count()
                yield frame.outputs[0]
            del buffer[:done]

    @torch.no_grad()
    def _fill(self, buffer: list[Step], inputs: Iterable[_Inputs]) -> None:
        """Run the head of the next frames, and share among them the time that a GPU still needs."""
        new = list[Step]()
        for each in inputs:
            new.append(Step([self.stream], [each], rows=1))
            if self.model.replays:  # the head of the next frame overwrites it
                new[-1].carry = keep(new[-1].carry)
        begun = time.perf_counter()
        synchronise()
        waited = time.perf_counter() - begun
        for frame in new:
            frame.resume(waited / len(new))
            frame.spend([0])
        buffer += new

    def _segment(self, buffer: list[Step]) -> int:
        """Finish the first frames; return how many."""
        serves = list(itertools.takewhile(lambda frame: not self.stream.stale(frame.carry), buffer))
        if not serves:
            self._full(buffer[0], self.stream.stale(buffer[0].carry))
            return 1
        policy = self.stream.policies[0]
        between = serves[: self._gap]
        if between and len(serves) > policy.interval // 2 and not self._scene_begins(serves):
            self._from_both(between)
            return len(between)
        ends = len(serves) < policy.interval  # only where the video, its size or a condition does
        limit = len(serves) if ends else len(serves) // 2
        reached = self._forwards(serves[:limit])
        if reached == len(serves):
            return reached
        refused = serves[reached].rows[0].reason if reached < limit else ""
        place = min(2 * reached, len(serves) - 1) if refused else len(serves) - 1
        if refused == "estimate" and reached == 0 and policy.from_both == "refused":
            self._gap, self._unchecked = min(_FIRST, policy.gap), False
        if refused and place == reached:
            self._full(serves[place], refused)
            return place + 1
        self._look(serves[place], place + 1, ask=False)
        self._full(serves[place], refused or "distance", audit=True)
        if place > reached:
            self._backwards(serves[reached:place])
        return place + 1

    def _forwards(self, frames: list[Step]) -> int:
        """Predict frames until one is refused; return how many were not."""
        return next(
            (number for number, frame in enumerate(frames) if not self._predict(frame, number + 1)), len(frames)
        )

    def _backwards(self, frames: list[Step]) -> None:
        """Predict frames from the reference after them; those that are refused become references."""
        last, distance = self.stream.reference, 1
        for frame in reversed(frames):
            if not self._predict(frame, distance):
                self._full(frame, frame.rows[0].reason)
                distance = 0
            distance += 1
        self.stream.reference = last

    def _from_both(self, frames: list[Step]) -> None:
        """Make the last frame a reference, and predict the others from the references around them, the middle first."""
        policy, last = self.stream.policies[0], len(frames) - 1
        if self._unchecked and policy.audits:
            self._look(frames[last], last + 1, ask=False)
        kept = {-1: self.stream.kept}  # the references by place
        self._full(frames[last], "distance", audit=True)
        kept[last], self._unchecked = self.stream.kept, True
        left, refused = list(range(last)), list[int]()
        while left:
            low, high = max(p for p in kept if p < left[0]), min(p for p in kept if p > left[0])
            kept = {place: each for place, each in kept.items() if place >= low}
            number = min((n for n in left if n < high), key=lambda n: abs(2 * n - low - high))
            left.remove(number)
            near, *far = [place for place in (high, low) if kept[place][0] is not None] or [low]
            self.stream.kept = kept[near]
            also = partial(self._encoded, kept, low) if far else None
            predicted = self._predict(frames[number], min(number - low, high - number), also)
            kept[near] = self.stream.kept  # by now, the block may have seen it
            if not predicted:
                reason = frames[number].rows[0].reason
                self._full(frames[number], reason)
                kept[number], self._unchecked = self.stream.kept, False
                refused += [number] if reason != "audit" else []
        self.stream.kept = kept[last]
        if policy.from_both == "refused":
            self._widen(len(frames), [-1, *sorted(refused), last])

    def _encoded(self, kept: dict[int, Any], place: int) -> Reference | None:
        """Return one of the references after the block has seen it."""
        stream = self.stream
        now, stream.kept = stream.kept, kept[place]
        reference = stream.reference
        kept[place], stream.kept = stream.kept, now
        return reference

    def _widen(self, frames: int, references: Sequence[int]) -> None:
        """Place the next reference as far away as frames were not refused, or farther if none was."""
        if len(references) > 2:
            self._gap = max(_LEAST, *(b - a for a, b in itertools.pairwise(references)))
        elif frames >= self.stream.policies[0].interval:
            self._gap = 0  # one reference may serve again
        else:
            self._gap = min(math.ceil(_WIDER * frames), self.stream.policies[0].interval)

    def _scene_begins(self, frames: list[Step]) -> bool:
        """Return whether a scene begins before the next reference: the policy shall see where, and audit it anew."""
        reference = self.stream.kept[0]
        if self.stream.policies[0].from_both == "always" or reference is None:
            return False
        maps = [reference.a, *(frame.carry.a for frame in frames)]
        changes = [_change(before, after) for before, after in itertools.pairwise(maps)]
        usual = median([change for change in changes if change > 0] or [math.inf])
        return any(change > _SCENE * usual for change in changes[: self._gap])

    def _look(self, frame: Step, distance: int, also: _Other = None, ask: bool = True) -> None:
        self.stream.distances = (distance - 1,)
        frame.resume()
        frame.look(ask, also)

    def _predict(self, frame: Step, distance: int, also: _Other = None) -> bool:
        """Predict a frame; return False, with the reason in its row, if it needs a full pass instead."""
        self._look(frame, distance, also)
        return not frame.rows[0].reason and frame.attempt()

    def _full(self, frame: Step, reason: str, audit: bool = False) -> None:
        """A full pass. The prediction is audited if the policy has looked at it, or if `audit` asks for it."""
        frame.resume()
        frame.rows[0].reason = reason
        frame.attempt(audit=audit)


def _change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the mean square of what changes in the features, of every second row and column."""
    parts = [x[..., ::2, ::2].float() - y[..., ::2, ::2].float() for x, y in zip(before, after, strict=True)]
    return float(sum(part.square().mean() for part in parts))
