"""Cached features as training samples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from shortcutv2v.distill.cache.crops import Cropper, UncroppableError
from shortcutv2v.distill.cache.feature_cache import FeatureCache, without_autocast
from shortcutv2v.distill.cache.features import Features, FrameShape
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.draws import Draw
from shortcutv2v.errors import InputError

__all__ = ["CachedFrames"]


class CachedFrames:
    """The features of some clips' frames, from a cache, cropped alike; all clips are cached at construction.

    Args:
        cache: where features come from.
        clips: the clips.

    Attributes:
        clips: their features.
    """

    def __init__(self, cache: FeatureCache, clips: Sequence[FrameSource]) -> None:
        self.clips = [cache.features(clip) for clip in clips]
        self._cache: FeatureCache | None = cache
        self._croppers: dict[tuple[int, int] | None, dict[FrameShape, Cropper]] = {}

    def sample(self, draw: Draw, crop: tuple[int, int] | None) -> list[Features]:
        """Return a sample, drawn from torch's generator, with a crop that `add_crop` has prepared."""
        which, numbers = draw()
        clip = self.clips[which]
        features = [clip[number] for number in numbers]
        cropper = self._croppers[crop].get(clip.frame)
        if cropper is None:
            return features
        top, left = cropper.draw()
        return [cropper(one, top, left) for one in features]

    def croppable(self, crop: tuple[int, int] | None) -> bool:
        """Return True if samples follow the size of the crop; features that do not lie over the frame stay whole."""
        return bool(self._croppers[crop])

    def add_crop(self, crop: tuple[int, int] | None) -> None:
        """Prepare crops of a size; needs the model.

        Raises:
            InputError: a frame is smaller, or it is no multiple of a feature's stride.

        Warns:
            UserWarning: a feature does not lie over the frame, so that samples are whole frames.
        """
        if self._cache is not None:
            self._croppers[crop] = self._prepared(self._cache, crop)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}  # processes that read need no model

    def _prepared(self, cache: FeatureCache, crop: tuple[int, int] | None) -> dict[FrameShape, Cropper]:
        """Return a cropper for every size of frames; none if samples are whole frames."""
        whole = {clip.frame: clip[0] for clip in self.clips}
        if crop is not None:
            try:
                with without_autocast():
                    return {frame: _cropper(cache, features, frame, crop) for frame, features in whole.items()}
            except UncroppableError as error:
                warnings.warn(f"features are trained on as whole frames, not as crops: {error}", stacklevel=5)
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
