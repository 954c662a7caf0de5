"""One clip's features on disk: a safetensors file, written frame by frame and read through a memory map.

Each tensor of the file holds one leaf for all frames, (N, *shape). The file appears under its name when it is whole; a
checksum over all bytes notices what a crash of the machine or the disk has done to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.distill.cache.features import Features, FrameShape, Unbound, unflatten
from shortcutv2v.errors import InputError

__all__ = ["Slot", "StoredClip", "as_bytes", "read", "size_of", "slot_of", "write"]

_NAMES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
_DTYPES = {dtype: name for name, dtype in _NAMES.items()}
_PICTURE = 4
_FORMAT = "1"


@dataclass(frozen=True)
class Slot:
    """How one leaf of one frame is stored: shape and dtype on disk."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one frame."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


def slot_of(leaf: Tensor) -> Slot:
    """Floats go to bfloat16, apart from pictures: maps of at most four channels, whose eight bits it would cut short.

    Raises:
        InputError: a complex tensor.

    Examples:
        >>> slot_of(torch.zeros(1, 64, 8, 8)).dtype, slot_of(torch.zeros(1, 3, 8, 8)).dtype
        (torch.bfloat16, torch.float32)
    """
    picture = leaf.dim() < 2 or leaf.shape[1] <= _PICTURE
    wide = leaf.is_floating_point() and leaf.element_size() > 2 and not picture
    dtype = torch.bfloat16 if wide else leaf.dtype
    if dtype not in _DTYPES:
        raise InputError(f"the feature cache holds no {dtype} tensors: train without it")
    return Slot(tuple(leaf.shape), dtype)


class StoredClip(Sequence[Features]):
    """The features of a clip's frames, in order, each read from disk when it is asked for.

    Frames that the adapter opens with are not among them. It pickles as a file name; each process maps the file anew.

    Args:
        path: the file.
        slots: of the tensor leaves.
        example: leaves of one frame; tensors are not kept, constants are.
        spec: structure of the leaves.
        frame: (C, H, W) of the frames.
        count: number of frames.

    Shape:
        each entry is a `Features` of batch size 1 in the dtypes of the disk; its tensors share the map's memory and
        must not be written into.
    """

    def __init__(
        self,
        path: Path,
        slots: Sequence[Slot],
        example: Sequence[Any],
        spec: pytree.TreeSpec,
        frame: FrameShape,
        count: int,
    ) -> None:
        self.path, self.slots, self.spec, self.frame, self._count = path, tuple(slots), spec, frame, count
        self.leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in example]
        self.places = [i for i, leaf in enumerate(example) if isinstance(leaf, Tensor)]
        self._maps: list[Tensor] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        """Features of frame `number`.

        Raises:
            IndexError: there is no such frame.
            InputError: the file has gone.
        """
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        leaves = list(self.leaves)
        for place, stored in zip(self.places, self.maps(), strict=True):
            leaves[place] = stored[number]
        return unflatten(leaves, self.spec, Unbound(self.frame))

    def maps(self) -> list[Tensor]:
        """Every tensor leaf of all frames, (N, *shape), mapped from disk."""
        if self._maps is None:
            try:
                self._maps = _map(self.path, self.slots, self._count)
            except (OSError, RuntimeError) as error:
                raise InputError(f"cannot read cached features {self.path}: {error}") from None
        return self._maps

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": None}


def write(path: Path, slots: Sequence[Slot], frames: Iterable[Sequence[Tensor]], count: int) -> float:
    """Write `count` frames of leaves to `path`, whole or not at all; memory holds one frame at a time.

    Args:
        path: the file.
        slots: of the leaves.
        frames: the leaves of frame after frame.
        count: how many frames there are.

    Returns:
        Seconds it took, the making of `frames` included; the file says so too.

    Raises:
        InputError: the disk is full or not writable.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    offsets = _offsets(slots, count)
    checksum, began = 0, time.perf_counter()
    try:
        with partial.open("wb") as file:
            start = file.write(_header(slots, count, 0, 0.0))
            for number, leaves in enumerate(frames):
                for slot, offset, leaf in zip(slots, offsets, leaves, strict=True):
                    data = as_bytes(leaf.to(slot.dtype))
                    checksum = zlib.crc32(data, checksum)
                    file.seek(start + offset + number * slot.nbytes)
                    file.write(data)
            seconds = time.perf_counter() - began
            file.seek(0)
            file.write(_header(slots, count, checksum, seconds))
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write the feature cache {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return seconds


def read(path: Path, slots: Sequence[Slot], count: int) -> float | None:
    """Check a file byte by byte against what `write` would have written.

    Returns:
        Seconds that writing it took; None where it is damaged, missing, or holds something else.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError, KeyError):
        with path.open("rb") as file:
            about = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
            seconds = float(about["seconds"])
            file.seek(0)
            header = _header(slots, count, int(about["checksum"], 16), seconds)
            if file.read(len(header)) != header or path.stat().st_size != len(header) + size_of(slots, count):
                return None
        maps, checksum = _map(path, slots, count), 0
        for number in range(count):
            for leaf in maps:
                checksum = zlib.crc32(as_bytes(leaf[number]), checksum)
        return seconds if int(about["checksum"], 16) == checksum else None
    return None


def size_of(slots: Sequence[Slot], count: int) -> int:
    """Bytes that `count` frames take, the header left out."""
    return count * sum(slot.nbytes for slot in slots)


def _offsets(slots: Sequence[Slot], count: int) -> list[int]:
    """Where each leaf begins: the widest types first, so that all are aligned."""
    offsets, end = [0] * len(slots), 0
    for i in sorted(range(len(slots)), key=lambda i: -slots[i].dtype.itemsize):
        offsets[i] = end
        end += count * slots[i].nbytes
    return offsets


def _header(slots: Sequence[Slot], count: int, checksum: int, seconds: float) -> bytes:
    """The header of a safetensors file; equally long for all checksums and times."""
    about = {"format": _FORMAT, "checksum": f"{checksum:08x}", "seconds": f"{seconds:012.3f}"}
    entries: dict[str, Any] = {"__metadata__": about}
    for i, (slot, offset) in enumerate(zip(slots, _offsets(slots, count), strict=True)):
        span = [offset, offset + count * slot.nbytes]
        entries[f"leaf.{i}"] = {"dtype": _DTYPES[slot.dtype], "shape": [count, *slot.shape], "data_offsets": span}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 64 + 56)  # data begins at a multiple of 64
    return len(text).to_bytes(8, "little") + text


def _map(path: Path, slots: Sequence[Slot], count: int) -> list[Tensor]:
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    return [
        data[start + offset : start + offset + count * slot.nbytes].view(slot.dtype).view(count, *slot.shape)
        for slot, offset in zip(slots, _offsets(slots, count), strict=True)
    ]


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, copied only where they must be."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
