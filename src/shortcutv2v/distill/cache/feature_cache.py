"""The folder of cached features: what is found again, what is computed, what makes room."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.cache import store
from shortcutv2v.distill.cache.features import Binder, Features, features_of, flatten
from shortcutv2v.distill.cache.keys import clip_key, teacher_key
from shortcutv2v.distill.cache.store import StoredClip
from shortcutv2v.distill.checks import check_number
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V

__all__ = ["LIMIT_GB", "CacheReport", "FeatureCache", "without_autocast"]

LIMIT_GB = 8.0
"""Of a cache's folder, unless one is given."""

SUFFIX = ".features.safetensors"
_ABANDONED = 600.0
"""Seconds without a write after which an unfinished file is that of a run that was killed."""
_TOLERANCE = 0.02
"""Of a leaf's largest value: more than bfloat16 and another device's rounding make, less than another teacher makes."""


@dataclass
class CacheReport:
    """What a cache holds and has saved.

    Attributes:
        clips: clips asked for.
        hits: those of them that were on disk already.
        frames: frames of these clips.
        bytes: what these clips take on disk.
        seconds: spent computing and writing features.
        saved: seconds that computing the hits had taken when they were written.
    """

    clips: int = 0
    hits: int = 0
    frames: int = 0
    bytes: int = 0
    seconds: float = 0.0
    saved: float = 0.0


