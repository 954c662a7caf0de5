"""From clips to batches: the LightningDataModule of `fit` and of `shortcutv2v train`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.cache import FeatureCache, FeaturePairs, FeatureSequences, collate
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.data import Pairs, Sequences, Windows
from shortcutv2v.distill.settings import Settings, settings_of
from shortcutv2v.distill.sources import Source, open_clips
from shortcutv2v.errors import InputError

__all__ = ["ClipData"]

_ENDLESS = 1_000_000
"""Batches in what Lightning takes for an epoch."""


class ClipData(pl.LightningDataModule):
    """Samples to train on and windows to validate on; a resumed run goes on where it had stopped.

    The samples of a step depend on `seed` and the step's number alone: not on interruptions, on `workers` or, at equal
    global batch, on the number of processes.

    Args:
        source: clips to train on, as `open_clips` takes them.
        validation: clips to validate on, window by window in a fixed random order; None for no validation.
        settings: size, crop, batch, samples and the rest, see `Settings`; "auto" for `cache` is none here.
        changes: options of `Settings` by name, such as `crop=96` or `cache="features/"`.

    Raises:
        VideoError: no clip can be read.
        InputError: an option is out of range; later, in `setup()`, clips that cannot be used, or `frames` for pairs.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        validation: Source | Sequence[Source] | None = None,
        settings: Settings | None = None,
        **changes: Any,
    ) -> None:
        super().__init__()
        self.settings = settings_of(settings, changes).filled()
        self.clips = open_clips(source, self.settings.size)
        self.held_out = None if validation is None else open_clips(validation, self.settings.size)
        self.batch_size = self.settings.batch_size
        self.cache = None if self.settings.cache == "auto" else self.settings.cache

    def setup(self, stage: str) -> None:
        """Make the data sets, for the interval and the adapter of the model that is trained."""
        module: Any = cast("pl.Trainer", self.trainer).lightning_module
        interval = module.model.refresh.interval
        if stage == "fit":
            self.pairs = self._training_set(module, interval)
        length = max(2, interval) + _lead(module.adapter)
        self.windows = None if self.held_out is None else _shuffled(Windows(self.held_out, length))

    def _training_set(self, module: Any, interval: int) -> Dataset[Any]:
        adapter: Adapter = module.adapter
        pairs = self.settings.kind == "pairs" or (self.settings.kind == "auto" and not adapter.recurrent)
        if pairs and self.settings.frames is not None:
            raise InputError('frames is the length of sequences, but pairs are drawn: give kind="sequences", too')
        # A block meets the whole interval only where it is shown at reference frames, too.
        distance = interval if module.model.show_shortcut else max(1, interval - 1)
        lead = _lead(adapter) if self.cache is None else 0  # cached features begin behind it
        length = distance if pairs else (self.settings.frames or max(2, interval) + lead)
        shared: dict[str, Any] = {
            "crop": _crop(self.clips, self.settings.crop),
            "length": self.batch_size * _ENDLESS,
            "seed": self.settings.seed,
        }
        if self.cache is None:
            return (Pairs if pairs else Sequences)(self.clips, length, **shared)
        samples = FeaturePairs if pairs else FeatureSequences
        module.to(module.trainer.strategy.root_device)  # where Lightning takes it a moment later
        with _first_alone(module.trainer):  # it computes the features that the others find
            return samples(FeatureCache(self.cache, module.model, adapter), self.clips, length, **shared)

    def state_dict(self) -> dict[str, Any]:
        """Whether the run trains on cached features, for one that goes on from here; see `fitting.features_folder`."""
        return {"cached": self.cache is not None}

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches (B, T, C, h, w) in [0, 1] or cached features, from the first sample that the run has not seen."""
        trainer, processes = self.trainer, 1
        seen = 0
        if trainer is not None:
            processes = trainer.world_size
            seen = trainer.global_step * trainer.accumulate_grad_batches * self.batch_size * processes
        rank = trainer.global_rank if trainer is not None else 0
        sampler = _From(self.pairs, seen, processes, rank)
        return DataLoader(
            self.pairs,
            self.batch_size,
            sampler=sampler,
            num_workers=self.settings.workers,
            drop_last=True,
            collate_fn=collate if self.cache is not None else None,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.settings.workers > 0,
        )

    def val_dataloader(self) -> Any:
        """Windows (1, T, C, H, W), or nothing."""
        return DataLoader(self.windows, batch_size=1) if self.windows is not None else []


class _From(DistributedSampler[Any]):
    """Sample numbers from `start` on, dealt out to the processes in turn.

    A `DistributedSampler`, so that Lightning leaves it in place instead of wrapping it.
    """

    def __init__(self, samples: Dataset[Any], start: int, processes: int, rank: int) -> None:
        super().__init__(samples, num_replicas=processes, rank=rank, shuffle=False)
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start + self.rank, self.start + len(self) * self.num_replicas, self.num_replicas))


def _shuffled(windows: Windows) -> Dataset[Tensor]:
    """The same windows in an order that is always the same: the first few stand for all clips."""
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    return Subset(windows, order.tolist())


@contextlib.contextmanager
def _first_alone(trainer: pl.Trainer) -> Iterator[None]:
    """The first process goes ahead, the others follow."""
    if not trainer.is_global_zero:
        trainer.strategy.barrier()
    yield
    if trainer.is_global_zero:
        trainer.strategy.barrier()


def _lead(adapter: Adapter) -> int:
    """Frames that a video opens with before the teacher runs: two for teachers fed with their last two outputs."""
    return 0 if type(adapter).opening is Adapter.opening else 2


def _crop(clips: Sequence[FrameSource], side: int | None) -> tuple[int, int] | None:
    """The square crop, cut down to what the smallest clip allows."""
    if side is None:
        return None
    sizes = [(int(shape[-2]), int(shape[-1])) for shape in (clip[0].shape for clip in clips)]
    height, width = (min(side, *(size[i] for size in sizes)) for i in (0, 1))
    if (height, width) != (side, side) and any(min(size) >= side for size in sizes):
        warnings.warn(
            f"crops are {height}x{width} and not {side}x{side}, since a clip is no larger: leave it out, or give a "
            "smaller crop",
            stacklevel=2,
        )
    return height, width
