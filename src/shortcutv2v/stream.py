"""The only place that keeps state between frames: one `Stream` per video, or per batch of videos."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.refresh import Look, RefreshPolicy, as_policy, own_copy
from shortcutv2v.types import Carry, Reference, fits

if TYPE_CHECKING:
    from shortcutv2v.blocks import Prediction
    from shortcutv2v.model import ShortcutV2V

__all__ = ["Stream"]

T = TypeVar("T")
_Inputs = tuple[tuple[Any, ...], dict[str, Any]]


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

    Attributes:
        reference: the current reference, None before the first frame.
        refreshes: how often the stream has refreshed since the last `reset()`, by reason: "first" (no reference),
            "size" (the reference does not fit the frame), "distance" (the policy's horizon), "policy" or the policy's
            own word, "not finite". Rows of a batch are counted one by one.
        shortcuts: how many shortcut frames there were, rows of a batch counted one by one.

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

    def __init__(self, model: ShortcutV2V, refresh: RefreshPolicy | int, show_shortcut: bool = False) -> None:
        self.model = model
        self.show_shortcut = show_shortcut
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
        if trained is not None and self._policy.interval > trained:
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
    def distance(self) -> int:
        """Frames since the reference, 0 at a reference frame; of a batch, the largest."""
        return max(self.distances, default=0)

    def reset(self) -> None:
        """Forget the reference: the next frame begins a new video."""
        self.reference: Reference | None = None
        self.distances: tuple[int, ...] = ()
        self.refreshes: Counter[str] = Counter()
        self.shortcuts = 0
        for policy in self._policies:
            policy.reset()

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output for the next frame, in the teacher's own structure. Takes the teacher's inputs."""
        carry = self.model.head(*args, **kwargs)
        if self.reference is None or not fits(self.reference, carry):
            return self._full(carry, ["first" if self.reference is None else "size"] * _rows(carry))
        look = cache(partial(self.model.analyse, self.reference, carry))
        reasons = [self._reason(row, self.reference, carry, look) for row in range(_rows(carry))]
        if all(reasons):
            return self._full(carry, reasons, look)
        f = self._predicted(self.reference, carry, look)
        if any(reasons):
            return self._partial(carry, reasons, f, (args, kwargs))
        output = self.model.tail(carry, f)
        if not _finite((f, output)):
            return self._full(carry, ["not finite"] * _rows(carry))
        self._count(reasons)
        return output

    def _reason(
        self, row: int, reference: Reference, carry: Carry, look: Callable[[], tuple[Prediction, ...]]
    ) -> str | None:
        """Why this row refreshes now; None if it does not."""
        distance, rows = self.distances[row] + 1, _rows(carry)
        if len(self._policies) != rows:
            self._policies = [own_copy(self._policy) for _ in range(rows)]
        of_row = partial(_select, rows=rows, index=slice(row, row + 1))
        found = self._policies[row](Look(distance, of_row(reference), of_row(carry), lambda: of_row(look())))
        if isinstance(found, str) and found:
            return found
        horizon = distance >= self._policy.interval
        return "distance" if horizon else "policy" if found else None

    def _predicted(
        self, reference: Reference, carry: Carry, look: Callable[[], tuple[Prediction, ...]]
    ) -> tuple[Tensor, ...]:
        """`f` as the block predicts it, from the policy's look if it took one."""
        looked = bool(look.cache_info().currsize)  # type: ignore[attr-defined]
        return self.model.compose(reference, carry, look()) if looked else self.model.predict(reference, carry)

    def _full(
        self,
        carry: Carry,
        reasons: list[str] | list[str | None],
        look: Callable[[], tuple[Prediction, ...]] | None = None,
    ) -> Any:
        f = self.model.middle(carry)
        shown = f
        if self.show_shortcut and look is not None and self.reference is not None:
            shown = self._predicted(self.reference, carry, look)
        output = self.model.tail(carry, shown)
        # Only now: a call that fails leaves the stream as it was.
        usable = _finite((carry.a, f))
        self.reference = self.model.make_reference(carry, f) if usable else None
        self._count(list(reasons) if usable else ["not finite"] * _rows(carry))
        return output

    def _partial(self, carry: Carry, reasons: list[str | None], predicted: tuple[Tensor, ...], inputs: _Inputs) -> Any:
        """Refresh some rows of the batch, and show the prediction in the others."""
        rows, due = _rows(carry), [row for row, reason in enumerate(reasons) if reason]
        index = torch.tensor(due, device=carry.a[0].device)
        args, kwargs = _select(inputs, rows, index)
        part = self.model.head(*args, **kwargs)
        f = self.model.middle(part)
        if _rows(part) != len(due) or any(x.shape[0] != len(due) for x in f):
            return self._full(carry, ["policy"] * rows)  # a teacher that mixes its rows
        put = partial(_put, index=index)
        output = self.model.tail(carry, predicted if self.show_shortcut else pytree.tree_map(put, predicted, f))
        if not _finite((part.a, f, predicted, output)):
            return self._full(carry, ["not finite"] * rows)
        self.reference = pytree.tree_map(put, self.reference, self.model.make_reference(part, f))
        self._count(reasons)
        return output

    def _count(self, reasons: list[str | None]) -> None:
        self.refreshes.update(reason for reason in reasons if reason)
        self.shortcuts += reasons.count(None)
        distances = self.distances if len(self.distances) == len(reasons) else (0,) * len(reasons)
        self.distances = tuple(
            0 if reason else distance + 1 for distance, reason in zip(distances, reasons, strict=True)
        )


def _rows(carry: Carry) -> int:
    return carry.a[0].shape[0]


def _select(tree: T, rows: int, index: slice | Tensor) -> T:
    """Return some rows of every tensor that has `rows` of them; others belong to all rows."""
    if rows == 1:
        return tree
    chosen: T = pytree.tree_map_only(Tensor, lambda x: x[index] if x.dim() and x.shape[0] == rows else x, tree)
    return chosen


def _put(whole: Any, part: Any, index: Tensor) -> Any:
    """Return `whole` with the rows `index` taken from `part`."""
    return whole.index_copy(0, index, part.to(whole.dtype)) if isinstance(whole, Tensor) else whole


def _finite(tree: Any) -> bool:
    """Whether all floating-point tensors are free of NaN and infinity."""
    return all(bool(edge.isfinite()) for tensor in _floats(tree) for edge in tensor.aminmax())


def _floats(tree: Any) -> Iterator[Tensor]:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel():
            yield leaf
