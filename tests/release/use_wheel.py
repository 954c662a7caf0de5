"""Use the installed package as a user would, in the current folder, which is empty and outside the checkout.

`nox -s build` runs it with the Python of a fresh environment that holds the wheel with its extras and nothing else.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("shortcutv2v")
VERBS = ("train", "translate", "measure", "report", "inspect", "profile", "figures", "export", "demo")
SMALL = ["random=True", "ngf=4"]
BUNDLED = {
    "real_esrgan": [],
    "unsup": SMALL,
    "vid2vid": SMALL,
    "vtoonify": ["random=True", "in_size=64", "out_size=128"],
}
"""Adapter -> settings with which it needs no checkpoint."""
WITH_FILES = {"demosaicnet", "spandrel"}
"""Adapters that always need a file, and are only imported."""


def main() -> None:
    """Run every step; the first that fails ends the run with its message."""
    check_import()
    shortcutv2v("--help")
    for verb in VERBS:
        shortcutv2v(verb, "--help")
    make_clip("clip.mp4")
    clip = ["clip.mp4", "--adapter", "real_esrgan", "--size", "48"]
    tiny = ["--steps", "2", "--crop", "32", "--batch-size", "2", "--validation", "null"]
    shortcutv2v("train", *clip, "--out", "block", *tiny)
    shortcutv2v("translate", "clip.mp4", "out.mp4", *clip[1:], "--block", "block")
    shortcutv2v("measure", *clip, "--block", "block", "--json", "scores.json")
    shortcutv2v("report", *clip, "--block", "block", "--out", "report.html")
    assert json.loads(Path("scores.json").read_text())["runs"]
    assert Path("out.mp4").stat().st_size
    assert "</html>" in Path("report.html").read_text()
    print("the wheel works")


def shortcutv2v(*arguments: str) -> None:
    """Run one command line."""
    print("shortcutv2v", *arguments, flush=True)
    subprocess.run([str(COMMAND), *arguments], check=True, stdout=subprocess.DEVNULL)


def check_import() -> None:
    """Import from the environment, not from a checkout, and build each bundled adapter."""
    import shortcutv2v
    from shortcutv2v.cli.adapters import bundled_examples, find_adapter

    assert Path(sys.prefix) in Path(shortcutv2v.__file__).parents, shortcutv2v.__file__
    assert set(bundled_examples()) == set(BUNDLED) | WITH_FILES
    for name in sorted(WITH_FILES):
        assert importlib.import_module(f"shortcutv2v.examples.{name}.adapter").build_adapter
    for name, settings in BUNDLED.items():
        print("adapter", name, type(find_adapter(name, settings)).__name__, flush=True)


def make_clip(path: str) -> None:
    """Write a clip of eight frames, in which a bright square moves."""
    import torch

    from shortcutv2v import video

    with video.create(path, rate=25) as out:
        for number in range(8):
            frame = torch.full((3, 48, 64), 60, dtype=torch.uint8)
            frame[:, 10:30, 4 * number : 4 * number + 20] = 220
            out.write(frame)


if __name__ == "__main__":
    main()
