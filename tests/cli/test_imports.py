"""Help and refusals answer at once: they import nothing that takes long."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["translate", "--help"],
        ["translate", "no.mp4", "out.mp4", "--adapter", "gone.py"],
        ["measure", "no.mp4", "--adapter", "gone.py", "--block", "none"],
        ["profile", "--adapter", "gone.py"],
        ["inspect", "--adapter", "gone.py"],
        ["demo", "--minutes", "-1"],
        ["train", "no.mp4", "--adapter", "gone.py", "--out", "block"],
        ["train", "--help"],
        ["train", ".", "--adapter", "gone.py", "--out", "block", "--batch-size", "0"],
    ],
    ids=" ".join,
)
def test_no_heavy_import(argv: list[str]) -> None:
    code = (
        "import sys, torch\n"
        "theirs = set(sys.modules)\n"
        "from shortcutv2v.cli import main\n"
        "try:\n"
        f"    code = main({argv!r})\n"
        "except SystemExit as ended:\n"
        "    code = ended.code\n"
        f"assert code == {0 if '--help' in argv else 2}, code\n"
        "heavy = {'torchvision', 'sympy', 'torch._dynamo', 'pytorch_lightning', 'kornia', 'lpips'}\n"
        f"heavy |= {set() if argv[0] == 'train' else {'jsonargparse'}!r}\n"
        "assert not heavy & (set(sys.modules) - theirs), heavy & (set(sys.modules) - theirs)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
