"""Frames that cannot be read are skipped, with a warning that counts them, and the run continues.

Only decoding shows whether a picture or the end of a video is damaged, and decoding all clips before a run costs a pass
over all data. So another sample replaces one that cannot be read. The choice depends on the seed, the sample's number
and the files alone, so that resumed runs see the same samples.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from shortcutv2v.distill.clips import FrameSource, Part
from shortcutv2v.errors import VideoError

__all__ = ["Reader", "whole_parts"]

_TRIES = 100
"""Samples in a row that cannot be read, after which a run ends."""


class Reader:
    """Reads frames of some clips, and remembers the ones that cannot be read.

    Args:
        clips: the clips to read from.

    Warns:
        UserWarning: at the first, second, fourth, eighth, ... frame that cannot be read, in every process that reads.

    Examples:
        >>> clip = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> Reader([clip]).first([(0, [2, 3])]).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, clips: Sequence[FrameSource]) -> None:
        self.clips = clips
        self._bad: dict[tuple[int, int], str] = {}

    def first(self, choices: Iterable[tuple[int, Sequence[int]]]) -> Tensor:
        """Return the frames of the first choice that can be read, uint8 (T, C, H, W).

        Args:
            choices: number of a clip and numbers of its frames; the first hundred are tried.

        Raises:
            VideoError: none of them can be read.
        """
        why = "there are none"
        for tried, (which, numbers) in enumerate(itertools.islice(choices, _TRIES), 1):
            frames = [frame for number in numbers if (frame := self.read(which, number)) is not None]
            if len(frames) == len(numbers):
                return torch.stack(frames)
            why = f"{tried} samples in a row cannot be read: {[*self._bad.values()][-1]}"
        raise VideoError(why)

    def read(self, which: int, number: int) -> Tensor | None:
        """Return frame `number` of clip `which`, None if it cannot be read."""
        if (which, number) in self._bad:
            return None
        try:
            return self.clips[which][number]
        except VideoError as error:
            self._bad[which, number] = str(error)
            count = len(self._bad)
            if count & (count - 1) == 0:
                frames = "1 frame that cannot be read is" if count == 1 else f"{count} frames that cannot be read are"
                warnings.warn(f"{frames} left out so far, the last: frame {number}, {error}", stacklevel=2)
            return None


def whole_parts(clip: FrameSource) -> list[FrameSource]:
    """Return the clip itself, or the parts between the frames that cannot be read; reads the clip once.

    After an unreadable frame, skip ahead in growing steps until a frame can be decoded: in a video all frames up to the
    next key frame are lost, and each attempt is slow.

    Warns:
        UserWarning: as `Reader`.

    Examples:
        >>> clip = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> whole_parts(clip)[0] is clip
        True
    """
    if isinstance(clip, Tensor):
        return [clip]
    reader, parts, start, number, stride = Reader([clip]), [], 0, 0, 1
    while number < len(clip):
        if reader.read(0, number) is not None:
            number, stride = number + 1, 1
            continue
        parts += [(start, number)]
        start = number = number + stride
        stride *= 2
    if not parts:
        return [clip]
    return [Part(clip, a, b) for a, b in [*parts, (start, len(clip))] if a < b]
