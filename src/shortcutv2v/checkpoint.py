"""Save and load the trained blocks and the recipe to wrap with, never the teacher.

A saved model is a folder of two files. `block.safetensors` holds the weights; `shortcut.json` holds the cut, the
arguments of the blocks, the version of the package, a fingerprint of the teacher, and the hash of the weights. Neither
is a pickle.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_weights
from safetensors.torch import save as write_weights
from torch import Tensor, nn

from shortcutv2v import graph, pair
from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.blocks.loading import check_exactly
from shortcutv2v.errors import CheckpointError, InputError, ShortcutError
from shortcutv2v.fingerprint import KINDS as TEACHER_KINDS
from shortcutv2v.fingerprint import differences, fingerprint
from shortcutv2v.lazy import Blocks
from shortcutv2v.memory import keep_freed_memory
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.quality import Calibration
from shortcutv2v.refresh import RefreshPolicy, from_recipe, to_recipe
from shortcutv2v.teacher import mode_dependent

__all__ = ["load", "recipe", "save"]

FORMAT = 3
WEIGHTS, RECIPE = "block.safetensors", "shortcut.json"
_Kinds = Mapping[str, type | tuple[type, ...]]
_RECIPE_KINDS: _Kinds = {
    "enc_layer": list,
    "dec_layer": list,
    "layout": (str, type(None)),
    "on_leak": str,
    "refresh": dict,
    "trained_interval": (int, type(None)),
    "calibration": (dict, type(None)),
    "show_shortcut": bool,
    "blocks": list,
    "weights": str,
    "teacher": dict,
    "train_mode": list,
}
_BLOCK_KINDS: _Kinds = {"variant": str, "a_channels": int, "f_channels": int, "channels": int}


def save(model: ShortcutV2V, folder: str | Path) -> None:
    """Write `model`'s blocks and recipe to `folder`.

    The two files always belong together: whoever loads the folder, also after a kill at any moment, gets this model or
    the one that was there before.

    Raises:
        CheckpointError: the folder cannot be written; or a field of the refresh policy, or an argument of a block, is
            no JSON value.
    """
    folder = Path(folder)
    weights = write_weights({name: value.detach().contiguous() for name, value in model.blocks.state_dict().items()})
    settings = recipe(model)
    settings["weights"] = hashlib.sha256(weights).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pair.write(
            folder, WEIGHTS, weights, settings["weights"], RECIPE, json.dumps(settings, indent=2).encode() + b"\n"
        )
    except (OSError, ValueError) as error:  # a path with a NUL character is a ValueError
        raise CheckpointError(f"cannot write to {folder}: {getattr(error, 'strerror', None) or error}") from None


def load(
    folder: str | Path, teacher: nn.Module, *, capture: str | None = None, keep_memory: bool = False
) -> ShortcutV2V:
    """Wrap `teacher` as it was wrapped when `folder` was saved, and load the trained blocks.

    The teacher is captured at the first call, when its inputs are known; its flags stay as they are. The blocks go to
    the device of the teacher's parameters, in the dtype in which they were saved, and are in eval mode.

    Args:
        folder: a folder that `model.save(folder)` wrote.
        teacher: the same pretrained generator.
        capture: force a capture strategy instead of trying them in turn.
        keep_memory: keep freed memory in the process, see `wrap`.

    Raises:
        CheckpointError: the folder is missing, damaged, of another format, or belongs to another teacher.
        CutError: the teacher has no such layers.

    Warns:
        UserWarning: modules of the teacher are in another mode (train or eval) than when the blocks were saved; or the
            saved refresh policy was a function, which cannot be stored.
    """
    folder = Path(folder)
    if keep_memory:
        keep_freed_memory()
    settings, weights = _read(folder)
    _check_teacher(folder, settings["teacher"], teacher)
    _check_mode(folder, settings["train_mode"], list(mode_dependent(teacher)))
    blocks = _build_blocks(folder, settings["blocks"], weights)
    policy = _policy(settings["refresh"], folder)
    enc_layer = [tuple(names) if isinstance(names, list) else names for names in settings["enc_layer"]]
    try:
        cut = graph.parse_cut(teacher, enc_layer, settings["dec_layer"], settings["layout"])
        captured = graph.Capture(teacher, cut, capture=capture, on_leak=settings["on_leak"])
        model = ShortcutV2V(captured, list(blocks), policy, settings["show_shortcut"])
    except (TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / RECIPE} is damaged: {error}") from None
    model.trained_interval = settings["trained_interval"]
    model.calibration = Calibration.from_recipe(settings["calibration"])
    model.blocks.to(placement(teacher)[0])
    return model.eval()


def recipe(model: ShortcutV2V) -> dict[str, Any]:
    """Return all that `load` needs beside the weights, as JSON-ready values.

    Raises:
        CheckpointError: a field of the refresh policy, or an argument of a block, is no JSON value.
    """
    policy = to_recipe(model.refresh)
    _check_json(policy, f"the refresh policy {model.refresh!r}", "declare what it remembers with field(init=False)")
    return {
        "format": FORMAT,
        "shortcutv2v": importlib.metadata.version("shortcutv2v"),
        "enc_layer": [[str(layer) for layer in branch.enc] for branch in model.cut.branches],
        "dec_layer": [str(branch.dec) for branch in model.cut.branches],
        "layout": model.cut.layout,
        "on_leak": model.capture.on_leak,
        "refresh": policy,
        "trained_interval": model.trained_interval,
        "calibration": None if model.calibration is None else asdict(model.calibration),
        "show_shortcut": model.show_shortcut,
        "blocks": [_block_recipe(block) for block in model.blocks],
        "teacher": fingerprint(model.teacher),
        "train_mode": list(mode_dependent(model.teacher)),
    }


def _block_recipe(block: ShortcutBlock) -> dict[str, Any]:
    kind = type(block)
    if ShortcutBlock.variants.get(block.variant) is not kind:
        raise CheckpointError(
            f"cannot save a {kind.__name__}: its `variant`, {block.variant!r}, is that of another class; give it a "
            "`variant` of its own"
        )
    missing = [name for name in ("a_channels", "f_channels", "channels") if name not in block.arguments]
    if missing:
        raise CheckpointError(f"cannot save a {kind.__name__}: its constructor takes no {', '.join(missing)}")
    _check_json(block.arguments, f"the arguments of a {kind.__name__}", "such as a name for a function")
    return {"variant": block.variant, **block.arguments}


def _check_json(values: Mapping[str, Any], owner: str, hint: str) -> None:
    for name, value in values.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            message = f"cannot save {owner}: {name}={value!r:.80} is no JSON value (number, text, list); {hint}"
            raise CheckpointError(message) from error


def _check_teacher(folder: Path, saved: dict[str, Any], teacher: nn.Module) -> None:
    try:
        difference = differences(saved, fingerprint(teacher))
    except ValueError as error:
        raise CheckpointError(f"{folder / RECIPE} is damaged: {error}") from None
    if difference is not None:
        raise CheckpointError(f"{folder} was trained for {difference}")


def _check_mode(folder: Path, saved: list[str], found: list[str]) -> None:
    for mode, here, there in (("train", found, saved), ("eval", saved, found)):
        if names := [str(name) for name in here if name not in there]:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            warnings.warn(
                f"these modules of the teacher are in {mode} mode, but were not when {folder} was saved: "
                f"{', '.join(names[:4])}{more}. The pictures will differ from those of training; call "
                f"{'teacher.eval()' if mode == 'train' else '.train() on them'} first",
                stacklevel=3,
            )


def _policy(saved: dict[str, Any], folder: Path) -> RefreshPolicy:
    try:
        policy, warning = from_recipe(saved)
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{folder}: {error}") from None
    if warning is not None:
        warnings.warn(f"{folder}: {warning}", stacklevel=3)
    return policy


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The checked recipe, and the weights that belong to it.

    Another process may be writing: if weights and recipe do not belong together, both are read again.
    """
    try:
        for _ in range(4):
            settings = _read_recipe(folder)
            raw = pair.read(folder, WEIGHTS, settings["weights"])
            if intact := hashlib.sha256(raw).hexdigest() == settings["weights"]:
                break
        weights = read_weights(raw)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {WEIGHTS}") from None
    except OSError as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS} is no safetensors file (pickles are not read): {error}") from None
    expected = _shapes(folder, settings["blocks"])
    check_exactly(expected, weights, folder / WEIGHTS, "; a block of another cut, or saved by an earlier version?")
    if not intact:
        raise CheckpointError(
            f"{folder / WEIGHTS} is damaged: its hash is not the one in {RECIPE}; save the model again"
        )
    return settings, weights


