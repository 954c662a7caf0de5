"""A progress bar for runs that end by time or by steps, and quiet where Lightning would advertise."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from tqdm.auto import tqdm

__all__ = ["Progress", "quiet_lightning"]

_SHOWN = {"train/loss": "loss", "val/psnr": "PSNR", "val/psnr_reuse": "reuse", "val/psnr_repeat": "repeat"}


class Progress(pl.Callback):
    """Share of the run that is done, steps, loss and, once validated, PSNR to the teacher beside the free baselines.

    Behind the run stands what the last validation found. Lightning's own bar counts batches of an epoch, which here has
    no meaningful length.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the empty bar."""
        shape = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        quiet = {"disable": not trainer.is_global_zero, "mininterval": 0.5, "miniters": 0}  # a line each in a log file
        self._bar = tqdm(total=100, unit="%", bar_format=shape, **quiet)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Move the bar."""
        self._bar.n = round(100 * min(1.0, pl_module.done()), 1)
        self._bar.set_postfix({"step": trainer.global_step, **_values(trainer)}, refresh=False)
        self._bar.update(0)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what was found: in the bar, or in a line of its own once the run has ended."""
        found = _values(trainer)
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.FITTING:
            self._bar.set_postfix({"step": trainer.global_step, **found})
        elif trainer.is_global_zero and "PSNR" in found:
            baselines = ", ".join(f"{label} {found[label]}" for label in ("reuse", "repeat") if label in found)
            tqdm.write(f"PSNR {found['PSNR']} dB to the teacher ({baselines})")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar as it is, and say why the run ended early if it did."""
        self._bar.close()
        for verdict in (getattr(callback, "verdict", "") for callback in cast("Any", trainer).callbacks):
            if verdict and trainer.is_global_zero:
                tqdm.write(verdict)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the bar as it is."""
        if hasattr(self, "_bar"):
            self._bar.close()


def _values(trainer: pl.Trainer) -> dict[str, str]:
    """What is known of the run, by label."""
    found = trainer.callback_metrics
    return {label: f"{float(found[name]):.4g}" for name, label in _SHOWN.items() if name in found}


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """No advice about loggers, workers and devices; what goes wrong is still raised."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            yield
    finally:
        logger.setLevel(level)
