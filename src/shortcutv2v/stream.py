"""The only place that keeps state between frames: one `Stream` per video, or per batch of videos."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.refresh import Look, RefreshPolicy, as_policy, own_copy
from shortcutv2v.rows import finite, put, rows_of, same, select
from shortcutv2v.summary import Record, Summary, psnr
from shortcutv2v.types import Carry, Reference, fits

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["Stream"]

T = TypeVar("T")
_Features = tuple[Tensor, ...]


class Stream:
    """A video going through a model (Algorithm 1): full passes at reference frames, shortcut passes between.

    Made by `ShortcutV2V.stream()`. Many streams may share one model. Runs without gradients. Every row of a batch is a
    video of its own: it has its own copy of the policy, and one row refreshes without the others. Then the middle runs
    on the rows that are due, and their output equals that of a full pass within rounding.

    A frame whose prediction or output is not finite gets a full pass. Features that are not finite never become a
    reference, so that the next frame gets a full pass, too.

    Args:
        model: the wrapped teacher.
        refresh: decides when to refresh, see `RefreshPolicy`. The stream works with copies.
        show_shortcut: show the block's prediction at reference frames too, once there is an earlier reference,
            instead of the teacher's own output: no visible "pop" at refreshes (the paper does so for Unsup).
            It costs one more run of the block per refresh.
        picture: returns the picture (B, C, H, W), values in [0, 1], in the teacher's output, as `Adapter.image` does;
            needed for audits. Default: the first tensor of the output.

    Attributes:
        distances: per row, frames since the reference, 0 at a reference frame.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2")
        >>> stream = model.stream()
        >>> distances = []
        >>> for frame in torch.rand(4, 1, 3, 8, 8):
        ...     output = stream(frame)
        ...     distances.append(stream.distance)
        >>> distances, dict(stream.refreshes)
        ([0, 1, 2, 0], {'first': 1, 'distance': 1})
    """

    def __init__(
        self,
        model: ShortcutV2V,
        refresh: RefreshPolicy | int,
        show_shortcut: bool = False,
        picture: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self._latest: tuple[Carry, _Features] | None = None
        self._reference: Reference | None = None
        self._conditions: list[Tensor] = []
        self.distances: tuple[int, ...] = ()
        self.model = model
        self.show_shortcut = show_shortcut
        self.picture = picture or _first_tensor
        self.refresh = refresh
        self.reset()

    @property
    def refresh(self) -> RefreshPolicy:
        """The policy; assign a policy, an interval or a function to change it in the middle of a video."""
        return self._policy

    @refresh.setter
    def refresh(self, refresh: RefreshPolicy | Callable[[Look], bool | str] | int) -> None:
        self._policy = as_policy(refresh)
        self._policies: list[RefreshPolicy] = []
        trained = self.model.trained_interval
        if trained is not None and self._policy.interval > trained and not self._policy.guarded:
            warnings.warn(
                f"the block was trained for intervals up to {trained}, {self._policy} allows {self._policy.interval}: "
                "frames that far from their reference may be poor; measure them, or train with that interval",
                stacklevel=3,
            )

    @property
    def policies(self) -> tuple[RefreshPolicy, ...]:
        """The stream's own copies of the policy, one per row of the batch."""
        return tuple(self._policies)

    @property
    def reference(self) -> Reference | None:
        """The current reference, None before the first frame. Blocks see it when a frame first needs it."""
        if self._latest is not None:
            self._reference = self.model.make_reference(*self._latest)
            self._latest = None
        return self._reference

    @property
    def distance(self) -> int:
        """Frames since the reference, 0 at a reference frame; of a batch, the largest."""
        return max(self.distances, default=0)

    @property
    def refreshes(self) -> Counter[str]:
        """Number of refreshes since the last `reset()`, by reason.

        "first" (no reference), "size" (the reference does not fit the frame), "condition" (an input that only the
        middle reads has changed, such as a style vector), "teacher" (a Python value that its captured code reads has
        changed, such as a flag), "distance" (the policy's horizon),
        "policy" or the policy's own word, "not finite". Rows of a batch are counted one by one.
        """
        return self.record.refreshes

    @property
    def shortcuts(self) -> int:
        """Number of shortcut frames since the last `reset()`, rows of a batch counted one by one."""
        return self.record.shortcuts

    def summary(self) -> Summary:
        """Return frames, refreshes and why, quality and times since the last `reset()`; print it for one line."""
        notes = dict.fromkeys(note for policy in self._policies if (note := policy.note()))
        return self.record.summary("; ".join(notes), [value for policy in self._policies for value in policy.estimates])

    def adopt(self, policy: RefreshPolicy) -> None:
        """Let `policy` speak for this stream in `summary()`; for whoever runs the video instead of the stream."""
        self._policies = [policy]

    def note(self, distance: int, reason: str | None, seconds: float, teacher: float | None) -> None:
        """Record a frame that was run for this stream, with its distance from the reference; see `Record.frame`."""
        self.distances = (distance,)
        self.record.frame([reason], seconds, teacher)

    def reset(self) -> None:
        """Forget the reference: the next frame begins a new video."""
        self._latest = self._reference = None
        self.distances = ()
        self.record = Record()
        for policy in self._policies:
            policy.reset()

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output for the next frame, in the teacher's own structure. Takes the teacher's inputs."""
        begun = time.perf_counter()
        carry = self.model.head(*args, **kwargs)
        rows, made_from = rows_of(carry), self._latest[0] if self._latest is not None else self._reference
        if made_from is None or not fits(made_from, carry):
            return self._full(begun, carry, ["first" if made_from is None else "size"] * rows)
        if not same(self._conditions, self.model.conditions(carry)):
            return self._full(begun, carry, ["condition"] * rows)
        if not self._teacher.same_as(self.model.capture.of(carry).frozen):
            return self._full(begun, carry, ["teacher"] * rows)
        asked = time.perf_counter()
        looks = self._looks(carry, rows)
        reasons = [self._reason(policy, look) for policy, look in zip(self._policies, looks, strict=True)]
        if all(reasons):
            return self._full(begun, carry, reasons, looks, time.perf_counter() - asked)
        f = self._predicted(carry, looks)
        if any(reasons):
            return self._partial(begun, carry, reasons, f, looks, (args, kwargs))
        output = self.model.tail(carry, f)
        if not finite((f, output)):
            return self._full(begun, carry, ["not finite"] * rows, (), None)
        self._count(begun, reasons)
        return output

    def _looks(self, carry: Carry, rows: int) -> list[Look]:
        """One look per row; all of them share one run of the block."""
        if len(self._policies) != rows:
            self._policies = [own_copy(self._policy) for _ in range(rows)]
        predict = cache(lambda: self.model.analyse(self._must_refer(), carry))
        found, times = [], self.record.times
        for row, distance in enumerate(self.distances):
            of_row = partial(select, rows=rows, index=slice(row, row + 1))
            refer = partial(_then, of_row, self._must_refer)
            found.append(Look(distance + 1, of_row(carry), refer, partial(_then, of_row, predict), row))
            found[-1].times = times
        self._predict = predict
        return found

    def _must_refer(self) -> Reference:
        reference = self.reference
        assert reference is not None  # noqa: S101  (policies are asked only if there is one)
        return reference

    def _reason(self, policy: RefreshPolicy, look: Look) -> str | None:
        """Why a row refreshes now; None if it does not."""
        found = policy(look)
        if isinstance(found, str) and found:
            return found
        return "distance" if look.distance >= self._policy.interval else "policy" if found else None

    def _predicted(self, carry: Carry, looks: Sequence[Look]) -> _Features:
        """`f` as the block predicts it, from the policy's look if it took one."""
        reference = self._must_refer()
        if any(look.looked for look in looks):
            return self.model.compose(reference, carry, self._predict())
        return self.model.predict(reference, carry)

    def _full(
        self,
        begun: float,
        carry: Carry,
        reasons: Sequence[str | None],
        looks: Sequence[Look] = (),
        looking: float | None = 0.0,
    ) -> Any:
        """A full pass. `looking` is the time since `begun` that the teacher would not have taken, None if unknown."""
        f = self.model.middle(carry)
        shown = self._predicted(carry, looks) if self.show_shortcut and looks else f
        output = self.model.tail(carry, shown)
        usable = finite((carry.a, f))  # waits for the device
        teacher = None if looking is None or shown is not f else time.perf_counter() - begun - looking
        if usable:
            self._audit(carry, looks, output if shown is f else None, f)
        else:
            reasons = ["not finite"] * len(reasons)
        # Only now: a call that fails leaves the stream as it was.
        self._conditions = [condition.clone() for condition in self.model.conditions(carry)]
        self._teacher = self.model.capture.of(carry).frozen
        self._reference, self._latest = None, (carry, f) if usable else None
        if self.model.replays and usable:
            self._must_refer()  # before the next replay overwrites what it is made from
        self._count(begun, reasons, teacher)
        return output

    def _partial(
        self,
        begun: float,
        carry: Carry,
        reasons: Sequence[str | None],
        predicted: _Features,
        looks: Sequence[Look],
        inputs: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> Any:
        """Refresh some rows of the batch, and show the prediction in the others."""
        rows, due = len(reasons), [row for row, reason in enumerate(reasons) if reason]
        index = torch.tensor(due, device=carry.a[0].device)
        args, kwargs = select(inputs, rows, index)
        part = self.model.head(*args, **kwargs)
        f = self.model.middle(part)
        if rows_of(part) != len(due) or any(x.shape[0] != len(due) for x in f):
            return self._full(begun, carry, ["policy"] * rows, (), None)  # a teacher that mixes its rows
        exchange = partial(put, index=index)
        output = self.model.tail(carry, predicted if self.show_shortcut else pytree.tree_map(exchange, predicted, f))
        if not finite((part.a, f, predicted, output)):
            return self._full(begun, carry, ["not finite"] * rows, (), None)
        self._audit(part, [looks[row] for row in due], None, f, select(predicted, rows, index))
        self._reference = pytree.tree_map(exchange, self._must_refer(), self.model.make_reference(part, f))
        self._count(begun, reasons)
        return output

    def _audit(
        self, carry: Carry, looks: Sequence[Look], output: Any, f: _Features, predicted: _Features | None = None
    ) -> None:
        """Tell the policies what the predictions they looked at would have been worth, in PSNR to the teacher."""
        asking = [(i, self._policies[look.row]) for i, look in enumerate(looks) if self._policy.audits and look.looked]
        if not asking:
            return
        target = self.picture(self.model.tail(carry, f) if output is None else output)
        made = self.picture(self.model.tail(carry, self._predicted(carry, looks) if predicted is None else predicted))
        found = psnr(made, target)
        for i, policy in asking:
            policy.audit(looks[i], float(found[i]))
            self.record.audits.append(float(found[i]))

    def _count(self, begun: float, reasons: Sequence[str | None], teacher: float | None = None) -> None:
        self.record.frame(reasons, time.perf_counter() - begun, teacher)
        before = self.distances if len(self.distances) == len(reasons) else (0,) * len(reasons)
        self.distances = tuple(0 if reason else 1 + d for d, reason in zip(before, reasons, strict=True))


def _then(change: Callable[[T], T], get: Callable[[], T]) -> T:
    return change(get())


def _first_tensor(output: Any) -> Tensor:
    return next(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
