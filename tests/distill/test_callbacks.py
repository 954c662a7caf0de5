"""Callbacks: what they leave in the model, in the checkpoint and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

import shortcutv2v
from shortcutv2v.distill import Distiller, LossWeights, Pairs, Windows
from shortcutv2v.distill.callbacks import EMA, NaNGuard, PictureLog, StepSeed, pictures_of
from shortcutv2v.distill.progress import Progress, quiet_lightning
from shortcutv2v.distill.verdict import Plateau
from shortcutv2v.errors import InputError, NonFiniteLossError

PLAIN = LossWeights(perceptual=0, gan=0, temporal_gan=0)


def clip(frames: int = 6) -> Tensor:
    return torch.randint(0, 256, (frames, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def distiller_of(chain: nn.Module, cls: type[Distiller] = Distiller, variant: str = "flow") -> Any:
    torch.manual_seed(1)
    frame = torch.rand(1, 3, 12, 16)
    return cls(shortcutv2v.wrap(chain, "1", "4", example_inputs=(frame,), variant=variant, channels=4), weights=PLAIN)


def trainer_of(*callbacks: pl.Callback, steps: int = 4, **settings: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    always = {"enable_progress_bar": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    return pl.Trainer(max_steps=steps, callbacks=list(callbacks), **{**always, **quiet, **settings})


def train(trainer: pl.Trainer, distiller: Distiller, **settings: Any) -> None:
    pairs = DataLoader(Pairs([clip()], length=8, crop=(8, 8)), batch_size=1)
    with quiet_lightning():
        trainer.fit(distiller, pairs, DataLoader(Windows([clip()], 3), batch_size=1), **settings)


def weights(distiller: Distiller) -> list[Tensor]:
    return [weight.detach().clone() for weight in distiller.model.blocks.parameters()]


class Watch(pl.Callback):
    """Weights after every step and at every validation."""

    def __init__(self) -> None:
        self.steps: list[list[Tensor]] = []
        self.validated: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.steps.append(weights(pl_module))

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.validated.append(weights(pl_module))


class TestEMA:
    def test_average_is_validated_saved_and_left(self, chain: nn.Module, tmp_path: Path) -> None:
        distiller, watch = distiller_of(chain), Watch()
        distiller.lr = 0.05
        average = weights(distiller)
        trainer = trainer_of(EMA(0.3), watch, val_check_interval=4, limit_val_batches=1)
        train(trainer, distiller)
        for step, live in enumerate(watch.steps, 1):
            decay = min(0.3, (1 + step) / (10 + step))
            average = [decay * old + (1 - decay) * new for old, new in zip(average, live, strict=True)]
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
        for found in (watch.validated[-1], weights(distiller), [*saved["state_dict"].values()]):
            torch.testing.assert_close(found, average)
        torch.testing.assert_close([*saved["ema"]["live"].values()], watch.steps[-1])
        assert not torch.allclose(average[0], watch.steps[-1][0], atol=1e-4)

    def test_training_does_not_notice(self, chain: nn.Module) -> None:
        found = []
        for callbacks in ([], [EMA()]):
            watch = Watch()
            train(trainer_of(*callbacks, watch, val_check_interval=2, limit_val_batches=1), distiller_of(chain))
            found.append(watch.steps)
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)

    def test_accumulated_gradients_are_averaged_once_a_step(self, chain: nn.Module) -> None:
        ema = EMA()
        train(trainer_of(ema, steps=2, accumulate_grad_batches=3), distiller_of(chain))
        assert ema._step == 2


class Broken(Distiller):
    """One of the losses is not a number from the third step on."""

    def losses(self, step: Any) -> dict[str, Tensor]:
        found = super().losses(step)
        if self.trainer.global_step == 2:
            found["output"] = found["output"] * float("nan")
        return found


def test_nan_is_named_and_its_batch_saved(chain: nn.Module, tmp_path: Path) -> None:
    distiller, watch = distiller_of(chain, Broken), Watch()
    with pytest.raises(NonFiniteLossError, match=r"train/output is nan at step 2; the batch is in .*step2_rank0\.pt"):
        train(trainer_of(NaNGuard(tmp_path / "new"), watch), distiller)
    torch.testing.assert_close(weights(distiller), watch.steps[1], rtol=0, atol=0)
    found = torch.load(tmp_path / "new" / "not_finite_step2_rank0.pt", weights_only=False)
    assert torch.equal(found["batch"], Pairs([clip()], length=8, crop=(8, 8))[2][None])
    assert found["losses"]["train/feature"] > 0


def test_nan_in_a_gradient_never_reaches_the_weights(chain: nn.Module, tmp_path: Path) -> None:
    distiller, watch = distiller_of(chain), Watch()
    weight = distiller.model.blocks[0].reduce_a[1].weight
    weight.register_hook(lambda gradient: gradient * float("inf") if len(watch.steps) == 2 else gradient)
    message = r"not the gradient of model\.blocks\.0\.reduce_a\.1\.weight at step 2; the batch is in "
    with pytest.raises(NonFiniteLossError, match=message):
        train(trainer_of(NaNGuard(tmp_path), watch), distiller)
    torch.testing.assert_close(weights(distiller), watch.steps[1], rtol=0, atol=0)


class Canvas(DummyLogger):
    """A logger that keeps pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[tuple[str, int], Tensor] = {}

    @property
    def experiment(self) -> Canvas:
        return self

    def add_image(self, tag: str, picture: Tensor, step: int) -> None:
        self.drawn[tag, step] = picture


