"""Learn how the block's own signal tells its error, on clips that it was not trained on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.decibels import decibels
from shortcutv2v.devices import synchronise
from shortcutv2v.errors import InputError
from shortcutv2v.player import FullPass, Player
from shortcutv2v.quality import Calibration, unexplained
from shortcutv2v.summary import percentile, psnr
from shortcutv2v.translate import from_uint8

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["calibrate", "calibration_of"]

_LEAST = 8
_HIGHEST = 60.0
"""Predictions better than so many dB are nearly still scenes, whose rounding errors follow no line."""


@torch.no_grad()
def calibrate(
    model: ShortcutV2V, clips: Sequence[Any] | Any, adapter: Adapter | None, interval: int, frames: int
) -> Calibration:
    """Fit `psnr = level + slope * 10 log10(unexplained)` by least squares.

    Args:
        model: a wrapped teacher with trained blocks.
        clips: a clip, or a list of clips: anything that gives frames uint8 (3, H, W) in order, a list of them too.
        adapter: how frames become inputs, and outputs pictures; default: the plain one.
        interval: predictions are made at distances 1 to `interval - 1`.
        frames: the most frames to run in all.

    Raises:
        InputError: there are too few frames, or `adapter` is of another teacher.
    """
    adapter = adapter or Adapter.of(model)
    if adapter.teacher is not model.teacher:
        raise InputError("the adapter is of another teacher than the model: give calibrate() the adapter that wraps it")
    model.picture = adapter.image
    several = isinstance(clips, list | tuple) and not (clips and isinstance(clips[0], Tensor) and clips[0].dim() == 3)
    clips = clips if several else [clips]
    taken = (islice(iter(clip), frames // len(clips)) for clip in clips)
    times: list[tuple[float, float]] = []
    found = calibration_of(found for clip in taken for found in _predictions(model, clip, adapter, interval, times))
    full, look = map(median, zip(*times, strict=True))
    return found.with_look(look / full)


def calibration_of(predictions: Iterable[tuple[float, float]]) -> Calibration:
    """Return the line through some predictions.

    Args:
        predictions: signal in dB and PSNR in dB of each; those of nearly still scenes are left out.

    Raises:
        InputError: there are too few.
    """
    moving = [(signal, found) for signal, found in predictions if found < _HIGHEST]
    if len(moving) < _LEAST:
        raise InputError(
            f"{len(moving)} frames that move are too few for a calibration: give clips with {_LEAST} or more"
        )
    signals, values = torch.tensor(moving, dtype=torch.float64).unbind(1)
    return _fit(signals, values)


def _fit(signals: Tensor, values: Tensor) -> Calibration:
    spread = signals - signals.mean()
    variance = float(spread.square().mean())
    slope = float((spread * values).mean()) / variance if variance > 1e-6 else Calibration().slope
    slope = min(slope, -0.1)  # a larger correction never means a better picture
    level = float(values.mean() - slope * signals.mean())
    margin = percentile((level + slope * signals - values).tolist(), 0.95)
    return Calibration(slope, level, max(margin, 0.0), len(signals))


def _predictions(
    model: ShortcutV2V, clip: Iterable[Tensor], adapter: Adapter, interval: int, times: list[tuple[float, float]]
) -> Iterator[tuple[float, float]]:
    """The signal in dB and the PSNR of every predicted frame, with a new reference every `interval` frames.

    The seconds of a full pass and of a look with its audit are added to `times`.
    """
    full, reference, distance = FullPass(model), None, 0
    player = Player(adapter, full)
    for frame in clip:
        begun = time.perf_counter()
        played = player(from_uint8(frame, model.teacher))
        if played.opening:
            continue
        distance += 1
        if reference is None or distance == interval:
            reference, distance = model.make_reference(full.carry, full.f), 0
            continue
        synchronise()
        looking = time.perf_counter()
        predictions = model.analyse(reference, full.carry)
        made = model.tail(full.carry, model.compose(reference, full.carry, predictions))
        signal = unexplained(predictions)  # waits for the device
        times.append((looking - begun, time.perf_counter() - looking))
        if signal > 0:  # the scene is not quite still
            yield decibels(signal), float(psnr(adapter.image(made), adapter.image(played.output))[0])
