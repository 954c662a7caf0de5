"""The LightningModule that distils the blocks of a wrapped teacher (section 3.3)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.checkpoint import recipe
from shortcutv2v.distill import losses
from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.callbacks import EMA
from shortcutv2v.distill.checks import check_kind, check_model
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.distill.perceptual import FrozenDistance, VGGPerceptual
from shortcutv2v.distill.plan import WithoutPictures
from shortcutv2v.distill.rollout import Rollout, ShortcutFrame
from shortcutv2v.distill.settings import Settings, settings_of
from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.fingerprint import differences
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.summary import psnr

__all__ = ["Distiller"]


class Distiller(pl.LightningModule):
    """Trains the Shortcut blocks of `model` to predict the teacher's features.

    Batches are frames (B, T, C, H, W) in [0, 1], as `Pairs` (T = 2) and `Sequences` give them, or cached features: a
    list of T pairs (carry, f). The first frame and every `interval`-th after it is a reference, the others are shortcut
    frames, and the losses are their mean. The teacher stays frozen: its parameters get no gradient, its flags do not
    change. Checkpoints hold the blocks, the discriminators, the optimiser and the recipe of the cut, never the teacher.

    One optimiser serves blocks and discriminators, with a parameter group each. The blocks' adversarial losses are
    computed with the discriminators frozen, the discriminators' losses on detached pictures. So one backward pass does
    the usual pair of steps, and Lightning's accumulation, mixed precision, clipping and strategies apply to both.

    Hooks to override: `shortcut_frames()` turns a batch into `ShortcutFrame`s, `losses()` and `discriminator_losses()`
    return their losses (a loss without a weight of its name counts once), `configure_optimizers()` returns the
    optimiser. The adapter turns frames into inputs.

    Args:
        model: a wrapped teacher.
        adapter: how frames become the teacher's inputs; default: the frame itself in, the output itself out.
        settings: rates, losses and the rest, see `Settings`; options about data and trainer are not read.
        changes: options of `Settings` by name, such as `lr=2e-4` or `weights=LossWeights()`.

    Attributes:
        settings: the settings in force, with a value for every option.
        pictures: whether this step takes losses of pictures; a heavy teacher's tail runs in every few steps only.
        verdict: after a run with validation, a sentence about its result.
        perceptual: the perceptual distance, or None. A given module is copied and held frozen, away from optimisers and
            checkpoints.
        adversary: the discriminators, or None. Those whose weights are zero are dropped.

    Logs:
        `train/loss` and `train/<name>` of each loss, unweighted; `val/psnr` of the shortcut frames to the teacher,
        `val/psnr_reuse` with `f_ref` reused, `val/psnr_repeat` with the last output repeated, in dB.

    Raises:
        InputError: an option is out of range or would not be used, the blocks are in float16, or the perceptual loss
            has no weights to run with; from the first step, if every loss has weight zero.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> distiller = Distiller(model)
        >>> (frame,) = distiller.shortcut_frames(torch.rand(1, 2, 3, 8, 8))
        >>> sorted(distiller.losses(frame))
        ['alignment', 'feature', 'output']
    """

    def __init__(
        self, model: ShortcutV2V, adapter: Adapter | None = None, settings: Settings | None = None, **changes: Any
    ) -> None:
        super().__init__()
        check_model(model)
        check_kind("adapter", adapter, Adapter, "give an object")
        self.settings = settings_of(settings, changes).filled(short=False)
        self.model = model
        self.adapter = adapter or Adapter.of(model)
        self.weights: LossWeights = self.settings.weights
        self.rollout = Rollout(model, self.adapter, self.settings.feedback, self.settings.truncate)
        self.lr: float
        self.lr, self.lr_discriminator = self.settings.lr, self.settings.lr_discriminator
        self.betas, self.decay, self.schedule = self.settings.betas, self.settings.decay, self.settings.schedule
        self.pictures, self.verdict = True, ""
        self.perceptual = self._frozen_distance()
        self.adversary = self._judges()
        self.training_began = False

    def _frozen_distance(self) -> FrozenDistance | None:
        if not self.weights.perceptual:
            return None
        given = self.settings.perceptual or VGGPerceptual()
        return given if isinstance(given, FrozenDistance) else FrozenDistance(copy.deepcopy(given))

    def _judges(self) -> Adversary | None:
        """Return the discriminators that have a weight; others would train for nothing."""
        spatial, temporal = self.weights.gan > 0, self.weights.temporal_gan > 0
        if not (spatial or temporal):
            return None
        adversary: Adversary = self.settings.adversary or Adversary(spatial=spatial, temporal=temporal)
        adversary.spatial = adversary.spatial if spatial else None
        adversary.temporal = adversary.temporal if temporal else None
        if adversary.spatial is None and adversary.temporal is None:
            raise InputError(
                f"the adversary judges nothing with weights gan={self.weights.gan:g} and temporal_gan="
                f"{self.weights.temporal_gan:g}: give it the discriminator that has a weight, spatial or temporal"
            )
        return adversary

    def shortcut_frames(self, batch: Tensor | Sequence[Any]) -> list[ShortcutFrame]:
        """Run teacher and blocks on a batch: one `ShortcutFrame` per frame between references.

        Args:
            batch: frames (B, T, C, H, W) in [0, 1], or cached features: T pairs (carry, f).
        """
        if not isinstance(batch, Tensor):
            return self.rollout.shortcut_frames_from(batch)
        _, dtype = placement(self.model.teacher)
        return self.rollout.shortcut_frames(batch.to(dtype))

    def losses(self, frame: ShortcutFrame) -> dict[str, Tensor]:
        """Return the blocks' losses by name, unweighted, without those of weight zero. Override it to add one."""
        w, pairs = self.weights, list(zip(frame.predictions, frame.f, strict=False))
        found = {}
        if w.feature:
            found["feature"] = _sum(losses.feature_loss(p.f_hat, f) for p, f in pairs)
        if w.alignment:
            found["alignment"] = _sum(losses.alignment_loss(p.f_star, f) for p, f in pairs)
        if not self.pictures:
            return found
        if w.output:
            found["output"] = losses.output_loss(frame.picture, frame.target)
        if self.perceptual is not None:
            found["perceptual"] = self.perceptual(frame.picture, frame.target)
        if self.adversary is not None:
            found.update(self.adversary.generator(frame.picture, frame.reference_picture))
        return found

    def discriminator_losses(self, frame: ShortcutFrame) -> dict[str, Tensor]:
        """Return the discriminators' losses by name, each counted once; none without discriminators."""
        if self.adversary is None or not self.pictures:
            return {}
        return dict(self.adversary.discriminator(frame.picture.detach(), frame.target, frame.reference_picture))

    def objective(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what a step minimises on a batch, and its losses by name.

        Args:
            batch: as `shortcut_frames` takes it, or `WithoutPictures` of it.
        """
        self.pictures = not isinstance(batch, WithoutPictures)
        batch = batch if self.pictures else batch.batch
        try:
            frames = self.shortcut_frames(batch)
        except InputError as error:
            if not isinstance(batch, Tensor):
                raise
            raise InputError(f"frames {tuple(batch.shape[2:])}, as clips and crop give them: {error}") from error
        found = _mean([self.losses(frame) for frame in frames])
        if not found:
            raise InputError("there is nothing to train: every loss has weight zero")
        against = _mean([self.discriminator_losses(frame) for frame in frames])
        self.pictures = True
        total = _sum(getattr(self.weights, name, 1.0) * value for name, value in found.items())
        return _sum([total, *against.values()]), {**found, **against, "loss": total}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the objective of one step, the mean over the batch's shortcut frames."""
        total, found = self.objective(batch)
        # Nothing is averaged over an epoch, so that the batch size does not matter.
        self.log_dict({f"train/{name}": value for name, value in found.items()}, batch_size=1)
        return total

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log PSNR to the teacher over a batch's shortcut frames, beside the two free baselines."""
        for frame in self.shortcut_frames(batch):
            shown = {"psnr": frame.picture, "psnr_reuse": frame.reuse(), "psnr_repeat": frame.reference_picture}
            for name, picture in shown.items():
                value = psnr(picture, frame.target).mean()
                self.log(f"val/{name}", value, sync_dist=True, batch_size=picture.shape[0])

    def configure_optimizers(self) -> Any:
        """Return Adam with a group for the blocks and one for the discriminators; rates decay at the end of the run."""
        groups = [{"name": "blocks", "params": [*self.model.blocks.parameters()], "lr": self.lr}]
        if self.adversary is not None:
            found = [*self.adversary.parameters()]
            groups.append({"name": "discriminators", "params": found, "lr": self.lr_discriminator})
        return torch.optim.Adam(groups, betas=self.betas)

    def on_train_start(self) -> None:
        """Note the interval that the blocks are trained for; streams warn beyond it."""
        self.training_began = True
        self.model.trained_interval = self.model.refresh.interval

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rates by the share of the run that is done."""
        # The clocks of several processes differ, so the first one decides for all.
        remaining = max(0.0, 1.0 - self.trainer.strategy.broadcast(self.done()))
        factor = min(1.0, remaining / self.decay) if self.decay > 0 else 1.0
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

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
        try:
            for key in ("enc_layer", "dec_layer", "blocks"):
                if saved[key] != own[key]:
                    what = "block" if key == "blocks" else "cut"
                    raise CheckpointError(
                        f"the checkpoint is of another {what}: {key} {saved[key]} there, {own[key]} here"
                    )
            difference = differences(saved["teacher"], own["teacher"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the checkpoint's recipe is damaged: {error!r}") from None
        if difference is not None:
            raise CheckpointError(f"the checkpoint is of {difference}")
        self._warn_of_changes(checkpoint)
        theirs = {name for name in checkpoint["state_dict"] if name.startswith("adversary.")}
        ours = set() if self.adversary is None else {f"adversary.{name}" for name in self.adversary.state_dict()}
        if theirs != ours:
            kind = "other" if theirs else "no"
            raise CheckpointError(
                f"the checkpoint has {kind} discriminators{'' if ours else ', here there are none'}: resume with the "
                "adversary and the weights of gan and temporal_gan that the run had"
            )

    def _warn_of_changes(self, checkpoint: dict[str, Any]) -> None:
        """Warn of options that the checkpoint overrides."""
        given = {"blocks": self.lr, "discriminators": self.lr_discriminator}
        for group in (group for state in checkpoint["optimizer_states"] for group in state["param_groups"]):
            name, rate = group.get("name"), group.get("initial_lr", group["lr"])
            if given.get(name, rate) != rate:
                warnings.warn(f"the resumed run keeps its learning rate of the {name}, {rate:g}", stacklevel=2)
        if "ema" in checkpoint and not any(isinstance(each, EMA) for each in cast("Any", self.trainer).callbacks):
            warnings.warn(
                "the checkpoint holds averages, which are trained on as they are: give ema, too", stacklevel=2
            )

    def done(self) -> float:
        """Return the share of the run that is done, in [0, 1]: by steps or by time, whichever ends it first."""
        trainer = self.trainer
        if self.schedule is not None:
            return float(trainer.global_step / self.schedule)
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


def _sum(values: Iterable[Tensor]) -> Tensor:
    """Return the sum of scalars as a tensor."""
    return torch.stack(list(values)).sum()


def _mean(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean over the entries, name by name."""
    return {name: torch.stack([entry[name] for entry in found]).mean() for name in found[0]}
