"""The examples of training run, and do what they say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from examples.training import recurrent_teacher
from examples.training.add_a_loss import EdgeDistiller
from torch import nn

import shortcutv2v
from shortcutv2v.distill import Distiller
from shortcutv2v.distill.progress import quiet_lightning


def test_a_loss_is_added_in_under_15_lines(chain: nn.Module) -> None:
    tree = ast.parse(Path(recurrent_teacher.__file__).with_name("add_a_loss.py").read_text())
    (added,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert added.end_lineno - added.lineno < 15
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 16, 16),))
    pair = torch.rand(1, 2, 3, 16, 16)
    own, base = EdgeDistiller(model), Distiller(model)
    found = own.losses(own.shortcut_frames(pair)[0])
    assert set(found) - set(base.losses(base.shortcut_frames(pair)[0])) == {"edges"}
    assert found["edges"] > 0


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_the_recurrent_teacher_is_learned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    with quiet_lightning():
        model = recurrent_teacher.train(
            clip, steps=2, crop=8, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
    (block,) = model.blocks
    assert block.reconstruct.weight.abs().sum() > 0  # it started at zero
    model.save(tmp_path)
    assert (tmp_path / "block.safetensors").exists()
