"""Pictures of one shortcut frame, for a logger."""

from __future__ import annotations

import torch
from torch import Tensor

from shortcutv2v.distill.rollout import ShortcutFrame

__all__ = ["pictures_of"]

ERROR_RANGE = 0.1
"""Absolute error that is drawn white: fixed, so that pictures of different steps compare."""


@torch.no_grad()
def pictures_of(shown: ShortcutFrame) -> dict[str, Tensor]:
    """Draw pictures of the first sample of a batch.

    Args:
        shown: as `Distiller.shortcut_frames()` gives it.

    Returns:
        By name, float (3, H, W) or (1, H, W) in [0, 1]: `frame` (left out where it is no picture), `teacher`,
        `shortcut`; `error` and `error_reuse`, the absolute difference of shortcut and of plain reuse from the teacher,
        averaged over the colours, 0.1 drawn white; and for every branch, at the features' size, `offset` and
        `offset_global`, mean length of the offsets, the longest drawn white, and `mask`, the mean over the taps, white
        takes the current frame.
    """
    found = {} if shown.input is None or shown.input.shape[1] not in (1, 3) else {"frame": shown.input[0]}
    found |= {"teacher": shown.target[0], "shortcut": shown.picture[0]}
    found["error"] = _error(shown.picture[0], shown.target[0])
    found["error_reuse"] = _error(shown.reuse()[0], shown.target[0])
    for number, seen in enumerate(shown.predictions):
        branch = f"_{number}" if len(shown.predictions) > 1 else ""
        found[f"offset{branch}"] = _length(seen.local_offset[0])
        found[f"offset_global{branch}"] = _length(seen.global_offset[0])
        if seen.mask is not None:
            found[f"mask{branch}"] = seen.mask[0].mean(0, keepdim=True)
    return {name: picture.clamp(0, 1) for name, picture in found.items()}


def _error(picture: Tensor, target: Tensor) -> Tensor:
    return (picture - target).abs().mean(0, keepdim=True) / ERROR_RANGE


def _length(offset: Tensor) -> Tensor:
    """(2K, H, W), (dy, dx) per tap -> (1, H, W), the largest value 1."""
    lengths: Tensor = offset.unflatten(0, (-1, 2)).norm(dim=1).mean(0, keepdim=True)
    return lengths / lengths.max().clamp(min=torch.finfo(lengths.dtype).tiny)
