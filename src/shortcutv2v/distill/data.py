"""Training data: windows of consecutive frames, cut out of any number of clips.

Every sample is a function of a seed and its number alone, so that a resumed run sees exactly what an uninterrupted one
would have seen. Crops and flips are the same for all frames of a sample (the authors drew them per frame).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shortcutv2v.distill.draws import PairDraw, SequenceDraw, seeded
from shortcutv2v.errors import InputError

__all__ = ["FrameSource", "Mirrored", "Pairs", "Part", "Sequences", "Windows"]


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


class Mirrored:
    """A clip with left and right swapped, as a clip.

    Features of a mirrored frame are not the mirrored features, so what is cached is never flipped: give
    `FeaturePairs` the mirrored clips beside the others, at twice the disk space.

    Example:
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


class _Samples(Dataset[Tensor]):
    """Frames of some clips, drawn by `draw`, with the same crop and flip for all frames of a sample."""

    def __init__(
        self,
        clips: Sequence[FrameSource],
        draw: Callable[[], tuple[int, list[int]]],
        crop: tuple[int, int] | None,
        flip: bool,
        length: int,
        seed: int,
    ) -> None:
        self.clips, self.length, self.seed = clips, length, seed
        self._draw, self._augment = draw, _augmentation(crop, flip)
        _check_sizes([clip for clip in clips if len(clip)], crop)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Tensor:
        """Sample `number`; any non-negative number is a valid sample, also beyond `len`."""
        with seeded(self.seed, number):
            which, numbers = self._draw()
            frames = torch.stack([self.clips[which][n] for n in numbers])
            augmented: Tensor = self._augment(frames[None].float() / 255)[0]
            return augmented


class Pairs(_Samples):
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
        each sample is a float tensor (2, C, h, w) in [0, 1]: reference, current. Pixels are cut and mirrored, never
        interpolated, so label maps stay label maps.

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
        clips = [clip for clip in clips if len(clip) > 1]
        draw = PairDraw([len(clip) for clip in clips], max_interval, reverse)
        super().__init__(clips, draw, crop, flip, length, seed)
        self.max_interval = max_interval


class Sequences(_Samples):
    """Random windows of consecutive frames, for teachers that feed their outputs back in (vid2vid, section C.3).

    Args:
        clips: one or more clips; they may differ in size if `crop` is given.
        window: frames in a sample; the first is a reference, and so is every `max_interval`-th behind it.
        crop: as in `Pairs`.
        flip: flip half of the windows horizontally.
        reverse: run time backwards in half of the windows; off, since recurrent teachers know one direction.
        length: number of windows in an epoch.
        seed: decides every sample together with its number.

    Shape:
        each sample is a float tensor (window, C, h, w) in [0, 1].

    Raises:
        InputError: no clip is that long, or a frame is smaller than the crop.

    Example:
        >>> clip = torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1).expand(9, 1, 4, 4)
        >>> (Sequences([clip], window=4)[0][:, 0, 0, 0] * 255).diff()
        tensor([1., 1., 1.])
    """

    def __init__(
        self,
        clips: Sequence[FrameSource],
        window: int,
        *,
        crop: tuple[int, int] | None = None,
        flip: bool = True,
        reverse: bool = False,
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        draw = SequenceDraw([len(clip) for clip in clips], window, reverse)
        super().__init__(clips, draw, crop, flip, length, seed)
        self.window = window


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


def _check_sizes(clips: Sequence[FrameSource], crop: tuple[int, int] | None) -> None:
    if isinstance(crop, int):
        raise InputError(f"crop must be (height, width) or None, got {crop}")
    shapes = {tuple(map(int, clip[0].shape)) for clip in clips}
    if any(len(shape) != 3 for shape in shapes):
        raise InputError(f"frames must be (C, H, W), got {sorted(shapes)}: is it a list of clips, [clip]?")
    sizes = {shape[-2:] for shape in shapes}
    if len(channels := {shape[0] for shape in shapes}) > 1:
        raise InputError(
            f"clips of {' and '.join(map(str, sorted(channels)))} channels make no batch: train on one kind"
        )
    if crop is None:
        if len(sizes) > 1:
            raise InputError(f"clips of different sizes {sorted(sizes)} need a crop: give crop=(height, width)")
        return
    for height, width in sorted(sizes):
        if height < crop[0] or width < crop[1]:
            raise InputError(
                f"a clip of {height}x{width} is smaller than the crop {crop[0]}x{crop[1]}: give a smaller crop"
            )
