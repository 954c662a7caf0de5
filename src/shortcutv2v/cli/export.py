"""`shortcutv2v export`: a trained block and its teacher as programs for an engine outside of Python."""

from __future__ import annotations

import argparse

import torch

from shortcutv2v.cli.setup import frame_size, load_model, open_adapter
from shortcutv2v.deploy import export
from shortcutv2v.errors import InputError

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Export for frames of `--size`, and print what was written."""
    size = frame_size(options.size)
    if not isinstance(size, tuple):
        raise InputError(f"--size {options.size}: expected HEIGHTxWIDTH, such as 256x512: programs have a size")
    options.device = "cpu"
    adapter = open_adapter(options)
    frame = torch.rand(1, 3, *size) / 255  # nearly black: a map read from it has labels 0 and 1 only
    model = load_model(options.block, adapter, options.interval)
    chosen = {name: getattr(options, name) for name in ("format", "pixels", "dynamic")}
    for path in sorted(export(model, frame, options.out, adapter=adapter, **chosen).iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB" if path.is_file() else path)
