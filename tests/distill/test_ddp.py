"""Several processes, mixed precision, accumulated gradients: the same training as in one process at full precision."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.distill import Distiller, LossWeights
from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.cache.store import StoredClip
from shortcutv2v.distill.callbacks import EMA, NaNGuard, StepSeed
from shortcutv2v.distill.datamodule import ClipData
from shortcutv2v.distill.progress import quiet_lightning

WEIGHTS = LossWeights(perceptual=0)
CLOSE = 1e-4
"""A step of Adam is as long for a gradient of 1e-9 as for one of 1, so rounding shows; weights move 4e-3 in all."""


def clip() -> Tensor:
    return torch.randint(0, 256, (9, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def train(
    chain: nn.Module,
    batch_size: int,
    *,
    lr: float = 1e-3,
    judges: dict[str, Any] | None = None,
    cache: Path | None = None,
    **settings: Any,
) -> tuple[Distiller, dict[str, Any]]:
    """Four steps of the whole loss; the blocks start off zero, so that every parameter learns."""
    torch.manual_seed(1)
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 8, 8),), channels=4)
    for weight in model.blocks.parameters():
        nn.init.normal_(weight, std=0.1)
    rates = {"lr": lr, "lr_discriminator": lr, "schedule": 4}
    distiller = Distiller(model, weights=WEIGHTS, adversary=Adversary(width=8, **(judges or {})), **rates)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    with quiet_lightning():
        trainer = pl.Trainer(
            max_steps=4,
            accelerator="cpu",
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            limit_val_batches=2,
            callbacks=[EMA(0.5), NaNGuard(), StepSeed()],
            val_check_interval=2,
            **quiet,
            **settings,
        )
        data = ClipData(clip(), clip(), crop=8, batch_size=batch_size, cache=cache)
        trainer.fit(distiller, data)
    return distiller, {name: float(value) for name, value in trainer.callback_metrics.items()}


def moved(distiller: Distiller) -> list[Tensor]:
    """All that was trained."""
    return [p.detach() for p in (*distiller.model.blocks.parameters(), *distiller.adversary.parameters())]


def close(one: Distiller, other: Distiller, tolerance: float) -> None:
    for expected, found in zip(moved(one), moved(other), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def forked(test: Any) -> Any:
    """Mark a test that forks processes."""
    for mark in (
        pytest.mark.forks,
        pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
        pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
        # of the channels-last gradients
        pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides"),
    ):
        test = mark(test)
    return test


@forked
def test_two_processes_equal_one(chain: nn.Module) -> None:
    two, found = train(chain, 2, devices=2, strategy="ddp_fork")  # first: gradients may leave threads, see `forks`
    one, expected = train(chain, 4)
    close(one, two, CLOSE)
    start, _ = train(chain, 4, lr=0.0)
    assert max(float((a - b).abs().max()) for a, b in zip(moved(one), moved(start), strict=True)) > 1e-3
    assert found["val/psnr"] == pytest.approx(expected["val/psnr"], abs=0.5)  # windows are dealt out to the processes


@forked
def test_only_one_process_computes_the_features(
    chain: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StoredClip.write

    def noted(self: StoredClip, frames: Any) -> None:
        with (tmp_path / "written").open("a") as file:
            file.write("x")
        time.sleep(1)  # long enough for another process to begin, too
        write(self, frames)

    monkeypatch.setattr(StoredClip, "write", noted)
    train(chain, 2, devices=2, strategy="ddp_fork", cache=tmp_path / "features")
    assert (tmp_path / "written").read_text() == "x"


def test_accumulated_gradients_equal_a_larger_batch(chain: nn.Module) -> None:
    judges = {"spectral_norm": False}  # whose power iteration takes a step per batch, not per step of the optimiser
    one, _ = train(chain, 4, judges=judges)
    two, _ = train(chain, 2, judges=judges, accumulate_grad_batches=2)
    close(one, two, CLOSE)


def test_mixed_precision_stays_close(chain: nn.Module) -> None:
    judges = {"temporal": False}  # torch's 3-D convolution gives NaN gradients in bfloat16 on some CPUs
    one, expected = train(chain, 4, judges=judges)
    two, found = train(chain, 4, judges=judges, precision="bf16-mixed")
    start, _ = train(chain, 4, lr=0.0, judges=judges)
    first, *moves = (torch.cat([p.flatten() for p in moved(each)]) for each in (start, one, two))
    assert torch.cosine_similarity(moves[0] - first, moves[1] - first, dim=0) > 0.9
    assert all(p.dtype == torch.float32 for p in moved(two))
    assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=0.05)
