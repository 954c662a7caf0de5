"""Segmentation scores (Table 2): of teachers that write labels, or of a network that reads them from pictures.

- A teacher that writes labels (`LabelAdapter(writes=...)`): the labels of our picture against the teacher's own.
- A segmentation network of the user (`--use miou=network.pt`, TorchScript, pictures (1, 3, H, W) in [0, 1] ->
  scores (1, K, H, W)): what it sees in our picture, against what it sees in the teacher's. If the teacher reads labels
  (`LabelAdapter(reads=...)`), against those: the FCN score.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.measure.metrics.base import Metric, Setting, Unavailable, needed

__all__ = ["ClassAccuracy", "MeanIoU", "PixelAccuracy", "script"]


class MeanIoU(Metric):
    """Mean intersection over union of all frames together; classes that occur nowhere do not count."""

    name, title, every, digits = "miou", "mIoU", True, 4

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._make = needed("torchmetrics.classification").MulticlassConfusionMatrix
        self._writes: Any = getattr(setting.adapter, "writes", None)
        self._reads: Any = getattr(setting.adapter, "reads", None)
        file = setting.files.get("miou")
        if file is None and self._writes is None:
            raise Unavailable(
                "the teacher writes no labels: give a segmentation network (TorchScript) by --use miou=network.pt"
            )
        self._network = None if file is None else script(file)
        self._matrix: Any = None

    @torch.no_grad()
    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> None:
        """Count the labels of a frame."""
        found, count = self._labels(made)
        if self._network is not None and self._reads is not None:
            maps = self._reads(source)[:, : self._reads.labels].argmax(1)
            truth, count = F.interpolate(maps[None].float(), found.shape[-2:])[0].long(), max(count, self._reads.labels)
        else:
            truth, _ = self._labels(teacher)
        if self._matrix is None:
            self._matrix = self._make(count).to(found.device)
        self._matrix.update(found, truth)

    def finish(self) -> float | None:
        """See the base class."""
        return None if self._matrix is None else self.score(self._matrix.compute().double())

    @staticmethod
    def score(matrix: Tensor) -> float:
        """Return the score of a confusion matrix (K, K): true labels down, found labels across."""
        right = matrix.diagonal()
        whole = matrix.sum(1) + matrix.sum(0) - right
        return float((right / whole)[whole > 0].mean())

    def note(self) -> str:
        """See the base class."""
        if self._network is None:
            return "the teacher's labels against ours"
        against = (
            "the input's labels (FCN score)" if self._reads is not None else "what it sees in the teacher's picture"
        )
        return f"{self.setting.files['miou']}, against {against}"

    def _labels(self, picture: Tensor) -> tuple[Tensor, int]:
        if self._network is not None:
            scores = self._network(picture.float())
            return scores.argmax(1), scores.shape[1]
        colours = self._writes.colours.to(picture.device).float().expand(-1, 3)
        flat = picture.float().permute(0, 2, 3, 1).reshape(-1, 3)
        nearest = torch.cdist(flat, colours).argmin(1)
        return nearest.view(picture.shape[0], *picture.shape[-2:]), len(colours)


class ClassAccuracy(MeanIoU):
    """Accuracy within each class, mean over the classes."""

    name, title = "class_accuracy", "mean class accuracy"

    @staticmethod
    def score(matrix: Tensor) -> float:
        """See the base class."""
        true = matrix.sum(1)
        return float((matrix.diagonal() / true)[true > 0].mean())


class PixelAccuracy(MeanIoU):
    """Share of the pixels that have the right label."""

    name, title = "pixel_accuracy", "pixel accuracy"

    @staticmethod
    def score(matrix: Tensor) -> float:
        """See the base class."""
        return float(matrix.diagonal().sum() / matrix.sum())


@functools.cache
def script(file: str) -> Any:
    """Return the TorchScript network in a file.

    Raises:
        Unavailable: there is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the format is old, but published networks come in it
            return torch.jit.load(file, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(f"{file} is no TorchScript file: {str(error).splitlines()[0]}") from None
