"""The only place that keeps state between frames: one `Stream` per video, or per batch of videos."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.refresh import Look, RefreshPolicy, as_policy, own_copy
from shortcutv2v.rows import put, same
from shortcutv2v.step import Step
from shortcutv2v.summary import Record, Summary
from shortcutv2v.types import Carry, Reference, fits

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["Stream"]

_Features = tuple[Tensor, ...]
_Kept = tuple[Reference | None, bool]


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
            It costs one more run of the block per refresh. A policy that sees when a prediction is poor
            (`RefreshPolicy.guarded`, a quality or a speed) refreshes for that reason: there the teacher's is shown.
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
        self._reference: Reference | None = None
        self._encoded = True
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
    def shows_refused(self) -> bool:
        """True if frames that get a full pass show the block's prediction, see `show_shortcut`."""
        return self.show_shortcut and not self._policy.guarded

    @property
    def policies(self) -> tuple[RefreshPolicy, ...]:
        """The stream's own copies of the policy, one per row of the batch."""
        return tuple(self._policies)

    @property
    def reference(self) -> Reference | None:
        """The current reference, None before the first frame. Blocks see it when a frame first needs it."""
        if self._reference is not None and not self._encoded:
            self._reference = self.model.make_reference(Carry(self._reference.a, ()), self._reference.f)
            self._encoded = True
        return self._reference

    @reference.setter
    def reference(self, reference: Reference | None) -> None:
        self._reference, self._encoded = reference, True

    @property
    def kept(self) -> _Kept:
        """The reference as it lies there, and whether blocks have seen it; assign what was read to take it up again."""
        return self._reference, self._encoded

    @kept.setter
    def kept(self, kept: _Kept) -> None:
        self._reference, self._encoded = kept

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

    def reset(self) -> None:
        """Forget the reference: the next frame begins a new video."""
        self.reference = None
        self.distances = ()
        self.record = Record()
        for policy in self._policies:
            policy.reset()

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output for the next frame, in the teacher's own structure. Takes the teacher's inputs."""
        return Step([self], [(args, kwargs)])()[0]

    def head(self, *args: Any, **kwargs: Any) -> Carry:
        """Run the model's head on the next frame; takes the teacher's inputs."""
        return self.model.head(*args, **kwargs)

    def own_policies(self, rows: int) -> list[RefreshPolicy]:
        """Return the stream's own copies of the policy for so many rows; new ones if there were more or fewer."""
        if len(self._policies) != rows:
            self._policies = [own_copy(self._policy) for _ in range(rows)]
        return self._policies

    def stale(self, carry: Carry) -> str:
        """Return why the reference does not serve for a frame, as `refreshes` counts it; empty if it does."""
        if self._reference is None:
            return "first"
        if not fits(self._reference, carry):
            return "size"
        if not same(self._conditions, self.model.conditions(carry)):
            return "condition"
        return "" if self._frozen.same_as(self.model.capture.of(carry).frozen) else "teacher"

    def keep(self, carry: Carry, reference: Reference | _Features) -> None:
        """Keep what a full pass leaves, for the frames after it.

        Args:
            carry: what the head handed on.
            reference: the reference, or `f` to make it of when a frame first needs it.
        """
        self._conditions = [condition.clone() for condition in self.model.conditions(carry)]
        self._frozen = self.model.capture.of(carry).frozen
        self._encoded = isinstance(reference, Reference)
        self._reference = reference if isinstance(reference, Reference) else Reference(carry.a, reference, ())
        if self.model.replays:
            _ = self.reference  # before the next replay overwrites what it is made from

    def exchange(self, rows: Sequence[int], part: Reference) -> None:
        """Exchange some rows of the reference."""
        self.reference = pytree.tree_map(partial(put, places=rows), self.reference, part)


def _first_tensor(output: Any) -> Tensor:
    return next(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
