"""Freed memory is kept, so that the next frame does not pay for new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource
import torch
from shortcutv2v.memory import keep_freed_memory

def faults():
    torch.ones(16_000_000)  # 64 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
assert keep_freed_memory()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is nothing to change without glibc")
def test_page_faults_vanish() -> None:
    run = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    before, after = map(int, run.stdout.split())
    assert after < before / 5
