"""The adapter that most of these tests use, and refusals."""

from __future__ import annotations

import pytest

from shortcutv2v.cli import main

CHAIN = """
import torch
from shortcutv2v import Adapter

def build_adapter(width: int = 4, seed: int = 0) -> Adapter:
    torch.manual_seed(seed)
    sizes = [3, width, width, width, 3]
    layers = [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes, sizes[1:])]
    adapter = Adapter(torch.nn.Sequential(*layers), "0", "2")
    adapter.cuts = {"small": ("0", "1")}
    return adapter
"""


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line on standard error; fails unless the exit code is 2."""
    capsys.readouterr()
    assert main([str(arg) for arg in argv]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shortcutv2v: error: ")]
    return line
