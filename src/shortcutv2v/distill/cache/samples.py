"""Training data from a feature cache: the samples of `Pairs` and `Sequences` as the teacher's features."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from shortcutv2v.distill.cache.crops import Cropper, UncroppableError
from shortcutv2v.distill.cache.feature_cache import FeatureCache, without_autocast
from shortcutv2v.distill.cache.features import Features, FrameShape
from shortcutv2v.distill.cache.store import StoredClip
from shortcutv2v.distill.checks import check_samples
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.damage import whole_parts
from shortcutv2v.distill.data import long_enough
from shortcutv2v.distill.draws import PairDraw, SequenceDraw, seeded
from shortcutv2v.errors import InputError

__all__ = ["FeaturePairs", "FeatureSequences"]


class _FeatureSamples(Dataset[list[Features]]):
    """Features of some clips' frames, drawn by `draw`, cropped alike."""

    def __init__(
        self,
        cache: FeatureCache,
        clips: Sequence[FrameSource],
        least: int,
        draw: Callable[[list[int]], Callable[[], tuple[int, list[int]]]],
        crop: tuple[int, int] | None,
        length: int,
        seed: int,
    ) -> None:
        check_samples(length, seed, crop)
        self.length, self.seed, self.crop = length, seed, crop
        parts = [part for clip in long_enough(clips, least) for part in whole_parts(clip)]
        if all(len(part) < least for part in parts):
            draw([len(part) for part in parts])  # says what is missing, before anything is computed
        self.stored = [cache.features(part) for part in parts if len(part) >= least]
        self._draw = draw([len(stored) for stored in self.stored])
        self._cache: FeatureCache | None = cache
        self._croppers: dict[tuple[int, int] | None, dict[FrameShape, Cropper]] = {}
        self.add_crop(crop)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> list[Features]:
        """Return sample `number`; any non-negative number is a valid sample, also beyond `len`."""
        return self.at(number, self.crop)

    def at(self, number: int, crop: tuple[int, int] | None) -> list[Features]:
        """Return sample `number` with a crop of another size, which `add_crop` has prepared."""
        with seeded(self.seed, number):
            which, numbers = self._draw()
            features = [self.stored[which][n] for n in numbers]
            cropper = self._croppers[crop].get(self.stored[which].frame)
            if cropper is None:
                return features
            top, left = cropper.draw()
            return [cropper(one, top, left) for one in features]

    @property
    def croppable(self) -> bool:
        """True if samples follow the size of the crop; features that do not lie over the frame stay whole."""
        return bool(self._croppers[self.crop])

    def add_crop(self, crop: tuple[int, int] | None) -> None:
        """Prepare crops of another size; needs the model."""
        if self._cache is not None:
            self._croppers[crop] = _croppers(self._cache, self.stored, crop)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}  # processes that read need no model


class FeaturePairs(_FeatureSamples):
    """Pairs (reference, current) as `Pairs` draws them, as cached features. All clips are cached at construction.

    Crops are cut out of the features of whole frames at multiples of their strides. Nothing is flipped, because the
    features of a mirrored frame are not mirrored features: give `[*clips, *map(Mirrored, clips)]`, at twice the disk
    space.

    Args:
        cache: where features come from.
        clips: one or more clips; they may differ in size if `crop` is given.
        max_interval: largest distance between the two frames.
        crop: (height, width) of a random crop in pixels of the frame; None for whole frames.
        reverse: swap half of the pairs; default: only where the teacher has no memory.
        length: number of pairs in an epoch.
        seed: decides every sample together with its number.

    Shape:
        each sample is a list of two `Features` of batch size 1 that share memory with the cache; batch them with
        `collate`.

    Raises:
        InputError: no clip has two frames, a frame is smaller than the crop, the crop is no multiple of a feature's
            stride, or as `FeatureCache.features`.

    Warns:
        UserWarning: a feature does not lie over the frame, so that samples are whole frames; some frames cannot be
            read, so that the parts between them are cached.
    """

    def __init__(
        self,
        cache: FeatureCache,
        clips: Sequence[FrameSource],
        max_interval: int = 3,
        *,
        crop: tuple[int, int] | None = None,
        reverse: bool | None = None,
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        swap = not cache.adapter.recurrent if reverse is None else reverse
        draw = functools.partial(PairDraw, max_interval=max_interval, reverse=swap)
        super().__init__(cache, clips, 2, draw, crop, length, seed)
        self.max_interval = max_interval


class FeatureSequences(_FeatureSamples):
    """Windows of consecutive frames as `Sequences` draws them, as cached features; see `FeaturePairs`.

    The teacher's memory runs through the whole clip, from its first frame on.

    Args:
        cache: where features come from.
        clips: one or more clips; they may differ in size if `crop` is given.
        window: frames in a sample.
        crop: as in `FeaturePairs`.
        length: number of windows in an epoch.
        seed: decides every sample together with its number.

    Shape:
        each sample is a list of `window` `Features` of batch size 1.

    Raises:
        InputError: as `FeaturePairs`, or no clip is that long.
    """

    def __init__(
        self,
        cache: FeatureCache,
        clips: Sequence[FrameSource],
        window: int,
        *,
        crop: tuple[int, int] | None = None,
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        draw = functools.partial(SequenceDraw, window=window, reverse=False)
        super().__init__(cache, clips, window, draw, crop, length, seed)
        self.window = window


def _croppers(
    cache: FeatureCache, clips: Sequence[StoredClip], crop: tuple[int, int] | None
) -> dict[FrameShape, Cropper]:
    """Return a cropper for every size of frames; none if samples are whole frames."""
    whole = {stored.frame: stored[0] for stored in clips}
    if crop is not None:
        try:
            with without_autocast():
                return {frame: _cropper(cache, features, frame, crop) for frame, features in whole.items()}
        except UncroppableError as error:
            warnings.warn(f"features are trained on as whole frames, not as crops: {error}", stacklevel=4)
    if len(whole) > 1:
        sizes = sorted(frame[1:] for frame in whole)
        raise InputError(f"clips of different sizes {sizes} make no batch as whole frames: give crop=(h, w)")
    return {}


def _cropper(cache: FeatureCache, whole: Features, frame: FrameShape, crop: tuple[int, int]) -> Cropper:
    if crop[0] > frame[1] or crop[1] > frame[2]:
        raise InputError(
            f"a clip of {frame[1]}x{frame[2]} is smaller than the crop {crop[0]}x{crop[1]}: give a smaller crop"
        )
    height, width = cache.adapter.pad(torch.empty(frame[0], *crop)).shape[1:]
    cropped = (frame[0], height, width)
    return Cropper(whole, cache.binder.like(1, cropped), frame, cropped)
