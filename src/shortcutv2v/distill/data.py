"""Training data: windows of consecutive frames, cut out of any number of clips.

Every sample is a function of a seed and its number alone, so that a resumed run sees exactly what an uninterrupted one
would have seen. Crops and flips are the same for all frames of a sample (the authors drew them per frame).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shortcutv2v.errors import InputError

__all__ = ["FrameSource", "Pairs", "Part", "Windows"]


class FrameSource(Protocol):
    """A clip with random access, such as `shortcutv2v.video.Frames` or a uint8 tensor of shape (N, 3, H, W)."""

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number`, uint8 (3, H, W)."""
        ...


class Part:
    """Frames `start` to `stop - 1` of a clip, as a clip.

    Example:
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


class Pairs(Dataset[Tensor]):
    """Random pairs (reference, current) within the interval (section C.3).

    The distance is uniform over 1 to `max_interval`, both included; clips are drawn by their number of pairs.

    Args:
        clips: one or more clips; they may differ in size if `crop` is given.
        max_interval: largest distance between the two frames.
        crop: (height, width) of a random crop, None for whole frames. Frames smaller than the crop are refused.
        flip: flip half of the pairs horizontally.
        reverse: swap the two frames in half of the pairs: time run backwards.
        length: number of pairs in an epoch.
        seed: decides every sample together with its number.

    Shape:
        each sample is a float tensor (2, 3, h, w) in [0, 1]: reference, current.

    Raises:
        InputError: no clip has two frames, or a frame is smaller than the crop.

    Example:
        >>> clip = torch.randint(0, 256, (5, 3, 20, 30), dtype=torch.uint8)
        >>> Pairs([clip], max_interval=3, crop=(16, 16), length=10)[0].shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        clips: Sequence[FrameSource],
        max_interval: int = 3,
        *,
        crop: tuple[int, int] | None = None,
        flip: bool = True,
        reverse: bool = True,
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        if max_interval < 1:
            raise InputError(f"max_interval must be at least 1, got {max_interval}")
        self.clips = [clip for clip in clips if len(clip) > 1]
        if not self.clips:
            raise InputError("training needs pairs of frames: no clip has two")
        self.max_interval, self.length, self.seed = max_interval, length, seed
        self.reverse = reverse
        self._augment = _augmentation(crop, flip)
        self._crop = crop
        self._ends = list(itertools.accumulate(len(clip) - 1 for clip in self.clips))
        self._check_sizes()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Tensor:
        """Sample `number`; any non-negative number is a valid sample, also beyond `len`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, number)) & 0xFFFF_FFFF)
            first, second, clip = self._draw()
            frames = torch.stack([clip[first], clip[second]])
            augmented: Tensor = self._augment(frames[None].float() / 255)[0]
            return augmented

    def _draw(self) -> tuple[int, int, FrameSource]:
        place = int(torch.randint(self._ends[-1], ()))
        which = bisect.bisect_right(self._ends, place)
        clip = self.clips[which]
        distance = int(torch.randint(1, min(self.max_interval, len(clip) - 1) + 1, ()))
        first = int(torch.randint(len(clip) - distance, ()))
        pair = (first, first + distance)
        if self.reverse and bool(torch.rand(()) < 0.5):
            pair = pair[::-1]
        return *pair, clip

    def _check_sizes(self) -> None:
        sizes = {(int(clip[0].shape[-2]), int(clip[0].shape[-1])) for clip in self.clips}
        if self._crop is None:
            if len(sizes) > 1:
                raise InputError(f"clips of different sizes {sorted(sizes)} need a crop: give crop=(height, width)")
            return
        for height, width in sorted(sizes):
            if height < self._crop[0] or width < self._crop[1]:
                raise InputError(
                    f"a clip of {height}x{width} is smaller than the crop {self._crop[0]}x{self._crop[1]}: "
                    "give a smaller crop"
                )


class Windows(Dataset[Tensor]):
    """All consecutive windows of `length` frames of some clips, for validation: reference first, shortcuts behind.

    Args:
        clips: one or more clips.
        length: frames in a window, usually `max_interval`.

    Shape:
        each sample is a float tensor (length, 3, H, W) in [0, 1].
    """

    def __init__(self, clips: Sequence[FrameSource], length: int) -> None:
        self.clips, self.length = clips, length
        self._places = [(clip, start) for clip in clips for start in range(0, len(clip) - length + 1, length)]
        if not self._places:
            raise InputError(f"validation needs {length} consecutive frames: no clip is that long")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Tensor:
        """Window `number`."""
        clip, start = self._places[number]
        return torch.stack([clip[start + i] for i in range(self.length)]).float() / 255


def _augmentation(crop: tuple[int, int] | None, flip: bool) -> torch.nn.Module:
    import kornia.augmentation as K

    steps: list[torch.nn.Module] = []
    if crop is not None:
        steps.append(K.RandomCrop(crop, p=1.0, cropping_mode="slice"))
    if flip:
        steps.append(K.RandomHorizontalFlip(p=0.5))
    if not steps:
        return torch.nn.Identity()
    return K.VideoSequential(*steps, data_format="BTCHW", same_on_frame=True)
