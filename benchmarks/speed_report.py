"""Results of `speed.py` as JSON, and a Markdown table and a plot made from the JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INTERVALS", "Line", "Video", "draw", "load", "points", "render", "save", "table", "videos"]

INTERVALS = {"unsup": 3, "vid2vid": 6, "real_esrgan": 3}
"""Frames from one refresh to the next, by the first word of a case: the paper's number, or 3 if it gives none."""

_SHORTCUT, _REFERENCE = ": shortcut frame", ": reference frame"


@dataclass(frozen=True)
class Line:
    """One measured callable.

    Attributes:
        case: what was measured together: ratios hold inside a case only.
        name: of the callable.
        macs: its multiply-adds; None: not counted.
        best: fastest run in seconds, which other work on the machine disturbs least.
        median: middle run in seconds.
        spread: interquartile range over the median.
        baseline: fastest run of what it is compared with: the teacher treated alike, or the case's first line.
    """

    case: str
    name: str
    macs: int | None
    best: float
    median: float
    spread: float
    baseline: float


@dataclass(frozen=True)
class Video:
    """The mean frame of a video: one reference frame, then shortcut frames.

    Attributes:
        block: cut, block and treatment, as in the names of the lines.
        interval: frames from one refresh to the next.
        seconds: per frame.
        gain: times as fast as the teacher.
        bound: what the multiply-adds allow.
    """

    block: str
    interval: int
    seconds: float
    gain: float
    bound: float


def save(path: Path, about: dict[str, str], found: Sequence[Line]) -> None:
    """Write the JSON that `load` reads."""
    path.write_text(json.dumps({"about": about, "lines": [asdict(line) for line in found]}, indent=1) + "\n")


def load(path: Path) -> tuple[dict[str, str], list[Line]]:
    """Read the JSON that `save` wrote."""
    saved: dict[str, Any] = json.loads(path.read_text())
    return saved["about"], [Line(**line) for line in saved["lines"]]


def render(path: Path) -> str:
    """Write table and plot of a JSON file beside it; return the table."""
    about, found = load(path)
    text = table(found, about)
    path.with_suffix(".md").write_text(text)
    if _teachers(found):
        draw(found, path.with_suffix(".png"))
    return text


def videos(found: Sequence[Line], case: str) -> Iterator[Video]:
    """Return an entry for every shortcut frame of the case whose reference frame was measured, too."""
    lines = {line.name: line for line in found if line.case == case}
    teacher, interval = lines["teacher frame"], INTERVALS.get(case.partition(",")[0], 3)
    for name, short in lines.items():
        full = lines.get(name.replace(_SHORTCUT, _REFERENCE))
        if not name.endswith(_SHORTCUT) or full is None:
            continue
        seconds = (full.best + (interval - 1) * short.best) / interval
        macs = ((full.macs or 0) + (interval - 1) * (short.macs or 0)) / interval
        block = name.removesuffix(_SHORTCUT)
        yield Video(block, interval, seconds, short.baseline / seconds, (teacher.macs or 0) / macs if macs else 0.0)


def table(found: Sequence[Line], about: dict[str, str]) -> str:
    """Return all lines, then the videos, as Markdown."""
    text = ["# Speed", "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    text += ["Made by `python benchmarks/speed.py`. Ratios hold within one case only.", ""]
    text += ["| case | what | G multiply-adds | ms | spread | times as fast |", "|---|---|---|---|---|---|"]
    for line in found:
        macs = "" if line.macs is None else f"{line.macs / 1e9:.2f}"
        ratio = f"{line.baseline / line.best:.2f}"
        text.append(f"| {line.case} | {line.name} | {macs} | {line.best * 1e3:.1f} | {line.spread:.0%} | {ratio} |")
    rows = [
        f"| {case} | {v.block} | {v.interval} | {v.seconds * 1e3:.0f} | {v.gain:.2f} | {v.bound:.2f} |"
        for case in _teachers(found)
        for v in videos(found, case)
    ]
    if rows:
        header = ["| case | block | interval | ms per frame | times as fast | bound |", "|---|---|---|---|---|---|"]
        text += ["", "A video: the mean frame, and what the multiply-adds allow.", "", *header, *rows]
    return "\n".join(text) + "\n"


def points(found: Sequence[Line], case: str) -> list[tuple[str, float, float]]:
    """Return the case's shortcut frames for the plot: (name, multiply-adds, time), teacher = 1, fastest first."""
    macs = next(line.macs for line in found if line.case == case and line.name == "teacher frame") or 1
    drawn = [line for line in found if line.case == case and line.name.endswith(_SHORTCUT) and line.macs]
    named = [(x.name.removesuffix(_SHORTCUT), (x.macs or 0) / macs, x.best / x.baseline) for x in drawn]
    return sorted(named, key=lambda point: point[2])


def draw(found: Sequence[Line], path: Path) -> None:
    """Draw time against multiply-adds, one panel per case.

    The dashed line is the teacher's time. On the slope, time is proportional to the multiply-adds.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = _teachers(found)
    figure = Figure(figsize=(8, 4.2 * len(cases)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, case in zip(figure.subplots(len(cases), squeeze=False).flat, cases, strict=True):
        _panel(axes, case, points(found, case))
    figure.savefig(path, dpi=130)


def _panel(axes: Axes, case: str, shown: Sequence[tuple[str, float, float]]) -> None:
    """Draw a panel. Each point has a hollow mark of its own and a legend entry, so that labels hide no points."""
    marks = "osD^v<>ph*X8d"
    for number, (name, macs, seconds) in enumerate(shown):
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": marks[number % len(marks)]}
        axes.plot(macs, seconds, linestyle="", fillstyle="none", markersize=9, label=name, **style)
    x, y = _limits([p[1] for p in shown]), _limits([p[2] for p in shown] + [1.0])
    axes.set(xscale="log", yscale="log", xlim=x, ylim=y)
    axes.axline((x[0], x[0]), (x[1], x[1]), color="grey", linewidth=0.8)
    axes.axhline(1.0, color="grey", linewidth=0.8, linestyle="dashed")
    for axis, (low, high) in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_ticks([t for t in _TICKS if low <= t <= high])
        axis.set_major_formatter("{x:g}")
        axis.set_ticks([], minor=True)
    axes.grid(linewidth=0.3)
    axes.set(title=case, xlabel="multiply-adds, teacher = 1", ylabel="time, teacher = 1")
    axes.legend(title="shortcut frame, fastest first", loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")


_TICKS = [digit * 10.0**power for power in range(-3, 2) for digit in (1, 1.5, 2, 3, 4, 5, 7)]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return axis limits with a margin of a fifth around the values."""
    return min(values) / 1.2, max(values) * 1.2


def _teachers(found: Sequence[Line]) -> list[str]:
    """Return the cases that have a teacher, in order."""
    return list(dict.fromkeys(line.case for line in found if line.name == "teacher frame"))
