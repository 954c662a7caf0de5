"""Frame interpolation, the rival of a block: the teacher makes some frames, the pictures between are interpolated."""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v import ops
from shortcutv2v.blocks import Prediction
from shortcutv2v.blocks.alignment import enlarge_offset
from shortcutv2v.blocks.flow import stay_inside
from shortcutv2v.errors import InputError
from shortcutv2v.measure.metrics.base import Unavailable
from shortcutv2v.measure.metrics.labels import script

__all__ = ["Interpolator", "moved"]

_MULTIPLE = 64


class Interpolator:
    """Interpolation by a network of the user, such as RIFE, from a TorchScript file.

    It is called as `network(before, after, share)`: two pictures (1, 3, H, W) in [0, 1], whose sides are padded to
    multiples of 64, and a tensor (1, 1, 1, 1), 0 at `before` and 1 at `after`. It returns the picture between.

    Args:
        path: the file.

    Raises:
        InputError: the file cannot be read as TorchScript; or, from a call, the network fails on such inputs.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._network = script(self.path)
        except Unavailable as error:
            raise InputError(f"--interpolate: {error}") from None

    @torch.no_grad()
    def __call__(self, before: Tensor, after: Tensor, share: float) -> Tensor:
        """Return the picture (1, 3, H, W) at `share` of the way from `before` to `after`."""
        height, width = before.shape[-2:]
        sides = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        pair = [F.pad(picture.float().cpu(), sides, mode="replicate") for picture in (before, after)]
        try:
            picture: Tensor = self._network(*pair, torch.full((1, 1, 1, 1), share))
            if picture.shape != pair[0].shape:
                raise InputError(f"it returned {tuple(picture.shape)} for pictures of {tuple(pair[0].shape)}")
        except Exception as error:  # TorchScript raises many kinds
            text = str(error).strip().splitlines()[-1:]
            raise InputError(
                f"--interpolate {self.path} failed as network(before, after, share): {''.join(text)}"
            ) from error
        return picture[..., :height, :width].to(before.device)


def moved(picture: Tensor, prediction: Prediction, size: tuple[int, int]) -> Tensor:
    """Return the picture of the reference, moved along the motion that a block found.

    Args:
        picture: the teacher's at the reference, (1, C, H', W').
        prediction: of the block, of one branch; of several offsets per position the middle one counts.
        size: of the picture before it was cropped to the frame, (H, W).

    Examples:
        >>> none, right = torch.zeros(1, 2, 1, 1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
        >>> prediction = Prediction(none, none, none, right, None)
        >>> moved(torch.tensor([1.0, 2, 3, 4]).view(1, 1, 1, 4), prediction, (1, 4)).flatten()
        tensor([2., 3., 4., 4.])
    """
    middle = prediction.local_offset.shape[1] // 4 * 2
    local = prediction.local_offset[:, middle : middle + 2]
    motion = enlarge_offset(prediction.global_offset, (local.shape[-2], local.shape[-1])) + local
    height, width = picture.shape[-2:]
    return ops.warp(picture, stay_inside(enlarge_offset(motion, size)[..., :height, :width]))
