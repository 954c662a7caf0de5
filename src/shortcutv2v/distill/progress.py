"""Progress bars for a run: caching, training, validation; and quiet where Lightning would advertise."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from shortcutv2v.bar import bar, say

__all__ = ["RARELY", "SHOWN", "Progress", "Speed", "quiet_lightning"]

SHOWN = {"val/psnr": "PSNR", "val/psnr_reuse": "reuse", "val/psnr_repeat": "repeat"}
_SHAPE = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
RARELY = {"mininterval": 0.5, "miniters": 0}
"""Options of bars: every refresh is a line in a log file."""
_SMOOTH = 0.95
"""Share of the shown loss that stays at each step: crops differ more than steps do."""


class Progress(pl.Callback):
    """Share of the run that is done, steps, smoothed loss and, once validated, PSNR beside the free baselines.

    Lightning's own bar counts batches of an epoch, which has no meaningful length here.
    """

    def __init__(self) -> None:
        self._loss: float | None = None
        self._bar: Any = None
        self._validation: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the empty bar."""
        self._bar = bar(total=100, unit="%", bar_format=_SHAPE, disable=not trainer.is_global_zero, **RARELY)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Move the bar."""
        if (loss := trainer.callback_metrics.get("train/loss")) is not None:
            before = float(loss) if self._loss is None else self._loss
            self._loss = _SMOOTH * before + (1 - _SMOOTH) * float(loss)
        self._bar.n = round(100 * min(1.0, pl_module.done()), 1)
        self._bar.set_postfix(self._values(trainer), refresh=False)
        self._bar.update(0)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw a bar of its own for the last validation; during training, say so in front of the bar."""
        if trainer.state.fn != TrainerFn.FITTING:
            windows = int(min(trainer.num_val_batches)) if trainer.num_val_batches else 0
            self._validation = bar(total=windows, desc="validating", disable=not trainer.is_global_zero, **RARELY)
        elif self._bar is not None:
            self._bar.set_description("validating")

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move the bar of the last validation."""
        if self._validation is not None:
            self._validation.update(1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the result in the bar, or in a sentence once the run has ended."""
        if self._validation is not None:
            self._validation.close()
        elif self._bar is not None:
            self._bar.set_description("")
            self._bar.set_postfix(self._values(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar as it is, and say why the run ended early if it did."""
        self._bar.close()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if trainer.is_global_zero and (reason := getattr(callback, "reason", "")):
                say(reason)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the bar as it is."""
        for each in (self._bar, self._validation):
            if each is not None:
                each.close()

    def _values(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the values to show, by label."""
        metrics = trainer.callback_metrics
        found: dict[str, Any] = {} if self._loss is None else {"loss": self._loss}
        found |= {label: metrics[name] for name, label in SHOWN.items() if name in metrics}
        return {"step": trainer.global_step, **{label: f"{float(value):.4g}" for label, value in found.items()}}


class Speed(pl.Callback):
    """Logs the learning rate, and steps per second, averaged over the steps between two log entries."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Log, when it is time."""
        step, now = trainer.global_step, time.monotonic()
        if self._last is None:
            self._last = (step, now)
        elif step - self._last[0] >= trainer.log_every_n_steps:  # type: ignore[attr-defined]
            pl_module.log("run/steps_per_second", (step - self._last[0]) / (now - self._last[1]), batch_size=1)
            self._last = (step, now)
        pl_module.log("run/lr", trainer.optimizers[0].param_groups[0]["lr"], batch_size=1)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence advice about loggers, workers and devices; errors are still raised."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            yield
    finally:
        logger.setLevel(level)
