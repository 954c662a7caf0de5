"""The LightningModule that distils the blocks of a wrapped teacher (section 3.3). It holds no mathematics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor, nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.blocks import Prediction
from shortcutv2v.checkpoint import recipe
from shortcutv2v.distill import losses
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.errors import CheckpointError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.types import Carry

__all__ = ["Distiller", "Step"]


class Step(NamedTuple):
    """What one training step has computed, for `losses()`.

    Attributes:
        predictions: one per branch, see `Prediction`.
        f: the teacher's features of the current frame, one (B, C_f, H, W) per branch.
        picture: the picture from the shortcut pass, (B, 3, H, W).
        target: the teacher's own picture of the current frame.
    """

    predictions: tuple[Prediction, ...]
    f: tuple[Tensor, ...]
    picture: Tensor
    target: Tensor


class Distiller(pl.LightningModule):
    """Trains the Shortcut blocks of `model` to do what its teacher does.

    Batches are pairs (B, 2, 3, H, W) of reference and current frame in [0, 1], as `Pairs` gives them; validation
    batches are windows (B, T, 3, H, W), whose first frame is the reference. The teacher stays frozen: its parameters
    get no gradient, its flags are left as found. Checkpoints hold the blocks, the optimiser and the recipe of the cut,
    never the teacher. To change what is trained, override `losses()`, `configure_optimizers()` or both.

    Args:
        model: a wrapped teacher.
        adapter: how frames become the teacher's inputs; default: the frame itself in, the output itself out.
        weights: of the losses; the paper's by default.
        lr: learning rate of Adam (paper: 2e-4 for Unsup, over 3200 epochs; short runs want more).
        betas: of Adam.
        decay: linear decay of the rate to zero over this last fraction of the run.
        schedule: length of the run in steps, for the decay; default: what the trainer was told.

    Logs:
        `train/feature`, `train/alignment`, `train/output`, `train/loss`; `val/psnr` of the shortcut frames to the
        teacher, `val/psnr_reuse` with `f_ref` reused, `val/psnr_repeat` with the last output repeated, in dB.

    Example:
        >>> import shortcutv2v
        >>> teacher = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> distiller = Distiller(model)
        >>> sorted(distiller.losses(distiller.step(torch.rand(1, 2, 3, 8, 8))))
        ['alignment', 'feature', 'output']
    """

    def __init__(
        self,
        model: ShortcutV2V,
        adapter: Adapter | None = None,
        *,
        weights: LossWeights | None = None,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        decay: float = 0.5,
        schedule: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter or Adapter(model.teacher, "", "")
        self.weights = weights or LossWeights()
        self.lr, self.betas, self.decay, self.schedule = lr, betas, decay, schedule

    def step(self, pair: Tensor) -> Step:
        """Teacher on both frames, blocks on the current one.

        Args:
            pair: (B, 2, 3, H, W) in [0, 1].
        """
        model = self.model
        reference, current = pair.unbind(1)
        with _frozen(model.teacher):
            with torch.no_grad():
                carry_ref, f_ref, _, state = self._teach(reference, self.adapter.start())
                carry, f, target, _ = self._teach(current, state)
            made = model.make_reference(carry_ref, f_ref)
            predictions = model.analyse(made, carry)
            leaked = f_ref[len(predictions) :]
            picture = self.adapter.image(model.tail(carry, tuple(p.f_hat for p in predictions) + leaked))
        return Step(predictions, f, picture, target)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The losses by name, unweighted; names are those of the weights. Override to add one."""
        pairs = list(zip(step.predictions, step.f, strict=False))
        return {
            "feature": _sum(losses.feature_loss(p.f_hat, f) for p, f in pairs),
            "alignment": _sum(losses.alignment_loss(p.f_star, f) for p, f in pairs),
            "output": losses.output_loss(step.picture, step.target),
        }

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """One step on pairs (B, 2, 3, H, W)."""
        found = self.losses(self.step(batch))
        total = _sum(getattr(self.weights, name) * value for name, value in found.items())
        self.log_dict({f"train/{name}": value for name, value in found.items()})
        self.log("train/loss", total)
        return total

    @torch.no_grad()
    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """PSNR to the teacher over the shortcut frames of windows (B, T, 3, H, W), beside the two free baselines."""
        first, *others = batch.unbind(1)
        carry, f, last, state = self._teach(first, self.adapter.start())
        made, found = self.model.make_reference(carry, f), []
        for frame in others:
            carry, _, target, state = self._teach(frame, state)
            ours = self.model.tail(carry, self.model.predict(made, carry))
            reused = self.model.tail(carry, made.f)
            pictures = self.adapter.image(ours), self.adapter.image(reused), last
            found.append(torch.stack([_psnr(picture, target) for picture in pictures]))
        for name, value in zip(("psnr", "psnr_reuse", "psnr_repeat"), torch.stack(found).mean(0), strict=True):
            self.log(f"val/{name}", value)

    def _teach(self, frame: Tensor, state: Any) -> tuple[Carry, tuple[Tensor, ...], Tensor, Any]:
        """A full pass of the teacher: carry, `f`, picture, and the recurrent state for the next frame."""
        args, kwargs = self.adapter.inputs(frame, state)
        carry = self.model.head(*args, **kwargs)
        f = self.model.middle(carry)
        output = self.model.tail(carry, f)
        return carry, f, self.adapter.image(output), self.adapter.advance(state, frame, output)

    def configure_optimizers(self) -> Any:
        """Adam, constant rate, then linear decay to zero over the last `decay` of the run."""
        return torch.optim.Adam(self.model.blocks.parameters(), lr=self.lr, betas=self.betas)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate for how far the run is, in steps or in time, whichever ends it first."""
        remaining = max(0.0, 1.0 - self.done())
        factor = min(1.0, remaining / self.decay) if self.decay > 0 else 1.0
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the recipe, so that a checkpoint of another cut or teacher is refused by name."""
        checkpoint["shortcutv2v"] = recipe(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another cut, block or teacher.

        Raises:
            CheckpointError: naming what differs.
        """
        saved, own = checkpoint.get("shortcutv2v"), recipe(self.model)
        if saved is None:
            raise CheckpointError("this checkpoint was not written by a shortcutv2v Distiller")
        for key in ("enc_layer", "dec_layer", "blocks"):
            if saved[key] != own[key]:
                raise CheckpointError(f"the checkpoint is of another cut: its {key} is {saved[key]}, here {own[key]}")
        if saved["teacher"]["structure"] != own["teacher"]["structure"]:
            raise CheckpointError(f"the checkpoint is of another teacher: a {saved['teacher']['class']}")

    def done(self) -> float:
        """Share of the run that is done, in [0, 1]: by steps or by time, whichever ends it first."""
        trainer = self.trainer
        if self.schedule is not None:
            return trainer.global_step / self.schedule
        shares = [trainer.global_step / trainer.max_steps] if trainer.max_steps > 0 else [0.0]
        for callback in cast("Any", trainer).callbacks:
            if isinstance(callback, Timer):
                spent, left = callback.time_elapsed(), callback.time_remaining()
                if left is not None:  # a timer without a limit only watches
                    shares.append(spent / (spent + left) if left else 1.0)
        if trainer.max_steps <= 0 and trainer.max_epochs and trainer.max_epochs > 0:
            steps = trainer.estimated_stepping_batches
            shares.append(trainer.global_step / steps if steps else 0.0)
        return max(shares)


@contextlib.contextmanager
def _frozen(teacher: nn.Module) -> Iterator[None]:
    """No parameter of `teacher` asks for a gradient inside; every flag is as found afterwards."""
    wanted = [p for p in teacher.parameters() if p.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def _psnr(picture: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1], both clipped to it as they would be shown."""
    from kornia.metrics import psnr as kornia_psnr

    value: Tensor = kornia_psnr(picture.clamp(0, 1), target.clamp(0, 1), 1.0)
    return value.clamp(max=100.0)


def _sum(values: Any) -> Tensor:
    """The sum of an iterable of scalars as a tensor."""
    return torch.stack(list(values)).sum()
