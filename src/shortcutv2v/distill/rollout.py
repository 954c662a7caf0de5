"""Teacher and wrapped model over the frames of a batch, as a video loop runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from shortcutv2v.adapter import Adapter
from shortcutv2v.blocks import Prediction
from shortcutv2v.distill.cache.features import Binder, Features, teach
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.player import Player
from shortcutv2v.types import Carry, Reference

__all__ = ["FEEDBACKS", "Rollout", "ShortcutFrame", "TeacherFrame", "frozen"]

FEEDBACKS = ("teacher", "own")
"""Choices of the outputs that a recurrent teacher gets back on shortcut frames in training."""


@dataclass(repr=False)
class TeacherFrame:
    """The teacher's work on one frame. The tail runs when `picture` is first asked for.

    Attributes:
        carry: the head's result.
        f: the teacher's features, one (B, C_f, H, W) per branch, then leaking features that are reused.
    """

    carry: Carry
    f: tuple[Tensor, ...]
    rollout: Rollout

    @cached_property
    def picture(self) -> Tensor:
        """The teacher's picture, (B, 3, H, W) in [0, 1], without gradient."""
        with torch.no_grad():
            return self.rollout.draw(self.carry, self.f)


@dataclass(repr=False)
class ShortcutFrame:
    """One shortcut frame of a training batch. Pictures are drawn when they are first asked for.

    Attributes:
        teacher: the teacher's work on the current frame.
        teacher_at_reference: the teacher's work on the reference frame.
        reference: the `Reference` that the blocks predict from.
        carry: the head's result for the current frame; differs from `teacher.carry` if own outputs are fed back.
        predictions: one per branch, see `Prediction`.
        input: the current frame, (B, C, H, W); None if features come from a cache.
        rollout: the rollout that it belongs to.
    """

    teacher: TeacherFrame
    teacher_at_reference: TeacherFrame
    reference: Reference
    carry: Carry
    predictions: tuple[Prediction, ...]
    input: Tensor | None
    rollout: Rollout

    @property
    def f(self) -> tuple[Tensor, ...]:
        """The teacher's features of the current frame, one (B, C_f, H, W) per branch."""
        return self.teacher.f

    @property
    def f_hat(self) -> tuple[Tensor, ...]:
        """The tail's input: the predicted features, then leaking ones from the reference."""
        predicted = tuple(p.f_hat for p in self.predictions)
        return predicted + self.reference.f[len(predicted) :]

    @cached_property
    def output(self) -> Any:
        """The shortcut pass's output, in the teacher's own structure."""
        model = self.rollout.model
        with frozen(model.teacher):
            return model.tail(self.carry, self.f_hat)

    @cached_property
    def picture(self) -> Tensor:
        """The picture of the shortcut pass, (B, 3, H, W) in [0, 1]."""
        return self.rollout.adapter.image(self.output)

    @property
    def target(self) -> Tensor:
        """The teacher's picture of the current frame, (B, 3, H, W) in [0, 1]."""
        return self.teacher.picture

    @property
    def reference_picture(self) -> Tensor:
        """`O_ref`, the teacher's picture of the reference frame, (B, 3, H, W) in [0, 1]."""
        return self.teacher_at_reference.picture

    @torch.no_grad()
    def reuse(self) -> Tensor:
        """Return the picture with `f_ref` instead of a prediction, (B, 3, H, W): the free baseline."""
        return self.rollout.draw(self.carry, self.reference.f)


