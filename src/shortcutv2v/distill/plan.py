"""The work of each training step: how many samples of which crop, and whether pictures are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from shortcutv2v.distill.cache.features import collate

__all__ = ["BATCHES", "Batches", "Plan", "WithoutPictures", "Work"]

BATCHES = 1_000_000
"""Batches in an epoch, which never ends."""
Crop = tuple[int, int] | None


class WithoutPictures(NamedTuple):
    """A batch on which losses of features are taken, but none of pictures: the tail does not run."""

    batch: Any


class Work(NamedTuple):
    """The work of one step: `batch_size` samples of size `crop`, with losses of pictures or without."""

    batch_size: int
    crop: Crop
    pictures: bool = True


@dataclass(frozen=True)
class Plan:
    """The work of all steps, a function of the step's number alone.

    Losses of pictures run the teacher's tail forwards and backwards. For a heavy teacher they are taken in every
    `every`-th step only, on fewer and smaller crops of their own.

    Attributes:
        batch_size: samples of a step.
        crop: (height, width) of a sample, None for whole frames.
        every: steps from one with pictures to the next.
        picture_batch: samples of a step with pictures, if `every` is above 1.
        picture_crop: their size.

    Examples:
        >>> plan = Plan(8, (96, 96), every=4, picture_batch=1, picture_crop=(48, 48))
        >>> plan.work(0), plan.work(1)
        (Work(batch_size=1, crop=(48, 48), pictures=True), Work(batch_size=8, crop=(96, 96), pictures=False))
    """

    batch_size: int
    crop: Crop
    every: int = 1
    picture_batch: int = 0
    picture_crop: Crop = None

    def work(self, step: int) -> Work:
        """Return the work of step number `step`."""
        if self.every == 1:
            return Work(self.batch_size, self.crop)
        if step % self.every:
            return Work(self.batch_size, self.crop, pictures=False)
        return Work(self.picture_batch, self.picture_crop)

    def __str__(self) -> str:
        usual = f"{self.batch_size} crops of {_size(self.crop)}"
        if self.every == 1:
            return usual
        return (
            f"{usual}, and every {self.every} steps {self.picture_batch} of {_size(self.picture_crop)} for the losses "
            "of pictures"
        )


class Batches(Dataset[Any]):
    """Batch number -> batch, for one process of several.

    Args:
        samples: `Pairs`, `Sequences` or their like on cached features.
        plan: what a batch is made of.
        rank: number of this process.
        processes: how many there are; sample numbers are dealt out to them in turn.
    """

    def __init__(self, samples: Any, plan: Plan, rank: int = 0, processes: int = 1) -> None:
        self.samples, self.plan, self.rank, self.processes = samples, plan, rank, processes

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, number: int) -> Any:
        """Return batch `number`."""
        work = self.plan.work(number)
        total = self.plan.batch_size * self.processes
        numbers = range(number * total + self.rank, (number + 1) * total, self.processes)[: work.batch_size]
        found = [self.samples.at(sample, work.crop) for sample in numbers]
        batch = torch.stack(found) if isinstance(found[0], torch.Tensor) else collate(found)
        return batch if work.pictures else WithoutPictures(batch)


def _size(crop: Crop) -> str:
    return "whole frames" if crop is None else f"{crop[0]}x{crop[1]}"
