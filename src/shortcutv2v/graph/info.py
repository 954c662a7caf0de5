"""Facts about each node of a recording."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

__all__ = ["Info", "info", "is_heavy", "note", "note_tensor"]

_CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Info:
    """One node of a recording.

    Attributes:
        owner: name of the module that the node belongs to, or a phrase, for messages.
        shape: of the tensor; empty if the node is no single tensor.
        dtype: of the tensor.
        device: of the tensor.
        macs: multiply-adds.
        heavy: it does work of its own: multiply-adds, or it reads weights.
        depends: its value depends on inputs or on the teacher's tensors.
        called: it is the call of a module, or belongs to one.
        several: it gives several tensors at once.
        random: it draws random numbers.
        fresh: its result lives in memory of its own.
        copied: it is a copy made for an in-place operation; True if the copy may be dropped where nobody else reads.
        effect: it is a hook of the user's that changes nothing: nothing depends on it, and it must run.
    """

    owner: str = ""
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    device: torch.device = _CPU
    macs: int = 0
    heavy: bool = False
    depends: bool = False
    called: bool = False
    several: bool = False
    random: bool = False
    fresh: bool = False
    copied: bool | None = None
    effect: bool = False


def info(node: Node) -> Info:
    """The facts about a node."""
    known: Info = node.meta.setdefault("info", Info())
    return known


def note(node: Any, **facts: Any) -> None:
    """Add facts about a node."""
    node.meta["info"] = dataclasses.replace(info(node), **facts)


def note_tensor(node: Any, tensor: Tensor) -> None:
    """Add shape, dtype and device of the tensor of a node."""
    note(node, shape=tuple(tensor.shape), dtype=tensor.dtype, device=tensor.device)


def is_heavy(module: nn.Module | None, macs: int) -> bool:
    """Return True if a call does work of its own: multiply-adds, or weights or statistics of whatever size."""
    if macs or module is None:
        return bool(macs)
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())
