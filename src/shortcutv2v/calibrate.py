"""Learn how the block's own signal tells its error, on clips that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.decibels import decibels
from shortcutv2v.errors import InputError
from shortcutv2v.model import placement
from shortcutv2v.player import Player
from shortcutv2v.quality import Calibration, unexplained
from shortcutv2v.summary import percentile, psnr
from shortcutv2v.translate import from_uint8
from shortcutv2v.types import Reference

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["calibrate"]

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
        clips: a clip, or a list of clips: anything that gives frames uint8 (3, H, W) in order.
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
    clips = clips if isinstance(clips, list | tuple) else [clips]
    signals, values = [], []
    for clip in clips:
        for signal, found in _predictions(model, islice(iter(clip), frames // len(clips)), adapter, interval):
            if found < _HIGHEST:
                signals.append(signal)
                values.append(found)
    if len(signals) < _LEAST:
        raise InputError(
            f"{len(signals)} frames that move are too few for a calibration: give clips with {_LEAST} or more"
        )
    return _fit(torch.tensor(signals, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))


def _fit(signals: Tensor, values: Tensor) -> Calibration:
    spread = signals - signals.mean()
    variance = float(spread.square().mean())
    slope = float((spread * values).mean()) / variance if variance > 1e-6 else Calibration().slope
    slope = min(slope, -0.1)  # a larger correction never means a better picture
    level = float(values.mean() - slope * signals.mean())
    margin = percentile((level + slope * signals - values).tolist(), 0.95)
    return Calibration(slope, level, max(margin, 0.0), len(signals))


def _predictions(
    model: ShortcutV2V, clip: Iterable[Tensor], adapter: Adapter, interval: int
) -> Iterator[tuple[float, float]]:
    """The signal in dB and the PSNR of every predicted frame, with a new reference every `interval` frames."""
    device, dtype = placement(model.teacher)
    stream = _Signals(model, adapter, interval)
    player = Player(adapter, stream)
    for frame in clip:
        stream.forget()
        player(from_uint8(frame).to(device, dtype))
        if stream.found is not None:
            yield stream.found


class _Signals:
    """Runs teacher and blocks on every frame, and returns the teacher's output.

    Attributes:
        found: signal in dB and PSNR of the latest prediction; None at a reference, and in a scene that is quite still.
    """

    def __init__(self, model: ShortcutV2V, adapter: Adapter, interval: int) -> None:
        self.model, self.adapter, self.interval = model, adapter, interval
        self.found: tuple[float, float] | None = None
        self._reference: Reference | None = None
        self._distance = 0

    def forget(self) -> None:
        """Forget the latest prediction."""
        self.found = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        carry = self.model.head(*args, **kwargs)
        f = self.model.middle(carry)
        output = self.model.tail(carry, f)
        self._distance += 1
        if self._reference is None or self._distance == self.interval:
            self._reference, self._distance = self.model.make_reference(carry, f), 0
            return output
        predictions = self.model.analyse(self._reference, carry)
        made = self.model.tail(carry, self.model.compose(self._reference, carry, predictions))
        signal = unexplained(predictions)
        if signal > 0:
            pictures = self.adapter.image(made), self.adapter.image(output)
            self.found = decibels(signal), float(psnr(*pictures)[0])
        return output
