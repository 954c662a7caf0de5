"""When to refresh: a policy says, frame by frame, whether the reference is still good enough.

A policy is any callable `policy(distance, reference, carry) -> bool`; `Every` is the paper's constant interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shortcutv2v.errors import InputError
from shortcutv2v.types import Carry, Reference

__all__ = ["Every", "RefreshPolicy", "as_policy"]


class RefreshPolicy(Protocol):
    """Decides whether a frame gets a full pass. The first frame of a video always does, without being asked."""

    def __call__(self, distance: int, reference: Reference, carry: Carry) -> bool:
        """Whether to refresh now.

        Args:
            distance: frames since the reference, 1 for the frame right behind it.
            reference: the current reference.
            carry: what the head made of the current frame; `carry.a` may be compared with `reference.a`.
        """
        ...


@dataclass(frozen=True)
class Every:
    """Refresh every `interval` frames (Algorithm 1; the paper's alpha).

    Raises:
        InputError: `interval` is below 1.

    Examples:
        >>> policy = Every(3)
        >>> policy(2, None, None), policy(3, None, None)
        (False, True)
    """

    interval: int

    def __post_init__(self) -> None:
        if not isinstance(self.interval, int) or self.interval < 1:
            raise InputError(f"max_interval must be a whole number of at least 1, got {self.interval!r}")

    def __call__(self, distance: int, reference: Reference, carry: Carry) -> bool:
        """Whether `distance` has reached the interval."""
        return distance >= self.interval


def as_policy(refresh: RefreshPolicy | int) -> RefreshPolicy:
    """A policy from a policy or an interval.

    Raises:
        InputError: it is neither.

    Examples:
        >>> as_policy(3)
        Every(interval=3)
    """
    if isinstance(refresh, int):
        return Every(refresh)
    if not callable(refresh):
        raise InputError(f"refresh must be an interval or a callable (distance, reference, carry) -> bool: {refresh!r}")
    return refresh
