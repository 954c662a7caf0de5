"""Load VToonify from the authors' files (`vtoonify_s_d.pt`, `vtoonify_t.pt`, ...; the weights lie under `g_ema`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from shortcutv2v.errors import CheckpointError

from .._checkpoints import Config, load_into, read_state
from .stylegan import stylegan_channels
from .teacher import VToonify, build_teacher

__all__ = ["infer_config", "load_teacher"]


def infer_config(state: Mapping[str, Tensor]) -> Config | None:
    """The configuration that the weights belong to, read off names and shapes; None if it is no VToonify.

    >>> config = {"backbone": "toonify", "in_size": 32, "out_size": 64, "style_channels": 8, "num_mlps": 2}
    >>> net = build_teacher(config | {"generator_channels": dict.fromkeys((4, 8, 16, 32, 64), 4)})
    >>> found = infer_config(net.state_dict())
    >>> {key: found[key] for key in config} == config
    True
    """
    backbone = "dualstylegan" if "generator.generator.conv1.conv.weight" in state else "toonify"
    prefix = "generator.generator" if backbone == "dualstylegan" else "generator"
    if f"{prefix}.conv1.conv.weight" not in state or "encoder.0.0.weight" not in state:
        return None
    levels = _count(state, rf"{prefix}\.to_rgbs\.\d+\.bias") + 2
    stages = _count(state, r"encoder\.\d+\.2\.weight")
    config: Config = {
        "backbone": backbone,
        "in_size": 2 ** (stages + 4),
        "out_size": 2**levels,
        "img_channels": state[f"encoder.{stages + 1}.weight"].shape[0],
        "style_channels": state[f"{prefix}.style.1.weight"].shape[0],
        "num_mlps": _count(state, rf"{prefix}\.style\.\d+\.weight"),
        "num_res_layers": _count(state, rf"encoder\.{stages}\.\d+\.conv\.weight"),
    }
    widths = {4: state[f"{prefix}.conv1.activate.bias"].shape[0]}
    for level in range(3, levels + 1):
        widths[2**level] = state[f"{prefix}.convs.{2 * level - 6}.activate.bias"].shape[0]
    usual = stylegan_channels()
    if any(usual[size] != width for size, width in widths.items()):
        config["generator_channels"] = widths
    return config


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(1 for key in state if re.fullmatch(pattern, key))


def load_teacher(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> VToonify:
    """The network in a file, in eval mode.

    Args:
        path: the file.
        config: what the file is expected to hold; by default whatever it holds.

    Raises:
        CheckpointError: the file cannot be read, holds something else (the authors' encoder-pretraining files hold
            the encoder alone), or does not fit `config`.
    """
    state = read_state(path)
    found = config if config is not None else infer_config(state)
    if found is None:
        raise CheckpointError(
            f"{os.fspath(path)!r} holds no whole VToonify: generator and encoder are expected. Files of the authors' "
            "encoder pretraining hold the encoder alone; take the final checkpoint"
        )
    net = build_teacher(found)
    load_into(net, state, infer_config)
    return net
