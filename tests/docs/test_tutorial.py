"""The tutorial: its own files fit together, and the whole of it runs from top to bottom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from page_blocks import COMMANDS, blocks

from shortcutv2v.cli.adapters import find_adapter

PAGE = "docs/tutorial.md"


def _write_files(folder: Path) -> None:
    for block in blocks(PAGE):
        if block.file:
            (folder / block.file).write_text(block.code)


def test_the_adapter_cuts_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "generator", raising=False)
    _write_files(tmp_path)
    from generator import ResNetGenerator

    torch.save(ResNetGenerator().state_dict(), "generator.pth")
    frame = torch.rand(1, 3, 16, 16)
    for settings in ([], ["enc_layer=down1", "dec_layer=up1"], ["enc_layer=down2", "dec_layer=blocks"]):
        adapter = find_adapter("adapter.py", settings)
        assert not adapter.teacher.training
        adapter.wrap(frame)


@pytest.mark.slow
def test_the_tutorial_from_top_to_bottom(tmp_path: Path) -> None:
    _write_files(tmp_path)
    programs = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    for block in blocks(PAGE):
        if block.language in COMMANDS and block.mark != "install":
            subprocess.run(["bash", "-euc", block.code], cwd=tmp_path, env={**os.environ, **programs}, check=True)
    assert "</html>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "out.mp4").stat().st_size
