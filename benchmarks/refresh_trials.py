"""Ways to refresh that were tried and not built: what each would give, on the clips of `refresh.py`.

    python benchmarks/refresh_trials.py --block folder

* blended: every frame is predicted from both references around it, and the two are blended per position by the inverse
  of each one's correction energy in its neighbourhood; the block runs twice. Beside it: the nearer reference alone.
* rolling: a frame's own prediction becomes the next frame's reference. Beside it: the true reference, growing older.
* signals: PSNR from the block's correction alone, and from five signals together (also the change of `a`, the motion,
  the change of `f` and the distance): straight lines fitted on the other clips, with the level of the clip itself.
  Beside each other: the standard deviation of what they leave.

Prints tables, writes `benchmarks/results/refresh/trials.md`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no installed package

from benchmarks.refresh import clips
from benchmarks.refresh_report import RESULTS

import shortcutv2v
from shortcutv2v import ShortcutV2V
from shortcutv2v.blocks import Prediction
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.summary import psnr
from shortcutv2v.types import Carry, Reference

GAPS, DISTANCES, WINDOW = (5, 7, 9, 11), (1, 2, 4, 6, 8), 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", type=Path, required=True, help="folder of a trained block")
    parser.add_argument("--frames", type=int, default=34, help="frames of each clip")
    options = parser.parse_args()
    adapter = find_adapter("real_esrgan", ["cut=low"])
    model = shortcutv2v.load(options.block, adapter.teacher).eval()
    found = {name: Clip(model, frames[: options.frames]) for name, frames in clips(options.frames)}
    report = "\n".join([*both_sides(found), *rolling(found), *signals(found)])
    (RESULTS / "trials.md").write_text(report + "\n")
    print(report)


class Clip:
    """The teacher's pass over a clip."""

    @torch.no_grad()
    def __init__(self, model: ShortcutV2V, frames: list[Tensor]) -> None:
        self.model, self.carries, self.references, self.pictures = model, [], [], []
        for frame in frames:
            carry = model.head(frame)
            f = model.middle(carry)
            self.carries.append(carry)
            self.references.append(model.make_reference(carry, f))
            self.pictures.append(model.tail(carry, f))

    def predict(self, reference: Reference, number: int) -> Prediction:
        """What the block makes of a frame."""
        (prediction,) = self.model.analyse(reference, self.carries[number])
        return prediction

    def quality(self, f_hat: Tensor, number: int) -> float:
        """PSNR in dB of the picture that is made of `f_hat`, to the teacher's."""
        return float(psnr(self.model.tail(self.carries[number], (f_hat,)), self.pictures[number])[0])


@torch.no_grad()
def both_sides(found: dict[str, Clip]) -> Iterator[str]:
    yield "Mean / worst PSNR in dB, references `gap` frames apart\n"
    yield "| clip | gap | nearer | blended |"
    yield "|---|---:|---:|---:|"
    for name, clip in found.items():
        for gap in GAPS:
            nearer, blended = [], []
            for t in range((len(clip.carries) - 1) // gap * gap):
                if t % gap == 0:
                    continue
                before, after = t // gap * gap, t // gap * gap + gap
                a, b = (clip.predict(clip.references[at], t) for at in (before, after))
                weight = energy(b) / (energy(a) + energy(b)).clamp_min(1e-12)
                nearer.append(clip.quality((a if t - before <= after - t else b).f_hat, t))
                blended.append(clip.quality(torch.lerp(b.f_hat, a.f_hat, weight), t))
            cells = (f"{fmean(values):.2f} / {min(values):.2f}" for values in (nearer, blended))
            yield f"| {name} | {gap} | {' | '.join(cells)} |"


def energy(prediction: Prediction) -> Tensor:
    """The correction's mean square in the neighbourhood of every position, (B, 1, H, W)."""
    square = (prediction.f_hat - prediction.f_star).square().mean(1, keepdim=True)
    return F.avg_pool2d(square, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)


@torch.no_grad()
def rolling(found: dict[str, Clip]) -> Iterator[str]:
    yield "\nMean PSNR in dB at a distance from the true reference: rolled / not rolled\n"
    yield f"| clip | {' | '.join(map(str, DISTANCES))} |"
    yield f"|---|{'---:|' * len(DISTANCES)}"
    for name, clip in found.items():
        values: dict[int, list[tuple[float, float]]] = {distance: [] for distance in DISTANCES}
        for start in range(0, len(clip.carries) - max(DISTANCES), 4):
            rolled = clip.references[start]
            for distance in range(1, max(DISTANCES) + 1):
                t = start + distance
                made = clip.predict(rolled, t).f_hat
                rolled = clip.model.make_reference(clip.carries[t], (made,))
                if distance in DISTANCES:
                    straight = clip.predict(clip.references[start], t).f_hat
                    values[distance].append((clip.quality(made, t), clip.quality(straight, t)))
        cells = (" / ".join(f"{fmean(column):.2f}" for column in zip(*pairs, strict=True)) for pairs in values.values())
        yield f"| {name} | {' | '.join(cells)} |"


@torch.no_grad()
def signals(found: dict[str, Clip]) -> Iterator[str]:
    tables = {name: torch.tensor(list(rows(clip)), dtype=torch.float64) for name, clip in found.items()}
    yield "\nStandard deviation in dB of the PSNR around a line that was fitted on the other clips\n"
    yield "| clip | correction alone | five signals |"
    yield "|---|---:|---:|"
    for name, table in tables.items():
        cells = []
        for count in (1, 5):
            centred = [other - other.mean(0) for key, other in tables.items() if key != name]
            fitted = torch.cat(centred)
            slopes = torch.linalg.lstsq(fitted[:, 1 : count + 1], fitted[:, :1]).solution
            cells.append(f"{float((table[:, :1] - table[:, 1 : count + 1] @ slopes).std()):.2f}")
        yield f"| {name} | {' | '.join(cells)} |"


def rows(clip: Clip) -> Iterator[tuple[float, ...]]:
    """PSNR, then the signals in dB, of frames at several distances from their reference."""
    for t in range(max(DISTANCES), len(clip.carries)):
        for distance in DISTANCES:
            reference = clip.references[t - distance]
            seen = clip.predict(reference, t)
            sizes = (
                seen.f_hat - seen.f_star,
                changed(reference.a, clip.carries[t]),
                seen.local_offset,
                seen.f_hat - reference.f[0],
            )
            decibels = (10 * math.log10(float(size.square().mean()) + 1e-9) for size in sizes)
            yield clip.quality(seen.f_hat, t), *decibels, 10 * math.log10(distance)


def changed(a_ref: tuple[Tensor, ...], carry: Carry) -> Tensor:
    return carry.a[0] - a_ref[0]


if __name__ == "__main__":
    main()