def _read_recipe(folder: Path) -> dict[str, Any]:
    path = folder / RECIPE
    if not path.is_file():
        hint = "" if folder.is_dir() else " (no such folder)"
        raise CheckpointError(
            f"{folder} holds no {RECIPE}{hint}: expected a folder written by model.save() or `shortcutv2v train`"
        )
    try:
        settings = json.loads(path.read_bytes())
        version = settings["format"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if version != FORMAT:
        older = isinstance(version, int) and version < FORMAT
        advice = "train and save the blocks again" if older else "upgrade shortcutv2v"
        raise CheckpointError(f"{path} has format {version!r:.80}, this release reads format {FORMAT}: {advice}")
    _check_kinds(path, settings, _RECIPE_KINDS)
    _check_kinds(path, settings["teacher"], TEACHER_KINDS)
    for block in settings["blocks"]:
        _check_kinds(path, block, _BLOCK_KINDS)
    return dict(settings)


def _check_kinds(path: Path, found: Any, kinds: _Kinds) -> None:
    entries = found if isinstance(found, dict) else {}
    bad = [name for name, kind in kinds.items() if name not in entries or not isinstance(entries[name], kind)]
    if bad:
        raise CheckpointError(f"{path} is damaged: {', '.join(bad)} missing or of another kind")


def _shapes(folder: Path, saved: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The state that the recipe's blocks have, without its memory: a damaged width may ask for any amount."""
    with torch.device("meta"):
        return dict(_make(folder, saved).state_dict())


def _build_blocks(folder: Path, saved: list[dict[str, Any]], weights: dict[str, Tensor]) -> Blocks:
    blocks = _make(folder, saved)
    dtype = next((value.dtype for value in weights.values() if value.is_floating_point()), torch.float32)
    blocks.to(dtype).load_state_dict(weights)
    return blocks


def _make(folder: Path, saved: list[dict[str, Any]]) -> Blocks:
    try:
        return Blocks(ShortcutBlock(**block) for block in saved)
    except ShortcutError as error:
        raise CheckpointError(f"{folder / RECIPE}: {error}") from None
    except Exception as error:  # the constructor may be a user's own
        raise CheckpointError(f"{folder / RECIPE} is damaged, its blocks cannot be made: {error}") from error
