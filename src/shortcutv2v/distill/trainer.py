"""The trainer that `fit` and `shortcutv2v train` share: its settings, its callbacks, its checkpoints."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from shortcutv2v.bar import say
from shortcutv2v.distill.callbacks import EMA, NaNGuard, PictureLog, StepSeed
from shortcutv2v.distill.datamodule import ClipData
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.pace import validation_interval
from shortcutv2v.distill.progress import Progress, Speed, quiet_lightning
from shortcutv2v.distill.settings import Settings
from shortcutv2v.distill.training_page import TrainingPage
from shortcutv2v.distill.verdict import Deadline, Plateau, Verdict
from shortcutv2v.errors import CheckpointError, InputError, ShortcutError

__all__ = ["LAST", "AtomicCheckpointIO", "callbacks_of", "check_readable", "make_trainer", "run"]

LAST = "last.ckpt"
"""The checkpoint to resume from, in a run's folder."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place and moves them there: a killed run leaves the old one or the new one.

    Lightning's own writer moves them from the system's temporary folder, which is a copy where that is another disk.
    For `Trainer(plugins=[...])`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write, flush to disk, rename; elsewhere than on a local disk do as Lightning does.

        Raises:
            CheckpointError: the disk is full or not writable.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        part = Path(f"{path}.part")
        try:
            super().save_checkpoint(checkpoint, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            part.unlink(missing_ok=True)
            kept = "; the one before is still there" if Path(path).exists() else ""
            raise CheckpointError(f"cannot write {path}: {str(error).splitlines()[0]}{kept}") from error


def make_trainer(
    settings: Settings, minutes: float | None, steps: int | None, folder: str | Path | None, *, validate: bool
) -> pl.Trainer:
    """The trainer of a run, with callbacks, logger and checkpoints.

    Args:
        settings: of the run.
        minutes: its length, None if it ends by steps.
        steps: its length, None if it ends by time.
        folder: where checkpoints and logs go; None writes nothing.
        validate: whether there are clips to validate on.

    Raises:
        InputError: Lightning refuses an option.
    """
    options = dict(vars(settings.trainer))
    options["val_check_interval"] = options["val_check_interval"] or validation_interval(steps)
    if folder is not None:
        logger = TensorBoardLogger(folder, name="logs", version="")
        options |= {"logger": logger, "plugins": [AtomicCheckpointIO()]}
    callbacks = callbacks_of(settings, minutes, folder, validate=validate)
    try:
        with quiet_lightning():
            return pl.Trainer(
                **{"logger": False, **options},
                max_epochs=-1,
                max_steps=-1 if steps is None else steps,
                check_val_every_n_epoch=None,
                num_sanity_val_steps=0,
                enable_checkpointing=folder is not None,
                enable_model_summary=False,
                enable_progress_bar=False,
                default_root_dir=folder,
                callbacks=callbacks,
            )
    except (MisconfigurationException, TypeError, ValueError) as error:  # of the trainer's options
        raise InputError(str(error)) from error


def callbacks_of(
    settings: Settings, minutes: float | None, folder: str | Path | None, *, validate: bool
) -> list[pl.Callback]:
    """Return the callbacks of a run.

    Args:
        settings: of the run.
        minutes: its length, None if it ends by steps.
        folder: where checkpoints go. Without one there are no checkpoints and no pictures, and the batch of a loss that
            is not finite goes to the system's temporary folder.
        validate: whether there are clips to validate on.
    """
    found: list[pl.Callback] = [StepSeed(settings.seed), NaNGuard(folder or tempfile.gettempdir()), Speed(), Verdict()]
    if minutes is not None:
        found.append(Deadline(minutes))
    if settings.progress:
        found.append(Progress())
    if settings.ema is not None:
        found.append(EMA(settings.ema))
    if validate and settings.patience is not None:
        found.append(Plateau(settings.patience))
    if folder is not None:
        every = settings.save_every
        found.append(ModelCheckpoint(folder, Path(LAST).stem, every_n_train_steps=every, enable_version_counter=False))
        found += [PictureLog()] if validate else []
        found.append(TrainingPage(folder))
    return found


def run(trainer: pl.Trainer, distiller: Distiller, data: ClipData, resume: str | Path | None = None) -> None:
    """Train, save `last.ckpt` in the trainer's folder if it saves at all, validate if there are clips for it.

    Raises:
        CheckpointError: `resume` is not a checkpoint of ours, or of another cut or teacher.
        InputError: the trainer's options leave no step to make, or another run trains in the same folder.
        KeyboardInterrupt: by Ctrl-C; the message names the checkpoint to resume from.

    Warns:
        UserWarning: an earlier run's checkpoint will be replaced, or nothing is left to train.
    """
    saves = trainer.checkpoint_callback is not None
    last = Path(trainer.default_root_dir) / LAST
    if resume is not None:
        _warn_of_end(check_readable(Path(resume)), trainer)
    elif saves and last.exists() and trainer.is_global_zero:
        warnings.warn(f"{last} of an earlier run will be replaced, and its logs continued", stacklevel=3)
    for logger in trainer.loggers:
        logger.log_hyperparams(distiller.settings.plain())
    # Newer Lightning asks how to read; older ones do as torch does.
    safely = {"weights_only": True} if "weights_only" in inspect.signature(trainer.fit).parameters else {}
    with quiet_lightning():
        with _interruptible(trainer, resume), _restorable(distiller, resume):
            trainer.fit(distiller, data, ckpt_path=None if resume is None else str(resume), **safely)  # type: ignore[arg-type]
        if trainer.global_step == 0:
            raise InputError("not one step was made: the run's limits leave none")
        if saves:
            trainer.save_checkpoint(last, weights_only=False)
        (verdict,) = (each for each in trainer.callbacks if isinstance(each, Verdict))  # type: ignore[attr-defined]
        if data.windows is not None and not verdict.validated(trainer.global_step):
            with _interruptible(trainer, last if saves else None):
                trainer.validate(distiller, data, verbose=False)
    distiller.verdict = verdict.sentence()
    if distiller.settings.progress and trainer.is_global_zero and distiller.verdict:
        say(distiller.verdict)


@contextlib.contextmanager
def _restorable(distiller: Distiller, resume: str | Path | None) -> Iterator[None]:
    """Raise `CheckpointError` if Lightning cannot restore its own part of a checkpoint, in whatever way it fails."""
    try:
        yield
    except (ShortcutError, MisconfigurationException):
        raise
    except Exception as error:
        if resume is None or distiller.training_began:
            raise
        raise CheckpointError(f"{resume} is damaged ({type(error).__name__}: {error!s:.200})") from error


@contextlib.contextmanager
def _interruptible(trainer: pl.Trainer, checkpoint: str | Path | None) -> Iterator[None]:
    """Make Ctrl-C the `KeyboardInterrupt` it is elsewhere; `checkpoint` is there already.

    Lightning leaves the process deaf to further ones and raises `SystemExit`; older releases just return.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
    if trainer.interrupted:
        signal.signal(signal.SIGINT, handler)
        saved = getattr(trainer.checkpoint_callback, "best_model_path", "") or checkpoint
        how = f"resume from {saved}" if saved else "there is no checkpoint yet"
        raise KeyboardInterrupt(f"interrupted at step {trainer.global_step}: {how}")


def _warn_of_end(checkpoint: dict[str, Any], trainer: pl.Trainer) -> None:
    """Warn if the run to go on from has reached this run's end."""
    step, end = checkpoint["global_step"], trainer.max_steps
    if 0 < end <= step:
        warnings.warn(
            f"the checkpoint is at step {step}, the run ends at step {end}: nothing is left to train", stacklevel=4
        )
    for deadline in (each for each in trainer.callbacks if isinstance(each, Deadline)):  # type: ignore[attr-defined]
        seconds = checkpoint.get("callbacks", {}).get(deadline.state_key, {}).get("time_elapsed", {}).get("train", 0.0)
        if seconds >= deadline.limit - deadline.reserve:
            warnings.warn(
                f"the checkpoint has used {seconds / 60:.2g} of the run's {deadline.limit / 60:.2g} minutes: nothing "
                "is left to train; give more minutes, counted from the run's beginning",
                stacklevel=4,
            )


_PARTS = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    ClipData.__qualname__: dict,
}
"""Parts of a checkpoint that a resumed run needs, and their types."""


def check_readable(path: Path) -> dict[str, Any]:
    """The checkpoint's content, without the tensors' values.

    Lightning would read any pickle; ours hold plain values and tensors only.

    Raises:
        CheckpointError: the file is none of ours, saying what was expected.
    """
    expected = f"expected a {LAST} written by fit() or `shortcutv2v train`"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}: {expected}")
    try:
        found = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # other files make the reader fail in any way
        raise CheckpointError(
            f"{path} is no checkpoint, or a damaged one ({type(error).__name__}): {expected}"
        ) from None
    if not (isinstance(found, dict) and "shortcutv2v" in found and isinstance(found.get("global_step"), int)):
        raise CheckpointError(f"{path} is another kind of checkpoint: {expected}")
    missing = [name for name, kind in _PARTS.items() if not isinstance(found.get(name), kind)]
    if missing:
        raise CheckpointError(
            f"{path} holds no {', '.join(missing)}, so the run cannot go on from it (save_weights_only=True saves such "
            f"files): {expected}"
        )
    return found
