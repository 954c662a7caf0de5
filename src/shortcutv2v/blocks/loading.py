"""Load weights into a module by name: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from shortcutv2v.errors import CheckpointError

__all__ = ["check_exactly", "load_exactly"]


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: object, hint: str = "") -> None:
    """Load `state` into `module`, unless something does not fit; then nothing is loaded.

    Args:
        module: changed in place; its dtype stays.
        state: its parameters and buffers by name.
        source: where the state comes from, for the message.
        hint: the end of the message.

    Raises:
        CheckpointError: as by `check_exactly`.
    """
    check_exactly(module.state_dict(), state, source, hint)
    module.load_state_dict(dict(state))


def check_exactly(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: object, hint: str = "") -> None:
    """Check that `state` can replace the state `own`.

    Raises:
        CheckpointError: an entry is missing, unexpected, of another shape, no number where one is expected, or not
            finite; the message names the first.
    """
    for key in sorted(own.keys() | state.keys()):
        got = tuple(state[key].shape) if key in state else None
        expected = tuple(own[key].shape) if key in own else None
        if got != expected:
            raise CheckpointError(f"{source}, {key}: expected shape {expected}, got {got}{hint}")
        if own[key].is_floating_point() != state[key].is_floating_point():
            raise CheckpointError(f"{source}, {key}: expected {own[key].dtype}, got {state[key].dtype}")
        if state[key].is_floating_point() and not state[key].double().isfinite().all():
            raise CheckpointError(f"{source}, {key}: some values are infinite or not a number")
