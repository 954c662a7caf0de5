"""What a run shows while it goes on, and the page that it leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.distill import Distiller, fit
from shortcutv2v.distill.training_page import _POINTS, PAGE, TrainingPage


def clip(frames: int = 9) -> Tensor:
    return torch.randint(0, 256, (frames, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def run(chain: nn.Module, **settings: Any) -> Distiller:
    torch.manual_seed(1)
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 12, 16),), channels=4)
    always: dict[str, Any] = {"minutes": None, "max_steps": 4, "crop": 8, "batch_size": 2, "progress": False}
    return fit(model, clip(), **always | settings)


def test_a_run_leaves_a_page(chain: nn.Module, tmp_path: Path) -> None:
    found = run(chain, folder=tmp_path, validation=clip(6), val_check_interval=2)
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert found.verdict
    assert found.verdict in text.replace("&#x27;", "'")
    assert text.count("<svg role") == 4  # quality and loss, wide and narrow each
    for name in ("teacher", "shortcut", "error", "error_reuse", "offset"):
        assert '<img src="data:image/webp;base64,' in text
        assert f'alt="{name}"' in text
    assert "4 steps" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert not list(tmp_path.glob("*.part"))


def test_without_validation_the_page_shows_the_loss(chain: nn.Module, tmp_path: Path) -> None:
    run(chain, folder=tmp_path, validation=None)
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert text.count("<svg role") == 2
    assert "not validated" in text


def test_a_resumed_run_goes_on_with_its_curve(chain: nn.Module, tmp_path: Path) -> None:
    run(chain, folder=tmp_path / "one", validation=None, max_steps=2)
    found = run(chain, folder=tmp_path / "two", validation=None, resume=tmp_path / "one" / "last.ckpt")
    (page,) = (each for each in found.trainer.callbacks if isinstance(each, TrainingPage))
    assert [step for step, _ in page.losses] == [1, 2, 3, 4]


def test_a_long_run_keeps_few_points(tmp_path: Path) -> None:
    page = TrainingPage(tmp_path)
    for step in range(5000):
        trainer = type("Trainer", (), {"global_step": step, "callback_metrics": {"train/loss": torch.tensor(step)}})
        page.on_train_batch_end(trainer, None)
    assert _POINTS / 3 < len(page.losses) <= _POINTS
    assert page.losses[-1][0] > 4900
    assert page.losses[-1][1] == pytest.approx(page.losses[-1][0], abs=40)  # means of neighbours


def test_a_page_that_cannot_be_written_does_not_end_the_run(chain: nn.Module, tmp_path: Path) -> None:
    (tmp_path / PAGE).mkdir()
    assert run(chain, folder=tmp_path, validation=None).trainer.global_step == 4
    assert not list(tmp_path.glob("*.part"))


def test_the_bar_shows_the_quality_beside_reuse(chain: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    run(chain, validation=clip(6), val_check_interval=2, progress=True)
    bars = re.findall(r"PSNR=([\d.]+), reuse=([\d.]+), repeat=([\d.]+)", capsys.readouterr().err)
    assert len(bars) >= 1
