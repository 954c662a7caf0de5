"""Load vid2vid's networks from the authors' files (`<epoch>_net_G0.pth`, `latest_net_G.pth`, ...)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from shortcutv2v.errors import CheckpointError

from .._checkpoints import Config, load_into, read_state
from .teacher import build_teacher

__all__ = ["infer_config", "load_teacher"]


def infer_config(state: Mapping[str, Tensor]) -> Config | None:
    """The configuration that the weights belong to, read off names and shapes; None if it is no network of vid2vid.

    >>> config = {"input_nc": 4, "prev_output_nc": 6, "ngf": 4, "n_blocks": 3, "fg": True}
    >>> found = infer_config(build_teacher(config).state_dict())
    >>> {key: found[key] for key in config} == config
    True
    """
    if "model_down_seg.1.weight" in state and "model_down_img.1.weight" in state:
        return _composite(state)
    if "model_downsample.1.weight" in state and "model_upsample_conv.1.weight" in state:
        ngf, joined = state["model_downsample.1.weight"].shape[:2]
        nz = state["model_upsample_conv.1.weight"].shape[1] - ngf
        shape = {"nz": nz, "n_downsampling": _convs(state, "model_downsample") - 1}
        return _common(state, "model_downsample", joined - nz) | shape | {"n_blocks": _blocks(state, "model_resnet")}
    if "model.1.weight" in state:
        return _single(state)
    return None


def _composite(state: Mapping[str, Tensor]) -> Config:
    config = _common(state, "model_down_seg", state["model_down_seg.1.weight"].shape[1])
    return config | {
        "prev_output_nc": state["model_down_img.1.weight"].shape[1],
        "n_downsampling": _convs(state, "model_down_seg") - 1,
        "n_blocks": _blocks(state, "model_down_seg") + _blocks(state, "model_res_img"),
        "fg": "indv_down.1.weight" in state,
        "no_flow": "model_final_flow.1.weight" not in state,
    }


def _single(state: Mapping[str, Tensor]) -> Config:
    convs = [value for key, value in state.items() if re.fullmatch(r"model\.\d+\.weight", key) and value.ndim == 4]
    config = _common(state, "model", convs[0].shape[1])
    config |= {"output_nc": convs[-1].shape[0], "n_downsampling": (len(convs) - 2) // 2}
    blocks = _blocks(state, "model")
    return config | {"n_blocks": blocks} if blocks else config


def _common(state: Mapping[str, Tensor], first: str, input_nc: int) -> Config:
    norm = "batch" if f"{first}.2.weight" in state else "instance"
    return {"input_nc": input_nc, "ngf": state[f"{first}.1.weight"].shape[0], "norm": norm}


def _convs(state: Mapping[str, Tensor], name: str) -> int:
    pattern = re.compile(rf"{name}\.\d+\.weight")
    return sum(1 for key, value in state.items() if pattern.fullmatch(key) and value.ndim == 4)


def _blocks(state: Mapping[str, Tensor], name: str) -> int:
    pattern = re.compile(rf"{name}\.\d+\.conv_block\.1\.weight")
    return sum(1 for key in state if pattern.fullmatch(key))


def load_teacher(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> nn.Module:
    """The network in a file: generator of the first scale, or a network for first frames.

    Args:
        path: the file.
        config: what the file is expected to hold; by default whatever it holds. Options without weights
            (`align_corners`, `use_raw_only`) can be given alone: the rest is read off the file.

    Raises:
        CheckpointError: the file cannot be read, holds something else, or does not fit `config`.
    """
    state = read_state(path)
    found = dict(config or {})
    if not found.keys() - {"align_corners", "use_raw_only", "flow_multiplier"}:
        inferred = infer_config(state)
        if inferred is None:
            raise CheckpointError(
                f"{os.fspath(path)!r} holds no network of vid2vid: no model_down_seg.1.weight or like"
            )
        found = inferred | found
    return load_into(build_teacher(found), state, infer_config)
