"""The film under search: stretches to learn from, held-out frames to judge candidates on, and samples to play."""

from __future__ import annotations

import contextlib
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
from shortcutv2v.translate import from_uint8, to_uint8

__all__ = ["HELD", "LEARN", "HeldOut", "samples_of", "stretches"]

LEARN, HELD = 16, 9
"""Frames of a stretch to learn from, and of the held-out frames after it: a reference and 8 predictions."""
_SAMPLE = 60
"""Frames that are played for a trial, and frames from the middle for the report, at most."""


def stretches(clips: Sequence[FrameSource], most: int) -> tuple[list[Part], list[Part]]:
    """Choose about `most` stretches, shared out by the clips' lengths and spread over each, which has one at least.

    Returns:
        Parts to train on, and after each a part to judge and calibrate on, from which no candidate learns.
    """
    learn, held = list[Part](), list[Part]()
    for part in _spread(clips, LEARN + HELD, most):
        middle = part.stop - max(2, len(part) * HELD // (LEARN + HELD))
        learn += [Part(part.clip, part.start, middle)] if middle - part.start > 1 else []
        held.append(Part(part.clip, max(part.start, middle), part.stop))
    return learn, held


def samples_of(clips: Sequence[FrameSource], count: int | None = None) -> list[Part]:
    """Return a quarter of the frames, but 16 at least and 60 at most, in stretches spread evenly over the clips.

    Args:
        clips: the film, or several.
        count: number of stretches; default: such that each has 16 frames or a few more.
    """
    frames = sum(map(len, clips))
    total = min(frames, max(LEARN, min(_SAMPLE, frames // 4)))
    count = count or max(1, total // LEARN)
    return _spread(clips, total // count, count)


def _spread(clips: Sequence[FrameSource], length: int, most: int) -> list[Part]:
    """Return parts of a length, or whole clips that are shorter: about `most`, but one of each clip."""
    total = sum(map(len, clips))
    return [
        Part(clip, start, start + size)
        for clip, size in ((clip, min(length, len(clip))) for clip in clips)
        for start in spread(len(clip), size, max(1, round(most * len(clip) / total)))
    ]


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
        """Return the teacher's inputs and pictures in 8 bits, without frames that the adapter opens with."""
        player = Player(self.adapter, self.adapter.teacher)
        played = (player(from_uint8(part[number], self.adapter.teacher)) for number in range(len(part)))
        return [((one.args, one.kwargs), to_uint8(self.adapter.image(one.output))) for one in played if not one.opening]

    def _predicted(self, model: ShortcutV2V, frames: Sequence[tuple[Inputs, Tensor]]) -> list[tuple[float, float]]:
        """Return the block's signal and the PSNR in dB of each frame but the first."""
        (args, kwargs), _ = frames[0]
        _, reference = model.reference(*args, **kwargs)
        found = []
        for (args, kwargs), picture in frames[1:]:
            carry = model.head(*args, **kwargs)
            predictions = model.analyse(reference, carry)
            made = to_uint8(self.adapter.image(model.tail(carry, model.compose(reference, carry, predictions))))
            found.append((unexplained(predictions), float(psnr(made[None] / 255, picture[None] / 255))))
        return found
