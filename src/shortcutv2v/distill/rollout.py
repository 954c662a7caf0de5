"""Teacher and wrapped model over a few frames, as a video loop runs them; what a training step looks at."""

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

__all__ = ["FEEDBACKS", "Rollout", "Step", "Taught", "frozen"]

FEEDBACKS = ("teacher", "own")
"""Whose outputs a recurrent teacher gets back on shortcut frames in training."""


@dataclass(repr=False)
class Taught:
    """One frame as the teacher does it. The tail runs when `picture` is first asked for.

    Attributes:
        carry: what the head hands on.
        f: the teacher's features, one (B, C_f, H, W) per branch; behind them leaking features that are reused.
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
class Step:
    """One shortcut frame of a training batch. Pictures are drawn when they are first asked for.

    Attributes:
        full: the full pass at the reference frame.
        taught: the teacher's own work on the current frame.
        made: the `Reference` that the blocks work from.
        carry: what the head hands on for the current frame; differs from `taught.carry` where own outputs are fed back.
        predictions: one per branch, see `Prediction`.
        frame: the current frame, (B, C, H, W); None where features come from a cache.
        rollout: the rollout that this step belongs to.
    """

    full: Taught
    taught: Taught
    made: Reference
    carry: Carry
    predictions: tuple[Prediction, ...]
    frame: Tensor | None
    rollout: Rollout

    @property
    def f(self) -> tuple[Tensor, ...]:
        """The teacher's features of the current frame, one (B, C_f, H, W) per branch."""
        return self.taught.f

    @property
    def f_hat(self) -> tuple[Tensor, ...]:
        """What goes into the tail: the predicted features, and behind them leaking ones from the reference."""
        predicted = tuple(p.f_hat for p in self.predictions)
        return predicted + self.made.f[len(predicted) :]

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
        return self.taught.picture

    @property
    def reference(self) -> Tensor:
        """`O_ref`, the teacher's picture of the reference frame, (B, 3, H, W) in [0, 1]."""
        return self.full.picture

    @torch.no_grad()
    def reuse(self) -> Tensor:
        """The picture with `f_ref` in place of a prediction, (B, 3, H, W): the free baseline."""
        return self.rollout.draw(self.carry, self.made.f)


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
        """The picture that the tail makes."""
        return self.adapter.image(self.model.tail(carry, f))

    @property
    def feeds_itself(self) -> bool:
        """Whether shortcut frames are made from the outputs of others, which no cache can hold."""
        return self.feedback == "own" and self.adapter.recurrent

    def steps(self, frames: Tensor) -> list[Step]:
        """Reference at the first frame and every `max_interval` behind it, shortcut passes between.

        Frames that the adapter opens with otherwise are left out.

        Args:
            frames: (B, T, C, H, W), consecutive.

        Raises:
            InputError: no shortcut frame is among them.
        """
        with frozen(self.model.teacher):
            taught = self._teach(frames)
            follow = self._own if self.feeds_itself else self._follow
            return _not_empty(list(follow(taught)), frames.shape[1])

    def steps_from(self, features: Sequence[Features]) -> list[Step]:
        """As `steps`, from cached features, one `Features` per frame.

        Raises:
            InputError: no shortcut frame is among them, or `feedback` asks for other inputs than the cached ones.
        """
        if self.feeds_itself:
            raise InputError('feedback="own" needs frames: cached features cannot be recomputed from other outputs')
        with frozen(self.model.teacher):
            bound = [self._bind(entry) for entry in features]
            taught = [(None, Taught(entry.carry, entry.f, self)) for entry in bound]
            return _not_empty(list(self._follow(taught)), len(taught))

    @property
    def interval(self) -> int:
        """Frames to the next reference; at least one shortcut frame lies between."""
        return max(2, self.model.refresh.interval)

    def _teach(self, frames: Tensor) -> list[tuple[Tensor, Taught | None]]:
        """Every frame, with the teacher's work on it, or None where the adapter opens with something else."""
        found: list[tuple[Tensor, Taught | None]] = []
        with torch.no_grad():
            for frame, features, output in teach(self.model, self.adapter, frames.unbind(1)):
                taught = None if features is None else Taught(features.carry, features.f, self)
                if taught is not None and output is not None:
                    taught.picture = self.adapter.image(output)
                found.append((frame, taught))
        return found

    def _follow(self, frames: Sequence[tuple[Tensor | None, Taught | None]]) -> Iterator[Step]:
        """Shortcut passes on the teacher's own inputs."""
        full: Taught | None = None
        distance = 0
        for frame, taught in frames:
            if taught is None:
                continue
            distance += 1
            if full is None or distance == self.interval:
                full, distance = taught, 0
                made = self.model.make_reference(taught.carry, taught.f)
            else:
                predictions = self.model.analyse(made, taught.carry)
                yield Step(full, taught, made, taught.carry, predictions, frame, self)

    def _own(self, frames: Sequence[tuple[Tensor, Taught | None]]) -> Iterator[Step]:
        """Shortcut passes on their own outputs, as a stream runs; targets are still the teacher's own generation."""
        run = _OwnPasses(self)
        player = Player(self.adapter, run)
        for frame, taught in frames:
            run.prepare(frame, taught)
            player(frame)
            if run.depth == 0 or (self.truncate is not None and run.depth % self.truncate == 0):
                player.state = _detached(player.state)
            if run.step is not None:
                yield run.step


class _OwnPasses:
    """Full and shortcut passes on a recurrent teacher's own outputs, for a `Player`.

    Attributes:
        step: what the last frame has given to train on; None after a full pass.
        depth: shortcut frames since the reference.
    """

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.frame: Tensor | None = None
        self.taught: Taught | None = None
        self.step: Step | None = None
        self.depth = 0
        self._reference: tuple[Taught, Reference] | None = None

    def prepare(self, frame: Tensor, taught: Taught | None) -> None:
        """Take the next frame, and the teacher's work on it."""
        self.frame, self.taught, self.step = frame, taught, None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert self.taught is not None  # noqa: S101  (the teacher runs on exactly these frames)
        model = self.rollout.model
        carry = model.head(*args, **kwargs)
        if self._reference is not None and self.depth + 1 < self.rollout.interval:
            full, made = self._reference
            predictions = model.analyse(made, carry)
            self.step = Step(full, self.taught, made, carry, predictions, self.frame, self.rollout)
            self.depth += 1
            return self.step.output
        carry = _detached(carry)
        with torch.no_grad():
            f = model.middle(carry)
            output = model.tail(carry, f)
        self._reference, self.depth = (self.taught, model.make_reference(carry, f)), 0
        return output


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of `module` asks for a gradient inside; every flag is as found afterwards."""
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


def _not_empty(steps: list[Step], frames: int) -> list[Step]:
    if not steps:
        raise InputError(f"{frames} frames hold no shortcut frame: give the reference and at least one more")
    return steps
