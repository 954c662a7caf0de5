"""`shortcutv2v profile`: what each part of a wrapped teacher costs on this machine, and whether skipping pays."""

from __future__ import annotations

import argparse

import torch

from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.cli.setup import frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure import profile
from shortcutv2v.model import placement

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Print one table for a frame of `--size`. Its content does not matter, as long as the teacher accepts it."""
    size = frame_size(options.size)
    if not isinstance(size, tuple):
        raise InputError(
            f"--size {options.size}: expected HEIGHTxWIDTH, such as 256x512: there is no clip to take the ratio from"
        )
    adapter = open_adapter(options)
    frame = torch.rand(1, 3, *size) / 255  # nearly black: a map read from it has labels 0 and 1 only
    frame = frame.to(*placement(adapter.teacher))
    if options.block:
        check_adapter(adapter, frame)
        model = load_model(options.block, adapter)
    else:
        model = adapter.wrap(frame)
    args, kwargs = adapter.example(frame)
    print(profile(model, args, kwargs, cuts=options.cuts))
