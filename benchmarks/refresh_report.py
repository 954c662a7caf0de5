"""Table and plot of what `refresh.py` has measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

__all__ = ["RESULTS", "SPLICED", "load", "plot", "save", "table"]

RESULTS = Path(__file__).parent / "results" / "refresh"
SPLICED = 38.0
"""Quality in dB that is asked for on splices."""


def save(name: str, found: Any) -> None:
    """Write results as JSON."""
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def table() -> Iterator[str]:
    """All results as Markdown."""
    found = load("modes")
    narrow = {f"{name}, half the width": modes for name, modes in load("narrow").items()}
    for name, modes in {**found, **narrow, **load("unsup")}.items():
        yield f"\n**{name}**, {next(iter(modes.values()))['frames']} frames\n"
        yield "| mode | full passes | mean dB | 5 % below | worst | estimated | times as fast | held |"
        yield "|---|---:|---:|---:|---:|---:|---:|---:|"
        for mode, about in modes.items():
            values = [about["mean"], about["low"], about["worst"], about.get("estimated")]
            cells = ["" if value is None else f"{value:.1f}" for value in values]
            speed = "" if about.get("speed") is None else f"{about['speed']:.2f}"
            yield f"| {mode} | {about['full']} | {' | '.join(cells)} | {speed} | {held(mode, about['psnr'])} |"
    yield from _fewer(found)
    splices = load("splices")
    if splices:
        yield f"\n**{len(splices)} splices**, {SPLICED:g} dB asked for\n"
        yield "| kind | splices | shortcut frames | held | ghosts | most needless at the splice | in the clip |"
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for kind in ("cut", "fade", "flash"):
            these = [each for each in splices if each["kind"] == kind]
            values = [value for each in these for value in each["psnr"]]
            share = f"{fmean(value >= SPLICED for value in values):.0%}" if values else ""
            most = (str(max(each[count] for each in these)) for count in ("needless", "needless everywhere"))
            ghosts = sum(each["ghosts"] for each in these)
            yield f"| {kind} | {len(these)} | {len(values)} | {share} | {ghosts} | {' | '.join(most)} |"
        within = sum(each["needless"] <= 2 for each in splices)
        yield f"\nAt most two needless refreshes at the splice: {within} of {len(splices)}"
        ahead = [value for each in splices for value in each.get("both sides", {"psnr": []})["psnr"]]
        if ahead:
            held_by = fmean(value >= SPLICED for value in ahead)
            yield f"\nWith references on both sides: {len(ahead)} shortcut frames, {held_by:.0%} held,"
            yield f"the worst has {min(ahead):.1f} dB"


def _fewer(found: dict[str, Any]) -> Iterator[str]:
    yield "\nFull passes of a mode, and of the best fixed interval whose 5th percentile is as high. For a mode with"
    yield "references on both sides that is the best of all intervals, causal or not. Often none but 1 is as good, the"
    yield "teacher on every frame.\n"
    yield "| clip | mode | fixed interval | mode | fewer |"
    yield "|---|---|---:|---:|---:|"
    saved: dict[str, list[float]] = {"causal": [], "both sides": []}
    for name, modes in found.items():
        own: dict[str, list[float]] = {side: [] for side in saved}
        for mode, about in modes.items():
            if mode.startswith("quality") and about["low"] is not None:
                side = "both sides" if "both" in mode else "causal"
                fixed = alike(modes, about, side == "both sides")
                own[side].append(1 - about["full"] / fixed)
                yield f"| {name} | {mode} | {fixed} | {about['full']} | {own[side][-1]:.0%} |"
        for side, values in own.items():
            saved[side] += [fmean(values)] if values else []
    for side, values in saved.items():
        yield f"| mean over the clips | {side} | | | {fmean(values):.0%} |"


def alike(modes: dict[str, Any], about: dict[str, Any], both: bool) -> int:
    """Fewest full passes of a fixed interval whose 5th percentile is as high."""
    fixed = [each for mode, each in modes.items() if mode.startswith("interval") and (both or "both" not in mode)]
    return min([each["full"] for each in fixed if each["low"] >= about["low"]], default=int(about["frames"]))


def load(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def held(mode: str, values: list[float]) -> str:
    if not mode.startswith("quality") or not values:
        return ""
    target = float(mode.removeprefix("quality ").split(",")[0])
    return f"{fmean(value >= target for value in values):.0%}"


def plot() -> None:
    """Draw quality (5th percentile) against the share of full passes, a panel per clip."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = load("modes")
    if not found:
        return
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    kinds = {
        "fixed interval": ("o-", lambda mode: mode.startswith("interval") and "both" not in mode),
        "fixed interval, both sides": ("s-", lambda mode: mode.startswith("interval") and "both sides" in mode),
        "fixed interval, from both": ("v-", lambda mode: mode.startswith("interval") and "from both" in mode),
        "quality": ("^--", lambda mode: mode.startswith("quality") and "both" not in mode),
        "quality, both sides": ("D--", lambda mode: mode.startswith("quality") and "both" in mode),
        "reuse at 3": ("x", lambda mode: mode.startswith("reuse")),
        "teacher at 2, blended": ("+", lambda mode: mode.startswith("teacher")),
    }
    for axes, (name, modes) in zip(figure.subplots(2, 2).flat, found.items(), strict=False):
        for label, (style, belongs) in kinds.items():
            chosen = [about for mode, about in modes.items() if belongs(mode) and about["low"] is not None]
            points = sorted((about["full"] / about["frames"], about["low"]) for about in chosen)
            axes.plot([x for x, _ in points], [y for _, y in points], style, label=label, markersize=8)
        axes.set(title=name, xlabel="share of full passes", ylabel="5th percentile of PSNR to the teacher, dB")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.savefig(RESULTS / "refresh.png", dpi=100)
