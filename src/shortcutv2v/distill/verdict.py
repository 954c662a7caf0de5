"""The end of a run: when it comes, and a sentence about what was reached."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, Timer

from shortcutv2v.distill.progress import SHOWN
from shortcutv2v.errors import check_number

__all__ = ["Deadline", "Plateau", "Verdict"]

_GAIN = 0.02
"""Smallest gain in dB of a validation that counts."""
_RISING = 0.2
"""Gain in dB over the second half of a run that counts as rising."""


class Deadline(Timer):
    """Ends a run so that its last validation fits into its minutes, too.

    The time begins with the first step. A resumed run has what was left.

    Args:
        minutes: length of the run.
        reserve: expected seconds of a validation, until one has been measured.
    """

    def __init__(self, minutes: float, reserve: float = 0.0) -> None:
        super().__init__(timedelta(minutes=minutes), verbose=False)
        self.limit = 60 * minutes
        self.reserve = reserve

    @property
    def reserve(self) -> float:
        """Seconds kept for the last validation, at most a third of the run."""
        return self.limit - (self._duration or 0.0)

    @reserve.setter
    def reserve(self, seconds: float) -> None:
        self._duration: float | None = self.limit - min(seconds, self.limit / 3)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure."""
        super().on_validation_start(trainer, pl_module)
        self._begun = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep as much time for the last validation."""
        super().on_validation_end(trainer, pl_module)
        self.reserve = time.monotonic() - self._begun


class Plateau(EarlyStopping):
    """Ends the run when PSNR to the teacher gains no more.

    Args:
        patience: validations without a gain until the run ends.

    Attributes:
        reason: a line once the run has been ended, empty before.

    Raises:
        InputError: `patience` is below 1.
    """

    def __init__(self, patience: int = 10) -> None:
        check_number("patience", patience, 1, whole=True)
        super().__init__("val/psnr", _GAIN, patience, mode="max", check_on_train_epoch_end=False)
        self.reason = ""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare with the best so far."""
        super().on_validation_end(trainer, pl_module)
        if self.wait_count >= self.patience:
            found = trainer.callback_metrics
            values = ", ".join(f"{label} {float(found[name]):.2f}" for name, label in SHOWN.items() if name in found)
            self.reason = f"no gain in {self.patience} validations: stopped at step {trainer.global_step} ({values} dB)"


class _Point(NamedTuple):
    step: int
    psnr: float
    reuse: float
    repeat: float


class Verdict(pl.Callback):
    """Remembers the validations of a run and says in a sentence what they mean.

    Attributes:
        points: step and PSNR in dB of every validation: of the shortcut, of reuse, of repetition.
    """

    def __init__(self) -> None:
        self.points: list[_Point] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Remember, and write the sentence to the module's `verdict`."""
        found = trainer.callback_metrics
        if not trainer.sanity_checking and all(name in found for name in SHOWN):
            self.points.append(_Point(trainer.global_step, *(float(found[name]) for name in SHOWN)))
            pl_module.verdict = self.sentence()

    def validated(self, step: int) -> bool:
        """Return True if the weights of this step have been validated."""
        return bool(self.points) and self.points[-1].step == step

    def sentence(self) -> str:
        """Return what the last validation has found, and whether more training would help; empty before the first."""
        if not self.points:
            return ""
        last = self.points[-1]
        gain = last.psnr - last.reuse
        found = f"PSNR {last.psnr:.4g} dB to the teacher (reuse {last.reuse:.4g}, repeat {last.repeat:.4g}): "
        found += f"{gain:+.1f} dB over reuse" if gain > 0 else f"{gain:+.1f} dB, no better than reuse"
        early = [point.psnr for point in self.points if point.step <= last.step / 2]
        if not early:
            return found
        if last.psnr - early[-1] > _RISING:
            return f"{found}; still rising, more minutes will help"
        if gain <= 0:
            return f"{found}, and not rising: look at the pictures in the log, or try another cut"
        return f"{found}; it has levelled off, more minutes will help little"

    def state_dict(self) -> dict[str, Any]:
        """The validations so far."""
        return {"points": [list(point) for point in self.points]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.points = [_Point(*point) for point in state_dict["points"]]
