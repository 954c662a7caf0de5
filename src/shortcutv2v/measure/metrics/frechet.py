"""Frechet distances between the features of both videos: FID of frames, FVD of windows.

The features are the user's: a TorchScript file that takes pictures (N, 3, H, W), or windows (N, 3, T, H, W), with
values 0 to 255, and returns (N, D), as the published Inception and I3D files do. Options `rescale`, `resize` and
`return_features` are switched on where the file has them. The distance is torchmetrics'.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.measure.metrics.base import Metric, Setting, Unavailable, needed
from shortcutv2v.measure.metrics.labels import script

__all__ = ["FID", "FVD"]

_USUAL = 2048


class _Frechet(Metric):
    """Collect features of windows of `length` frames; `finish` compares their distributions."""

    higher, every = False, True
    length = 1

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        file = setting.files.get(self.name)
        if file is None:
            raise Unavailable(f"it needs a network for its features: give a TorchScript file by --use {self.name}=FILE")
        self._make = needed("torchmetrics.image.fid").FrechetInceptionDistance
        self._features = _Features(file)
        self._frames: list[tuple[Tensor, Tensor]] = []
        self._found: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> None:
        """Keep the frame, and the features of the window once it is full."""
        self._frames.append((made.float().cpu() * 255, teacher.float().cpu() * 255))
        if len(self._frames) == self.length:
            both = [torch.stack(frames, 2) for frames in zip(*self._frames, strict=True)]
            ours, theirs = (self._features(x if self.length > 1 else x[:, :, 0]) for x in both)
            self._found.append((ours, theirs))
            self._frames = []

    def finish(self) -> float:
        """Return the distance."""
        if len(self._found) < 2:
            raise Unavailable(f"the clip is too short: it needs {2 * self.length} frames or more")
        width = self._found[0][0].shape[1]
        distance = self._make(feature=_Given(width))
        for real, column in ((False, 0), (True, 1)):
            distance.update(torch.cat([pair[column] for pair in self._found]), real=real)
        return float(distance.compute())

    def note(self) -> str:
        """See the base class."""
        what = f"windows of {self.length} frames" if self.length > 1 else "frames"
        few = "" if len(self._found) >= _USUAL else f"; biased: papers take {_USUAL} or more"
        return f"features of {self.setting.files[self.name]}, {len(self._found)} {what}{few}"


class FID(_Frechet):
    """Frechet distance of single frames."""

    name, title = "fid", "FID"


class FVD(_Frechet):
    """Frechet distance of windows of 16 frames, which do not overlap."""

    name, title, length = "fvd", "FVD", 16


class _Given(nn.Module):
    """Stands where torchmetrics expects a network, because the features are there already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


class _Features:
    """The network of a file, with the options that published files have switched on."""

    def __init__(self, file: str) -> None:
        self._network: Any = script(file)
        names = {argument.name for argument in self._network.forward.schema.arguments}
        self._options = {name: True for name in ("rescale", "resize", "return_features") if name in names}

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self._network(x, **self._options)
        return found.flatten(1)
