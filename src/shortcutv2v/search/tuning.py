"""`tune()`: what every cut, block and width is worth on some clips, without translating them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from torch import nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.bar import say
from shortcutv2v.distill.checks import checked_folder, only_run_in
from shortcutv2v.distill.clips import open_clips
from shortcutv2v.errors import InputError
from shortcutv2v.search import decide
from shortcutv2v.search.asked import Asked, open_record
from shortcutv2v.search.choose import searched
from shortcutv2v.search.contest import Entry, Search
from shortcutv2v.search.field import memory_of
from shortcutv2v.show.page import markdown, page, save, section, table
from shortcutv2v.show.plots import both, scatter
from shortcutv2v.summary import percentile
from shortcutv2v.translate import from_uint8
from shortcutv2v.video import find_clips

__all__ = ["PAGE", "Row", "tune"]

PAGE = "tune.html"
_INTERVALS = (2, 3, 5, 9)
_HEADINGS = ["choice", "interval", "mean dB", "95 % at least", "times as fast", "memory MB", "trained", "dominated by"]


@dataclass(frozen=True)
class Row:
    """A choice at an interval.

    Attributes:
        choice: cut, block and width.
        interval: see `refresh.Every`; with references on both sides, these lie twice as far apart, less one.
        mean: PSNR in dB to the teacher, mean over the shortcut frames.
        low: PSNR in dB that 95 % of them hold.
        speed: times as fast as the teacher, by the measured times of the parts.
        memory: bytes that a frame holds, at most.
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


def tune(
    teacher: Adapter | nn.Module,
    clips: str | Path | Sequence[str | Path],
    *,
    quality: str | float | None = None,
    speed: float | None = None,
    minutes: float | None = 10.0,
    steps: int | None = None,
    folder: str | Path = "tuned",
    size: int | tuple[int, int] | None = None,
) -> list[Row]:
    """Search as `auto` does, over several clips, and print what every choice is worth; nothing is translated.

    Args:
        teacher: the adapter, which needs no cut, or a network that takes and gives frames in [0, 1].
        clips: video files, folders of videos, or folders of frames.
        quality: candidates are judged by their time at this quality; default: 40 dB, if no speed is given.
        speed: candidates are judged by their quality at this speed.
        minutes: of the search.
        steps: of training in all, instead of a time.
        folder: where `auto.json`, the block of the best choice and `tune.html` go. `auto --plan` takes the file.
        size: read clips at this size.

    Returns:
        One row per choice and interval, the fastest first. The table is printed, and drawn in `tune.html`.

    Raises:
        InputError: an argument is out of range, `folder` holds another search, or the teacher cannot be cut.
        VideoError: no clip can be read.

    Examples:
        ```python
        rows = shortcutv2v.tune(network, ["one.mp4", "other.mp4"], minutes=20)
        best = [row for row in rows if not row.dominated]
        ```
    """
    adapter = teacher if isinstance(teacher, Adapter) else Adapter(teacher)
    asked = Asked(quality, speed, None if steps is not None else minutes, steps)
    paths = find_clips([Path(clips)] if isinstance(clips, str | Path) else list(map(Path, clips)), min_frames=2)
    opened = open_clips(list(paths), size)
    check_adapter(adapter, from_uint8(opened[0][0], adapter.teacher))
    with only_run_in(checked_folder(folder)):
        record = open_record(Path(folder), adapter, paths, asked, [size, 0, None])
        _, search, entries = searched(adapter, opened, asked, record)
        if search is None or not entries:
            raise InputError("there is nothing to tune: give a PSNR below lossless, and a teacher that can be cut")
        rows = _ranked([row for entry in entries for row in _rows(search, entry)])
    say("\n".join(markdown([_HEADINGS, *(row.cells() for row in rows)])))
    _draw(rows, Path(folder) / PAGE)
    return rows


def _rows(search: Search, entry: Entry) -> list[Row]:
    """Return a candidate's rows, one per interval."""
    memory = search.record.once(f"memory of {entry}", lambda: _memory(search, entry))
    found = []
    for interval in _INTERVALS:
        shown = [value for curve in entry.curves for value in curve[: interval - 1]]
        seconds = decide.film_seconds(1, entry.times, search.goal.share(interval - 1), looks=False)
        speed = entry.times.teacher / seconds
        low = percentile(shown, 0.05)
        found.append(Row(str(entry), interval, fmean(shown), low, speed, memory, entry.trained))
    return found


def _memory(search: Search, entry: Entry) -> int:
    model = entry.candidate.on(search.base(entry.candidate))
    return memory_of(model, search.adapter, search.frame)


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, the fastest first, each with the row that dominates it."""
    points = {row.name: (row.speed, row.low, row.mean, -row.memory) for row in rows}
    worse = decide.dominated(points)
    return [replace(row, dominated=worse.get(row.name, "")) for row in sorted(rows, key=lambda row: -row.speed)]


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Write the page with plot and table."""
    if not all(map(importlib.util.find_spec, ("matplotlib", "PIL"))):
        say("no page: it needs pip install 'shortcutv2v[show]'")
        return
    points = [(row.choice, str(row.interval), row.speed, row.low) for row in rows]
    label = "; ".join(f"{row.name}: {row.speed:.2f} times the teacher's speed, {row.low:.2f} dB" for row in rows)
    plot = both(scatter, points, "times as fast as the teacher", "PSNR that 95 % hold, dB", label)
    shown = table(
        "Every choice; without a name in the last column none is better", [_HEADINGS, *(r.cells() for r in rows)]
    )
    save(page("tune", ["<main>", section("Quality and speed", plot), section("Choices", shown), "</main>"]), path)
    say(f"page: {path}")
