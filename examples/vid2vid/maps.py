"""How label, instance and edge maps travel as pictures, and what the generator makes of them.

A video of maps is a folder of PNG files (or any lossless video), so that every tool for videos serves them:

* `LabelMaps`: red is the label, green + 256 * blue the instance. A plain grey label picture works too: the labels'
  outlines then stand for the instances' outlines.
* `TiledMaps`: grey-value maps, three to a tile (red, green, blue), the tiles one below the other, so that a flipped
  picture holds flipped maps. Edge-to-face takes fifteen: the edges, and fourteen distance maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shortcutv2v.errors import InputError

__all__ = ["LabelMaps", "TiledMaps", "instance_edges", "pack_labels", "tile_maps"]


@dataclass(frozen=True)
class LabelMaps:
    """One-hot labels, and the instances' edges behind them (vid2vid's `--use_instance`).

    Args:
        labels: number of labels (Cityscapes: 35).
        instances: whether the edge map follows.

    >>> frame = pack_labels(torch.tensor([[[0, 0, 2, 2]]]), torch.tensor([[[0, 0, 300, 301]]]))
    >>> LabelMaps(3)(frame)[0, :, 0]
    tensor([[1., 1., 0., 0.],
            [0., 0., 0., 0.],
            [0., 0., 1., 1.],
            [0., 1., 1., 1.]])
    """

    labels: int = 35
    instances: bool = True

    @property
    def channels(self) -> int:
        """Channels of a frame's maps."""
        return self.labels + int(self.instances)

    def __call__(self, frame: Tensor) -> Tensor:
        """Turn pictures (B, 3, H, W) in [0, 1] into maps (B, channels, H, W).

        Raises:
            InputError: a label out of range.
        """
        red, green, blue = (frame * 255).round().long().unbind(1)
        largest = int(red.max())
        if largest >= self.labels:
            raise InputError(f"label {largest} in a frame, but the generator knows 0 to {self.labels - 1}")
        maps = torch.zeros(red.shape[0], self.labels, *red.shape[1:], dtype=frame.dtype, device=frame.device)
        maps.scatter_(1, red.unsqueeze(1), 1.0)
        if not self.instances:
            return maps
        edges = instance_edges(green + 256 * blue).unsqueeze(1).to(frame.dtype)
        return torch.cat((maps, edges), 1)


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


def pack_labels(labels: Tensor, instances: Tensor) -> Tensor:
    """Pack label numbers 0 to 255 and instance numbers 0 to 65535, each (B, H, W), into pictures (B, 3, H, W)."""
    return torch.stack((labels, instances % 256, instances // 256), 1).float() / 255


def instance_edges(instances: Tensor) -> Tensor:
    """Where an instance number (B, H, W) differs from one beside, above or below it: boolean (B, H, W)."""
    edges = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[..., 1:] != instances[..., :-1]
    down = instances[..., 1:, :] != instances[..., :-1, :]
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges
