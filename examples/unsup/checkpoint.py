"""Load the Unsup generator from the authors' files (`<epoch>_net_G_A.pth`, `<epoch>_net_G_B.pth`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shortcutv2v.errors import CheckpointError

from .._checkpoints import Config, load_into, read_state
from .teacher import ResnetGenerator, build_teacher

__all__ = ["infer_config", "load_teacher"]


def infer_config(state: Mapping[str, Tensor]) -> Config | None:
    """The configuration that the weights belong to, read off names and shapes; None if it is no Unsup generator.

    >>> infer_config(build_teacher({"ngf": 8, "n_blocks": 9, "use_dropout": True}).state_dict())
    {'input_nc': 3, 'output_nc': 3, 'ngf': 8, 'n_blocks': 9, 'use_dropout': True}
    """
    first = state.get("model.1.weight")
    blocks = [key for key in state if re.fullmatch(r"model\.\d+\.conv_block\.1\.weight", key)]
    last = state.get(f"model.{17 + len(blocks)}.weight")
    if first is None or last is None:
        return None
    return {
        "input_nc": first.shape[1],
        "output_nc": last.shape[0],
        "ngf": first.shape[0],
        "n_blocks": len(blocks),
        "use_dropout": any(key.endswith(".conv_block.6.weight") for key in state),
    }


def load_teacher(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> ResnetGenerator:
    """The generator in a file, in eval mode.

    Args:
        path: the file.
        config: what the file is expected to hold; by default whatever it holds.

    Raises:
        CheckpointError: the file cannot be read, holds something else, or does not fit `config`.
    """
    state = read_state(path)
    found = config if config is not None else infer_config(state)
    if found is None:
        raise CheckpointError(f"{os.fspath(path)!r} holds no Unsup generator: no model.1.weight and its like")
    net = build_teacher(found)
    # Files of the Shortcut-V2V release may hold a decoder beside the generator, which their loader skips too.
    load_into(net, state, infer_config, ignore=("decoder",))
    return net