class FeatureCache:
    """Carry and `f` of every frame of a clip, on disk.

    Clips go through the teacher frame by frame with the adapter's recurrent state, without autocast, one file per
    clip. Floats are stored as bfloat16, pictures as they are (see `slot_of`): a frame of 320x180 takes 26 MB with
    Real-ESRGAN x2, 15 for 64 channels each of `a` and `f` and 11 for the enlarged input, and the teacher's pictures
    come back at 81 dB. Memory holds one frame's features while they are written, and none afterwards: files are mapped,
    and the operating system drops what it needs. Neither grows with the length of a clip.

    A file is found again under a key of the teacher (class, every parameter and buffer), its training flags, the cut,
    the adapter, and the clip (file, size, time of change; content for tensors). What the key cannot see, such as edited
    source code, is noticed where it changes the first frame by 2 %, which is computed anew and compared. Files that a
    killed run left unfinished do not count; damaged ones are found by their checksum (opening a file reads it once) and
    made again.

    Args:
        folder: where files go; several models and runs may share it.
        model: a wrapped teacher.
        adapter: how frames become its inputs; default: the frame itself.
        limit_gb: how many GB (10^9 bytes) the folder may hold. Files that were not used for longest, and not by this
            object, are deleted to make room. Runs that share a folder need a limit that serves them all.

    Raises:
        InputError: the folder cannot be made, or the limit is not above 0.

    Examples:
        >>> import shortcutv2v, tempfile
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = FeatureCache(folder, model)
        ...     features = cache.features(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))
        >>> len(features), cache.report().frames
        (5, 5)
    """

    def __init__(
        self, folder: str | Path, model: ShortcutV2V, adapter: Adapter | None = None, *, limit_gb: float = LIMIT_GB
    ) -> None:
        check_number("limit_gb", limit_gb, 0, inside=True)
        self.folder, self.model, self.limit = Path(folder), model, limit_gb * 1e9
        self.adapter = adapter or Adapter.of(model)
        self.binder = Binder(model, self.adapter)
        self._report = CacheReport()
        self._open: dict[str, StoredClip] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"no folder for cached features {folder}: {error.strerror or error}") from None
        self._key = teacher_key(model, self.adapter)
        for path in self.folder.glob(f".*{SUFFIX}.*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

    def features(self, clip: FrameSource) -> StoredClip:
        """The features of a clip, from disk, computed now if they are not there.

        Frames that the adapter opens with (`Adapter.opening`) have none and are left out.

        Raises:
            InputError: the teacher runs on no frame, its features change in shape or structure from frame to frame,
                or they do not fit into the limit or on the disk.
        """
        key = hashlib.sha256(f"{self._key} {clip_key(clip)}".encode()).hexdigest()[:32]
        if key not in self._open:
            with torch.no_grad(), without_autocast():
                stored = self._find(self.folder / f"{key}{SUFFIX}", clip)
            self._open[key] = stored
            self._report.clips += 1
            self._report.frames += len(stored)
            self._report.bytes += stored.path.stat().st_size
        return self._open[key]

    def report(self) -> CacheReport:
        """What the clips asked for so far take, and what having them saved."""
        return replace(self._report)

    def _find(self, path: Path, clip: FrameSource) -> StoredClip:
        run = features_of(self.model, self.adapter, (clip[number][None] for number in range(len(clip))))
        first = next(run, None)
        if first is None:
            raise InputError(f"the teacher runs on none of the clip's {len(clip)} frames: there is nothing to cache")
        opening, features = first
        leaves, spec = flatten(features)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        slots = [store.slot_of(leaf) for leaf in tensors]
        frame: Any = tuple(self.adapter.pad(clip[0]).shape)
        stored = StoredClip(path, slots, leaves, spec, frame, len(clip) - opening)
        seconds = store.read(path, slots, len(stored))
        if seconds is not None and _close([leaf[0] for leaf in stored.maps()], tensors):
            with contextlib.suppress(OSError):  # a folder that may only be read
                os.utime(path)
            self._report.hits += 1
            self._report.saved += seconds
            return stored
        self._make_room(store.size_of(slots, len(stored)), path, len(stored))
        stored = StoredClip(path, slots, leaves, spec, frame, len(stored))
        self._report.seconds += store.write(path, slots, _checked(itertools.chain([first], run), features), len(stored))
        return stored

    def _make_room(self, need: int, path: Path, frames: int) -> None:
        """Delete the files longest unused until `need` bytes fit."""
        wanted = f"the features of {frames} frames take {need / 1e9:.2f} GB"
        advice = "read the clip at a smaller size, take a Part of it, or raise limit_gb"
        path.unlink(missing_ok=True)
        ours = {stored.path for stored in self._open.values()}
        files = _oldest_first(self.folder)
        total = sum(size for _, size in files)
        for file, size in files:
            if need > self.limit or total + need <= self.limit:
                break
            if file not in ours:
                total -= size
                file.unlink(missing_ok=True)
        if total + need > self.limit:
            used = f", and {total / 1e9:.2f} GB are in use" if need <= self.limit else ""
            raise InputError(f"{wanted}, the limit is {self.limit / 1e9:.2f} GB{used}: {advice}")
        if shutil.disk_usage(self.folder).free < need:
            raise InputError(f"{wanted}, more than is free on the disk of {self.folder}: {advice.rsplit(',', 1)[0]}")


def _oldest_first(folder: Path) -> list[tuple[Path, int]]:
    """The files of a folder with their sizes, longest unused first; other runs may delete some meanwhile."""
    found = []
    for file in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            about = file.stat()
            found.append((about.st_mtime, file, about.st_size))
    return [(file, size) for _, file, size in sorted(found)]


def _checked(run: Iterator[tuple[int, Features]], like: Features) -> Iterator[list[Tensor]]:
    """The tensors of every frame's features, once they are of the first one's structure."""
    expected, spec = flatten(like)
    after: int | None = None
    for number, features in run:
        leaves, found = flatten(features)
        same = found == spec and all(_alike(a, b) for a, b in zip(leaves, expected, strict=True))
        if not same or (after is not None and number != after):
            raise InputError(
                f"the teacher's features at frame {number} are of another structure, shape or constants than before: "
                "they make no cache; train on frames"
            )
        after = number + 1
        yield [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _alike(leaf: Any, expected: Any) -> bool:
    if isinstance(leaf, Tensor):
        return isinstance(expected, Tensor) and (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
    return bool(leaf == expected)


def _close(stored: Sequence[Tensor], live: Sequence[Tensor]) -> bool:
    """Whether features are what the teacher makes now, but for rounding."""
    pairs = [(a.double(), b.double().cpu()) for a, b in zip(stored, live, strict=True) if b.numel()]
    return all(torch.allclose(a, b, rtol=0, atol=_TOLERANCE * float(b.abs().max()) + 1e-12) for a, b in pairs)


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Features do not depend on the precision of the run that makes them."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
