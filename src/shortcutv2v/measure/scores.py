"""The numbers of a measurement: per frame, in summary, and as plain values for JSON and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, mean, median
from typing import Any

from shortcutv2v.errors import InputError
from shortcutv2v.measure.metrics import Metric, Panel
from shortcutv2v.summary import percentile

__all__ = ["METHODS", "FrameScore", "Scores", "Spread"]

METHODS = {
    "ours": "ours",
    "reuse": "f_ref reused",
    "repeat": "last output repeated",
    "blend": "outputs blended",
    "motion": "outputs moved and blended",
}
"""The block; `f_ref` reused unchanged; the reference frame's output repeated; the teacher's outputs at the refreshes
before and after, blended linearly (after the last refresh: repeated); the same, each moved along the block's motion."""

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class FrameScore:
    """One frame.

    Attributes:
        number: of the frame in the clip.
        distance: frames since the reference, 0 at a reference frame.
        values: metric -> method -> value against the teacher's output. At reference frames only metrics over every
            frame have one.
        teacher_seconds: the teacher's time for this frame.
        seconds: the wrapped model's time for it.
        opening: the adapter made this frame (`Adapter.opening`), and neither teacher nor block ran: it has no scores,
            and its times do not count.
        reason: why the stream refreshed here, see `Stream.refreshes`; None at shortcut and opening frames.
    """

    number: int
    distance: int
    values: Values
    teacher_seconds: float
    seconds: float
    opening: bool = False
    reason: str | None = None

    @property
    def psnr(self) -> Mapping[str, float]:
        """PSNR in dB by method; empty at reference frames."""
        return self.values.get("psnr", {})

    @property
    def ssim(self) -> Mapping[str, float]:
        """SSIM by method; empty at reference frames."""
        return self.values.get("ssim", {})


@dataclass(frozen=True)
class Spread:
    """One metric of one method over a clip.

    Attributes:
        mean: over the frames that count, or the value of the whole clip.
        low: 95 % of the frames are at least this good; None for values of the whole clip.
        worst: value of the worst frame; None likewise.
        frame: number of the worst frame; None likewise.
    """

    mean: float
    low: float | None = None
    worst: float | None = None
    frame: int | None = None


