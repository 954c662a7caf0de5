"""Tables and plot of what `quality.py` has measured, and the names of what it measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "RUNS", "plot", "save", "table"]

RESULTS = Path(__file__).parent / "results" / "quality"
MINUTES, COMPARED = (1, 5, 15), 5
BLOCKS = dict.fromkeys(("paper", "flow", "flow_narrow"), MINUTES)
ABLATIONS = dict.fromkeys(("without_reference", "without_current", "single_stage", "without_blending", "full"), (5,))
LEFT = ("residual", "delta", "old_flow", "old_flow_half")
"""Blocks that are no longer in the package: their results are kept, to compare with."""
RUNS = BLOCKS | ABLATIONS


def save(name: str, found: Any) -> None:
    """Write results as JSON."""
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def table() -> Iterator[str]:
    """Return all measurements as two Markdown tables: PSNR and SSIM."""
    files = {name: RESULTS / f"{name}.json" for name in (*RUNS, *LEFT)}
    results = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    if not results:
        yield "nothing measured yet: run this without arguments"
        return
    free = json.loads((RESULTS / "baselines.json").read_text())
    rows = [(method, "", "", {part: values[method] for part, values in free.items()}) for method in ("repeat", "reuse")]
    for name, result in results.items():
        for minutes, entry in result["minutes"].items():
            ours = {part: values["ours"] for part, values in entry["parts"].items()}
            rows.append((f"`{name}`", minutes, str(entry["steps"]), ours))
    pace = json.loads((RESULTS / "pace.json").read_text())
    yield f"{pace['machine']}; the teacher's features take {pace['features_seconds']:.0f} s of each run's time."
    for title, keys, digits in (
        ("PSNR in dB at distance 1 / distance 2 / of the worst frame", ("psnr_1", "psnr_2", "worst"), 2),
        ("SSIM at distance 1 / distance 2", ("ssim_1", "ssim_2"), 4),
    ):
        yield f"\n{title}:\n"
        yield f"| block | minutes | steps | {' | '.join(free)} |"
        yield f"|---|---:|---:|{'---:|' * len(free)}"
        for name, minutes, steps, values in rows:
            cells = (" / ".join(f"{values[part][key]:.{digits}f}" for key in keys) for part in free)
            yield f"| {name} | {minutes} | {steps} | {' | '.join(cells)} |"


def plot() -> None:
    """Quality against speed of every block that was trained for `COMPARED` minutes: `frontier.png`.

    Speeds are those of `speed.py` at the same cut; for the blocks that have left, of its last run with them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for names, label, style in ((BLOCKS, "now", "o"), (LEFT, "before", "x")):
        found = [(name, frontier(name)) for name in names]
        points = [(name, *point) for name, point in found if point is not None]
        axes.plot([x for _, x, _ in points], [y for _, _, y in points], style, label=label, markersize=9)
        for name, x, y in points:
            axes.annotate(name.removeprefix("old_"), (x, y), xytext=(6, 5), textcoords="offset points")
    axes.set(
        xlabel="a shortcut frame, times as fast as the teacher",
        ylabel="PSNR to the teacher in dB, fast part, distance 2",
        title=f"Real-ESRGAN x2 at 320x180, cut low, {COMPARED} minutes of training",
    )
    axes.grid(alpha=0.3)
    axes.margins(0.12, 0.1)  # room for the names
    axes.legend()
    figure.savefig(RESULTS / "frontier.png", dpi=110)


def frontier(name: str) -> tuple[float, float] | None:
    """Speed and quality of a block; None where one of them was not measured."""
    times = RESULTS.parent / ("real_esrgan_before.json" if name in LEFT else "real_esrgan.json")
    trained = RESULTS / f"{name}.json"
    if not (times.exists() and trained.exists()):
        return None
    line = {"flow_narrow": "flow, half the width"}.get(name, name.removeprefix("old_"))
    lines = {each["name"]: each["baseline"] / each["best"] for each in json.loads(times.read_text())["lines"]}
    minutes = json.loads(trained.read_text())["minutes"]
    speed, quality = lines.get(f"low, {line}: shortcut frame"), minutes.get(str(COMPARED))
    return None if speed is None or quality is None else (speed, quality["parts"]["fast"]["ours"]["psnr_2"])
