"""How label, instance and edge maps travel as pictures, and what the generator makes of them.

A video of maps is a folder of PNG files (or any lossless video), so that every tool for videos serves them:

* `LabelMaps`, the package's own: red is the label, green + 256 * blue the instance.
* `TiledMaps`: grey-value maps, three to a tile (red, green, blue), the tiles one below the other, so that a flipped
  picture holds flipped maps. Edge-to-face takes fifteen: the edges, and fourteen distance maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shortcutv2v.errors import InputError
from shortcutv2v.labels import LabelMaps, instance_edges, pack_labels

__all__ = ["LabelMaps", "TiledMaps", "instance_edges", "pack_labels", "tile_maps"]


@dataclass(frozen=True)
class TiledMaps:
    """Grey-value maps from a picture of tiles: (B, 3, T*H, W) to (B, channels, H, W), values in [0, 1].

    Args:
        channels: how many maps; the last tile may hold unused ones.

    >>> TiledMaps(4)(tile_maps(torch.arange(4.0).view(1, 4, 1, 1) / 4)).flatten()
    tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """

    channels: int = 15

    def __call__(self, frame: Tensor) -> Tensor:
        """Take the tiles apart.

        Raises:
            InputError: the height is no multiple of the number of tiles.
        """
        tiles = -(-self.channels // 3)
        if frame.shape[-2] % tiles:
            raise InputError(
                f"{self.channels} maps lie in {tiles} tiles, one below the other, but the height is {frame.shape[-2]}: "
                "give whole pictures (to train on them, a crop as large as the picture)"
            )
        return torch.cat(frame.chunk(tiles, dim=-2), 1)[:, : self.channels]


def tile_maps(maps: Tensor) -> Tensor:
    """Lay maps (B, C, H, W) one below the other as pictures (B, 3, T*H, W); the reverse of `TiledMaps`."""
    filler = maps.new_zeros(maps.shape[0], -maps.shape[1] % 3, *maps.shape[2:])
    joined = torch.cat((maps, filler), 1)
    return torch.cat(joined.chunk(joined.shape[1] // 3, dim=1), -2)
