"""A clip and an adapter file of each test module: `FRAMES` and `ADAPTER` there say how long and which."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from command_line import CHAIN

from shortcutv2v import video


@pytest.fixture
def adapter(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(getattr(request.module, "ADAPTER", CHAIN))
    return str(path)


@pytest.fixture
def clip(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    torch.manual_seed(0)
    with video.create(tmp_path / "clip.mp4", rate=Fraction(25)) as writer:
        for _ in range(getattr(request.module, "FRAMES", 8)):
            writer.write(torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8))
    return tmp_path / "clip.mp4"
