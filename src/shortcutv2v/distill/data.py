"""Training data: windows of consecutive frames, cut out of any number of clips.

Every sample is a function of a seed and its number alone, so that a resumed run sees the same samples as an
uninterrupted one. Crops and flips are the same for all frames of a sample (the authors drew them per frame).
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shortcutv2v.distill.cache.feature_cache import FeatureCache
from shortcutv2v.distill.cache.samples import CachedFrames
from shortcutv2v.distill.checks import check_samples
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.damage import Reader, whole_parts
from shortcutv2v.distill.draws import Draw, draw_pair, draw_window, seeded
from shortcutv2v.errors import InputError, check_number

__all__ = ["Pairs", "Sequences", "Windows", "long_enough"]


class _Frames:
    """Frames of some clips, with the same crop and flip for all frames of a sample."""

    def __init__(self, clips: Sequence[FrameSource], flip: bool) -> None:
        self.clips, self.flip, self._reader = clips, flip, Reader(clips)

    def sample(self, draw: Draw, crop: tuple[int, int] | None) -> Tensor:
        """Return a sample, drawn from torch's generator."""
        frames = self._reader.first(draw() for _ in itertools.count())
        augmented: Tensor = _augmentation(crop, self.flip)(frames[None].float() / 255)[0]
        return augmented

    def croppable(self, crop: tuple[int, int] | None) -> bool:
        """Return True if samples follow the size of the crop."""
        return crop is not None

    def add_crop(self, crop: tuple[int, int] | None) -> None:
        """Check that every clip has room for such a crop."""
        _check_sizes(self.clips, crop)


class _Samples(Dataset[Any]):
    """Frames of some clips, or their cached features, drawn by `choose`."""

    def __init__(
        self,
        clips: Sequence[FrameSource],
        least: int,
        choose: Callable[[int], list[int]],
        reverse: bool,
        crop: tuple[int, int] | None,
        flip: bool,
        length: int,
        seed: int,
        cache: FeatureCache | None,
    ) -> None:
        check_samples(length, seed, crop)
        self.length, self.seed, self.crop = length, seed, crop
        clips = long_enough(clips, least)
        if cache is not None:
            clips = [part for clip in clips for part in whole_parts(clip)]
            clips = [part for part in clips if len(part) >= least] or clips
        Draw([len(clip) for clip in clips], least, choose, reverse)  # refuses clips before anything is computed
        self.source = _Frames(clips, flip) if cache is None else CachedFrames(cache, clips)
        self._draw = Draw([len(clip) for clip in self.source.clips], least, choose, reverse)
        self.add_crop(crop)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        """Return sample `number`; any non-negative number is a valid sample, also beyond `len`."""
        return self.at(number, self.crop)

    def at(self, number: int, crop: tuple[int, int] | None) -> Any:
        """Return sample `number` with a crop of another size, which was given to `add_crop`."""
        with seeded(self.seed, number):
            return self.source.sample(self._draw, crop)

    @property
    def croppable(self) -> bool:
        """True if samples follow the size of the crop."""
        return self.source.croppable(self.crop)

    def add_crop(self, crop: tuple[int, int] | None) -> None:
        """Prepare crops of another size.

        Raises:
            InputError: a clip has no room for them, or cached features cannot be cut like that.
        """
        self.source.add_crop(crop)


