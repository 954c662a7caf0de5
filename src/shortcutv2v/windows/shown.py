"""The picture on show: what it was made from, and what each of its windows is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from shortcutv2v.decibels import psnr_of
from shortcutv2v.graph import flatten
from shortcutv2v.rows import same
from shortcutv2v.windows.levels import Job, Levels
from shortcutv2v.windows.locality import Call
from shortcutv2v.windows.worth import changes

__all__ = ["Shown"]


class Shown:
    """The output on show, with everything that tells how old each window is.

    Args:
        call: the inputs that it was made from.
        levels: the windows.
        output: the teacher's output, or the block's; copied.
        error: its expected mean square error.

    Attributes:
        errors: expected error of each window when it was computed; 0 from the teacher.
        ages: frames since each window was computed.
        expected: error of each window as it is shown now.
    """

    def __init__(self, call: Call, levels: Levels, output: Any, error: float) -> None:
        leaves, self._structure = flatten(output)
        self._key = call.key
        self._others = [tensor.clone() for tensor in call.others]
        self._seen = [call.tensors[i].clone() for i in call.pictures]
        self.leaves: list[Tensor] = [leaf.clone() for leaf in leaves]
        self.levels, self.grid = levels, levels.grids[0]
        self.errors, self.ages = [error] * len(self.grid), [0] * len(self.grid)
        self.expected = list(self.errors)

    def serves(self, call: Call) -> bool:
        """Return True if a frame differs from this one in its pictures alone."""
        return self._key == call.key and same(self._others, call.others)

    def changes(self, call: Call, around: int) -> list[tuple[float, float]]:
        """Return how much each window's input has changed since the window was computed; see `worth.changes`."""
        return changes([call.tensors[i] for i in call.pictures], self._seen, self.grid, around)

    def rebuilt(self, leaves: Iterable[Tensor]) -> Any:
        """Return an output of the teacher's structure."""
        return self._structure.rebuild(list(leaves))

    def output(self) -> Any:
        """Return a copy of the output."""
        return self.rebuilt(leaf.clone() for leaf in self.leaves)

    def paste(self, job: Job, made: Sequence[Tensor]) -> None:
        """Take over the windows of a job from the output's tensors for its crops."""
        for whole, parts in zip(self.leaves, made, strict=True):
            self.levels.paste(whole, parts, job)

    def passed(self, call: Call, computed: Sequence[int], expected: list[float]) -> None:
        """Note the end of a frame, its computed windows, and the errors of all windows."""
        self.ages = [age + 1 for age in self.ages]
        self.expected = expected
        for window in computed:
            self.errors[window], self.ages[window] = expected[window], 0
        for seen, place in zip(self._seen, call.pictures, strict=True):
            if computed:
                self.grid.paste(seen, self.grid.cut(call.tensors[place], computed), computed)

    @property
    def estimate(self) -> float:
        """PSNR in dB that the picture is expected to have to the teacher's."""
        return psnr_of(sum(share * error for share, error in zip(self.grid.shares, self.expected, strict=True)))
