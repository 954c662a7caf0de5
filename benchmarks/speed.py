"""Time against multiply-adds, side by side in one run: teachers, blocks and operators.

    python benchmarks/speed.py                       # everything, minutes
    python benchmarks/speed.py --only operators unsup --seconds 20
    python benchmarks/speed.py --compile             # teacher and shortcut frame compiled too

Writes `<name>.json`, `<name>.md` and `<name>.png` to benchmarks/results/. All callables of a case run in turn, round
after round, so only ratios within one case mean anything; the tables quote the fastest run of each, which other work
on the machine disturbs least, and the JSON has the medians and the spread. The teacher gets whatever the shortcut frame
gets: the same precision, threads and, with --compile, the same compiler. Weights are random: time does not depend on
them. "published" is the published block on torchvision's kernels, nothing folded or fused.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks and examples are no installed packages

from examples.real_esrgan import teacher as real_esrgan  # noqa: E402
from examples.real_esrgan.adapter import RealESRGANAdapter  # noqa: E402
from examples.unsup import teacher as unsup  # noqa: E402
from examples.vid2vid import teacher as vid2vid  # noqa: E402

import shortcutv2v  # noqa: E402
from shortcutv2v import ops  # noqa: E402
from shortcutv2v.blocks import ShortcutBlock  # noqa: E402
from shortcutv2v.measure import cost, latency  # noqa: E402
from shortcutv2v.model import ShortcutV2V  # noqa: E402

Work = Callable[[], Any]


@dataclass(frozen=True)
class Line:
    """One measured callable: what it is, its multiply-adds (None: not counted), and its time in seconds."""

    case: str
    name: str
    macs: int | None
    best: float
    median: float
    spread: float
    baseline: float
    """Best time of the case's baseline: the ratio is baseline / best."""


@dataclass(frozen=True)
class Case:
    """A teacher to measure, with its cuts by level and its inputs."""

    teacher: nn.Module
    cuts: dict[str, tuple[Any, str]]
    inputs: tuple[Tensor, ...]


def unsup_case() -> Case:
    cuts = {level: unsup.published_cut(6, level) for level in ("medium", "low", "high")}
    return Case(unsup.build_teacher({}), cuts, (torch.rand(1, 3, 256, 512) * 2 - 1,))


def vid2vid_case() -> Case:
    """The E2F shape at a quarter of its width, without the flow branch.

    The full net takes 1.3 T multiply-adds without that branch, a good part of a minute on two cores; the paper leaves
    the branch out of its shortcut frames, and here the teacher does without it too.
    """
    config = {"input_nc": 45, "prev_output_nc": 6, "ngf": 32, "n_downsampling": 3, "n_blocks": 9, "no_flow": True}
    cuts = {level: vid2vid.published_cut(3, level) for level in ("medium",)}
    return Case(vid2vid.build_teacher(config), cuts, (torch.rand(1, 45, 512, 512), torch.rand(1, 6, 512, 512)))


def real_esrgan_case() -> Case:
    teacher = real_esrgan.build_teacher({"arch": "compact", "scale": 2}).eval()
    return Case(teacher, RealESRGANAdapter(teacher).cuts, (torch.rand(1, 3, 180, 320),))


CASES: dict[str, Callable[[], Case]] = {
    "unsup": unsup_case,
    "vid2vid": vid2vid_case,
    "real_esrgan": real_esrgan_case,
}

INTERVALS = {"unsup": 3, "vid2vid": 6, "real_esrgan": 3}
"""Frames from one refresh to the next: the paper's, and 3 where it has none."""


@contextmanager
def published(model: ShortcutV2V) -> Iterator[None]:
    """The block as published: nothing folded, torchvision's kernels."""
    model.blocks.train()
    try:
        with ops.use("reference"):
            yield
    finally:
        model.blocks.eval()


