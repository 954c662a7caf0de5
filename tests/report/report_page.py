"""What the tests of the report share, among it a report of a tiny teacher, written once for all tests."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.measure import Setting
from shortcutv2v.report import Report, write_report

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


@pytest.fixture(name="written", scope="session")
def write_once(tmp_path_factory: pytest.TempPathFactory) -> Written:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 8, 3 if i == 5 else 8, 3, padding=1) for i in range(6)]
    adapter = shortcutv2v.Adapter(nn.Sequential(*layers), "1", "4")
    clip = moving(COUNT)
    model = adapter.wrap(clip[:1] / 255, variant="paper", channels=4)
    with torch.no_grad():  # an untrained block equals reuse in everything; a little noise makes it a block of its own
        for parameter in model.blocks.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("report") / "report.html"
    goals = {"interval 3": {"refresh": 3}, "interval 5": {"refresh": 5}}
    options: dict[str, Any] = {"title": "a <clip> & more.mp4", "goals": goals, "start": START}
    made = write_report(model, adapter, clip, path, setting=Setting(RATE, adapter), inspected=True, **options)
    return Written(path, made)
