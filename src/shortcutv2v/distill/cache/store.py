"""One clip's features on disk: a file of equal records, one per frame, read through a memory map.

A record holds the tensors of a frame one after the other. The file appears under its name once it is whole; it is whole
if it has the size that its records take.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.distill.cache.features import Features, FrameShape, Unbound
from shortcutv2v.errors import InputError

__all__ = ["SUFFIX", "StoredClip", "as_bytes", "drop_features", "stored_dtype"]

SUFFIX = ".features"
_ALIGNED = 64
_PICTURE = 4


class _Stored(NamedTuple):
    """Shape and dtype of a tensor on disk."""

    shape: torch.Size
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize


def stored_dtype(leaf: Tensor) -> torch.dtype:
    """Return the dtype on disk: bfloat16 for floats, except pictures: bfloat16 would cut their eight bits short.

    A picture is a map of at most four channels.

    Examples:
        >>> stored_dtype(torch.zeros(1, 64, 8, 8)), stored_dtype(torch.zeros(1, 3, 8, 8))
        (torch.bfloat16, torch.float32)
    """
    picture = leaf.dim() < 2 or leaf.shape[1] <= _PICTURE
    wide = leaf.is_floating_point() and leaf.element_size() > 2 and not picture
    return torch.bfloat16 if wide else leaf.dtype


class StoredClip(Sequence[Features]):
    """The features of a clip's frames, in order, each read from disk when it is asked for.

    Frames that the adapter opens with are left out. It pickles as a file name.

    Args:
        path: the file.
        example: features of one frame; of its tensors only shapes and dtypes are kept.
        frame: (C, H, W) of the frames.
        count: number of frames.

    Attributes:
        nbytes: size of the file.

    Shape:
        each entry is a `Features` of batch size 1 in the dtypes of the disk; its tensors share the memory of a map of
        the file, which lives as long as they do, and must not be written into.
    """

    def __init__(self, path: Path, example: Features, frame: FrameShape, count: int) -> None:
        self.path, self.frame, self._count = path, frame, count
        self._leaves, self._spec = self._described(example)
        self._sizes = [-(-leaf.nbytes // _ALIGNED) * _ALIGNED for leaf in self._leaves if isinstance(leaf, _Stored)]
        self.nbytes = count * sum(self._sizes)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        """Features of frame `number`.

        Raises:
            IndexError: there is no such frame.
            InputError: the file has gone.
        """
        pieces = iter(self._records()[number].split(self._sizes))
        leaves = [
            next(pieces)[: leaf.nbytes].view(leaf.dtype).view(leaf.shape) if isinstance(leaf, _Stored) else leaf
            for leaf in self._leaves
        ]
        return pytree.tree_unflatten(leaves, self._spec)

    @property
    def is_whole(self) -> bool:
        """True if the file exists and has as many bytes as its records take."""
        return self.path.is_file() and self.path.stat().st_size == self.nbytes

    def _described(self, features: Features) -> tuple[list[Any], pytree.TreeSpec]:
        """Return shapes and dtypes on disk and the constants of features, and their structure."""
        leaves, spec = pytree.tree_flatten(features.signed(Unbound(self.frame)))
        return [_Stored(x.shape, stored_dtype(x)) if isinstance(x, Tensor) else x for x in leaves], spec

    def _records(self) -> Tensor:
        # A map that stayed would count every page that was read as this process's memory, and the file's disk as used
        # after it is deleted. A map per frame costs under a millisecond.
        try:
            data = torch.from_file(str(self.path), shared=False, size=self.nbytes, dtype=torch.uint8)
        except (OSError, RuntimeError) as error:
            raise InputError(f"cannot read cached features {self.path}: {error}") from None
        return data.view(self._count, -1)

    def write(self, frames: Iterable[Features]) -> None:
        """Write the features of all frames, whole or not at all; memory holds one frame at a time.

        Raises:
            InputError: the disk is full or not writable, or the features of a frame have another structure.
        """
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                for number, features in enumerate(frames):
                    if self._described(features) != (self._leaves, self._spec):
                        raise InputError(
                            f"the teacher's features at frame {number} are of another structure, shape or constants "
                            "than before: they cannot be cached; train on frames, with cache=None"
                        )
                    tensors = [leaf for leaf in pytree.tree_leaves(features) if isinstance(leaf, Tensor)]
                    for tensor, size in zip(tensors, self._sizes, strict=True):
                        data = as_bytes(tensor.to(stored_dtype(tensor)))
                        file.write(data)
                        file.write(bytes(size - data.nbytes))
            partial.replace(self.path)
        except OSError as error:
            raise InputError(f"cannot write the feature cache {self.path}: {error.strerror or error}") from None
        finally:
            partial.unlink(missing_ok=True)


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


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, copied only where they must be."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
