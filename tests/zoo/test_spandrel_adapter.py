"""spandrel's networks of the zoo once more, from files through the adapter that serves them all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.zoo.test_zoo import name_of
from tests.zoo.zoo_cases import CASES, Case

from shortcutv2v.errors import ShortcutError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@torch.no_grad()
@pytest.mark.parametrize("case", [case for case in CASES if case.package == "spandrel"], ids=name_of)
def test_from_a_file(case: Case, tmp_path: Path, score: dict[str, dict[str, Any]]) -> None:
    """The adapter is exact, or refuses in one line: spandrel reads no sizes off some networks as small as these."""
    pytest.importorskip("spandrel")
    from examples.spandrel.adapter import build_adapter

    row = score.setdefault(name_of(case), {"package": case.package, "name": case.name, "result": "FAILED"})
    torch.manual_seed(0)
    torch.save(case.build().state_dict(), tmp_path / "net.pth")
    height, width = case.sizes[0][1:]
    frame = torch.rand(1, 3, height, width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adapter = build_adapter(str(tmp_path / "net.pth"))
            model = adapter.wrap(frame)
        except ShortcutError as error:
            row["adapter"] = f"refused: {str(error).partition(chr(10))[0].replace(str(tmp_path), '')}"
            return
        (given,), _ = adapter.example(frame)
        output, reference = model.reference(given.clone())  # some networks write into their input
        shortcut, expected = model.shortcut(reference, given.clone()), adapter.teacher(given.clone())
    assert torch.equal(output, expected)
    assert torch.equal(shortcut, output)
    row["adapter"] = "exact"
