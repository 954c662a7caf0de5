"""`shortcutv2v auto` and `shortcutv2v tune`: search cut, block and width on the films at hand."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from shortcutv2v.cli.setup import frame_range, frame_size, open_adapter
from shortcutv2v.cli.translate import stoppable
from shortcutv2v.errors import VideoError

__all__ = ["run", "tune"]

_ON = "stopped; the same command goes on where this one was"


def run(options: argparse.Namespace) -> None:
    """Search, translate the film, measure and report."""
    if not options.source.exists():
        raise VideoError(f"{options.source}: no such file or folder; check the spelling")
    names = ("quality", "speed", "minutes", "block", "folder", "plan", "crf", "report")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    start, stop = frame_range(options.frames)
    size, adapter = frame_size(options.size), open_adapter(options)
    # Not `from`: training takes seconds to import.
    search = importlib.import_module("shortcutv2v.search")
    with stoppable(lambda: _ON):
        audio = not options.no_audio
        search.auto(adapter, options.source, options.target, size=size, start=start, stop=stop, audio=audio, **given)


def tune(options: argparse.Namespace) -> None:
    """Search over several clips; print and draw what every choice is worth."""
    for clip in options.clips:
        if not clip.exists():
            raise VideoError(f"{clip}: no such file or folder; check the spelling")
    given: dict[str, Any] = {name: getattr(options, name) for name in ("quality", "speed", "minutes", "folder")}
    size, adapter = frame_size(options.size), open_adapter(options)
    search = importlib.import_module("shortcutv2v.search")
    with stoppable(lambda: _ON):
        search.tune(adapter, options.clips, size=size, **given)
