"""The trainer that `fit` and `shortcutv2v train` share: its settings, its callbacks, its checkpoints."""

from __future__ import annotations

import inspect
import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from shortcutv2v.distill.callbacks import EMA, NaNGuard, PictureLog, Plateau, StepSeed
from shortcutv2v.distill.feed import ClipData
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.progress import Progress, quiet_lightning
from shortcutv2v.errors import CheckpointError

__all__ = [
    "LAST",
    "AtomicCheckpointIO",
    "callbacks_of",
    "check_readable",
    "run",
    "time_limit",
    "trainer_settings",
    "writers",
]

LAST = "last.ckpt"
"""The checkpoint to resume from, in a run's folder."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place and moves them there: a killed run leaves the old one or the new one.

    Lightning's own writer moves them from the system's temporary folder, which is a copy where that is another disk.
    For `Trainer(plugins=[...])`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write, flush to disk, rename; elsewhere than on a local disk do as Lightning does."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        part = Path(f"{path}.part")
        super().save_checkpoint(checkpoint, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)


def trainer_settings(folder: str | Path | None) -> dict[str, Any]:
    """Plain arguments of `Trainer`, without callbacks, writers and the run's end.

    One device, unless the user asks for more: Lightning would take all, and start the user's script once for each.

    Args:
        folder: where checkpoints go; None writes none.
    """
    return {
        "devices": 1,
        "max_epochs": -1,
        "val_check_interval": 100,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 8,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "enable_checkpointing": folder is not None,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "default_root_dir": folder,
    }


def writers(folder: str | Path | None) -> dict[str, Any]:
    """The arguments of `Trainer` that write: TensorBoard's logs in `folder/logs`, and checkpoints whole or not at all.

    Args:
        folder: None writes nothing.
    """
    if folder is None:
        return {"logger": False}
    return {"logger": TensorBoardLogger(folder, name="logs", version=""), "plugins": [AtomicCheckpointIO()]}


def callbacks_of(
    folder: str | Path | None,
    *,
    validate: bool,
    seed: int,
    ema: float | None,
    patience: int | None,
    save_every: int,
    progress: bool,
) -> list[pl.Callback]:
    """What watches over a run.

    Args:
        folder: where checkpoints go; None leaves out checkpoints and pictures.
        validate: whether there are clips to validate on.
        seed: of `StepSeed`.
        ema: decay of `EMA`, None for none.
        patience: of `Plateau`, None for none.
        save_every: steps from one checkpoint to the next.
        progress: show a progress bar.
    """
    found: list[pl.Callback] = [StepSeed(seed), NaNGuard(folder)]
    if progress:
        found.append(Progress())
    if ema is not None:
        found.append(EMA(ema))
    if validate and patience is not None:
        found.append(Plateau(patience))
    if folder is not None:
        found.append(
            ModelCheckpoint(folder, Path(LAST).stem, every_n_train_steps=save_every, enable_version_counter=False)
        )
        found += [PictureLog()] if validate else []
    return found


def run(trainer: pl.Trainer, distiller: Distiller, data: ClipData, resume: str | Path | None = None) -> None:
    """Train, save `last.ckpt` in the trainer's folder where it saves at all, validate where there is something to.

    Raises:
        CheckpointError: `resume` is no checkpoint of ours, or of another cut or teacher.
    """
    if resume is not None:
        check_readable(Path(resume))
    # Newer Lightning asks how to read; older ones do as torch does.
    safely = {"weights_only": True} if "weights_only" in inspect.signature(trainer.fit).parameters else {}
    with quiet_lightning():
        trainer.fit(distiller, data, ckpt_path=None if resume is None else str(resume), **safely)  # type: ignore[arg-type]
        if trainer.checkpoint_callback is not None:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / LAST, weights_only=False)
        if data.windows is not None:
            trainer.validate(distiller, data, verbose=False)


def check_readable(path: Path) -> None:
    """Refuse what is no checkpoint: Lightning would read any pickle; ours hold plain values and tensors only.

    Raises:
        CheckpointError: saying what was expected.
    """
    expected = f"expected a {LAST} written by fit() or `shortcutv2v train`"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}: {expected}")
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or a damaged one ({type(error).__name__}): {expected}"
        ) from None


def time_limit(minutes: float | None) -> timedelta | None:
    """As `Trainer(max_time=...)` takes it."""
    return None if minutes is None else timedelta(minutes=minutes)
