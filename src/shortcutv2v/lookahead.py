"""Offline streams: references after a frame serve as well as those before it.

Blocks are trained in both directions of time. So a frame may be predicted from the reference after it, and a video
needs about half as many references for the same quality.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from shortcutv2v.devices import synchronise
from shortcutv2v.errors import InputError
from shortcutv2v.graph import keep
from shortcutv2v.rolling import RollingStream
from shortcutv2v.step import Step
from shortcutv2v.stream import Stream
from shortcutv2v.types import Reference

__all__ = ["LookAhead"]

_Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class LookAhead:
    """A video going through a model with references on both sides of the predicted frames.

    From a reference on, frames are predicted forwards until the policy refuses one, or half of its `gap` is reached.
    The next reference lies as far again after that frame, and the frames between are predicted backwards from it. A
    frame that is refused from both sides gets a full pass, and serves the frames before it as a reference. With a
    fixed interval n, references lie 2n - 1 frames apart, and every frame is predicted from the nearer one, or from both
    if the policy is `BothSides`: no frame is farther from its reference than in a causal stream. At most `gap` frames
    are held.

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
        self.stream.own_policies(1)[0].reset()
        while True:
            self._fill(buffer, itertools.islice(source, self.stream.policies[0].gap - len(buffer)))
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
        if policy.both and len(serves) > policy.interval // 2:
            self._from_both(serves)
            return len(serves)
        ends = len(serves) < policy.interval  # only where the video, its size or a condition does
        limit = len(serves) if ends else len(serves) // 2
        reached = self._forwards(serves[:limit])
        if reached == len(serves):
            return reached
        refused = serves[reached].rows[0].reason if reached < limit else ""
        place = min(2 * reached, len(serves) - 1) if refused else len(serves) - 1
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
        """Make the last frame a reference, and predict the others from it and from the one before them all."""
        before, count = self.stream.reference, len(frames)
        self._full(frames[-1], "distance")
        after = self.stream.reference
        for number, frame in enumerate(frames[:-1]):
            self.stream.reference = after
            distance = min(number + 1, count - 1 - number)
            if not self._predict(frame, distance, ask=False, also=before if after else None):
                self._full(frame, frame.rows[0].reason)
        self.stream.reference = after

    def _look(self, frame: Step, distance: int, ask: bool = True, also: Reference | None = None) -> None:
        self.stream.distances = (distance - 1,)
        frame.resume()
        frame.look(ask, also)

    def _predict(self, frame: Step, distance: int, ask: bool = True, also: Reference | None = None) -> bool:
        """Predict a frame; return False, with the reason in its row, if it needs a full pass instead."""
        self._look(frame, distance, ask, also)
        return not frame.rows[0].reason and frame.attempt()

    def _full(self, frame: Step, reason: str, audit: bool = False) -> None:
        """A full pass. The prediction is audited if the policy has looked at it, or if `audit` asks for it."""
        frame.resume()
        frame.rows[0].reason = reason
        frame.attempt(audit=audit)
