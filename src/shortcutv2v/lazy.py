"""Blocks that are made when the first inputs come, by the conventions of torch's lazy modules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.errors import InputError
from shortcutv2v.graph import Maps

__all__ = ["BlockMaker", "Blocks", "LazyBlocks", "materialising"]

BlockMaker = Callable[[Maps], Sequence[ShortcutBlock]]

materialising = threading.RLock()
"""Held while blocks are made, so that two threads do not make them twice."""


class Blocks(nn.ModuleList):
    """The Shortcut blocks of a model, one per branch: a typed ModuleList."""

    def __iter__(self) -> Iterator[ShortcutBlock]:
        return cast("Iterator[ShortcutBlock]", super().__iter__())


class LazyBlocks(nn.Module):
    """A module whose `blocks` exist from the start or are made later. Until then, reading weights is an error.

    Args:
        blocks: the blocks, or a function that makes them once the shapes of `a` and `f` are known.
    """

    blocks: Blocks

    def __init__(self, blocks: Sequence[ShortcutBlock] | BlockMaker) -> None:
        super().__init__()
        self._make_blocks: BlockMaker | None = None
        if callable(blocks):
            self._make_blocks = blocks
        else:
            self.blocks = Blocks(blocks)

    @property
    def materialised(self) -> bool:
        """True if the blocks exist: False from `wrap()` without example inputs until the first inputs come."""
        return self._make_blocks is None

    def make_blocks(self, maps: Maps, device: torch.device, dtype: torch.dtype) -> None:
        """Make the blocks for these shapes, in the mode of this module."""
        if self._make_blocks is not None:
            self.blocks = Blocks(self._make_blocks(maps)).to(device, dtype).train(self.training)
            self._make_blocks = None

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Name the blocks' parameters; see `torch.nn.Module`."""
        self._check_materialised()
        return super().named_parameters(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the blocks' state; see `torch.nn.Module`."""
        self._check_materialised()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the blocks' state; see `torch.nn.Module`."""
        self._check_materialised()
        return super().load_state_dict(*args, **kwargs)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        if name == "blocks":
            self._check_materialised()
        return super().__getattr__(name)

    def _check_materialised(self) -> None:
        if not self.materialised:
            raise InputError(
                "the model has no blocks yet, because wrap() got no example_inputs and no frame has come: pass a frame "
                "through it first (model(frame)), or give wrap(..., example_inputs=(frame,))"
            )
