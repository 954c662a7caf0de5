"""How long the work of a run takes on this machine, measured before training, and what follows from it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.cache.features import features_of
from shortcutv2v.distill.cache.store import SUFFIX, StoredClip
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.model import ShortcutV2V

__all__ = ["LIMIT_GB", "caching_pays", "drop_features"]

LIMIT_GB = 8.0
"""Largest size of the features that are cached automatically."""
_SHARE = 0.2
"""Largest share of the run's time for computing features; a step on them takes about two thirds of the time."""
_FRAMES = 8


@torch.no_grad()
def caching_pays(
    model: ShortcutV2V, adapter: Adapter, clips: Sequence[FrameSource], minutes: float | None, folder: str | Path
) -> bool:
    """Whether the features of all clips are computed in a fifth of the run and fit into 8 GB and half of the free disk.

    One frame is run twice to find out.

    Args:
        model: a wrapped teacher.
        adapter: how frames become its inputs.
        clips: what is trained on.
        minutes: length of the run; None, where it ends by steps, is not worth an estimate.
        folder: where features would go.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> clip = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
        >>> [caching_pays(model, Adapter(teacher, "0", "2"), [clip], minutes, ".") for minutes in (60.0, 1e-9, None)]
        [True, False, False]
    """
    if minutes is None:
        return False
    frame = clips[0][0]
    frames = [frame[None]] * _FRAMES
    made = next((features for _, features in features_of(model, adapter, frames)), None)
    begun = _now()
    if made is None or next(features_of(model, adapter, frames), None) is None:
        return False
    seconds = _now() - begun
    scale = sum(len(clip) * clip[0][0].numel() for clip in clips) / frame[0].numel()
    needed = scale * StoredClip(Path(), made, (0, 0, 0), 1).nbytes
    room = min(LIMIT_GB * 1e9, shutil.disk_usage(_existing(Path(folder))).free / 2)
    return scale * seconds < _SHARE * 60 * minutes and needed < room


def drop_features(folder: Path | None) -> None:
    """Delete the features that a run has kept for itself, and the folder if it held nothing else.

    Args:
        folder: None if it kept none.
    """
    if folder is not None:
        for path in [*folder.glob(f"*{SUFFIX}"), *folder.glob(f".*{SUFFIX}.*.partial")]:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _now() -> float:
    """Seconds on a clock, with the work on the GPU done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
