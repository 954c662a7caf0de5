"""Names that change when features would: of a teacher with its cut and adapter, and of a clip."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.cache.store import as_bytes
from shortcutv2v.distill.clips import FrameSource, Mirrored, Part
from shortcutv2v.model import ShortcutV2V

__all__ = ["clip_key", "teacher_key"]


def teacher_key(model: ShortcutV2V, adapter: Adapter) -> str:
    """Key of all that decides features but the clip: teacher, training flags, cut, adapter.

    Statistics that a norm in training mode collects, but does not use, are left out. Of an adapter it reads the
    attributes: tensors, modules and plain values by content, other objects by their type.

    Examples:
        >>> import shortcutv2v
        >>> teacher = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> before = teacher_key(model, Adapter(teacher, "0", "2"))
        >>> _ = teacher[3].bias.data.add_(1)
        >>> before == teacher_key(model, Adapter(teacher, "0", "2"))
        False
    """
    digest = hashlib.sha256()
    _add(digest, (model.teacher, model.cut.short, str(model.cut.layout), model.capture.on_leak))
    _add(digest, (type(adapter).__qualname__, {k: v for k, v in vars(adapter).items() if v is not model.teacher}))
    return digest.hexdigest()


def clip_key(clip: FrameSource) -> str:
    """Key of a clip: a file's path, size, time of change and the size it is read at; any other clip's pixels."""
    if (name := _name(clip)) is not None:
        return name
    digest = hashlib.sha256()
    for number in range(len(clip)):
        _add(digest, clip[number])
    return digest.hexdigest()


def _name(clip: FrameSource) -> str | None:
    """What tells a clip without reading it; None for clips that are no files, nor made of any."""
    if isinstance(clip, Part | Mirrored):
        whole = _name(clip.clip)
        change = f"[{clip.start}:{clip.stop}]" if isinstance(clip, Part) else " mirrored"
        return whole if whole is None else whole + change
    if not isinstance(clip, video.Frames):
        return None
    digest = hashlib.sha256()
    files = sorted(clip.path.iterdir()) if clip.path.is_dir() else [clip.path]
    _add(digest, [clip.size, *((str(file.resolve()), *_state(file)) for file in files)])
    return digest.hexdigest()


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _add(digest: Any, value: Any) -> None:
    """Feed `value` to a hash, with marks between the parts, so that no two values read the same."""
    digest.update(f"<{type(value).__qualname__}>".encode())
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(as_bytes(value))
    elif isinstance(value, nn.Module):
        digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode())
        for part in _parts(value):
            _add(digest, part)
    elif isinstance(value, Mapping):
        _add(digest, sorted(((str(k), v) for k, v in value.items()), key=lambda item: item[0]))
    elif isinstance(value, str | bytes | int | float | complex | None | Path | torch.dtype | torch.device):
        digest.update(repr(value).encode())
    elif isinstance(value, Iterable) and isinstance(value, list | tuple | set | frozenset):
        for entry in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            _add(digest, entry)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _add(digest, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, functools.partial):
        _add(digest, (value.func, value.args, value.keywords))
    else:
        digest.update(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}".encode())
    digest.update(b"</>")


def _parts(module: nn.Module) -> Iterable[Any]:
    """Training flags, parameters and the buffers that are used, by name."""
    for name, part in module.named_modules():
        yield name, part.training
        yield {key: p.detach() for key, p in part.named_parameters(recurse=False)}
        if not (isinstance(part, _NormBase) and part.training):
            yield {key: b.detach() for key, b in part.named_buffers(recurse=False)}
