"""One frame of a video, as refresh policies see it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # hosts of exported programs have the policies, and no torch
    from shortcutv2v.blocks import Prediction
    from shortcutv2v.types import Carry, Reference

__all__ = ["Look"]


class Look:
    """One frame of one video, as a policy sees it.

    Args:
        distance: frames since the reference.
        carry: what the head made of the frame.
        refer: returns the reference; `reference` calls it once.
        predict: runs the block; `predictions` calls it once.
        row: the row of the batch.

    Attributes:
        distance: frames since the reference, 1 for the frame right after it.
        row: the row of the batch that the video is.
        carry: what the head made of the current frame, of batch size 1; compare `carry.a` with `reference.a`.
        times: median seconds of a teacher frame and of a shortcut frame in this stream, None where there was none.
        both: whether the prediction is made of the references on both sides, see `LookAhead`.
        reason: why the frame is refreshed; empty if it is not, or not yet known.
        estimate: PSNR in dB that the policy expects of this frame's prediction, if it does; policies set it.

    Examples:
        >>> look = Look(2, None)
        >>> look.distance, look.predictions
        (2, ())
    """

    def __init__(
        self,
        distance: int,
        carry: Carry,
        refer: Callable[[], Reference | None] = lambda: None,
        predict: Callable[[], tuple[Prediction, ...]] = tuple,
        row: int = 0,
    ) -> None:
        self.distance, self.carry, self.row = distance, carry, row
        self.times: tuple[float | None, float | None] = (None, None)
        self.estimate: float | None = None
        self.both, self.reason = False, ""
        self._refer, self._predict = refer, predict

    @cached_property
    def reference(self) -> Reference:
        """The current reference, of batch size 1."""
        found = self._refer()
        assert found is not None  # noqa: S101  (a stream asks its policy only if there is a reference)
        return found

    @cached_property
    def predictions(self) -> tuple[Prediction, ...]:
        """The block's prediction for this frame, one per branch.

        The block runs when this is first read. If the frame then becomes a shortcut frame, the stream uses this very
        prediction, so looking at it costs nothing.
        """
        return self._predict()

    @property
    def looked(self) -> bool:
        """True if the policy has read `predictions`."""
        return "predictions" in vars(self)
