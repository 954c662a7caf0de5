"""Callbacks of a run: averaged weights, a guard against NaN, pictures, a seed for every step."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils import _pytree as pytree

from shortcutv2v.distill.rollout import ShortcutFrame
from shortcutv2v.errors import NonFiniteLossError, check_number

__all__ = ["EMA", "NaNGuard", "PictureLog", "StepSeed", "pictures_of"]

_ERROR_RANGE = 0.1
"""Absolute error that is drawn white: fixed, so that pictures of different steps compare."""


class EMA(pl.Callback):
    """Exponential moving average of the blocks' weights: validated, saved and left in the model at the end.

    Checkpoints hold the averages as the model's weights, and the weights in training beside them, so that a resumed run
    continues exactly. (Lightning's own callback, since 2.6, copies and swaps the teacher too, and loses the weights in
    training at the end of the run.) `save_checkpoint(weights_only=True)` saves the blocks as they are at that moment.

    Args:
        decay: share of the average that stays at each step. Early on it is lower, `(1 + n) / (10 + n)` at step n, so
            that short runs do not average their beginning in.

    Raises:
        InputError: `decay` is not between 0 and 1.

    Examples:
        >>> EMA(decay=1.0)
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: decay must be a number above 0 and below 1, got 1.0
    """

    def __init__(self, decay: float = 0.999) -> None:
        check_number("decay", decay, 0, 1, inside=True)
        self.decay = decay
        self._hidden: dict[str, Tensor] = {}
        """The averages; while `_shown`, the weights in training."""
        self._shown = False
        self._step = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget another run."""
        if stage == "fit":
            self._hidden, self._shown, self._step = {}, False, trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the weights as they are, unless a checkpoint brought averages."""
        weights = _weights(pl_module)
        self._hidden = {name: self._hidden.get(name, weight.detach()).to(weight, copy=True) for name, weight in weights}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Average, once per step of the optimiser."""
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        live = [weight.detach() for _, weight in _weights(pl_module)]
        get_ema_multi_avg_fn(decay)([*self._hidden.values()], live, self._step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the averages."""
        self._show(pl_module, True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the weights in training."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._show(pl_module, False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the averages in the model, also if nothing was left to train."""
        self._show(pl_module, True)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the averages where the weights are looked for, and the weights in training beside them."""
        if self._hidden:
            shown = {name: weight.detach() for name, weight in _weights(pl_module)}
            averages, live = (shown, self._hidden) if self._shown else (self._hidden, shown)
            checkpoint["state_dict"].update(averages)
            checkpoint["ema"] = {"live": live, "step": self._step}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both up again; a checkpoint without averages begins them with its weights."""
        if "ema" not in checkpoint:
            return
        self._step = checkpoint["ema"]["step"]
        with torch.no_grad():
            for name, weight in _weights(pl_module):
                self._hidden[name] = checkpoint["state_dict"][name].clone()
                weight.copy_(checkpoint["ema"]["live"][name])

    @torch.no_grad()
    def _show(self, pl_module: pl.LightningModule, shown: bool) -> None:
        """Exchange averages and weights in training, unless those asked for are in the blocks already."""
        if shown != self._shown and self._hidden:
            for name, weight in _weights(pl_module):
                other = self._hidden[name].clone()
                self._hidden[name].copy_(weight)
                weight.copy_(other)
            self._shown = shown


def _weights(pl_module: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """The blocks' parameters under their names in a checkpoint."""
    return list(pl_module.model.blocks.named_parameters(prefix="model.blocks"))


class NaNGuard(pl.Callback):
    """Stops the run before anything that is not finite reaches the weights, and saves the batch that did it.

    Losses are checked before the backward pass, gradients after it (except with float16, whose scaler overflows on
    purpose).

    Args:
        folder: where the batch goes; default: the trainer's `default_root_dir`.

    Raises:
        NonFiniteLossError: from the training step concerned.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self._batch: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remember the batch."""
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Look at the loss before it does anything."""
        if not _finite(loss.detach()):
            parts = {name: value for name, value in _losses(trainer).items() if name != "train/loss"}
            bad = {k: v for k, v in parts.items() if not math.isfinite(v)} or {"train/loss": float(loss.detach())}
            self._stop(trainer, " and ".join(f"{name} is {value}" for name, value in bad.items()))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Look at the gradients before they move anything."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        found = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        if not _finite(torch.nn.utils.get_total_norm(list(found.values()))):
            bad = [name for name, gradient in found.items() if not _finite(gradient)]
            rest = f" and of {len(bad) - 3} more" if len(bad) > 3 else ""
            names = ", ".join(bad[:3]) or "all weights"
            self._stop(trainer, f"the losses are finite, but not the gradient of {names}{rest}")

    def _stop(self, trainer: pl.Trainer, what: str) -> None:
        folder = Path(self.folder or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"not_finite_step{trainer.global_step}_rank{trainer.global_rank}.pt"
        batch = pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), self._batch)
        torch.save({"batch": batch, "losses": _losses(trainer), "step": trainer.global_step}, path)
        raise NonFiniteLossError(
            f"{what} at step {trainer.global_step}; the batch is in {path}: look at it with "
            "torch.load(path, weights_only=False), or lower the learning rate"
        )


def _losses(trainer: pl.Trainer) -> dict[str, float]:
    """The training losses as last logged."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


class PictureLog(pl.Callback):
    """Logs pictures of one validation frame: frame, teacher, shortcut, both errors, masks and offsets.

    They go to every logger whose `experiment` has `add_image`, such as TensorBoard; see `pictures_of` for what they
    show. The frame is the last shortcut frame of the first validation batch, the farthest from its reference.

    Args:
        every: log at every so many validations.

    Attributes:
        pictures: the last ones, by name.

    Raises:
        InputError: `every` is below 1.
    """

    def __init__(self, every: int = 1) -> None:
        check_number("every", every, 1, whole=True)
        self.every, self._validations = every, 0
        self.pictures: dict[str, Tensor] = {}

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw the first batch."""
        if batch_idx or dataloader_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        self._validations += 1
        experiments = [getattr(logger, "experiment", None) for logger in trainer.loggers]
        writers: list[Any] = [writer for writer in experiments if hasattr(writer, "add_image")]
        if not writers or (self._validations - 1) % self.every:
            return
        self.pictures = pictures_of(pl_module.shortcut_frames(batch)[-1])
        for name, picture in self.pictures.items():
            for writer in writers:
                writer.add_image(f"pictures/{name}", picture.float().cpu(), trainer.global_step)


@torch.no_grad()
def pictures_of(shown: ShortcutFrame) -> dict[str, Tensor]:
    """Draw pictures of the first sample of a batch.

    Args:
        shown: as `Distiller.shortcut_frames()` gives it.

    Returns:
        By name, float (3, H, W) or (1, H, W) in [0, 1]: `frame` (left out where it is no picture), `teacher`,
        `shortcut`; `error` and `error_reuse`, the absolute difference of shortcut and of plain reuse from the teacher,
        averaged over the colours, 0.1 drawn white; and for every branch, at the features' size, `offset` and
        `offset_global`, mean length of the offsets, the longest drawn white, and `mask`, the mean over the taps, white
        takes the current frame.
    """
    found = {} if shown.input is None or shown.input.shape[1] not in (1, 3) else {"frame": shown.input[0]}
    found |= {"teacher": shown.target[0], "shortcut": shown.picture[0]}
    found["error"] = _error(shown.picture[0], shown.target[0])
    found["error_reuse"] = _error(shown.reuse()[0], shown.target[0])
    for number, seen in enumerate(shown.predictions):
        branch = f"_{number}" if len(shown.predictions) > 1 else ""
        found[f"offset{branch}"] = _length(seen.local_offset[0])
        found[f"offset_global{branch}"] = _length(seen.global_offset[0])
        if seen.mask is not None:
            found[f"mask{branch}"] = seen.mask[0].mean(0, keepdim=True)
    return {name: picture.clamp(0, 1) for name, picture in found.items()}


def _error(picture: Tensor, target: Tensor) -> Tensor:
    return (picture - target).abs().mean(0, keepdim=True) / _ERROR_RANGE


def _length(offset: Tensor) -> Tensor:
    """(2K, H, W), (dy, dx) per tap -> (1, H, W), the largest value 1."""
    lengths: Tensor = offset.unflatten(0, (-1, 2)).norm(dim=1).mean(0, keepdim=True)
    return lengths / lengths.max().clamp(min=torch.finfo(lengths.dtype).tiny)


class StepSeed(pl.Callback):
    """Seeds torch, Python and NumPy before every step with a function of `seed` and the step's number.

    Random numbers of a step (dropout, noise inside the teacher) are then the same in a resumed run as in one that was
    never stopped, whatever validation has drawn in between. Processes draw different numbers.

    Args:
        seed: any integer.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed, self._batches = seed, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Seed."""
        import numpy as np

        value = hash((self.seed, self._batches, trainer.global_rank)) & 0xFFFF_FFFF
        torch.manual_seed(value)
        random.seed(value)
        np.random.seed(value)  # the global generator is what a teacher may use
        self._batches += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches so far."""
        return {"batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._batches = state_dict["batches"]
