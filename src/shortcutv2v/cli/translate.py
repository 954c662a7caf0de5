"""`shortcutv2v translate`: video in, video out."""

from __future__ import annotations

import argparse

from shortcutv2v import video
from shortcutv2v.cli.setup import frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.translate import Translator

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Translate one clip; the target appears under its name only when it is complete."""
    if options.interval is not None and options.block is None:
        raise InputError("--interval needs --block: without a block the teacher does every frame")
    size = frame_size(options.size)
    with video.open(options.source, size=size):
        pass  # a bad clip is told before the network is loaded
    adapter = open_adapter(options)
    model = load_model(options.block, adapter, options.interval) if options.block else None
    count = video.convert(options.source, options.target, Translator(adapter, model), size=size, crf=options.crf)
    print(f"{options.target}: {count} frames")