def measure_case(name: str, case: Case, seconds: float, compiled: bool) -> list[Line]:
    work: dict[str, Work] = {"teacher frame": lambda: case.teacher(*case.inputs)}
    models: dict[str, ShortcutV2V] = {}
    for level, (enc, dec) in case.cuts.items():
        first = shortcutv2v.wrap(case.teacher, enc, dec, example_inputs=case.inputs, variant="paper")
        models[f"{level}, paper"] = first
        if level == "medium":
            (block,) = first.blocks
            for variant in ("delta", "flow"):
                models[f"{level}, {variant}"] = sibling(first, block.channels, variant)
            for part in (2, 4):
                models[f"{level}, paper, width 1/{part}"] = sibling(first, block.channels // part, "paper")
    for key, model in models.items():
        model.blocks.eval()
        work |= frames(key, model, case)
    medium = models["medium, paper"]
    work["medium, published: shortcut frame"] = as_published(medium, case)
    work |= parts(medium, case)
    if compiled:
        work["teacher frame, compiled"] = torch.compile(case.teacher)
        work["teacher frame, compiled"] = bind(work["teacher frame, compiled"], case.inputs)
        work["medium, paper: shortcut frame, compiled"] = compiled_shortcut(medium, case)
    return lines(name, work, "teacher frame", seconds)


def sibling(model: ShortcutV2V, channels: int, variant: str) -> ShortcutV2V:
    """The same captured teacher with another block."""
    (block,) = model.blocks
    other = ShortcutBlock(block.a_channels, block.f_channels, channels, variant=variant)
    return ShortcutV2V(model.capture, [other], model.refresh)


def bind(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Work:
    return lambda: function(*inputs)


@torch.no_grad()
def frames(key: str, model: ShortcutV2V, case: Case) -> dict[str, Work]:
    _, reference = model.reference(*case.inputs)
    return {
        f"{key}: shortcut frame": lambda: model.shortcut(reference, *case.inputs),
        f"{key}: reference frame": lambda: model.reference(*case.inputs),
    }


@torch.no_grad()
def as_published(model: ShortcutV2V, case: Case) -> Work:
    with published(model):
        _, reference = model.reference(*case.inputs)

    def run() -> None:
        with published(model):
            model.shortcut(reference, *case.inputs)

    return run


@torch.no_grad()
def parts(model: ShortcutV2V, case: Case) -> dict[str, Work]:
    _, reference = model.reference(*case.inputs)
    carry = model.head(*case.inputs)
    f = model.middle(carry)
    return {
        "medium: head": lambda: model.head(*case.inputs),
        "medium, paper: block": lambda: model.predict(reference, carry),
        "medium: tail": lambda: model.tail(carry, f),
    }


@torch.no_grad()
def compiled_shortcut(model: ShortcutV2V, case: Case) -> Work:
    _, reference = model.reference(*case.inputs)
    run = torch.compile(model.shortcut)
    return lambda: run(reference, *case.inputs)


def measure_operators(seconds: float) -> list[Line]:
    """64 channels, 128x256: what Unsup's medium cut needs."""
    f, a = torch.randn(2, 1, 64, 128, 256)
    offset, mask, weight = torch.randn(1, 18, 128, 256), torch.rand(1, 9, 128, 256), torch.randn(64, 64, 3, 3)
    last = [x.contiguous(memory_format=torch.channels_last) for x in (f, a)]
    half = [x.bfloat16() for x in last]
    columns, matrix = torch.randn(128 * 256, 576), torch.randn(576, 64)
    work: dict[str, Work] = {
        "two deform_conv2d": lambda: ops.adabd(f, a, offset, mask, weight, implementation="reference"),
        "rows": lambda: ops.adabd(f, a, offset, mask, weight, implementation="rows"),
        "rows, channels_last": lambda: ops.adabd(*last, offset, mask, weight, implementation="rows"),
        "rows, channels_last, bfloat16": lambda: ops.adabd(*half, offset, mask, weight.bfloat16()),
        "plain": lambda: ops.adabd(f, a, offset, mask, weight, implementation="plain"),
        "the matrix product alone": lambda: columns @ matrix,
    }
    found = lines("AdaBD", work, "two deform_conv2d", seconds)
    moved = offset[:, :2].contiguous()
    warps: dict[str, Work] = {
        name: lambda name=name: ops.warp(last[0], moved, implementation=name)  # type: ignore[misc]
        for name in ("reference", "rows", "plain")
    }
    return found + lines("warp, channels_last", warps, "reference", seconds / 2)


def measure_steps(seconds: float) -> list[Line]:
    """A distillation step of the published block on Unsup: two pairs of 128x128 crops, forward and backward."""
    from shortcutv2v.distill import Distiller

    teacher, (enc, dec) = unsup.build_teacher({}), unsup.published_cut(6, "medium")
    pairs = torch.rand(2, 2, 3, 128, 128)
    model = shortcutv2v.wrap(teacher, enc, dec, example_inputs=(pairs[:, 0],), variant="paper")
    distiller = Distiller(model)

    def step(implementation: str) -> Work:
        def run() -> None:
            with torch.enable_grad(), ops.use(implementation):
                sum(distiller.losses(distiller.step(pairs)).values()).backward()  # type: ignore[union-attr]

        return run

    work = {"step on deform_conv2d": step("reference"), "step on rows": step("rows")}
    work["teacher, both frames"] = lambda: teacher(pairs.flatten(0, 1))
    return lines("distillation step", work, "step on deform_conv2d", seconds)


def lines(case: str, work: dict[str, Work], baseline: str, seconds: float) -> list[Line]:
    print(f"{case}: {len(work)} callables ...", flush=True)
    times = latency(work, warmup=2, runs=30, seconds=seconds)
    counted = {name: cost(call).macs for name, call in work.items() if "compiled" not in name}
    return [
        Line(case, name, counted.get(name), t.best, t.median, t.spread, times[baseline].best)
        for name, t in times.items()
    ]


def amortised(found: list[Line], case: str, interval: int) -> list[str]:
    """Rows of the video table: one reference frame and interval - 1 shortcut frames."""
    by_name = {line.name: line for line in found if line.case == case}
    teacher, rows = by_name["teacher frame"], []
    for name, line in by_name.items():
        if not name.endswith(": shortcut frame") or "published" in name:
            continue
        full = by_name[name.replace("shortcut frame", "reference frame")]
        mean = (full.best + (interval - 1) * line.best) / interval
        macs = ((full.macs or 0) + (interval - 1) * (line.macs or 0)) / interval
        gain, bound = teacher.best / mean, (teacher.macs or 0) / macs
        rows.append(f"| {case} | {name.split(':')[0]} | {interval} | {mean * 1e3:.0f} | {gain:.2f} | {bound:.2f} |")
    return rows


def table(found: list[Line], about: dict[str, str]) -> str:
    text = ["# Speed", "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    text += ["Made by `python benchmarks/speed.py`. Ratios hold within one case only.", ""]
    text += ["| case | what | G multiply-adds | ms | spread | times as fast |", "|---|---|---|---|---|---|"]
    for line in found:
        macs = "" if line.macs is None else f"{line.macs / 1e9:.2f}"
        ratio = f"{line.baseline / line.best:.2f}"
        text.append(f"| {line.case} | {line.name} | {macs} | {line.best * 1e3:.1f} | {line.spread:.0%} | {ratio} |")
    rows = [row for name in CASES for row in _video(found, name)]
    if rows:
        text += ["", "A video: the mean frame, and what the multiply-adds allow.", ""]
        text += [
            "| case | block | interval | ms per frame | times as fast | bound |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    return "\n".join(text) + "\n"


def _video(found: list[Line], name: str) -> list[str]:
    return amortised(found, name, INTERVALS[name]) if any(line.case == name for line in found) else []


def plot(found: list[Line], path: Path) -> None:
    """Time against multiply-adds, both relative to the teacher: on the diagonal time follows the multiply-adds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 6))
    for case in CASES:
        teacher = next((x for x in found if x.case == case and x.name == "teacher frame"), None)
        points = [x for x in found if x.case == case and x.name.endswith("shortcut frame") and x.macs]
        if teacher is None or not teacher.macs:
            continue
        axes.scatter(
            [(x.macs or 0) / teacher.macs for x in points], [x.best / teacher.best for x in points], label=case
        )
        for x in points:
            label = x.name.removesuffix(": shortcut frame")
            axes.annotate(label, ((x.macs or 0) / teacher.macs, x.best / teacher.best), fontsize=6)
    axes.axline((0.01, 0.01), (1, 1), color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds, teacher = 1", ylabel="time, teacher = 1")
    axes.set_title("Shortcut frames: time against multiply-adds")
    axes.legend()
    figure.savefig(path, dpi=150)


def about_machine() -> dict[str, str]:
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False)
    model = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    return {
        "device": f"CPU, {model}, {torch.get_num_threads()} thread(s), {torch.backends.cpu.get_cpu_capability()}",
        "precision": "float32, batch 1",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "commit": commit.stdout.strip() + (" with local changes" if dirty.stdout.strip() else ""),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["operators", "step", *CASES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=60.0, help="timing per case (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--name", default="speed", help="of the result files (default: %(default)s)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    found: list[Line] = []
    if "operators" in options.only:
        found += measure_operators(options.seconds)
    if "step" in options.only:
        found += measure_steps(options.seconds)
    for name, make in CASES.items():
        if name in options.only:
            found += measure_case(name, make(), options.seconds, options.compile)
    options.out.mkdir(parents=True, exist_ok=True)
    about = about_machine()
    saved = {"about": about, "lines": [asdict(line) for line in found]}
    (options.out / f"{options.name}.json").write_text(json.dumps(saved, indent=1) + "\n")
    (options.out / f"{options.name}.md").write_text(table(found, about))
    if any(line.case in CASES for line in found):
        plot(found, options.out / f"{options.name}.png")
    print(table(found, about))


if __name__ == "__main__":
    main()
