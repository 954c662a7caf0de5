"""Where the recorded material lies, if it lies there: beside the repository, never in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

SHARED = Path(__file__).parents[3] / "shared"


def fixture(name: str) -> dict[str, Any]:
    """A recorded case of the authors' code; skips the test where there is none."""
    path = SHARED / "fixtures" / f"{name}.pt"
    if not path.exists():
        pytest.skip(f"the recorded outputs are not here: no {path.name} in ../shared/fixtures beside the repository")
    return torch.load(path, weights_only=True)


def manifest(name: str) -> dict[str, Any]:
    """Names and shapes of an official network; skips the test where there are none."""
    path = SHARED / "official" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"the official names are not here: no {path.name} in ../shared/official beside the repository")
    return json.loads(path.read_text())


def entries(net: nn.Module) -> list[list[Any]]:
    """What a checkpoint of `net` holds: key, shape, dtype, and whether it is a parameter or a buffer."""
    parameters = {key for key, _ in net.named_parameters()}
    return [
        [
            key,
            list(value.shape),
            str(value.dtype).removeprefix("torch."),
            "parameter" if key in parameters else "buffer",
        ]
        for key, value in net.state_dict().items()
    ]


def digest(rows: list[list[Any]]) -> str:
    """A short name for a list of entries, in any order."""
    lines = sorted(f"{key} {shape} {dtype} {kind}" for key, shape, dtype, kind in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def relative_error(ours: Tensor, recorded: Tensor) -> float:
    """Largest difference, in units of the largest recorded value."""
    return float((ours - recorded).abs().max() / recorded.abs().max())
