"""Ways to refresh that were tried: what each would give, on the clips of `refresh.py`.

    python benchmarks/refresh_trials.py --block folder

* from both: every frame is predicted from the references before and after it, and the two are mixed, as `BothSides`
  does. Beside it: the nearer reference alone.
* rolling: a frame's own prediction becomes the next frame's reference. Beside it: the true reference, growing older.
* signals: PSNR from the block's correction alone, and from five signals together (also the change of `a`, the motion,
  the change of `f` and the distance): straight lines fitted on the other clips, with the level of the clip itself.
  Beside each other: the standard deviation of what they leave.
* head: a small network that reads five signals in cells of 8x8 pixels and predicts the error of every cell, trained on
  the clip that the block was trained on. Beside it: the line that streams use.

Prints tables, writes `benchmarks/results/refresh/trials.md`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no installed package

from benchmarks.refresh import bunny, clips
from benchmarks.refresh_report import RESULTS

import shortcutv2v
from shortcutv2v import ShortcutV2V
from shortcutv2v.blocks import Prediction
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.quality import Calibration
from shortcutv2v.summary import psnr
from shortcutv2v.translate import from_uint8
from shortcutv2v.types import Reference

GAPS, DISTANCES, CELL, EPOCHS = (5, 7, 9, 11), (1, 2, 4, 6, 8), 8, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", type=Path, required=True, help="folder of a trained block")
    parser.add_argument("--frames", type=int, default=34, help="frames of each clip")
    options = parser.parse_args()
    adapter = find_adapter("real_esrgan", ["cut=last"])
    model = shortcutv2v.load(options.block, adapter.teacher).eval()
    found: dict[str, dict[str, Any]] = {}
    known = bunny()
    for name, frames in [
        ("trained on", [from_uint8(known[i]) for i in range(options.frames)]),
        *clips(options.frames),
    ]:
        clip = Clip(model, frames[: options.frames])  # one at a time: the features of a clip take gigabytes
        found[name] = {"seen": list(seen(clip))}
        if name != "trained on":
            found[name] |= {"both": list(both_sides(clip)), "rolling": rolling(clip)}
        print(name, flush=True)
    report = "\n".join([*tables(found), *signals(found), *head(found)])
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
def both_sides(clip: Clip) -> Iterator[list[str]]:
    """For every gap, mean and worst PSNR from the nearer reference and from both."""
    for gap in GAPS:
        nearer, both = [], []
        for t in range((len(clip.carries) - 1) // gap * gap):
            if t % gap:
                before, after = t // gap * gap, t // gap * gap + gap
                a, b = (clip.predict(clip.references[at], t) for at in (before, after))
                nearer.append(clip.quality((a if t - before <= after - t else b).f_hat, t))
                (mixed,) = clip.model.analyse(clip.references[before], clip.carries[t], clip.references[after])
                both.append(clip.quality(mixed.f_hat, t))
        yield [str(gap), *(f"{fmean(values):.2f} / {min(values):.2f}" for values in (nearer, both))]


@torch.no_grad()
def rolling(clip: Clip) -> list[str]:
    """For every distance, mean PSNR with and without rolling."""
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
    return [" / ".join(f"{fmean(column):.2f}" for column in zip(*pairs, strict=True)) for pairs in values.values()]


@torch.no_grad()
def seen(clip: Clip) -> Iterator[tuple[list[float], Tensor, Tensor]]:
    """For frames at several distances from their reference: PSNR and signals in dB; signals by cell; error by cell."""
    for t in range(len(clip.carries)):
        for distance in (*DISTANCES, *(-d for d in DISTANCES)):
            if not 0 <= t - distance < len(clip.carries):
                continue
            reference, a = clip.references[t - distance], clip.carries[t].a[0]
            made = clip.predict(reference, t)
            changes = made.f_hat - made.f_star, a - reference.a[0], made.f_hat - reference.f[0]
            maps = [*map(cells, changes), cells(made.local_offset, CELL // 2), cells(a - F.avg_pool2d(a, 3, 1, 1))]
            sizes = [
                float(change.square().mean()) for change in (changes[0], changes[1], made.local_offset, changes[2])
            ]
            decibels = [10 * math.log10(size + 1e-9) for size in sizes]
            numbers = [clip.quality(made.f_hat, t), *decibels, 10 * math.log10(abs(distance))]
            yield numbers, torch.stack(maps), cells(made.f_hat - clip.references[t].f[0])


def cells(x: Tensor, size: int = CELL) -> Tensor:
    """Mean square in cells, as its logarithm."""
    square = x.float().square().mean(1, keepdim=True)
    return F.avg_pool2d(square, size, ceil_mode=True)[0, 0].clamp_min(1e-8).log10()


def tables(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    new = {name: about for name, about in found.items() if "both" in about}
    yield "Mean / worst PSNR in dB, references `gap` frames apart\n"
    yield "| clip | gap | nearer | from both |\n|---|---:|---:|---:|"
    yield from (f"| {name} | {' | '.join(cells)} |" for name, about in new.items() for cells in about["both"])
    yield "\nMean PSNR in dB at a distance from the true reference: rolled / not rolled\n"
    yield f"| clip | {' | '.join(map(str, DISTANCES))} |\n|---|{'---:|' * len(DISTANCES)}"
    yield from (f"| {name} | {' | '.join(about['rolling'])} |" for name, about in new.items())


def signals(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    numbers = {name: torch.tensor([row for row, _, _ in about["seen"]]) for name, about in found.items()}
    numbers = {name: table for name, table in numbers.items() if "both" in found[name]}
    yield "\nStandard deviation in dB of the PSNR around a line that was fitted on the other clips\n"
    yield "| clip | correction alone | five signals |\n|---|---:|---:|"
    for name, table in numbers.items():
        left = []
        for count in (1, 5):
            fitted = torch.cat([other - other.mean(0) for key, other in numbers.items() if key != name])
            slopes = torch.linalg.lstsq(fitted[:, 1 : count + 1], fitted[:, :1]).solution
            left.append(f"{float((table[:, :1] - table[:, 1 : count + 1] @ slopes).std()):.2f}")
        yield f"| {name} | {' | '.join(left)} |"


def head(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    maps, errors = (torch.stack([row[place] for row in found["trained on"]["seen"]]) for place in (1, 2))
    mean, spread = maps.mean((0, 2, 3), keepdim=True), maps.std((0, 2, 3), keepdim=True)
    nets = [trained((maps - mean) / spread, errors, seed) for seed in range(3)]
    count = sum(parameter.numel() for parameter in nets[0].parameters())
    yield f"\nA head of {count} weights, three trainings: mean and standard deviation of PSNR minus estimate, dB\n"
    yield "| clip | line | head 1 | head 2 | head 3 |\n|---|---:|---:|---:|---:|"
    level = None
    for name, about in found.items():
        numbers = torch.tensor([row for row, _, _ in about["seen"]])
        left = numbers[:, 0] - Calibration().slope * numbers[:, 1]
        level = left.mean() if level is None else level  # of the first, the clip that all were trained on
        inputs = (torch.stack([row for _, row, _ in about["seen"]]) - mean) / spread
        with torch.no_grad():
            off = [left - level, *(numbers[:, 0] - expected(net(inputs)) for net in nets)]
        yield f"| {name} | {' | '.join(f'{float(x.mean()):+.2f}, {float(x.std()):.2f}' for x in off)} |"


def trained(inputs: Tensor, errors: Tensor, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = (
        nn.Conv2d(inputs.shape[1], 16, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 1, 1),
    )
    net, steps = nn.Sequential(*layers), EPOCHS * len(inputs) // 64
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(0, len(inputs), (64,))
        made = net(inputs[chosen])
        frame = expected(made) - expected(errors[chosen, None])
        loss = (made[:, 0] - errors[chosen]).abs().mean() + 0.1 * frame.abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net


def expected(made: Tensor) -> Tensor:
    """PSNR in dB of pictures whose errors by cell are these."""
    return -10 * (10**made).mean((1, 2, 3)).log10()


if __name__ == "__main__":
    main()
