"""A report of a tiny teacher, written once for all tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from report_page import COUNT, RATE, START, Written, moving
from torch import nn

import shortcutv2v
from shortcutv2v.measure import Setting
from shortcutv2v.report import write_report


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
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
