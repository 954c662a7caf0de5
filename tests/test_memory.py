"""Freed memory is kept, so that the next frame does not pay for new pages."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import shortcutv2v

CODE = """
import resource
import torch
import shortcutv2v
from shortcutv2v.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = [faults() for _ in range(10)]
teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 1) for _ in range(3)))
{how}
# How many frames the heap takes to settle depends on what else lives in it: mostly one or two, four have been seen.
after = [faults() for _ in range(30)]
print(min(before), min(after))
"""


WAYS = {
    "the function": "assert keep_freed_memory()",
    "wrap": "shortcutv2v.wrap(teacher, '0', '1', keep_memory=True)",
    "load": "shortcutv2v.load('{folder}', teacher, keep_memory=True)",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is nothing to change without glibc")
def test_page_faults_vanish(way: str, tmp_path: Path) -> None:
    saved = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 1) for _ in range(3)))
    shortcutv2v.wrap(saved, "0", "1", example_inputs=torch.rand(1, 3, 8, 8)).save(tmp_path)
    torch.save(saved.state_dict(), tmp_path / "teacher.pt")
    weights = f"teacher.load_state_dict(torch.load({str(tmp_path / 'teacher.pt')!r}))\n"
    code = CODE.replace("{how}", weights + WAYS[way].format(folder=tmp_path))
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    before, after = map(int, run.stdout.split())
    assert after < before / 5
