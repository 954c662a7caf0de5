"""`shortcutv2v figures`: the paper's figures and its Table 5 for a block on a clip."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from shortcutv2v import show, video
from shortcutv2v.bar import say
from shortcutv2v.cli.setup import frame_range, frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure import METHODS, Pictures, Scores, compare, macs, redundancy
from shortcutv2v.translate import from_uint8

__all__ = ["run"]

_ROWS = 6
_MOST = 60
"""Frames that are run."""


def run(options: argparse.Namespace) -> None:
    """Write sampling positions, blending masks, error maps, performance-efficiency and redundancy into `--out`."""
    start, stop = frame_range(options.frames)
    with video.open(options.source, size=frame_size(options.size), start=start, stop=stop) as clip:
        adapter = open_adapter(options)
        model = load_model(options.block, adapter)
        frames = [frame for frame, _ in zip(clip, range(_MOST), strict=False)]
    seen = list(compare(model, adapter, frames, analyse=True))
    chosen = [pictures for pictures in seen if pictures.predictions][:_ROWS]
    if not chosen:
        raise InputError(f"{options.source}: no frame took the shortcut; give a longer clip or a longer interval")
    options.out.mkdir(parents=True, exist_ok=True)
    _pictures(chosen, seen, start, options.out)
    shared = redundancy(model, adapter, frames)
    (options.out / "redundancy.json").write_text(json.dumps([asdict(layer) for layer in shared], indent=1))
    args, kwargs = adapter.example(from_uint8(frames[0], adapter.teacher))
    count, scores = macs(model, *args, **kwargs), Scores([pictures.score for pictures in seen])
    costs = {"ours": count.shortcut, "reuse": count.head + count.tail}
    points = [(METHODS[m], m, cost / 1e9, scores.psnr(m)) for m, cost in costs.items()]
    show.efficiency(points, options.out / "efficiency.svg", "G multiply-adds of a shortcut frame", "PSNR, dB")
    say("\n".join(map(str, shared)))
    say(f"{options.out}: {', '.join(sorted(path.name for path in options.out.iterdir()))}")


def _pictures(chosen: list[Pictures], seen: list[Pictures], start: int, out: Path) -> None:
    """Draw the figures that show pictures; a block without masks has no figure 7."""
    labels = [f"frame {start + s.score.number}, distance {s.score.distance}" for s in chosen]
    far = max(chosen, key=lambda s: s.score.distance)
    reference = seen[far.score.number - far.score.distance]
    show.sampling_positions(reference.teacher, far.teacher, far.predictions[0], out / "sampling_positions.png")
    rows = zip(labels, chosen, strict=True)
    show.error_maps([(label, s.frame, s.teacher, s.ours, s.reuse) for label, s in rows], out / "error_maps.png")
    masked = [(label, s.teacher, s.predictions[0]) for label, s in zip(labels, chosen, strict=True)]
    try:
        show.blending_masks(masked, out / "blending_masks.png")
    except InputError as without:
        say(f"no figure of masks: {without}")
