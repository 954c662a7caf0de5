"""Offline streams: references after a frame serve as well as those before it.

Blocks are trained in both directions of time. So a frame may be predicted from the reference after it, and a video
needs about half as many references for the same quality.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.refresh import Look, own_copy
from shortcutv2v.rows import finite, same
from shortcutv2v.stream import Stream
from shortcutv2v.summary import psnr
from shortcutv2v.types import Carry, Reference, fits

__all__ = ["LookAhead"]


@dataclass
class _Frame:
    """A frame in the buffer; the teacher's time is known after a full pass only."""

    carry: Carry
    head_seconds: float
    seconds: float
    output: Any = None
    distance: int = 0
    reason: str | None = None
    teacher_seconds: float | None = None


class LookAhead:
    """A video going through a model with references on both sides of the predicted frames.

    From a reference on, frames are predicted forwards until the policy refuses one, or half of its `gap` is reached.
    The next reference lies as far again after that frame, and the frames between are predicted backwards from it. A
    frame that is refused from both sides gets a full pass, and serves the frames before it as a reference. With a
    fixed interval n, references lie 2n - 1 frames apart, and every frame is predicted from the nearer one: no frame is
    farther from its reference than in a causal stream. At most `gap` frames are held.

    Args:
        stream: gives the model, the policy (a copy of it decides) and the picture, and records what happens:
            `stream.distance` and `stream.summary()` are those of the frame yielded last. A batch is one video.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> stream = shortcutv2v.wrap(teacher, "0", "2").stream(refresh=4)
        >>> frames = (((frame,), {}) for frame in torch.rand(9, 1, 3, 8, 8))
        >>> [stream.distance for output in LookAhead(stream).play(frames)]
        [0, 1, 2, 3, 3, 2, 1, 0, 1]
    """

    def __init__(self, stream: Stream) -> None:
        self.stream, self.model = stream, stream.model
        self.policy = own_copy(stream.refresh)
        self._conditions: list[Tensor] = []
        stream.adopt(self.policy)

    def play(self, inputs: Iterable[tuple[tuple[Any, ...], dict[str, Any]]]) -> Iterator[Any]:
        """Yield the output for every frame's inputs, in order."""
        source, buffer = iter(inputs), list[_Frame]()
        reference: Reference | None = None
        while True:
            for args, kwargs in itertools.islice(source, self.policy.gap - len(buffer)):
                buffer.append(self._frame(args, kwargs))
            if not buffer:
                return
            with torch.no_grad():
                done, reference = self._segment(buffer, reference)
            for frame in buffer[:done]:
                self.stream.note(frame.distance, frame.reason, frame.seconds, frame.teacher_seconds)
                yield frame.output
            del buffer[:done]

    @torch.no_grad()
    def _frame(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Frame:
        begun = time.perf_counter()
        carry = self.model.head(*args, **kwargs)
        seconds = time.perf_counter() - begun
        return _Frame(carry, seconds, seconds)

    def _segment(self, buffer: list[_Frame], reference: Reference | None) -> tuple[int, Reference | None]:
        """Finish the first frames; return how many, and the reference for those that follow."""
        if reference is None or not fits(reference, buffer[0].carry):
            return 1, self._full(buffer[0], "first" if reference is None else "size")
        serves = list(itertools.takewhile(lambda frame: self._serves(reference, frame.carry), buffer))
        if not serves:
            return 1, self._full(buffer[0], "condition")
        buffer = serves
        ends = len(buffer) < self.policy.interval  # only where the video, its size or a condition does
        limit = len(buffer) if ends else len(buffer) // 2
        reached, refused = self._forwards(buffer[:limit], reference)
        if reached == len(buffer):
            return reached, reference
        place = min(2 * reached, len(buffer) - 1) if refused is not None else len(buffer) - 1
        if refused is not None and place == reached:
            return place + 1, self._full(buffer[place], refused.reason, refused)
        far = self._look(buffer[place], reference, place + 1)
        last = self._full(buffer[place], "distance" if refused is None else refused.reason, far, audit=True)
        self._backwards(buffer[reached:place], last)
        return place + 1, last

    def _serves(self, reference: Reference, carry: Carry) -> bool:
        return fits(reference, carry) and same(self._conditions, self.model.conditions(carry))

    def _forwards(self, frames: list[_Frame], reference: Reference) -> tuple[int, Look | None]:
        """Predict frames until one is refused; return how many were not, and the look at the refused one."""
        for number, frame in enumerate(frames):
            look = self._look(frame, reference, number + 1)
            if not self._predict(frame, look, reference):
                return number, look
        return len(frames), None

    def _backwards(self, frames: list[_Frame], reference: Reference | None) -> None:
        """Predict frames from the reference after them; those that are refused become references."""
        distance = 1
        for frame in reversed(frames):
            look = None if reference is None else self._look(frame, reference, distance)
            if reference is None or look is None:
                reference, distance = self._full(frame, "first"), 0
            elif not self._predict(frame, look, reference):
                reference, distance = self._full(frame, look.reason, look), 0
            distance += 1

    def _look(self, frame: _Frame, reference: Reference, distance: int) -> Look:
        return Look(distance, frame.carry, lambda: reference, lambda: self.model.analyse(reference, frame.carry))

    def _predict(self, frame: _Frame, look: Look, reference: Reference) -> bool:
        """Predict a frame; return False, with the reason in the look, if it needs a full pass instead."""
        begun = time.perf_counter()
        refused = self.policy(look)
        look.reason = refused if isinstance(refused, str) else "policy" if refused else ""
        if not look.reason:
            carry = frame.carry
            looked = self.model.compose(reference, carry, look.predictions) if look.looked else None
            f = self.model.predict(reference, carry) if looked is None else looked
            frame.output, frame.distance = self.model.tail(carry, f), look.distance
            look.reason = "" if finite((f, frame.output)) else "not finite"
        frame.seconds += time.perf_counter() - begun
        return not look.reason

    def _full(self, frame: _Frame, reason: str, look: Look | None = None, audit: bool = False) -> Reference | None:
        """A full pass. The prediction is audited if the policy has looked at it, or if `audit` asks for it."""
        begun = time.perf_counter()
        f = self.model.middle(frame.carry)
        frame.output, frame.distance, frame.reason = self.model.tail(frame.carry, f), 0, reason
        self._conditions = [condition.clone() for condition in self.model.conditions(frame.carry)]
        usable = finite((frame.carry.a, f))
        frame.teacher_seconds = frame.head_seconds + time.perf_counter() - begun
        if not usable:
            frame.reason = "not finite"
        elif look is not None and self.policy.audits and (look.looked or audit):
            made = self.model.tail(frame.carry, self.model.compose(look.reference, frame.carry, look.predictions))
            found = float(psnr(self.stream.picture(made), self.stream.picture(frame.output))[0])
            self.policy.audit(look, found)
            self.stream.record.audits.append(found)
        reference = self.model.make_reference(frame.carry, f) if usable else None
        frame.seconds += time.perf_counter() - begun
        return reference
