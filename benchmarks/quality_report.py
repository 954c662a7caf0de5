"""Tables and plot of what `quality.py` has measured, and the names of what it measures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "RUNS", "plot", "run_of", "save", "table"]

RESULTS = Path(__file__).parent / "results" / "quality"
MINUTES, COMPARED = (1, 5, 15), 5
BLOCKS = dict.fromkeys(("paper", "flow", "flow_narrow", "last_wide", "last_flow", "last_narrow", "last_thin"), MINUTES)
OTHERS = dict.fromkeys(("demosaicnet_flow", "demosaicnet_narrow", "demosaicnet_thin"), (5,))
ABLATIONS = dict.fromkeys(("without_reference", "without_current", "single_stage", "without_blending", "full"), (5,))
LEFT = ("residual", "delta", "old_flow", "old_flow_half")
"""Blocks that are no longer in the package: their results are kept, to compare with."""
RUNS = BLOCKS | OTHERS | ABLATIONS


@dataclass(frozen=True)
class Run:
    """What is trained: a network, cut by a level of its adapter, and a block."""

    network: str = "real_esrgan"
    cut: str = "low"
    variant: str = "flow"
    channels: int | None = None


_OTHER_THAN_THEIR_NAMES = {
    "full": Run(variant="paper"),
    "flow_narrow": Run(channels=16),
    "last_wide": Run(cut="last", channels=48),
    "last_flow": Run(cut="last"),
    "last_narrow": Run(cut="last", channels=16),
    "last_thin": Run(cut="last", channels=8),
    "demosaicnet_flow": Run("demosaicnet"),
    "demosaicnet_narrow": Run("demosaicnet", channels=16),
    "demosaicnet_thin": Run("demosaicnet", channels=8),
}


def run_of(name: str) -> Run:
    """Return what is trained under a name: most are a block's. `full` is `paper`, trained as long as the ablations."""
    return _OTHER_THAN_THEIR_NAMES.get(name) or Run(variant=name)


def save(name: str, found: Any) -> None:
    """Write results as JSON."""
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def table() -> Iterator[str]:
    """Return all measurements as Markdown tables of PSNR and SSIM, the network of the demo first."""
    pace = json.loads((RESULTS / "pace.json").read_text())
    seconds = ", ".join(f"{spent:.0f} s of {network}'s" for network, spent in pace["features_seconds"].items())
    yield f"{pace['machine']}; of each run's time the teacher's features take {seconds}."
    files = {name: RESULTS / f"{name}.json" for name in (*RUNS, *LEFT)}
    results = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    for network in dict.fromkeys(run_of(name).network for name in results):
        free = json.loads((RESULTS / f"baselines_{network}.json").read_text())
        ours = {name: result for name, result in results.items() if run_of(name).network == network}
        yield from _tables(network, free, ours)


def _tables(network: str, free: dict[str, Any], results: dict[str, Any]) -> Iterator[str]:
    rows = [(method, "", "", {part: values[method] for part, values in free.items()}) for method in ("repeat", "reuse")]
    for name, result in results.items():
        for minutes, entry in result["minutes"].items():
            ours = {part: values["ours"] for part, values in entry["parts"].items()}
            rows.append((f"`{name}`", minutes, str(entry["steps"]), ours))
    for title, keys, digits in (
        ("PSNR in dB at distance 1 / distance 2 / of the worst frame", ("psnr_1", "psnr_2", "worst"), 2),
        ("SSIM at distance 1 / distance 2", ("ssim_1", "ssim_2"), 4),
    ):
        yield f"\n{network}, {title}:\n"
        yield f"| block | minutes | steps | {' | '.join(free)} |"
        yield f"|---|---:|---:|{'---:|' * len(free)}"
        for name, minutes, steps, values in rows:
            cells = (" / ".join(f"{values[part][key]:.{digits}f}" for key in keys) for part in free)
            yield f"| {name} | {minutes} | {steps} | {' | '.join(cells)} |"


def plot() -> None:
    """Quality against speed of every block that was trained for `COMPARED` minutes, per network: `frontier.png`.

    Speeds are those of `speed.py` at the same cut; for the blocks that have left, of its last run with them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, groups) in zip(figure.subplots(1, 2), _GROUPS.items(), strict=True):
        for (label, style), names in groups.items():
            points = [(name, *point) for name in names if (point := frontier(name))]
            axes.plot([x for _, x, _ in points], [y for _, _, y in points], style, label=label, markersize=9)
            for name, x, y in points:
                text = re.sub("^(old_|last_|demosaicnet_)|flow_(?=narrow)", "", name)
                axes.annotate(text, (x, y), xytext=(6, 5 if "o" in style else -13), textcoords="offset points")
        axes.set(
            xlabel="a shortcut frame, times as fast as the teacher",
            ylabel="PSNR to the teacher in dB, fast part, distance 2",
            title=f"{title}, {COMPARED} minutes of training",
        )
        axes.grid(alpha=0.3)
        axes.margins(0.14, 0.1)  # room for the names
        axes.legend()
    figure.savefig(RESULTS / "frontier.png", dpi=110)


_GROUPS = {
    "Real-ESRGAN x2 at 320x180": {
        ("now, cut last", "-o"): ("last_wide", "last_flow", "last_narrow", "last_thin"),
        ("now, cut low", "s"): ("paper", "flow", "flow_narrow"),
        ("before, cut low", "x"): LEFT,
    },
    "demosaicnet (Bayer) at 320x180": {("now, cut low", "-o"): tuple(OTHERS)},
}
_SPEEDS = {"wide": ", 3/2 of the width", "narrow": ", half the width", "thin": ", a quarter of the width"}


def frontier(name: str) -> tuple[float, float] | None:
    """Speed and quality of a block; None where one of them was not measured."""
    run = run_of(name)
    times = RESULTS.parent / ("real_esrgan_before.json" if name in LEFT else f"{run.network}.json")
    trained = RESULTS / f"{name}.json"
    if not (times.exists() and trained.exists()):
        return None
    block = name.removeprefix("old_") if name in LEFT else run.variant + _SPEEDS.get(name.rpartition("_")[2], "")
    lines = {each["name"]: each["baseline"] / each["best"] for each in json.loads(times.read_text())["lines"]}
    minutes = json.loads(trained.read_text())["minutes"]
    speed, quality = lines.get(f"{run.cut}, {block}: shortcut frame"), minutes.get(str(COMPARED))
    return None if speed is None or quality is None else (speed, quality["parts"]["fast"]["ours"]["psnr_2"])
