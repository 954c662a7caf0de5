"""Choice of the frames of a sample: a function of a seed and the sample's number alone."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterator, Sequence

import torch

from shortcutv2v.distill.checks import check_number
from shortcutv2v.errors import InputError

__all__ = ["PairDraw", "SequenceDraw", "seeded"]


class PairDraw:
    """Draws a pair (reference, current): the distance uniform over 1 to `max_interval`, clips by their number of pairs.

    Args:
        lengths: of the clips.
        max_interval: largest distance.
        reverse: swap half of the pairs.

    Raises:
        InputError: no clip has two frames, or `max_interval` is below 1.
    """

    def __init__(self, lengths: Sequence[int], max_interval: int, reverse: bool) -> None:
        check_number("max_interval", max_interval, 1, whole=True)
        if not any(length > 1 for length in lengths):
            raise InputError("training needs pairs of frames: no clip has two")
        self.lengths, self.max_interval, self.reverse = lengths, max_interval, reverse
        self._ends = list(itertools.accumulate(max(0, length - 1) for length in lengths))

    def __call__(self) -> tuple[int, list[int]]:
        """Return the number of a clip and of its two frames, drawn from torch's generator."""
        which = bisect.bisect_right(self._ends, int(torch.randint(self._ends[-1], ())))
        length = self.lengths[which]
        distance = int(torch.randint(1, min(self.max_interval, length - 1) + 1, ()))
        first = int(torch.randint(length - distance, ()))
        pair = [first, first + distance]
        return which, pair[::-1] if self.reverse and bool(torch.rand(()) < 0.5) else pair


class SequenceDraw:
    """Draws `window` consecutive frames, uniformly over all such windows of all clips.

    Args:
        lengths: of the clips.
        window: number of frames.
        reverse: run time backwards in half of the windows.

    Raises:
        InputError: no clip is that long, or `window` is below 2.
    """

    def __init__(self, lengths: Sequence[int], window: int, reverse: bool) -> None:
        check_number("window, a reference and the frames after it,", window, 2, whole=True)
        if not any(length >= window for length in lengths):
            raise InputError(
                f"training needs {window} consecutive frames: the longest clip has {max(lengths, default=0)}"
            )
        self.window, self.reverse = window, reverse
        self._ends = list(itertools.accumulate(max(0, length - window + 1) for length in lengths))

    def __call__(self) -> tuple[int, list[int]]:
        """Return the number of a clip and of its frames, drawn from torch's generator."""
        place = int(torch.randint(self._ends[-1], ()))
        which = bisect.bisect_right(self._ends, place)
        start = place - (self._ends[which - 1] if which else 0)
        numbers = list(range(start, start + self.window))
        return which, numbers[::-1] if self.reverse and bool(torch.rand(()) < 0.5) else numbers


@contextlib.contextmanager
def seeded(seed: int, number: int) -> Iterator[None]:
    """Seed torch's generator for sample `number` of `seed`, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would reach the generators of all GPUs, too, which stay as they are.
        torch.default_generator.manual_seed(hash((seed, number)) & 0xFFFF_FFFF)
        yield
