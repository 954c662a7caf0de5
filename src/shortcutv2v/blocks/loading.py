"""Weights into a module by name, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from shortcutv2v.errors import CheckpointError

__all__ = ["load_exactly"]


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: object, hint: str = "") -> None:
    """Load `state` into `module`; the first misfit is named by key and shape, and then nothing is loaded.

    Args:
        module: changed in place, in its own dtype.
        state: its parameters and buffers by name.
        source: where the state comes from, for the message.
        hint: the end of the message.

    Raises:
        CheckpointError: an entry is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    for key in sorted(own.keys() | state.keys()):
        got = tuple(state[key].shape) if key in state else None
        expected = tuple(own[key].shape) if key in own else None
        if got != expected:
            raise CheckpointError(f"{source}, {key}: expected shape {expected}, got {got}{hint}")
    module.load_state_dict(dict(state))
