"""Plots for pages: SVG drawn by matplotlib, in the page's own colours, so that one picture serves light and dark.

Libraries that draw in the browser were looked at and not taken. plotly.js (4.5 MB), Bokeh (1 MB) and Vega (1 MB) are
larger than the rest of a report. uPlot (50 kB, MIT) draws on a canvas: a screen reader finds no text in it, it prints
as pixels, and it would have to be copied into this package. matplotlib is here already, and its SVG keeps text as text.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "bars", "both", "curve", "lines", "scatter", "style"]

WIDTHS = (10.0, 4.4)
"""Width of a plot in inches on a desktop and on a phone."""

COLOURS = {"ink": "#010101", "faint": "#020202", "grid": "#030303"} | {f"c{i}": f"#0401{i:02}" for i in range(6)}
"""Colours that stand for CSS variables of the page: in the SVG, `var(--ink)` and so on replace them."""
_MARKS = "s^oDv*Pd"
_count = itertools.count()


@contextlib.contextmanager
def style(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Make a figure of this size in inches, whose text takes the page's font and colours."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": COLOURS["ink"],
        "axes.labelcolor": COLOURS["ink"],
        "axes.edgecolor": COLOURS["faint"],
        "xtick.color": COLOURS["ink"],
        "ytick.color": COLOURS["ink"],
        "grid.color": COLOURS["grid"],
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def markup(figure: Figure, label: str) -> str:
    """Return a figure as inline SVG that scales with the page; screen readers read `label`."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"shortcutv2v-{next(_count)}"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    quoted = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)  # the page gives the size
    return svg.replace("<svg ", f'<svg role="img" aria-label="{quoted}" ', 1)


def both(draw: Callable[..., str], *args: Any, **options: Any) -> str:
    """Draw a plot for desktops and for phones; the page shows the one that fits.

    Args:
        draw: `bars`, `lines` or `scatter`.
        args: its arguments.
        options: its named arguments.
    """
    drawn = {name: draw(*args, width=w, **options) for name, w in zip(("wide", "narrow"), WIDTHS, strict=True)}
    return f'<div class="plot">{"".join(f"<div class={name}>{svg}</div>" for name, svg in drawn.items())}</div>'


def curve(
    series: Mapping[str, Sequence[float | None]],
    marks: Sequence[tuple[int, str]],
    unit: str,
    label: str,
    width: float,
    start: int = 0,
) -> tuple[str, tuple[float, float], tuple[float, float]]:
    """Draw one line per series over the frames, and the refreshes below by their reason.

    Args:
        series: title -> value per frame, None where there is none; the first is drawn boldest.
        marks: (frame, reason), frames counted from 0.
        unit: title of the vertical axis.
        label: for screen readers.
        width: in inches.
        start: number of the first frame.

    Returns:
        The SVG; the places of the first and the last frame in it, as shares of its width; and the upper and the lower
        edge of the lines, as shares of its height from above and from below.
    """
    length = max(map(len, series.values()))
    with style(width, 3.4) as (figure, axes):
        for number, (title, values) in enumerate(series.items()):
            found = [float("nan") if value is None else value for value in values]
            options: dict[str, Any] = (
                {"lw": 1.8, "zorder": 3, "marker": ".", "ms": 4} if not number else {"lw": 1, "alpha": 0.75}
            )
            axes.plot(range(start, start + length), found, color=COLOURS[f"c{number}"], label=title, **options)
        low = axes.get_ylim()[0] - 0.09 * (axes.get_ylim()[1] - axes.get_ylim()[0])
        for number, reason in enumerate(dict.fromkeys(reason for _, reason in marks)):
            places = [start + frame for frame, why in marks if why == reason]
            mark: dict[str, Any] = {"marker": _MARKS[number % len(_MARKS)], "ms": 6, "color": COLOURS["ink"]}
            axes.plot(places, [low] * len(places), ls="", label=f"refresh: {reason}", **mark)
        axes.set_xlim(start - 0.5, start + length - 0.5)
        axes.grid(axis="y")
        axes.locator_params(axis="x", integer=True)
        axes.set(xlabel="frame", ylabel=unit)
        columns = 4 if width > 6 else 2
        figure.legend(loc="outside upper left", ncols=columns, fontsize=9, handlelength=1.2, columnspacing=1)
        svg = markup(figure, label)
        box = axes.get_position()
        share = box.width / length
        return svg, (box.x0 + share / 2, box.x1 - share / 2), (1 - box.y1, box.y0)


def scatter(
    points: Sequence[tuple[str, str, float, float]],
    x: str,
    y: str,
    label: str,
    width: float,
    reverse: bool = False,
) -> str:
    """Draw points (group, name, x, y) with their names; each group has a colour and a line through its points.

    Args:
        points: in the order in which lines go.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        label: for screen readers.
        width: in inches.
        reverse: True if small values of y are better, so that they are drawn at the top.
    """
    with style(width, 3.6) as (figure, axes):
        for number, group in enumerate(dict.fromkeys(point[0] for point in points)):
            mine = sorted((p[2], p[3], p[1]) for p in points if p[0] == group)
            colour = COLOURS[f"c{number % 6}"]
            axes.plot([p[0] for p in mine], [p[1] for p in mine], "o-", color=colour, label=group, lw=1, ms=6)
            for place, value, name in mine:
                axes.annotate(name, (place, value), (5, 5), textcoords="offset points", fontsize=9)
        axes.margins(0.18)
        axes.grid()
        axes.set(xlabel=x, ylabel=y)
        if reverse:
            axes.invert_yaxis()
        figure.legend(loc="outside upper left", ncols=2, fontsize=9)
        return markup(figure, label)


def bars(values: Mapping[str, Mapping[str, float]], unit: str, label: str, width: float) -> str:
    """Draw one stacked bar per row: row -> part -> value."""
    parts = list(dict.fromkeys(part for row in values.values() for part in row))
    with style(width, 0.9 + 0.5 * len(values)) as (figure, axes):
        for number, (row, found) in enumerate(values.items()):
            left = 0.0
            for part, value in found.items():
                colour = COLOURS[f"c{parts.index(part) % 6}"]
                axes.barh(row, value, left=left, color=colour, height=0.62)
                left += value
            axes.annotate(f"{left:.3g}", (left, number), (4, 0), textcoords="offset points", va="center", fontsize=9)
        for part in parts:
            axes.barh(next(iter(values)), 0, color=COLOURS[f"c{parts.index(part) % 6}"], label=part)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel(unit)
        figure.legend(loc="outside upper left", ncols=5 if width > 6 else 3, fontsize=9, handlelength=1.2)
        return markup(figure, label)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, label: str, width: float) -> str:
    """Draw one line per series through its (x, y)."""
    with style(width, 3.2) as (figure, axes):
        for number, (title, points) in enumerate(series.items()):
            axes.plot(
                [p[0] for p in points], [p[1] for p in points], ".-", color=COLOURS[f"c{number % 6}"], label=title
            )
        axes.grid()
        axes.locator_params(axis="x", integer=True)  # steps
        axes.set(xlabel=x, ylabel=y)
        figure.legend(loc="outside upper left", ncols=3, fontsize=9)
        return markup(figure, label)
