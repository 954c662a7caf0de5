"""The film under search: stretches to learn from, held-out frames to judge candidates on, and samples to play."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.calibrate import calibration_of
from shortcutv2v.decibels import decibels
from shortcutv2v.distill.clips import FrameSource, Part
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.player import Inputs, Player
from shortcutv2v.quality import unexplained
from shortcutv2v.search.decide import spread
from shortcutv2v.summary import psnr
from shortcutv2v.translate import from_uint8

__all__ = ["HELD", "LEARN", "HeldOut", "sample_of", "samples_of", "stretches"]

LEARN, HELD = 16, 9
"""Frames of a stretch to learn from, and of the held-out frames after it: a reference and 8 predictions."""
_SAMPLE = 60
"""Frames that are played for a trial, and frames from the middle for the report, at most."""


def stretches(clips: Sequence[FrameSource], most: int) -> tuple[list[Part], list[Part]]:
    """Choose at most `most` stretches, shared out by the clips' lengths and spread over each, which has one at least.

    Returns:
        Parts to train on, and parts to judge and calibrate on, from which no candidate learns.
    """
    total, learn, held = sum(map(len, clips)), list[Part](), list[Part]()
    for clip in clips:
        for start, middle, stop in spread(len(clip), LEARN, HELD, max(1, round(most * len(clip) / total))):
            learn += [Part(clip, start, middle)] if middle - start > 1 else []
            held.append(Part(clip, middle, stop))
    return learn, held


@dataclass
class HeldOut:
    """Held-out frames; the teacher runs on each once, for all candidates together.

    Args:
        adapter: how frames become inputs. A recurrent teacher gets its own outputs back.
        parts: of the film.
    """

    adapter: Adapter
    parts: Sequence[FrameSource]
    _seen: list[list[tuple[Inputs, Tensor]]] = field(default_factory=list)

    @torch.no_grad()
    def judge(self, model: ShortcutV2V) -> dict[str, Any]:
        """Predict the frames of each part from its first one.

        Returns:
            Plain values: `curves`, for each part the PSNR in dB of predictions 1, 2, ... frames after the first; and
            the `calibration` that they give, None if too little moves.

        Raises:
            InputError: no part has two frames that the teacher makes.
        """
        self._seen = self._seen or [self._taught(part) for part in self.parts]
        found = [self._predicted(model, frames) for frames in self._seen if len(frames) > 1]
        if not found:
            raise InputError("the film is too short to compare frames: expected two at least")
        calibration = None
        with contextlib.suppress(InputError):  # too little moves
            moving = ((decibels(signal), value) for part in found for signal, value in part if signal > 0)
            calibration = asdict(calibration_of(moving))
        return {"curves": [[round(value, 3) for _, value in part] for part in found], "calibration": calibration}

    def _taught(self, part: FrameSource) -> list[tuple[Inputs, Tensor]]:
        """Return the teacher's inputs and pictures on a part, without frames that the adapter opens with."""
        player = Player(self.adapter, self.adapter.teacher)
        played = [player(from_uint8(part[number], self.adapter.teacher)) for number in range(len(part))]
        return [((one.args, one.kwargs), self.adapter.image(one.output)) for one in played if not one.opening]

    def _predicted(self, model: ShortcutV2V, frames: Sequence[tuple[Inputs, Tensor]]) -> list[tuple[float, float]]:
        """Return the block's signal and the PSNR in dB of each frame but the first."""
        (args, kwargs), _ = frames[0]
        _, reference = model.reference(*args, **kwargs)
        found = []
        for (args, kwargs), picture in frames[1:]:
            carry = model.head(*args, **kwargs)
            predictions = model.analyse(reference, carry)
            made = self.adapter.image(model.tail(carry, model.compose(reference, carry, predictions)))
            found.append((unexplained(predictions), float(psnr(made, picture))))
        return found


def sample_of(clip: FrameSource) -> Part:
    """Return the middle of a clip: a quarter of its frames, but 16 at least and 60 at most."""
    count = _sampled(len(clip))
    begin = (len(clip) - count) // 2
    return Part(clip, begin, begin + count)


def samples_of(clips: Sequence[FrameSource]) -> list[Part]:
    """Return as many frames of all clips together, in stretches of 16 or a few more, spread evenly over them."""
    ends = list(itertools.accumulate(map(len, clips)))
    total = _sampled(ends[-1])
    count, found = max(1, total // LEARN), list[Part]()
    for number in range(count):
        middle = ends[-1] * (2 * number + 1) // (2 * count)
        clip, end = next((clip, end) for clip, end in zip(clips, ends, strict=True) if middle < end)
        length = min(len(clip), total * (number + 1) // count - total * number // count)
        start = min(len(clip) - length, max(0, middle - (end - len(clip)) - length // 2))
        found.append(Part(clip, start, start + length))
    return found


def _sampled(frames: int) -> int:
    return min(frames, max(LEARN, min(_SAMPLE, frames // 4)))
