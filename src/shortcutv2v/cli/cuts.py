"""`shortcutv2v cuts`: where a teacher can be cut, and what each cut would save."""

from __future__ import annotations

import argparse

import torch

from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.cli.setup import frame_size, open_adapter
from shortcutv2v.cuts import suggest_cuts
from shortcutv2v.errors import InputError
from shortcutv2v.graph import Suggestion, untouched
from shortcutv2v.model import placement

__all__ = ["run", "table"]

_NOTE = """
saves: share of the teacher's multiply-adds that a shortcut frame leaves out, the block's own already subtracted.
reach: how far around a place the skipped part looks; `+` means the whole frame, so try a larger --size.
Give the names to the adapter as enc_layer= and dec_layer=, then measure the time with: shortcutv2v profile --cuts 3"""


def run(options: argparse.Namespace) -> None:
    """Print one line per distinct cut for a frame of `--size`, the best first."""
    size = frame_size(options.size)
    if not isinstance(size, tuple):
        raise InputError(f"--size {options.size}: expected HEIGHTxWIDTH, such as 64x96: there is no clip with a ratio")
    if options.count < 1:
        raise InputError(f"--count {options.count}: expected a number of lines, at least 1")
    adapter = open_adapter(options)
    frame = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    check_adapter(adapter, frame)
    args, kwargs = adapter.example(frame.to(*placement(adapter.teacher)))
    with untouched(adapter.teacher):
        found = suggest_cuts(adapter.teacher, args, kwargs)
    if not found:
        raise InputError(
            "no two layers of this teacher give maps (B, C, H, W) of one size: tokens need layout=, see docs/capture.md"
        )
    print(table(found[: options.count]))
    if len(found) > options.count:
        print(f"... and {len(found) - options.count} more: --count {len(found)} shows all")
    outputs = dict.fromkeys(leak.partition("returned as ")[2] for cut in found for leak in cut.leaks)
    if names := ", ".join(name for name in outputs if name):
        print(
            f"Cuts leak because the teacher returns {names}. If you do not need that, put a module around the teacher "
            "whose forward() leaves it out, and list the cuts again: they will save more."
        )
    print(_NOTE)


def table(cuts: list[Suggestion]) -> str:
    """One line per cut under one line of headings."""
    rows = [("saves", "enc_layer", "dec_layer", "channels", "resolution", "reach", "remarks")]
    for cut in cuts:
        scale = f"1/{1 / cut.resolution:.3g}" if cut.resolution <= 1 else f"{cut.resolution:.3g}/1"
        reach = f"{cut.reach.pixels}{'+' if cut.reach.whole else ''} px" if cut.reach else "?"
        remarks = ["nearly a picture"] if cut.picture else []
        remarks += [f"leaks: {'; '.join(cut.leaks)}"] if cut.leaks else []
        channels = f"{cut.a_shape[1]} -> {cut.f_shape[1]}"
        rows.append((f"{cut.net:.1%}", cut.enc_layer, cut.dec_layer, channels, scale, reach, ", ".join(remarks)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
