"""The two passes of a model as programs of their own, for hosts without this package: `torch.export`, or ONNX.

    python examples/deploy/export.py block/ clip.mp4 programs/ [--onnx]

writes `reference.pt2` and `shortcut.pt2` (or `.onnx`) for the Real-ESRGAN network at the clip's size. The host keeps
the tensors that the first returns behind the output, hands them to the second on the frames between, and decides when
to refresh.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from shortcutv2v import ShortcutV2V, ops

__all__ = ["ReferencePass", "ShortcutPass", "export_passes"]


class ReferencePass(nn.Module):
    """The teacher's inputs -> its output, and the tensors of the reference."""

    def __init__(self, model: ShortcutV2V) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        """A full pass."""
        output, reference = self.model.reference(*inputs)
        return output, *pytree.tree_leaves(reference)


class ShortcutPass(nn.Module):
    """The tensors of a reference and the teacher's inputs -> the output. Holds no weight of the middle."""

    def __init__(self, model: ShortcutV2V, spec: pytree.TreeSpec) -> None:
        super().__init__()
        self.model, self.spec = model, spec

    def forward(self, tensors: list[Tensor], *inputs: Any) -> Any:
        """A shortcut pass."""
        return self.model.shortcut(pytree.tree_unflatten(tensors, self.spec), *inputs)


@torch.no_grad()
def export_passes(
    model: ShortcutV2V, inputs: tuple[Any, ...], implementation: str = "plain"
) -> tuple[torch.export.ExportedProgram, torch.export.ExportedProgram]:
    """Both passes as exported programs, bound to the size of `inputs`.

    Args:
        model: trained; is put in eval mode.
        inputs: the teacher's, example frames of the size to come.
        implementation: of the operators. "plain" is nothing but torch; "rows" is faster on a CPU, but its programs want
            `import shortcutv2v` on the host and are no ONNX.
    """
    model.eval()
    with ops.use(implementation):
        tensors, spec = pytree.tree_flatten(model.reference(*inputs)[1])
        reference = torch.export.export(ReferencePass(model), inputs, strict=False)
        shortcut = torch.export.export(ShortcutPass(model, spec), (tensors, *inputs), strict=False)
    return reference, shortcut


def main() -> None:
    """Export a block that `shortcutv2v train --adapter real_esrgan` has trained."""
    import shortcutv2v
    from shortcutv2v import video
    from shortcutv2v.cli.adapters import find_adapter
    from shortcutv2v.cli.setup import frame_size
    from shortcutv2v.translate import from_uint8

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", type=Path, help="folder of a trained block")
    parser.add_argument("clip", type=Path, help="its first frame gives the size")
    parser.add_argument("target", type=Path, help="folder for the programs")
    parser.add_argument("--size", metavar="HxW", help="read the clip at this size, or height")
    parser.add_argument("--onnx", action="store_true", help="ONNX; needs the packages onnx and onnxscript")
    options = parser.parse_args()
    model = shortcutv2v.load(options.block, find_adapter("real_esrgan").teacher)
    frame = from_uint8(video.Frames(options.clip, size=frame_size(options.size))[0])
    options.target.mkdir(parents=True, exist_ok=True)
    for name, program in zip(("reference", "shortcut"), export_passes(model, (frame,)), strict=True):
        path = options.target / name
        if options.onnx:
            torch.onnx.export(program, (), f"{path}.onnx", dynamo=True)
        else:
            torch.export.save(program, f"{path}.pt2")


if __name__ == "__main__":
    main()
