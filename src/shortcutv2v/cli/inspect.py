"""`shortcutv2v inspect`: the teacher as a chain of stages, where it can be cut, and the cut to begin with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.cli.measure import check_target
from shortcutv2v.cli.setup import frame_range, frame_size, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.graph import Suggestion
from shortcutv2v.measure import Inspection, inspect
from shortcutv2v.measure.stages import stage_rows
from shortcutv2v.show.page import save
from shortcutv2v.translate import from_uint8

__all__ = ["run"]

_MOST = 240
"""Frames of a clip that are read."""
_NOTE = """
saves: share of the teacher's multiply-adds that a shortcut frame leaves out, the block's own already subtracted.
reach: how far around a place the skipped part looks; `+` means the whole frame, so try a larger --size.
Give the names to the adapter as enc_layer= and dec_layer=, then measure the time with: shortcutv2v profile --cuts 3"""


def run(options: argparse.Namespace) -> None:
    """Print stages, cuts and a recommendation, on a clip or for a frame of `--size`."""
    if options.count < 1:
        raise InputError(f"--count {options.count}: expected a number of lines, at least 1")
    check_target(options.json)
    frames = _frames(options)
    adapter = open_adapter(options)
    check_adapter(adapter, from_uint8(frames[0], adapter.teacher))
    found = inspect(adapter, frames)
    if options.json:
        save(json.dumps(found.to_dict(), indent=1), options.json)
    print(*lines(found, options.count), _NOTE, sep="\n")


def _frames(options: argparse.Namespace) -> list[Tensor]:
    """Return some of the clip's frames, or one random frame of `--size`."""
    if options.source is None:
        size = frame_size(options.size or "64x96")
        if not isinstance(size, tuple):
            raise InputError(
                f"--size {options.size}: expected HEIGHTxWIDTH, such as 64x96: there is no clip with a ratio"
            )
        # nearly black: a map read from it has labels 0 and 1 only
        return [torch.randint(0, 2, (3, *size), generator=torch.Generator().manual_seed(0)).byte()]
    start, stop = frame_range(options.frames)
    with video.open(options.source, size=frame_size(options.size), start=start, stop=stop) as clip:
        return [frame for frame, _ in zip(clip, range(_MOST), strict=False)]


def lines(found: Inspection, count: int) -> list[str]:
    """Return the tables of stages and cuts, and the recommendation."""
    listed = cut_table(found.suggestions[:count])
    if len(found.suggestions) > count:
        listed.append(f"... and {len(found.suggestions) - count} more: --count {len(found.suggestions)} shows all")
    outputs = dict.fromkeys(leak.partition("returned as ")[2] for cut in found.suggestions for leak in cut.leaks)
    if names := ", ".join(name for name in outputs if name):
        listed.append(
            f"Cuts leak because the teacher returns {names}. If you do not need that, put a module around the teacher "
            "whose forward() leaves it out, and list the cuts again: they will save more."
        )
    if any(cut.reuse is not None for cut in found.tried):
        listed += ["", "on the clip, without any training:", *table(found.tried_rows())]
    return [*table(stage_rows(found.stages)), "", *listed, "", found.recommendation()]


def cut_table(cuts: tuple[Suggestion, ...]) -> list[str]:
    """One line per cut."""
    rows = [("saves", "enc_layer", "dec_layer", "channels", "resolution", "reach", "remarks")]
    for cut in cuts:
        scale = f"1/{1 / cut.resolution:.3g}" if cut.resolution <= 1 else f"{cut.resolution:.3g}/1"
        reach = f"{cut.reach.pixels}{'+' if cut.reach.whole else ''} px" if cut.reach else "?"
        remarks = [cut.remark] if cut.remark else []
        remarks += [f"leaks: {'; '.join(cut.leaks)}"] if cut.leaks else []
        channels = f"{cut.a_shape[1]} -> {cut.f_shape[1]}"
        rows.append((f"{cut.net:.1%}", cut.enc_layer, cut.dec_layer, channels, scale, reach, ", ".join(remarks)))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row under the headings in the first, in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
