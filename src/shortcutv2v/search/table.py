"""The tables of a search: the candidates with the reason why each was dropped, and every choice by interval."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shortcutv2v.bar import say
from shortcutv2v.measure.candidates import gain
from shortcutv2v.search import decide
from shortcutv2v.search.contest import Entry, Search
from shortcutv2v.search.field import memory_of
from shortcutv2v.show.page import page, save, section, table
from shortcutv2v.show.plots import both, scatter
from shortcutv2v.summary import Spread

__all__ = ["HEADINGS", "Row", "drawable", "rows_of", "sections", "write_page"]

HEADINGS = ["choice", "interval", "mean dB", "95 % at least", "times as fast", "memory MB", "trained", "dominated by"]
_VERDICTS = ["candidate", "mean dB", "95 % at least", "times as fast", "trained", "outcome"]
_INTERVALS = (2, 3, 5, 9)


@dataclass(frozen=True)
class Row:
    """A choice at an interval.

    Attributes:
        choice: cut, block and width.
        interval: see `refresh.Every`; with references on both sides, these lie twice as far apart, less one.
        mean: PSNR in dB to the teacher, mean over the shortcut frames.
        low: PSNR in dB that 95 % of them hold.
        speed: times as fast as the teacher, by the measured times of the parts.
        memory: bytes that a frame holds, at most; 0 if it was not measured.
        trained: seconds, or steps, of training.
        dominated: the row that is at least as good in all four and better in one; empty if there is none.
    """

    choice: str
    interval: int
    mean: float
    low: float
    speed: float
    memory: int
    trained: float
    dominated: str = ""

    @property
    def name(self) -> str:
        """Choice and interval."""
        return f"{self.choice} at {self.interval}"

    def cells(self) -> list[str]:
        """Return the row as text."""
        numbers = [f"{self.mean:.2f}", f"{self.low:.2f}", f"{self.speed:.2f}", f"{self.memory / 1e6:.0f}"]
        return [self.choice, str(self.interval), *numbers, f"{self.trained:.4g}", self.dominated]


def rows_of(search: Search, entries: Sequence[Entry], memory: bool) -> list[Row]:
    """Return all rows, the fastest first, each with the row that dominates it.

    Args:
        search: of the candidates.
        entries: the candidates.
        memory: measure the memory of each.
    """
    rows = [row for entry in entries for row in _rows(search, entry, memory)]
    worse = decide.dominated({row.name: (row.speed, row.low, row.mean, -row.memory) for row in rows})
    return [replace(row, dominated=worse.get(row.name, "")) for row in sorted(rows, key=lambda row: -row.speed)]


def _rows(search: Search, entry: Entry, memory: bool) -> list[Row]:
    def measured() -> int:
        return memory_of(search.model(entry), search.adapter, search.frame)

    held, times, found = search.record.once(f"memory of {entry}", measured) if memory else 0, entry.times, list[Row]()
    for interval in _INTERVALS:
        shown = Spread.of([value for curve in entry.curves for value in curve[: interval - 1]])
        apart = round(1 / search.goal.share(interval - 1))
        speed = gain(times.teacher, times.reference, times.shortcut, apart)
        found += [Row(str(entry), interval, shown.mean, shown.low, speed, held, entry.trained)] if shown else []
    return found


def drawable() -> bool:
    """Return True if pages can be drawn: the extra `show` is there."""
    return all(map(importlib.util.find_spec, ("matplotlib", "PIL")))


def sections(data: Mapping[str, Any]) -> list[str]:
    """Return the sections of a page about a search, from its record: the candidates, the plot, and every choice.

    Args:
        data: content of `auto.json`.
    """
    rows = [Row(**row) for row in data.get("rows", ())]
    if not rows:
        return []
    points = [(row.choice, str(row.interval), row.speed, row.low) for row in rows]
    label = "; ".join(f"{row.name}: {row.speed:.2f} times the teacher's speed, {row.low:.2f} dB" for row in rows)
    plot = both(scatter, points, "times as fast as the teacher", "PSNR that 95 % hold, dB", label)
    shown = table(
        "Every choice; without a name in the last column none is better", [HEADINGS, *(r.cells() for r in rows)]
    )
    tried = table(f"As predicted for {data['asked']}", [_VERDICTS, *map(_verdict, data["candidates"])])
    return [section("Candidates", tried), section("Candidates by interval", plot), section("Choices", shown)]


def _verdict(one: Mapping[str, Any]) -> list[str]:
    levels = ["" if one[name] is None else f"{one[name]:.2f}" for name in ("mean", "low")]
    return [one["choice"], *levels, f"{one['speed']:.2f}", f"{one['trained']:.4g}", one["why"]]


def write_page(title: str, data: Mapping[str, Any], path: Path) -> None:
    """Write a page about a search alone, and say where it is."""
    if not drawable():
        say("no page: it needs pip install 'shortcutv2v[show]'")
    elif parts := sections(data):
        save(page(title, ["<main>", *parts, "</main>"]), path)
        say(f"page: {path}")
