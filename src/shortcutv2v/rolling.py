"""Streams whose frames all take about as long: the middle of a full pass is spread over the frames of an interval."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.devices import synchronise
from shortcutv2v.errors import InputError
from shortcutv2v.refresh import Every, RefreshPolicy
from shortcutv2v.rows import finite
from shortcutv2v.step import Step
from shortcutv2v.stream import Stream
from shortcutv2v.summary import Summary
from shortcutv2v.types import Carry, Reference

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["RollingStream"]


@dataclasses.dataclass
class _Round:
    """A full pass under way.

    Attributes:
        carry: what the head made of the frame at which it began.
        parts: the middle, a part for every item.
        frames: frames so far, one part each.
        seconds: time of the parts so far.
        f: the result; empty until the last part has run.
    """

    carry: Carry
    parts: Iterator[tuple[Tensor, ...]]
    frames: int = 0
    seconds: float = 0.0
    f: tuple[Tensor, ...] = ()


class RollingStream(Stream):
    """A stream that refreshes by parts; made by `ShortcutV2V.stream(refresh=k, rolling=True)`.

    The first frame gets a full pass. From then on every frame is a shortcut frame, and one of k parts of the middle
    runs beside it, on the features of the frame at which the round began. The frame after the last part is predicted
    from the new reference, and begins the next round. So no frame costs a whole middle, and references are k to 2k - 1
    frames old: train for intervals of 2k. Frames that cannot be predicted get a full pass, and a new round follows.

    Args:
        model: the wrapped teacher; it need not be local, but its layers must be recorded by fx or export.
        refresh: the interval k, at least 2.
        show_shortcut: changes nothing here, because every frame after the first shows the prediction.
        picture: see `Stream`.

    Attributes:
        ages: frames that were predicted, by the age of their reference in frames: `stream.distance` of each.

    Raises:
        InputError: `refresh` is no fixed interval of at least 2; from a frame, the teacher is captured by hooks, or the
            model is compiled.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)))
        >>> stream = shortcutv2v.wrap(teacher, "0", "4").stream(refresh=3, rolling=True)
        >>> distances = []
        >>> for frame in torch.rand(9, 1, 3, 8, 8):
        ...     output = stream(frame)
        ...     distances.append(stream.distance)
        >>> distances
        [0, 1, 2, 3, 3, 4, 5, 3, 4]
        >>> stream.summary().note
        'rolling: references 3.1 frames old in the mean, 5 at most'
    """

    def __init__(
        self,
        model: ShortcutV2V,
        refresh: RefreshPolicy,
        show_shortcut: bool = False,
        picture: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if not isinstance(refresh, Every) or refresh.interval < 2:
            raise InputError(
                f"rolling=True spreads refreshes over a fixed interval of at least 2, got {refresh}: give refresh=9, "
                "and neither quality nor speed"
            )
        super().__init__(model, Every(2 * refresh.interval), show_shortcut, picture)

    def reset(self) -> None:
        """Forget the video."""
        super().reset()
        self._round: _Round | None = None
        self.ages: Counter[int] = Counter()

    def head(self, *args: Any, **kwargs: Any) -> Carry:
        """Run the head of a capture whose middle can be divided anywhere."""
        return self.model.fine_head(*args, **kwargs)

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output for the next frame, in the teacher's own structure. Takes the teacher's inputs."""
        step = Step([self], [(args, kwargs)])
        if not self.stale(step.carry) and self._taken_over():
            self._advance(step.carry)
            step.spend(range(len(step.rows)), block=True)
        [output] = step()
        if self.distance:
            self.ages[self.distance] += 1
        if self._round is not None and self._round.f:
            self.record.teacher_took(self._round.seconds + sum(row.teacher_seconds for row in step.rows))
        return output

    def summary(self) -> Summary:
        """Return the figures of `Stream.summary()`, and how old the references were."""
        made, count = super().summary(), self.ages.total()
        if not count:
            return made
        mean = sum(age * frames for age, frames in self.ages.items()) / count
        note = f"rolling: references {mean:.1f} frames old in the mean, {max(self.ages)} at most"
        return dataclasses.replace(made, note="; ".join(filter(None, (made.note, note))))

    def stale(self, carry: Carry) -> str:
        """See `Stream.stale`; a round that began with other inputs cannot go on."""
        other = self._round is not None and self._round.carry.signature != carry.signature
        return super().stale(carry) or ("size" if other else "")

    def keep(self, carry: Carry, reference: Reference | tuple[Tensor, ...]) -> None:
        """See `Stream.keep`; what is under way began earlier, and ends here."""
        self._round = None
        super().keep(carry, reference)

    def _taken_over(self) -> bool:
        """Refer to the frame at which a finished round began; return False if its features are not finite."""
        done = self._round
        if done is None or not done.f:
            return True
        if not finite((done.carry.a, done.f))[0]:
            self.reference = self._round = None
            return False
        self.keep(done.carry, done.f)
        self.distances = (done.frames - 1,) * len(self.distances)  # of the frame before this one
        return True

    def _advance(self, carry: Carry) -> None:
        """Run the next part of the middle; begin a round with this frame if there is none."""
        current = self._round or _Round(carry, self.model.middle_in_parts(carry, self.refresh.interval // 2))
        self._round = None  # a part that fails ends it
        synchronise()
        begun = time.perf_counter()
        current.f = next(current.parts)
        synchronise()
        current.seconds += time.perf_counter() - begun
        current.frames += 1
        self._round = current