class Rollout:
    """Runs teacher and blocks over the frames of a batch.

    Args:
        model: a wrapped teacher.
        adapter: how frames become the teacher's inputs.
        feedback: what a recurrent teacher gets back on shortcut frames: its own outputs ("teacher", every frame is as
            the teacher makes it), or those of the shortcut passes ("own", the stream as it will run, with
            back-propagation through time). Without recurrence both are the same.
        truncate: with "own", gradients flow back through at most this many shortcut frames; None: to the last
            reference.

    Raises:
        InputError: an unknown `feedback`, or `truncate` below 1.
    """

    def __init__(
        self, model: ShortcutV2V, adapter: Adapter, feedback: str = "teacher", truncate: int | None = None
    ) -> None:
        if feedback not in FEEDBACKS:
            raise InputError(f"unknown feedback {feedback!r}: expected one of {', '.join(FEEDBACKS)}")
        if truncate is not None and truncate < 1:
            raise InputError(f"truncate must be at least 1 frame or None, got {truncate}")
        self.model, self.adapter, self.feedback, self.truncate = model, adapter, feedback, truncate
        self._bind = Binder(model, adapter)

    def draw(self, carry: Carry, f: tuple[Tensor, ...]) -> Tensor:
        """Return the picture that the tail makes."""
        return self.adapter.image(self.model.tail(carry, f))

    @property
    def feeds_itself(self) -> bool:
        """True if shortcut frames are made from the outputs of others, which cannot be cached."""
        return self.feedback == "own" and self.adapter.recurrent

    def shortcut_frames(self, frames: Tensor) -> list[ShortcutFrame]:
        """Return the shortcut frames of a batch; the first frame and every `interval`-th after it is a reference.

        Frames that the adapter opens with are left out.

        Args:
            frames: (B, T, C, H, W), consecutive.

        Raises:
            InputError: no shortcut frame is among them.
        """
        with frozen(self.model.teacher):
            work = self._teach(frames)
            follow = self._own if self.feeds_itself else self._follow
            return _not_empty(list(follow(work)), frames.shape[1])

    def shortcut_frames_from(self, features: Sequence[Features]) -> list[ShortcutFrame]:
        """Do as `shortcut_frames`, from cached features, one `Features` per frame.

        Raises:
            InputError: no shortcut frame is among them, or `feedback` asks for other inputs than the cached ones.
        """
        if self.feeds_itself:
            raise InputError('feedback="own" needs frames: cached features cannot be recomputed from other outputs')
        with frozen(self.model.teacher):
            bound = [self._bind(entry) for entry in features]
            work = [(None, TeacherFrame(entry.carry, entry.f, self)) for entry in bound]
            return _not_empty(list(self._follow(work)), len(work))

    @property
    def interval(self) -> int:
        """Frames to the next reference; at least one shortcut frame lies between."""
        return max(2, self.model.refresh.interval)

    def _teach(self, frames: Tensor) -> list[tuple[Tensor, TeacherFrame | None]]:
        """Return every frame with the teacher's work on it, or with None if the adapter opens with it."""
        found: list[tuple[Tensor, TeacherFrame | None]] = []
        with torch.no_grad():
            for frame, features, output in teach(self.model, self.adapter, frames.unbind(1)):
                work = None if features is None else TeacherFrame(features.carry, features.f, self)
                if work is not None and output is not None:
                    work.picture = self.adapter.image(output)
                found.append((frame, work))
        return found

    def _follow(self, frames: Sequence[tuple[Tensor | None, TeacherFrame | None]]) -> Iterator[ShortcutFrame]:
        """Yield shortcut passes on the teacher's own inputs."""
        at_reference: TeacherFrame | None = None
        distance = 0
        for frame, work in frames:
            if work is None:
                continue
            distance += 1
            if at_reference is None or distance == self.interval:
                at_reference, distance = work, 0
                reference = self.model.make_reference(work.carry, work.f)
            else:
                predictions = self.model.analyse(reference, work.carry)
                yield ShortcutFrame(work, at_reference, reference, work.carry, predictions, frame, self)

    def _own(self, frames: Sequence[tuple[Tensor, TeacherFrame | None]]) -> Iterator[ShortcutFrame]:
        """Yield shortcut passes on their own outputs, as a stream runs; targets are the teacher's own generation."""
        latest: tuple[TeacherFrame, Reference] | None = None
        distance = 0  # from the latest reference
        made: list[ShortcutFrame] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal latest, distance
            frame, work = current
            assert work is not None  # noqa: S101  (the teacher runs on exactly these frames)
            carry = self.model.head(*args, **kwargs)
            distance += 1
            if latest is not None and distance < self.interval:
                made.append(ShortcutFrame(work, *latest, carry, self.model.analyse(latest[1], carry), frame, self))
                return made[-1].output
            carry = _detached(carry)
            with torch.no_grad():
                f = self.model.middle(carry)
                output = self.model.tail(carry, f)
            latest, distance = (work, self.model.make_reference(carry, f)), 0
            return output

        player = Player(self.adapter, run)
        for current in frames:
            player(current[0])
            if distance == 0 or (self.truncate is not None and distance % self.truncate == 0):
                player.state = _detached(player.state)
            yield from made
            made.clear()


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Switch gradients off for the parameters of `module`; every flag is restored afterwards."""
    wanted = [p for p in module.parameters() if p.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def _detached(tree: Any) -> Any:
    return pytree.tree_map_only(Tensor, Tensor.detach, tree)


def _not_empty(found: list[ShortcutFrame], frames: int) -> list[ShortcutFrame]:
    if not found:
        raise InputError(f"{frames} frames hold no shortcut frame: give the reference and at least one more")
    return found
