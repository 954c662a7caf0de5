"""Refresh policies that tests share: one that looks, one that remembers, one that is a plain function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from shortcutv2v import Look, RefreshPolicy
from shortcutv2v.refresh import FromBoth

__all__ = ["Alternating", "EitherSide", "Unexplained", "every_second"]


@dataclass
class Unexplained(RefreshPolicy):
    """Looks at the prediction."""

    interval: int = 8
    limit: float = 0.0

    def __call__(self, look: Look) -> str:
        return "moved" if float(look.predictions[0].unexplained) > self.limit else ""


@dataclass
class Alternating(RefreshPolicy):
    """Remembers: refreshes after 1, 2, 1, 2, ... frames."""

    interval: int = 4
    wanted: int = field(default=1, init=False)

    def __call__(self, look: Look) -> bool:
        if look.distance < self.wanted:
            return False
        self.wanted = 3 - self.wanted
        return True

    def reset(self) -> None:
        self.wanted = 1


def every_second(look: Look) -> bool:
    """A function of the user's."""
    return look.distance >= 2


@dataclass
class EitherSide(RefreshPolicy):
    """Looks, and refuses with the word that lets look-ahead try both references."""

    interval: int = 8
    alone: float = 0.0
    limit: float = 0.0
    from_both: ClassVar[FromBoth] = "refused"

    def __call__(self, look: Look) -> str:
        left = float(look.predictions[0].unexplained)
        return "estimate" if left > (self.limit if look.both else self.alone) else ""
