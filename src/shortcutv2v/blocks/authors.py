"""Translate the parameter names of the published Shortcut checkpoint to ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from shortcutv2v.errors import CheckpointError

__all__ = ["SOURCE", "rename_entries"]

SOURCE = "published Shortcut checkpoint"
"""Name of the checkpoint in error messages."""

_HETCONV = {"conv3x3": "grouped", "conv1x1": "pointwise", "conv1x1_": "grouped_pointwise"}
_MODULES = {
    "cr1.0": "reduce_f.0",
    "cr2.0": "reduce_a.0",
    "offset_generator_global.model": "global_alignment.generator.layers",
    "offset_generator_global.offset_conv": "global_alignment.generator.head",
    "global_deform_conv.regular_conv": "global_alignment",
    "offset_generator_local.model": "local_generator.layers",
    "offset_generator_local.offset_mask_conv": "local_generator.head",
    "mask_deform_conv.regular_conv": "blend",
    "recon_ref": "reconstruct",
}
_UNUSED = "global_deform_conv.offset_conv."
"""A layer that the authors' module stores, although no computation uses it."""


def rename_entries(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a published checkpoint under our names, without the unused layer.

    Args:
        state_dict: the content of `latest_net_ShortcutV2V.pth`, with or without a `module.` prefix.

    Raises:
        CheckpointError: an entry does not belong to a published Shortcut block, or the reductions are missing.
    """
    renamed = {}
    for key, value in state_dict.items():
        bare = key.removeprefix("module.")
        if bare.startswith(_UNUSED):
            continue
        renamed[_rename(bare)] = value
    missing = {"reduce_f.0.weight", "reduce_a.0.weight"} - renamed.keys()
    if missing:
        raise CheckpointError("not a published Shortcut checkpoint: it has no cr1.0.weight and cr2.0.weight")
    return renamed


def _rename(key: str) -> str:
    for theirs, ours in _MODULES.items():
        if key.startswith(f"{theirs}."):
            parts = key.removeprefix(f"{theirs}.").split(".")
            return ".".join([ours, *(_HETCONV.get(part, part) for part in parts)])
    raise CheckpointError(f"not a published Shortcut checkpoint: unexpected entry {key!r}")
