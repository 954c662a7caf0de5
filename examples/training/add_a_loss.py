"""Add a loss of your own: on the gradients of the picture, so that edges count more.

python examples/training/add_a_loss.py clip.mp4 block/
"""

from __future__ import annotations

import sys

import torch.nn.functional as F
from kornia.filters import spatial_gradient
from torch import Tensor

from shortcutv2v.distill import Distiller, ShortcutFrame

__all__ = ["EdgeDistiller"]


class EdgeDistiller(Distiller):
    """A loss is a name and a number; `self.weights` may hold a weight of that name, else it counts once."""

    def losses(self, frame: ShortcutFrame) -> dict[str, Tensor]:
        """Those of the `Distiller`, and the difference between the gradients of both pictures."""
        edges = F.l1_loss(spatial_gradient(frame.picture), spatial_gradient(frame.target))
        return {**super().losses(frame), "edges": 20 * edges}


def main(clip: str, folder: str) -> None:
    """Train a block for Real-ESRGAN for two minutes and save it."""
    from shortcutv2v import video
    from shortcutv2v.cli.adapters import find_adapter
    from shortcutv2v.distill import fit
    from shortcutv2v.translate import from_uint8

    adapter = find_adapter("real_esrgan")
    model = adapter.wrap(from_uint8(video.Frames(clip, size=180)[0]))
    fit(model, clip, adapter=adapter, size=180, minutes=2, distiller=EdgeDistiller)
    model.save(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
