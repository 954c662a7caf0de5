"""Save and load what was trained: the blocks and the recipe to wrap with, never the teacher.

A saved model is a folder of two files: `block.safetensors`, the weights, and `shortcut.json`, the cut, the widths, the
package's version and a fingerprint of the teacher. Pickles are neither written nor read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from shortcutv2v import graph
from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.blocks.loading import load_exactly
from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.lazy import Blocks
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.refresh import RefreshPolicy, from_recipe, to_recipe

__all__ = ["fingerprint", "load", "recipe", "save"]

FORMAT = 2
WEIGHTS, RECIPE = "block.safetensors", "shortcut.json"
_Kinds = Mapping[str, type | tuple[type, ...]]
_RECIPE_KINDS: _Kinds = {
    "enc_layer": list,
    "dec_layer": list,
    "layout": (str, type(None)),
    "on_leak": str,
    "refresh": dict,
    "trained_interval": (int, type(None)),
    "show_shortcut": bool,
    "blocks": list,
    "teacher": dict,
}
_BLOCK_KINDS: _Kinds = {"variant": str, "a_channels": int, "f_channels": int, "channels": int}
_TEACHER_KINDS: _Kinds = {"class": str, "parameters": int, "structure": str, "values": list}
_SAMPLES = 4096
_TOLERANCE = 0.02
"""Relative difference allowed between two fingerprints of one tensor: a cast to bfloat16 or float16 stays below it."""
_TINY = 1e-6
"""Absolute difference allowed besides: float16 rounds values this small by more, at last to zero."""


def save(model: ShortcutV2V, folder: str | Path) -> None:
    """Write `model`'s blocks and recipe to `folder`; files of that name are replaced, whole or not at all.

    Raises:
        CheckpointError: the folder cannot be written, or a field of the refresh policy is no JSON value.
    """
    folder = Path(folder)
    try:
        text = json.dumps(recipe(model), indent=2) + "\n"
    except TypeError as error:
        raise CheckpointError(
            f"cannot save the refresh policy {model.refresh!r}: {error}; give its fields JSON values (numbers, text, "
            "lists), and declare what it remembers with field(init=False)"
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().contiguous() for name, value in model.blocks.state_dict().items()}
        for name, write in (
            (WEIGHTS, lambda path: save_file(weights, path)),
            (RECIPE, lambda path: Path(path).write_text(text)),
        ):
            partial = folder / f".{name}.partial"
            try:
                write(partial)
                os.replace(partial, folder / name)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write to {folder}: {error.strerror or error}") from None


def load(folder: str | Path, teacher: nn.Module, *, capture: str | None = None) -> ShortcutV2V:
    """Wrap `teacher` as it was wrapped when `folder` was saved, and load the trained blocks.

    The teacher is captured at the first call, when its inputs are known; its flags stay as they are. The blocks go to
    the device of the teacher's parameters, in the dtype in which they were saved, and are in eval mode.

    Args:
        folder: what `model.save(folder)` wrote.
        teacher: the same pretrained generator.
        capture: force a capture strategy instead of trying them in turn.

    Raises:
        CheckpointError: the folder is missing, damaged, of a newer format, or belongs to another teacher.
        CutError: the teacher has no such layers.
    """
    folder = Path(folder)
    settings = _read_recipe(folder)
    _compare(settings["teacher"], fingerprint(teacher), folder)
    enc_layer = [tuple(names) if isinstance(names, list) else names for names in settings["enc_layer"]]
    cut = graph.parse_cut(teacher, enc_layer, settings["dec_layer"], settings["layout"])
    captured = graph.Capture(teacher, cut, capture=capture, on_leak=settings["on_leak"])
    blocks = Blocks(ShortcutBlock(**block) for block in settings["blocks"])
    _load_weights(blocks, folder / WEIGHTS)
    model = ShortcutV2V(captured, list(blocks), _policy(settings["refresh"], folder), settings["show_shortcut"])
    model.trained_interval = settings["trained_interval"]
    model.blocks.to(placement(teacher)[0])
    return model.eval()


def _policy(saved: dict[str, Any], folder: Path) -> RefreshPolicy:
    try:
        policy, warning = from_recipe(saved)
    except InputError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    if warning is not None:
        warnings.warn(f"{folder}: {warning}", stacklevel=3)
    return policy


def recipe(model: ShortcutV2V) -> dict[str, Any]:
    """Return all that `load` needs beside the weights, as JSON-ready values."""
    return {
        "format": FORMAT,
        "shortcutv2v": importlib.metadata.version("shortcutv2v"),
        "enc_layer": [[str(layer) for layer in branch.enc] for branch in model.cut.branches],
        "dec_layer": [str(branch.dec) for branch in model.cut.branches],
        "layout": model.cut.layout,
        "on_leak": model.capture.on_leak,
        "refresh": to_recipe(model.refresh),
        "trained_interval": model.trained_interval,
        "show_shortcut": model.show_shortcut,
        "blocks": [
            {
                "variant": block.variant,
                "a_channels": block.a_channels,
                "f_channels": block.f_channels,
                "channels": block.channels,
            }
            for block in model.blocks
        ],
        "teacher": fingerprint(model.teacher),
    }


@torch.no_grad()
def fingerprint(teacher: nn.Module) -> dict[str, Any]:
    """What tells one teacher from another, cheaply: parameter names, shapes and samples of their values.

    Values are compared with a tolerance, so that a teacher cast to half precision is still the same teacher.
    Buffers are left out, since running statistics change by use. Shape: a JSON-ready mapping.

    Examples:
        >>> fingerprint(nn.Conv2d(3, 8, 3))["parameters"]
        224
    """
    digest, values, count = hashlib.sha256(), [], 0
    for name, parameter in teacher.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        count += parameter.numel()
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // _SAMPLES)].double()
        values.append(float(sample.abs().mean()) if flat.numel() else 0.0)
    return {"class": type(teacher).__name__, "parameters": count, "structure": digest.hexdigest(), "values": values}


def _compare(saved: dict[str, Any], found: dict[str, Any], folder: Path) -> None:
    if saved["structure"] != found["structure"]:
        raise CheckpointError(
            f"{folder} was trained for another teacher: a {saved['class']} of {saved['parameters']} parameters, "
            f"this is a {found['class']} of {found['parameters']}"
        )
    pairs = zip(saved["values"], found["values"], strict=True)  # as many, where the structure is the same
    if not all(math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TINY) for a, b in pairs):
        raise CheckpointError(
            f"{folder} was trained for a {saved['class']} of the same shape but with other weights: "
            "load the teacher's own checkpoint first"
        )


def _read_recipe(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE
    if not path.is_file():
        hint = "" if folder.is_dir() else " (no such folder)"
        raise CheckpointError(
            f"{folder} holds no {RECIPE}{hint}: expected a folder written by model.save() or `shortcutv2v train`"
        )
    try:
        settings = json.loads(path.read_text())
        version = settings["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version}, this release reads format {FORMAT}: upgrade shortcutv2v")
    _check_kinds(path, settings, _RECIPE_KINDS)
    _check_kinds(path, settings["teacher"], _TEACHER_KINDS)
    for block in settings["blocks"]:
        _check_kinds(path, block, _BLOCK_KINDS)
    return dict(settings)


def _check_kinds(path: Path, found: Any, kinds: _Kinds) -> None:
    bad = [name for name, kind in kinds.items() if not (isinstance(found, dict) and isinstance(found.get(name), kind))]
    if bad:
        raise CheckpointError(f"{path} is damaged: {', '.join(bad)} missing or of another kind")


def _load_weights(blocks: nn.ModuleList, path: Path) -> None:
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} holds no {path.name}") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no safetensors file (pickles are not read): {error}") from None
    dtype = next((value.dtype for value in weights.values() if value.is_floating_point()), torch.float32)
    load_exactly(blocks.to(dtype), weights, path, "; a block of another cut?")