def test_pictures_go_to_the_logger(chain: nn.Module) -> None:
    canvas = Canvas()
    trainer = trainer_of(PictureLog(every=2), logger=canvas, val_check_interval=1)
    train(trainer, distiller_of(chain, variant="paper"))
    names = ("frame", "teacher", "shortcut", "error", "error_reuse", "mask", "offset", "offset_global")
    assert canvas.drawn.keys() == {(f"pictures/{name}", step) for name in names for step in (1, 3)}
    assert torch.equal(canvas.drawn["pictures/frame", 1], clip()[2] / 255)
    torch.testing.assert_close(canvas.drawn["pictures/teacher", 1], chain(clip()[2:3] / 255)[0].clamp(0, 1).detach())
    assert all(p.dim() == 3 and p.min() >= 0 and p.max() <= 1 for p in canvas.drawn.values())


def test_pictures_show_what_they_say(chain: nn.Module) -> None:
    distiller = distiller_of(chain, variant="paper")
    step = distiller.shortcut_frames(torch.rand(1, 2, 3, 12, 16))[0]
    found = pictures_of(step)
    error = (step.picture - step.target).abs().mean(1)[0]
    torch.testing.assert_close(found["error"][0], (error / 0.1).clamp(0, 1))
    torch.testing.assert_close(found["mask"], torch.full_like(found["mask"], 0.5))  # untrained
    assert not found["offset"].any()
    offset = torch.zeros_like(step.predictions[0].local_offset)
    offset[:, 0, :6], offset[:, 1, :6] = 3e-3, 4e-3  # one of nine taps, in the upper half
    offset[:, 0, 6:] = 1e-3
    step.predictions = (step.predictions[0]._replace(local_offset=offset),)
    shown = pictures_of(step)["offset"]
    torch.testing.assert_close(shown[:, :6], torch.ones(1, 6, 16))  # the longest is white, however short
    torch.testing.assert_close(shown[:, 6:], torch.full((1, 6, 16), 0.2))


def test_plateau_ends_the_run_beside_the_baselines(chain: nn.Module) -> None:
    distiller = distiller_of(chain)
    distiller.lr = 0.0
    plateau = Plateau(patience=2)
    trainer = trainer_of(plateau, steps=50, val_check_interval=1)
    train(trainer, distiller)
    assert trainer.global_step == 3  # a first value, and two that do not pass it
    assert "stopped at step 3 (PSNR " in plateau.reason
    assert "reuse " in plateau.reason
    assert "repeat " in plateau.reason


def test_steps_are_seeded_one_by_one(chain: nn.Module, tmp_path: Path) -> None:
    drawn: list[Tensor] = []

    class Drawing(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            drawn.append(torch.rand(()))

    trainer = trainer_of(StepSeed(3), Drawing(), steps=2)
    train(trainer, distiller_of(chain))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    torch.rand(7)
    train(trainer_of(StepSeed(3), Drawing(), steps=4), distiller_of(chain), ckpt_path=tmp_path / "x.ckpt")
    train(trainer_of(StepSeed(3), Drawing(), steps=4), distiller_of(chain))
    assert len(set(map(float, drawn[:4]))) == 4
    assert drawn[:4] == drawn[4:]


def test_bad_settings_are_named() -> None:
    with pytest.raises(InputError, match="decay must be a number above 0 and below 1, got 0"):
        EMA(0)
    with pytest.raises(InputError, match="every must be a whole number of at least 1, got 0"):
        PictureLog(0)


def test_the_bar_bears_a_validation_before_training(chain: nn.Module) -> None:
    trainer = trainer_of(Progress(), steps=1, num_sanity_val_steps=1)
    train(trainer, distiller_of(chain))
    assert trainer.global_step == 1
