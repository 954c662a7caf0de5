"""What the tests of the report share."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.report import Report

COUNT, START, RATE = 14, 3, 25.0


@dataclass
class Written:
    """A page, what it was made from, and the data in it."""

    path: Path
    report: Report

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def data(self) -> dict[str, Any]:
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.text, re.DOTALL)
        assert found is not None
        return json.loads(found[1])


def moving(count: int, height: int = 48, width: int = 80) -> Tensor:
    """A pattern that moves to the left, uint8 (T, 3, H, W)."""
    coarse = torch.rand(1, 3, 6, 16, generator=torch.Generator().manual_seed(1))
    wide = nn.functional.interpolate(coarse, (height, width + 2 * count), mode="bicubic").clamp(0, 1)
    return (torch.stack([wide[0, ..., 2 * n : 2 * n + width] for n in range(count)]) * 255).byte()