class Pairs(_Samples):
    """Random pairs (reference, current) within the interval (section C.3).

    The distance is uniform over 1 to `max_interval`, both included; clips are drawn by their number of pairs.

    Cached features are cropped at multiples of their strides. They are never flipped, because the features of a
    mirrored frame are not mirrored features: give `[*clips, *map(Mirrored, clips)]`, at twice the disk space.

    Args:
        clips: one or more clips; they may differ in size if `crop` is given.
        max_interval: largest distance between the two frames.
        crop: (height, width) of a random crop, None for whole frames. Frames smaller than the crop are refused.
        flip: flip half of the pairs horizontally.
        reverse: swap the two frames in half of the pairs: time run backwards. Default: unless they are the cached
            features of a teacher with memory.
        length: number of pairs in an epoch.
        seed: decides every sample together with its number.
        cache: give cached features instead of frames; those that are missing are computed here and now.

    Shape:
        each sample is a float tensor (2, C, h, w) in [0, 1]: reference, current. Pixels are cut and mirrored, never
        interpolated, so label maps stay label maps. With `cache`, it is a list of two `Features` of batch size 1 that
        share memory with the cache; batch them with `collate`.

    Raises:
        InputError: no clip has two frames, a frame is smaller than the crop, a number is out of range, the crop is no
            multiple of a feature's stride, or as `FeatureCache.features`.
        VideoError: from a sample, where a hundred in a row cannot be read.

    Warns:
        UserWarning: clips of one frame, or frames that cannot be read, are left out; it counts them. A feature does not
            lie over the frame, so that samples are whole frames.

    Examples:
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
        reverse: bool | None = None,
        length: int = 1000,
        seed: int = 0,
        cache: FeatureCache | None = None,
    ) -> None:
        swap = (cache is None or not cache.adapter.recurrent) if reverse is None else reverse
        check_number("max_interval", max_interval, 1, whole=True)
        choose = functools.partial(draw_pair, max_interval=max_interval)
        super().__init__(clips, 2, choose, swap, crop, flip, length, seed, cache)
        self.max_interval = max_interval


class Sequences(_Samples):
    """Random windows of consecutive frames, for teachers that feed their outputs back in (vid2vid, section C.3).

    With `cache`, the teacher's memory runs through the whole clip, from its first frame on.

    Args:
        clips: one or more clips; they may differ in size if `crop` is given.
        window: frames in a sample; the first is a reference, and so is every `interval`-th after it.
        crop: as in `Pairs`.
        flip: flip half of the windows horizontally.
        reverse: run time backwards in half of the windows; off, since recurrent teachers know one direction.
        length: number of windows in an epoch.
        seed: decides every sample together with its number.
        cache: as in `Pairs`.

    Shape:
        each sample is a float tensor (window, C, h, w) in [0, 1]; with `cache`, a list of `window` `Features`.

    Raises:
        InputError: no clip is that long, or as `Pairs`.
        VideoError: as `Pairs`.

    Warns:
        UserWarning: as `Pairs`, of clips shorter than the window.

    Examples:
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
        cache: FeatureCache | None = None,
    ) -> None:
        check_number("window, a reference and the frames after it,", window, 2, whole=True)
        choose = functools.partial(draw_window, window=window)
        super().__init__(clips, window, choose, reverse, crop, flip, length, seed, cache)
        self.window = window


class Windows(Dataset[Tensor]):
    """All consecutive windows of `length` frames of some clips, for validation: a reference, then shortcut frames.

    Args:
        clips: one or more clips.
        length: frames in a window, usually `max_interval`.

    Shape:
        each sample is a float tensor (length, 3, H, W) in [0, 1]. A window that cannot be read is replaced by the next.

    Raises:
        InputError: no clip is that long.
    """

    def __init__(self, clips: Sequence[FrameSource], length: int) -> None:
        check_number("the length of a window", length, 2, whole=True)
        self.clips, self.length = long_enough(clips, length), length
        ends = [len(clip) - length + 1 for clip in self.clips]
        self._places = [(which, start) for which, end in enumerate(ends) for start in range(0, end, length)]
        if not self._places:
            raise InputError(f"validation needs {length} consecutive frames: no clip is that long")
        self._reader = Reader(self.clips)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Tensor:
        """Window `number`."""
        count = len(self)
        places = (self._places[(number + i) % count] for i in range(count))
        return self._reader.first((which, range(at, at + self.length)) for which, at in places).float() / 255


def long_enough(clips: Sequence[FrameSource], least: int) -> list[FrameSource]:
    """Return the clips of at least so many frames; all of them if there is none, for an error that says so.

    Warns:
        UserWarning: some are shorter; it counts them.

    Examples:
        >>> len(long_enough([torch.zeros(4, 3, 8, 8, dtype=torch.uint8)] * 2, 3))
        2
    """
    found = [clip for clip in clips if len(clip) >= least]
    if found and (short := len(clips) - len(found)):
        warnings.warn(f"{short} of {len(clips)} clips left out: they have fewer than {least} frames", stacklevel=3)
    return found or list(clips)


@functools.cache
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
