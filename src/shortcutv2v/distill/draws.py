"""Choice of the frames of a sample: a function of a seed and the sample's number alone."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from shortcutv2v.errors import InputError

__all__ = ["Draw", "draw_pair", "draw_window", "seeded"]


class Draw:
    """Draws the frames of a sample; clips by the number of places where a sample fits.

    Args:
        lengths: of the clips.
        least: number of frames that a sample needs.
        choose: draws the numbers of a sample's frames from a clip of some length.
        reverse: run time backwards in half of the samples.

    Raises:
        InputError: no clip is that long.
    """

    def __init__(self, lengths: Sequence[int], least: int, choose: Callable[[int], list[int]], reverse: bool) -> None:
        if not any(length >= least for length in lengths):
            raise InputError(
                f"training needs {least} consecutive frames: the longest clip has {max(lengths, default=0)}"
            )
        self.lengths, self._choose, self.reverse = lengths, choose, reverse
        self._ends = list(itertools.accumulate(max(0, length - least + 1) for length in lengths))

    def __call__(self) -> tuple[int, list[int]]:
        """Return the number of a clip and of its frames, drawn from torch's generator."""
        which = bisect.bisect_right(self._ends, int(torch.randint(self._ends[-1], ())))
        numbers = self._choose(self.lengths[which])
        return which, numbers[::-1] if self.reverse and bool(torch.rand(()) < 0.5) else numbers


def draw_pair(length: int, max_interval: int) -> list[int]:
    """Draw a pair (reference, current): the distance uniform over 1 to `max_interval`, both included."""
    distance = int(torch.randint(1, min(max_interval, length - 1) + 1, ()))
    first = int(torch.randint(length - distance, ()))
    return [first, first + distance]


def draw_window(length: int, window: int) -> list[int]:
    """Draw `window` consecutive frames, uniformly over all such windows."""
    start = int(torch.randint(length - window + 1, ()))
    return list(range(start, start + window))


@contextlib.contextmanager
def seeded(seed: int, number: int) -> Iterator[None]:
    """Seed torch's generator for sample `number` of `seed`, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would reach the generators of all GPUs, too, which stay as they are.
        torch.default_generator.manual_seed(hash((seed, number)) & 0xFFFF_FFFF)
        yield
