"""Distillation in one call, with settings that suit a few minutes on whatever hardware is at hand."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.data import FrameSource, Pairs, Windows
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.progress import Progress, quiet_lightning
from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.model import ShortcutV2V

__all__ = ["ClipData", "fit", "open_clips"]

Source = str | Path | FrameSource


class ClipData(pl.LightningDataModule):
    """Pairs to train on and windows to validate on; goes on where a resumed run had stopped.

    Args:
        pairs: the training pairs.
        windows: validation windows, None for no validation.
        batch_size: pairs per step.
        num_workers: processes that read frames; 0 reads in the training process.
    """

    def __init__(self, pairs: Pairs, windows: Windows | None = None, batch_size: int = 8, num_workers: int = 0) -> None:
        super().__init__()
        self.pairs, self.windows = pairs, windows
        self.batch_size, self.num_workers = batch_size, num_workers

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches (B, 2, 3, h, w), from the first pair that the run has not seen."""
        trainer = self.trainer
        seen = trainer.global_step * trainer.accumulate_grad_batches * self.batch_size if trainer else 0
        sampler = _From(seen, len(self.pairs))
        return DataLoader(self.pairs, self.batch_size, sampler=sampler, num_workers=self.num_workers, drop_last=True)

    def val_dataloader(self) -> Any:
        """Windows (1, T, 3, H, W), or nothing."""
        return DataLoader(self.windows, batch_size=1) if self.windows is not None else []


class _From(Sampler[int]):
    """`length` sample numbers from `start` on."""

    def __init__(self, start: int, length: int) -> None:
        self.start, self.length = start, length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.start + self.length))

    def __len__(self) -> int:
        return self.length


def fit(
    model: ShortcutV2V,
    source: Source | Sequence[Source],
    *,
    minutes: float | None = 5.0,
    max_steps: int = -1,
    adapter: Adapter | None = None,
    validation: Source | Sequence[Source] | None = None,
    size: int | tuple[int, int] | None = None,
    crop: int = 96,
    batch_size: int = 8,
    lr: float = 1e-3,
    weights: LossWeights | None = None,
    schedule: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Distiller:
    """Distil the blocks of `model` on some clips, in place.

    Args:
        model: a wrapped teacher.
        source: one or several of: video file, folder of videos, folder of frames, object with `len` and
            `[i] -> uint8 (3, H, W)`.
        minutes: how long to train, validation not counted; None to go by `max_steps` alone.
        max_steps: how many steps to train at most; -1 to go by time alone.
        adapter: see `Distiller`.
        validation: clips that are not trained on; gives PSNR to the teacher beside the free baselines.
        size: read clips at this size: a height, or (H, W).
        crop: side of the square training crops, in pixels; smaller frames are used whole.
        batch_size: pairs per step.
        lr: learning rate at the start; decays linearly to zero over the second half.
        weights: of the losses.
        schedule: steps over which the rate decays, where a run is to be resumed later; default: this run's length.
        seed: decides crops, pairs and nothing else.
        folder: where checkpoints (`last.ckpt`) go; None writes nothing.
        resume: a checkpoint to go on from.
        progress: show a progress bar.

    Returns:
        The `Distiller`, whose `trainer.callback_metrics` hold the last losses and PSNR values.

    Raises:
        InputError: neither a time nor a number of steps is given, or the clips do not serve.
        VideoError: a clip cannot be read.
        CheckpointError: `resume` is of another cut or teacher.
    """
    if minutes is None and max_steps < 0:
        raise InputError("give minutes=, max_steps= or both: training would never end")
    if resume is not None:
        _check_readable(Path(resume))
    clips = open_clips(source, size)
    pairs = Pairs(clips, model.max_interval or 3, crop=_crop(clips, crop), length=batch_size * 1_000_000, seed=seed)
    length = max(2, model.max_interval or 3)
    held_out = None if validation is None else Windows(open_clips(validation, size), length)
    distiller = Distiller(model, adapter, weights=weights, lr=lr, betas=(0.9, 0.99), schedule=schedule)
    with quiet_lightning():
        trainer = _trainer(minutes, max_steps, held_out, folder, progress)
        data = ClipData(pairs, held_out, batch_size)
        # Newer Lightning asks how to read; older ones do as torch does.
        safely: dict[str, Any] = (
            {"weights_only": True} if "weights_only" in inspect.signature(trainer.fit).parameters else {}
        )
        trainer.fit(distiller, data, ckpt_path=None if resume is None else str(resume), **safely)
        if folder is not None:
            trainer.save_checkpoint(Path(folder) / "last.ckpt", weights_only=False)
        if held_out is not None:
            trainer.validate(distiller, data, verbose=False)
    model.eval()
    return distiller


def _trainer(
    minutes: float | None, max_steps: int, held_out: Windows | None, folder: str | Path | None, progress: bool
) -> pl.Trainer:
    callbacks: list[pl.Callback] = [Progress()] if progress else []
    if folder is not None:
        callbacks.append(ModelCheckpoint(folder, "last", every_n_train_steps=50))
    return pl.Trainer(
        max_steps=max_steps,
        max_epochs=-1,
        max_time=None if minutes is None else timedelta(minutes=minutes),
        val_check_interval=100 if held_out is not None else None,
        check_val_every_n_epoch=None,
        limit_val_batches=8,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        enable_checkpointing=folder is not None,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
    )


def _check_readable(path: Path) -> None:
    """Lightning would read any pickle; ours hold plain values and tensors only."""
    expected = "expected a last.ckpt written by fit() or `shortcutv2v train`"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}: {expected}")
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or a damaged one ({type(error).__name__}): {expected}"
        ) from None


def open_clips(source: Source | Sequence[Source], size: int | tuple[int, int] | None) -> list[FrameSource]:
    """Clips from paths (folders of videos are looked through) and from objects that are clips already.

    Args:
        source: as `fit` takes it.
        size: read files at this size: a height, or (H, W).

    Returns:
        Clips of two frames at least; those from files share one bounded cache.

    Raises:
        VideoError: no path holds a readable clip.
    """
    entries: Sequence[Any] = source if isinstance(source, list | tuple) else [source]
    paths = [entry for entry in entries if isinstance(entry, str | Path)]
    clips: list[FrameSource] = [entry for entry in entries if not isinstance(entry, str | Path)]
    if paths:
        cache = video.Cache()
        found = video.find_clips(paths, min_frames=2)
        clips += [video.Frames(path, size=size, cache=cache) for path in found]
    return clips


def _crop(clips: Sequence[FrameSource], side: int) -> tuple[int, int] | None:
    """The square crop, cut down to what the smallest clip allows."""
    shapes = [clip[0].shape for clip in clips]
    return min(side, *(int(s[-2]) for s in shapes), side), min(side, *(int(s[-1]) for s in shapes), side)
