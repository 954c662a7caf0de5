"""The only place that keeps state between frames: one `Stream` per video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from shortcutv2v.refresh import RefreshPolicy
from shortcutv2v.types import Carry, Reference

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["Stream"]


class Stream:
    """A video going through a model (Algorithm 1): full passes at reference frames, shortcut passes between.

    Made by `ShortcutV2V.stream()`. Many streams may share one model. Runs without gradients.

    Args:
        model: the wrapped teacher.
        refresh: policy that decides when to refresh.
        show_shortcut: show the block's prediction at reference frames too, once there is an earlier reference,
            instead of the teacher's own output: no visible "pop" at refreshes (the paper does so for Unsup).
            It costs one more run of the block per refresh.

    Attributes:
        reference: the current reference, None before the first frame.
        distance: frames since the reference, 0 at a reference frame.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> stream = model.stream()
        >>> distances = []
        >>> for frame in torch.rand(4, 1, 3, 8, 8):
        ...     output = stream(frame)
        ...     distances.append(stream.distance)
        >>> distances
        [0, 1, 2, 0]
    """

    def __init__(self, model: ShortcutV2V, refresh: RefreshPolicy, show_shortcut: bool = False) -> None:
        self.model = model
        self.refresh = refresh
        self.show_shortcut = show_shortcut
        self.reset()

    def reset(self) -> None:
        """Forget the reference: the next frame begins a new video."""
        self.reference: Reference | None = None
        self.distance = 0

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output for the next frame, in the teacher's own structure. Takes the teacher's inputs."""
        carry = self.model.head(*args, **kwargs)
        if self._due(carry):
            return self._full(carry)
        assert self.reference is not None  # noqa: S101  (else _due)
        output = self.model.tail(carry, self.model.predict(self.reference, carry))
        self.distance += 1
        return output

    def _due(self, carry: Carry) -> bool:
        if self.reference is None or not _same_shapes(self.reference, carry):
            return True
        return self.refresh(self.distance + 1, self.reference, carry)

    def _full(self, carry: Carry) -> Any:
        f = self.model.middle(carry)
        shown = f
        if self.show_shortcut and self.reference is not None and _same_shapes(self.reference, carry):
            shown = self.model.predict(self.reference, carry)
        output = self.model.tail(carry, shown)
        # Only now: a call that fails leaves the stream as it was.
        self.reference, self.distance = self.model.make_reference(carry, f), 0
        return output


def _same_shapes(reference: Reference, carry: Carry) -> bool:
    return all(
        ref.shape == a.shape and ref.dtype == a.dtype and ref.device == a.device
        for ref, a in zip(reference.a, carry.a, strict=True)
    )
