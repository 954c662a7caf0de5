"""True multiply-adds of a wrapped model, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from shortcutv2v.measure.cost import uncompiled
from shortcutv2v.model import ShortcutV2V

__all__ = ["Macs", "count", "macs"]


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of each part, for one call.

    Attributes:
        head: runs on every frame.
        middle: runs at reference frames only.
        tail: runs on every frame.
        reference: of the blocks, once per refresh: what depends on the reference alone.
        block: of the blocks, on every shortcut frame.
    """

    head: int
    middle: int
    tail: int
    reference: int
    block: int

    @property
    def teacher(self) -> int:
        """A frame of the teacher."""
        return self.head + self.middle + self.tail

    @property
    def refresh(self) -> int:
        """A reference frame: the teacher, and what the blocks prepare."""
        return self.teacher + self.reference

    @property
    def shortcut(self) -> int:
        """A shortcut frame."""
        return self.head + self.block + self.tail

    def amortised(self, interval: int) -> float:
        """An average frame of a video with a refresh every `interval` frames."""
        return (self.refresh + (interval - 1) * self.shortcut) / interval


@torch.no_grad()
def macs(model: ShortcutV2V, *args: Any, **kwargs: Any) -> Macs:
    """Count a wrapped model on the teacher's inputs.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> frame = torch.rand(1, 3, 10, 10)
        >>> macs(shortcutv2v.wrap(teacher, "0", "2", example_inputs=(frame,)), frame).teacher == 4 * 81 * 100
        True
    """
    carry, head = count(lambda: model.head(*args, **kwargs))
    f, middle = count(lambda: model.middle(carry))
    _, tail = count(lambda: model.tail(carry, f))
    made, reference = count(lambda: model.make_reference(carry, f))
    _, block = count(lambda: model.predict(made, carry))
    return Macs(head, middle, tail, reference, block)


def count(run: Callable[[], Any]) -> tuple[Any, int]:
    """What `run()` returns, and its multiply-adds: transposed convolutions and our operators at their real cost."""
    with uncompiled(), FlopCounterMode(display=False) as counter:
        result = run()
    return result, counter.get_total_flops() // 2