@dataclass
class Scores:
    """The frames of a clip, and their summary.

    Attributes:
        frames: one per frame of the clip.
        clip: metric -> method -> value of the whole clip, for metrics that have one.
        left_out: metrics that could not be computed -> what is missing and how to get it.
        notes: metric -> settings that belong beside its numbers.
    """

    frames: list[FrameScore] = field(default_factory=list)
    clip: Values = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def close(self, panel: Panel) -> Scores:
        """Take the values of the whole clip from the panel that measured the frames; return self."""
        self.clip, self.left_out, self.notes = panel.finish(), panel.left_out, panel.notes
        return self

    @property
    def methods(self) -> dict[str, str]:
        """Name and title of every method that was measured."""
        rival = any("rival" in s.psnr for s in self.frames)
        return {**METHODS, **({"rival": "outputs interpolated"} if rival else {})}

    def at(self, distance: int | None = None) -> list[FrameScore]:
        """Return the shortcut frames, all or those at one distance from the reference.

        Raises:
            InputError: there is none.
        """
        found = [s for s in self.frames if s.distance and distance in (None, s.distance)]
        if not found:
            where = "" if distance is None else f" at distance {distance}"
            raise InputError(f"no shortcut frame{where} was measured: give a longer clip or a longer interval")
        return found

    def psnr(self, method: str, distance: int | None = None) -> float:
        """Return the mean PSNR in dB over the shortcut frames, all or at one distance."""
        return mean(s.psnr[method] for s in self.at(distance))

    def ssim(self, method: str, distance: int | None = None) -> float:
        """Return the mean SSIM over the shortcut frames, all or at one distance."""
        return mean(s.ssim[method] for s in self.at(distance))

    def worst_psnr(self, method: str) -> float:
        """Return the PSNR of the worst shortcut frame, in dB."""
        return min(s.psnr[method] for s in self.at())

    def worst(self, count: int = 3) -> list[FrameScore]:
        """Return the shortcut frames of lowest PSNR, worst first, at most one from each reference to the next."""
        worst: dict[int, FrameScore] = {}
        for score in self.at():
            reference = score.number - score.distance
            if reference not in worst or score.psnr["ours"] < worst[reference].psnr["ours"]:
                worst[reference] = score
        return sorted(worst.values(), key=lambda score: score.psnr["ours"])[:count]

    def spread(self, metric: str, method: str) -> Spread | None:
        """Return mean, 5th percentile and worst frame of a metric, or its value of the clip; None if it has none."""
        values = {s.number: s.values[metric][method] for s in self.frames if method in s.values.get(metric, {})}
        if not values:
            whole = self.clip.get(metric, {}).get(method)
            return None if whole is None else Spread(whole)
        higher = Metric.known[metric].higher
        number = (min if higher else max)(values, key=lambda n: values[n])
        low = percentile(list(values.values()), 0.05 if higher else 0.95)
        return Spread(fmean(values.values()), low, values[number], number)

    def spreads(self) -> dict[str, dict[str, Spread]]:
        """Return all spreads, by metric and method."""
        names = [name for name in Metric.known if any(name in s.values for s in self.frames) or name in self.clip]
        found: dict[str, dict[str, Spread]] = {}
        for name in names:
            methods = [method for s in self.frames for method in s.values.get(name, {})] + list(self.clip.get(name, {}))
            pairs = ((method, self.spread(name, method)) for method in dict.fromkeys(methods))
            found[name] = {method: spread for method, spread in pairs if spread is not None}
        return found

    def table(self, methods: Mapping[str, str], start: int = 0) -> list[list[str]]:
        """Return headings and one row of cells per metric: its direction, the mean of every method, the spread of ours.

        Args:
            methods: name -> title.
            start: number of the clip's first frame.
        """
        spreads = self.spreads()
        if any("teacher" in found for found in spreads.values()):
            methods = {**methods, "teacher": "the teacher itself"}
        rows = [["metric", *methods.values(), "ours, 95 % at least", "ours, worst (frame)"]]
        for name, found in spreads.items():
            metric, ours = Metric.known[name], found.get("ours")
            cells = [f"{found[m].mean:.{metric.digits}f}" if m in found else "" for m in methods]
            if ours is None or ours.low is None or ours.worst is None or ours.frame is None:
                tail = ["", ""]
            else:
                tail = [f"{ours.low:.{metric.digits}f}", f"{ours.worst:.{metric.digits}f} ({start + ours.frame})"]
            rows.append([metric.heading(), *cells, *tail])
        return rows

    def remarks(self) -> list[str]:
        """Return a sentence per setting that belongs beside a number, and per metric that was left out."""
        said = [f"{Metric.known[name].title}: {note}" for name, note in self.notes.items()]
        return said + [f"{name} left out: {missing}" for name, missing in self.left_out.items()]

    @property
    def teacher_seconds(self) -> float:
        """Median time of a teacher frame."""
        return median(s.teacher_seconds for s in self._timed())

    @property
    def shortcut_seconds(self) -> float:
        """Median time of a shortcut frame."""
        return median(s.seconds for s in self.at())

    @property
    def average_seconds(self) -> float:
        """Mean time of a frame of the video, each kind of frame at its median, without opening frames."""
        kinds = [[s.seconds for s in self._timed() if bool(s.distance) == short] for short in (False, True)]
        return sum(median(kind) * len(kind) for kind in kinds if kind) / sum(map(len, kinds))

    @property
    def speed(self) -> float:
        """Speed of the video as a multiple of the teacher's."""
        return self.teacher_seconds / self.average_seconds

    def _timed(self) -> list[FrameScore]:
        """Return the frames that teacher and model made themselves."""
        found = [s for s in self.frames if not s.opening]
        if not found:
            raise InputError("the teacher made no frame: give a clip that is longer than the adapter's opening")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; there is neither NaN nor infinity in it."""
        shortcuts = [s for s in self.frames if s.distance]
        return {
            "frames": [{**vars(s), "values": {name: dict(v) for name, v in s.values.items()}} for s in self.frames],
            "metrics": {
                name: {
                    "title": Metric.known[name].title,
                    "unit": Metric.known[name].unit,
                    "better": "higher" if Metric.known[name].higher else "lower",
                    "note": self.notes.get(name, ""),
                    "methods": {method: vars(spread) for method, spread in methods.items()},
                }
                for name, methods in self.spreads().items()
            },
            "left_out": dict(self.left_out),
            "seconds": {
                "teacher": self.teacher_seconds,
                "shortcut": self.shortcut_seconds if shortcuts else None,
                "average": self.average_seconds,
            },
            "speed": self.speed,
            "shortcuts": len(shortcuts),
        }

    def write_csv(self, path: str | Path, start: int = 0, times: Iterable[float] = ()) -> None:
        """Write one row per frame.

        Args:
            path: of the file.
            start: number of the clip's first frame.
            times: of the frames, in seconds.
        """
        columns = list(dict.fromkeys((m, k) for s in self.frames for m, v in s.values.items() for k in v))
        head = ["frame", "seconds", "distance", "reason", *(f"{m}.{k}" for m, k in columns)]
        at = dict(enumerate(times))
        with Path(path).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*head, "teacher_ms", "ours_ms"])
            for s in self.frames:
                values = [s.values.get(m, {}).get(k, "") for m, k in columns]
                took = [1e3 * s.teacher_seconds, 1e3 * s.seconds]
                writer.writerow([start + s.number, at.get(s.number, ""), s.distance, s.reason or "", *values, *took])
