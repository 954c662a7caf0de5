"""A user's code, which `test_typing.py` gives to mypy in strict mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter, Every, Look, ShortcutV2V
from shortcutv2v.blocks import FlowBlock, ShortcutBlock
from shortcutv2v.distill import Distiller


class Mine(Adapter):
    """From and to [-1, 1]."""

    def inputs(self, frame: Tensor, state: Any) -> tuple[Any, ...]:
        return (2 * frame - 1,)


def often(look: Look) -> bool:
    return look.distance > 2 or bool(look.predictions[0].unexplained.max() > 0.1)


teacher: nn.Module = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
model: ShortcutV2V = shortcutv2v.wrap(teacher, enc_layer="0", dec_layer="2", refresh=Every(3))
trained: Distiller = shortcutv2v.fit(model, "clip.mp4", minutes=5.0, adapter=Mine(teacher, "0", "2"))
model.save("block")
loaded: ShortcutV2V = shortcutv2v.load("block", teacher)
stream = loaded.stream(often)
picture: Tensor = stream(torch.rand(1, 3, 8, 8))
loaded.refresh = 4
block: ShortcutBlock = FlowBlock(4, 6, channels=3)
warped: Tensor = shortcutv2v.ops.warp(picture, torch.zeros(1, 2, 8, 8))
macs: int = shortcutv2v.measure.macs(model, picture).teacher
freed: bool = shortcutv2v.memory.keep_freed_memory()
version: str = shortcutv2v.__version__
cuts = shortcutv2v.suggest_cuts(teacher, picture)
