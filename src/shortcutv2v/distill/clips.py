"""The protocol of a clip, and clips made of clips."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from shortcutv2v.errors import InputError

__all__ = ["FrameSource", "Mirrored", "Part"]


class FrameSource(Protocol):
    """A clip with random access, such as `shortcutv2v.video.Frames` or a uint8 tensor of shape (N, 3, H, W).

    Maps are pictures of fewer or more channels: a clip of label maps is a uint8 tensor (N, 1, H, W).
    """

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number`, uint8 (C, H, W)."""
        ...


class Part:
    """Frames `start` to `stop - 1` of a clip, as a clip.

    Examples:
        >>> import torch
        >>> len(Part(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), 2, 7))
        5
    """

    def __init__(self, clip: FrameSource, start: int, stop: int) -> None:
        if not 0 <= start < stop <= len(clip):
            raise InputError(f"frames {start}:{stop} are not in a clip of {len(clip)} frames")
        self.clip, self.start, self.stop = clip, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number` of the part."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.clip[self.start + number]


class Mirrored:
    """A clip with left and right swapped, as a clip.

    Features of a mirrored frame are not mirrored features, so cached features are never flipped: give `Pairs` the
    mirrored clips beside the others, at twice the disk space.

    Examples:
        >>> import torch
        >>> int(Mirrored(torch.arange(3, dtype=torch.uint8).expand(1, 3, 2, 3))[0][0, 0, 0])
        2
    """

    def __init__(self, clip: FrameSource) -> None:
        self.clip = clip

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number`, mirrored."""
        return self.clip[number].flip(-1)
