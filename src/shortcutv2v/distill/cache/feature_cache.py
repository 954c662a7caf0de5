"""The folder of cached features: finds a clip's file again, or computes it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.cache.features import Binder, Features, features_of
from shortcutv2v.distill.cache.store import SUFFIX, StoredClip, as_bytes
from shortcutv2v.distill.clips import FrameSource, Mirrored, Part
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V

__all__ = ["FeatureCache", "without_autocast"]

_ABANDONED = 600.0
"""Seconds without a write after which an unfinished file is that of a run that was killed."""
_TOLERANCE = 0.02
"""Share of a tensor's largest value: more than rounding by bfloat16 and other devices, less than another teacher."""


class FeatureCache:
    """Carry and `f` of every frame of a clip, on disk.

    Clips go through the teacher frame by frame with the adapter's recurrent state, without autocast, one file per
    clip. Floats are stored as bfloat16, pictures as they are (see `stored_dtype`): a frame of 320x180 takes 26 MB with
    Real-ESRGAN x2, and the teacher's pictures come back at 81 dB. Files are mapped into memory, so that memory does not
    grow with the length of a clip.

    A file is found again by a key of the teacher's weights, training flags and cut, of the adapter's plain attributes,
    and of the clip (file, size and time of change; the content of a tensor). Its first frame is computed again and
    compared, which shows changes that the key does not cover, such as edited source code.

    Args:
        folder: where files go; several models and runs may share it.
        model: a wrapped teacher.
        adapter: how frames become its inputs; default: the frame itself.
        watch: called with every number of frames that are there now: one per computed frame, all of a found clip.

    Attributes:
        found: number of clips that were on disk already.
        frames: frames of all clips that were asked for.
        bytes: size of all these on disk.
        seconds: time spent computing and writing features.

    Raises:
        InputError: the folder cannot be made.

    Examples:
        >>> import shortcutv2v, tempfile
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = FeatureCache(folder, model)
        ...     features = cache.features(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))
        >>> len(features), cache.frames
        (5, 5)
    """

    def __init__(
        self,
        folder: str | Path,
        model: ShortcutV2V,
        adapter: Adapter | None = None,
        *,
        watch: Callable[[int], object] = lambda frames: None,
    ) -> None:
        self.folder, self.model, self.watch = Path(folder), model, watch
        self.adapter = adapter or Adapter.of(model)
        self.binder = Binder(model, self.adapter)
        self.found, self.frames, self.bytes, self.seconds = 0, 0, 0, 0.0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"no folder for cached features {folder}: {error.strerror or error}") from None
        self._key = _teacher_key(model, self.adapter)
        for path in self.folder.glob(f".*{SUFFIX}.*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

    def features(self, clip: FrameSource) -> StoredClip:
        """Return the features of a clip, from disk; compute them first if they are not there.

        Frames that the adapter opens with (`Adapter.opening`) have none and are left out.

        Raises:
            InputError: the teacher runs on no frame, its features change in shape or structure from frame to frame,
                or they do not fit on the disk.
        """
        key = hashlib.sha256(f"{self._key} {_clip_key(clip)}".encode()).hexdigest()[:32]
        with torch.no_grad(), without_autocast():
            stored = self._find(self.folder / f"{key}{SUFFIX}", clip)
        self.frames += len(stored)
        self.bytes += stored.nbytes
        return stored

    def _find(self, path: Path, clip: FrameSource) -> StoredClip:
        begun = time.perf_counter()
        run = features_of(self.model, self.adapter, (clip[number][None] for number in range(len(clip))))
        first = next(run, None)
        if first is None:
            raise InputError(f"the teacher runs on none of the clip's {len(clip)} frames: there is nothing to cache")
        opening, features = first
        frame: Any = tuple(self.adapter.pad(clip[0]).shape)
        stored = StoredClip(path, features, frame, len(clip) - opening)
        if stored.is_whole and _close(stored[0], features):
            self.found += 1
            self.watch(len(clip))
            return stored
        stored = StoredClip(path, features, frame, len(stored))
        if shutil.disk_usage(self.folder).free < stored.nbytes:
            raise InputError(
                f"the features of {len(stored)} frames take {stored.nbytes / 1e9:.2f} GB, more than is free on the "
                f"disk of {self.folder}: read the clip at a smaller size, or take a Part of it"
            )
        self.watch(opening)
        stored.write(self._each(itertools.chain([first], run), opening))
        self.seconds += time.perf_counter() - begun
        return stored

    def _each(self, run: Iterator[tuple[int, Features]], opening: int) -> Iterator[Features]:
        """Yield the features of frames that follow each other."""
        for expected, (number, features) in enumerate(run, opening):
            if number != expected:
                raise InputError(f"the adapter opens frame {expected} after others: train on frames, with cache=None")
            yield features
            self.watch(1)


def _close(stored: Features, live: Features) -> bool:
    """Return True if features are those that the teacher makes now, except for rounding."""
    leaves = zip(pytree.tree_leaves(stored), pytree.tree_leaves(live), strict=True)
    pairs = [(a.double(), b.double().cpu()) for a, b in leaves if isinstance(b, Tensor) and b.numel()]
    return all(torch.allclose(a, b, rtol=0, atol=_TOLERANCE * float(b.abs().max()) + 1e-12) for a, b in pairs)


def _teacher_key(model: ShortcutV2V, adapter: Adapter) -> str:
    """Return a key of the teacher, its training flags, the cut and the adapter.

    Buffers of modules in train mode are left out: batch norm collects statistics in them that it does not use.
    """
    own = {name: value for name, value in vars(adapter).items() if value is not model.teacher}
    plain = {name: value for name, value in own.items() if isinstance(value, str | int | float | tuple | None)}
    digest = hashlib.sha256(f"{model.cut.short} {model.cut.layout} {model.capture.on_leak}".encode())
    digest.update(f"{type(adapter).__qualname__} {sorted(plain.items())}".encode())
    networks = [model.teacher, *(value for value in own.values() if isinstance(value, nn.Module))]
    tensors = [(name, value) for name, value in own.items() if isinstance(value, Tensor)]
    for name, part in itertools.chain.from_iterable(network.named_modules() for network in networks):
        digest.update(f"{name} {type(part).__qualname__} {part.training} {part.extra_repr()}".encode())
        tensors += part.named_parameters(recurse=False)
        tensors += [] if part.training else part.named_buffers(recurse=False)
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(as_bytes(tensor))
    return digest.hexdigest()


def _clip_key(clip: FrameSource) -> str:
    """Return a key of a clip: of a file path, size, time of change and the size it is read at; of others the pixels."""
    whole, way = clip, []
    while isinstance(whole, Part | Mirrored):
        way.append((whole.start, whole.stop) if isinstance(whole, Part) else "mirrored")
        whole = whole.clip
    if isinstance(whole, video.Frames):
        files = sorted(whole.path.iterdir()) if whole.path.is_dir() else [whole.path]
        states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return repr((way, whole.size, states))
    digest = hashlib.sha256()
    for number in range(len(clip)):
        frame = clip[number]
        digest.update(f"{tuple(frame.shape)}".encode())
        digest.update(as_bytes(frame))
    return digest.hexdigest()


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Switch autocast off, so that features do not depend on the precision of the run that makes them."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
