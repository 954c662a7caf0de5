"""Clips to train on: their protocol, clips made of clips, and clips from what the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.errors import InputError

__all__ = ["FrameSource", "Mirrored", "Part", "Source", "hold_out", "open_clips"]

_WINDOWS = 8
"""Windows that a clip must have, so that one or more of them can be held out."""


class FrameSource(Protocol):
    """A clip with random access, such as `shortcutv2v.video.Frames` or a uint8 tensor of shape (N, 3, H, W).

    Maps are pictures of fewer or more channels: a clip of label maps is a uint8 tensor (N, 1, H, W).
    """

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number`, uint8 (C, H, W)."""
        ...


class Part:
    """Frames `start` to `stop - 1` of a clip, as a clip.

    Examples:
        >>> len(Part(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), 2, 7))
        5
    """

    def __init__(self, clip: FrameSource, start: int, stop: int) -> None:
        if not 0 <= start < stop <= len(clip):
            raise InputError(f"frames {start}:{stop} are not in a clip of {len(clip)} frames")
        self.clip, self.start, self.stop = clip, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number` of the part."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.clip[self.start + number]


class Mirrored:
    """A clip with left and right swapped, as a clip.

    Features of a mirrored frame are not mirrored features, so cached features are never flipped: give `Pairs` the
    mirrored clips beside the others, at twice the disk space.

    Examples:
        >>> int(Mirrored(torch.arange(3, dtype=torch.uint8).expand(1, 3, 2, 3))[0][0, 0, 0])
        2
    """

    def __init__(self, clip: FrameSource) -> None:
        self.clip = clip

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number`, mirrored."""
        return self.clip[number].flip(-1)


Source = str | Path | FrameSource


def open_clips(source: Source | Sequence[Source], size: int | tuple[int, int] | None = None) -> list[FrameSource]:
    """Return clips from paths (folders are searched) and from objects that are clips already, in any mixture.

    Peak memory grows by 50 bytes of index per frame only: clips from files share one `video.Cache`, which keeps 256 MiB
    of decoded frames and eight open files in every reading process. The frames of the current batches come on top, 12
    bytes per pixel.

    Args:
        source: one or several of: video file, folder of videos, folder of frames, uint8 tensor (N, C, H, W), any
            object with `len` and `[i] -> uint8 (C, H, W)`. C is 3, or 1 for label maps.
        size: read files at this size: a height, or (H, W). Label maps are read at their own.

    Returns:
        Clips of two frames at least.

    Raises:
        VideoError: a path does not exist, or no path holds a readable clip.
        InputError: an object is no clip.

    Warns:
        UserWarning: some files are no readable clips of two frames; one warning counts and names them.

    Examples:
        >>> len(open_clips([torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(9, 1, 8, 8, dtype=torch.uint8)]))
        2
    """
    entries: Sequence[Any] = source if isinstance(source, list | tuple) else [source]
    if not entries:
        raise InputError("there are no clips: give at least one path or tensor")
    paths = [entry for entry in entries if isinstance(entry, str | Path)]
    clips = [_checked(entry, number) for number, entry in enumerate(entries) if not isinstance(entry, str | Path)]
    if paths:
        cache = video.Cache()
        clips += [video.Frames(path, size=size, cache=cache) for path in video.find_clips(paths, min_frames=2)]
    return clips


def hold_out(clips: list[FrameSource], window: int) -> tuple[list[FrameSource], list[FrameSource] | None]:
    """Split clips into those to train on and a tenth of the frames to validate on: the ends of long clips.

    Args:
        clips: all clips.
        window: frames that a validation needs in a row.

    Returns:
        Both lists; None for the second if no clip has eight windows.

    Examples:
        >>> clip = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
        >>> train, held_out = hold_out([clip, clip[:5]], window=3)
        >>> [len(each) for each in train], [len(each) for each in held_out]
        ([37, 5], [3])
    """
    train: list[FrameSource] = []
    held: list[FrameSource] = []
    for clip in clips:
        count = max(window, len(clip) // 10 // window * window)
        if len(clip) < _WINDOWS * window:
            train.append(clip)
            continue
        train.append(Part(clip, 0, len(clip) - count))
        held.append(Part(clip, len(clip) - count, len(clip)))
    return (train, held) if held else (clips, None)


def _checked(clip: Any, number: int) -> FrameSource:
    expected = "expected a path, a uint8 tensor (N, C, H, W), or an object with len() and [i] -> uint8 (C, H, W)"
    if not (hasattr(clip, "__len__") and hasattr(clip, "__getitem__")):
        raise InputError(f"source {number} is a {type(clip).__name__}: {expected}")
    if len(clip) < 2:
        raise InputError(f"source {number} has {len(clip)} frames: training needs two at least")
    frame = clip[0]
    if not isinstance(frame, torch.Tensor) or frame.dtype != torch.uint8 or frame.dim() != 3:
        described = f"{frame.dtype} {tuple(frame.shape)}" if isinstance(frame, torch.Tensor) else type(frame).__name__
        raise InputError(f"frame 0 of source {number} is {described}: {expected}{_way(clip, frame)}")
    if frame.shape[0] not in (1, 3) and frame.shape[2] in (1, 3):
        raise InputError(f"frame 0 of source {number} has its channels last: give clip.permute(0, 3, 1, 2)")
    found: FrameSource = clip
    return found


def _way(clip: Any, frame: Any) -> str:
    """Return advice on how to turn such an object into a clip."""
    if not isinstance(frame, torch.Tensor):
        return "; torch.from_numpy makes a tensor of an array" if hasattr(frame, "__array__") else ""
    if frame.is_floating_point():
        return "; of a float tensor in [0, 1]: clip.mul(255).round().to(torch.uint8)"
    return "; of a list of frames: torch.stack(frames)" if isinstance(clip, torch.Tensor) and clip.dim() == 3 else ""
