"""Cached features as training samples: the frames of a sample, and the crop that is cut out of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.distill.cache.feature_cache import FeatureCache, without_autocast
from shortcutv2v.distill.cache.features import Features, FrameShape, Unbound
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.draws import Draw
from shortcutv2v.errors import InputError

__all__ = ["CachedFrames", "Cropper", "UncroppableError"]


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
        if self._cache is not None and crop not in self._croppers:
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


class UncroppableError(InputError):
    """A feature does not lie over the frame as a picture does, so no crop can be cut out of it."""


@dataclass(frozen=True)
class _Axis:
    """One axis of a feature: `scale` feature pixels per frame pixel, 0 if it stays whole; `size` of them in a crop."""

    scale: Fraction
    size: int

    def cut(self, offset: int) -> slice:
        start = int(offset * self.scale)
        return slice(start, start + self.size)


_Plan = tuple[_Axis, _Axis] | None
"""Rows and columns of a feature; None for a feature that stays whole."""


class Cropper:
    """Cuts crops out of features of one size of frames.

    Every feature is cut at the same place of the frame; offsets are multiples of the features' strides, so that no
    pixel is split. A feature that does not depend on the size of the frame (a style code, a mean) stays whole. Features
    near the border of a crop have seen pixels outside it, unlike features of a cropped frame.

    Args:
        whole: features of a whole frame.
        crop: features of any frame of the crop's size, by the same model: only their shapes are read.
        frame: (C, H, W) of the whole frame.
        cropped: (C, h, w) of the crop.

    Attributes:
        step: rows and columns of the frame between possible offsets.

    Raises:
        UncroppableError: a feature's size does not follow the frame's.
        InputError: the crop is no multiple of a feature's stride.

    Examples:
        >>> from shortcutv2v import Carry
        >>> def features(size):
        ...     return Features(Carry((torch.rand(1, 4, size // 2, size // 2),), ()), (torch.rand(1, 4, size, size),))
        >>> cropper = Cropper(features(16), features(8), (3, 16, 16), (3, 8, 8))
        >>> cropper.step, [f.shape[-1] for f in cropper(features(16), 2, 6).f]
        ((2, 2), [8])
    """

    def __init__(self, whole: Features, crop: Features, frame: FrameShape, cropped: FrameShape) -> None:
        pairs = zip(pytree.tree_leaves(whole), pytree.tree_leaves(crop), strict=True)
        self._plans = [_plan(a, b, frame, cropped) if isinstance(a, Tensor) else None for a, b in pairs]
        self._target = Unbound(cropped)
        self.step = (self._step(0), self._step(1))
        self._choices = tuple((frame[i + 1] - cropped[i + 1]) // self.step[i] + 1 for i in (0, 1))

    def _step(self, axis: int) -> int:
        return math.lcm(*(plan[axis].scale.denominator for plan in self._plans if plan is not None))

    def draw(self) -> tuple[int, int]:
        """Draw an offset (top, left) in pixels of the frame, uniform over the possible ones, from torch's generator."""
        row, column = (int(torch.randint(n, ())) for n in self._choices)
        return row * self.step[0], column * self.step[1]

    def __call__(self, features: Features, top: int, left: int) -> Features:
        """Return the crop at `top`, `left`, multiples of `step`, as views of the features."""
        leaves, spec = pytree.tree_flatten(features.signed(self._target))
        cut = [_cut(leaf, plan, (top, left)) for leaf, plan in zip(leaves, self._plans, strict=True)]
        found: Features = pytree.tree_unflatten(cut, spec)
        return found


def _cut(leaf: Tensor, plan: _Plan, offsets: Sequence[int]) -> Tensor:
    if plan is None:
        return leaf
    rows, columns = (axis.cut(offset) for axis, offset in zip(plan, offsets, strict=True))
    return leaf[..., rows, columns]


def _plan(whole: Tensor, crop: Tensor, frame: FrameShape, cropped: FrameShape) -> _Plan:
    shapes = f"a feature {tuple(whole.shape)} for frames {frame[1]}x{frame[2]} is {tuple(crop.shape)} for "
    shapes += f"crops {cropped[1]}x{cropped[2]}"
    if whole.shape == crop.shape:
        return None
    if whole.dim() != crop.dim() or whole.dim() < 2 or whole.shape[:-2] != crop.shape[:-2]:
        raise UncroppableError(f"{shapes}: it does not lie over the frame")
    rows, columns = (_axis(whole.shape[i - 2], crop.shape[i - 2], frame[i + 1], cropped[i + 1], shapes) for i in (0, 1))
    return rows, columns


def _axis(whole: int, crop: int, frame: int, cropped: int, shapes: str) -> _Axis:
    if whole == crop:
        return _Axis(Fraction(0), whole)
    ratio = Fraction(whole, frame)
    scale = Fraction(round(ratio)) if ratio >= 1 else Fraction(1, round(1 / ratio))
    if cropped % scale.denominator:
        raise InputError(f"{shapes}: give a crop that is a multiple of {scale.denominator}")
    if abs(whole - frame * scale) >= 1 or cropped * scale != crop:  # odd frames are rounded, crops are not
        raise UncroppableError(f"{shapes}: it does not lie over the frame")
    return _Axis(scale, crop)
