"""The sections of a report's page: facts, players, curve, worst frames, metrics, speed, the cut, versions."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shortcutv2v.measure import METHODS, Inspection, Scores
from shortcutv2v.measure.stages import Stage, stage_rows
from shortcutv2v.report.collect import LARGEST, Reel
from shortcutv2v.show.page import page, save, section, table
from shortcutv2v.show.plots import WIDTHS, bars, both, curve, scatter

__all__ = ["Report"]


@dataclass
class Report:
    """The content of a page.

    Attributes:
        title: name of the clip.
        main: name of the run that is shown frame by frame.
        runs: name -> what `Scores.to_dict()` returned, of this block and of others.
        about: see `about`.
        reel: pictures of the main run.
        scores: numbers of the main run.
        parts: name of a kind of frame -> part -> seconds, for the bars.
        start: number of the first frame in the clip.
        times: of the frames, in seconds.
        rate: frames per second.
        cut: lines about the cut.
        stages: of the teacher.
        inspection: other cuts on this clip; None if none was tried.
        extra: more sections, HTML.
    """

    title: str
    main: str
    runs: dict[str, dict[str, Any]]
    about: dict[str, Any]
    reel: Reel
    scores: Scores
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    start: int = 0
    times: Sequence[float] = ()
    rate: float = 25.0
    cut: str = ""
    stages: Sequence[Stage] = ()
    inspection: Inspection | None = None
    extra: Sequence[str] = ()

    def write(self, path: str | Path, largest: int = LARGEST) -> None:
        """Write the page.

        Args:
            path: of the HTML file.
            largest: bytes of its pictures, at most.
        """
        worst = [frame.number for frame in self.scores.worst(8)]
        data = {
            "about": self.about,
            "main": self.main,
            "runs": self.runs,
            "start": self.start,
            "times": list(self.times),
            "rate": self.rate,
            "first": worst[0],
            "stages": [asdict(stage) for stage in self.stages],
            "inspection": self.inspection and self.inspection.to_dict(),
            **self.reel.to_dict(largest),
        }
        parts = [f"<header><h1>{html.escape(self.title)}</h1>{self._facts()}</header>", "<main>", self._player(data)]
        parts += [
            self._curve(),
            self._worst(worst),
            self._metrics(),
            *self._speed(),
            *self.extra,
            *self._cut(),
            self._about(),
            "</main>",
        ]
        save(page(f"{self.title}: shortcutv2v report", parts, data, "report.js"), path)

    def _facts(self) -> str:
        psnr, reuse = self.scores.spread("psnr", "ours"), self.scores.spread("psnr", "reuse")
        assert psnr is not None and reuse is not None  # noqa: S101, PT018 (`Scores.worst` has found shortcut frames)
        facts = {
            f"{psnr.mean:.2f} dB": "PSNR to the teacher, mean over the shortcut frames",
            f"{psnr.worst:.2f} dB": f"worst frame, number {self.start + (psnr.frame or 0)}",
            f"{psnr.mean - reuse.mean:+.2f} dB": "over features reused unchanged",
            f"{self.scores.speed:.2f}x": "as fast as the teacher, refreshes included",
            f"{len(self.scores.at())} of {len(self.scores.frames)}": "frames took the shortcut",
        }
        items = "".join(f"<li><b>{value}</b> {html.escape(what)}</li>" for value, what in facts.items())
        return f'<ul class="facts">{items}</ul>'

    def _player(self, data: Mapping[str, Any]) -> str:
        height, width = self.reel.pictures[0].shape[-2:]
        captions = {"input": "Input", "teacher": "Teacher", "ours": "Ours", "error": "Error of ours (0.1 is brightest)"}
        drawn = (
            f'<svg class="overlay" id="overlay" viewBox="0 0 1000 {1000 * height / width:.0f}" aria-hidden="true" '
            'fill="none" stroke="#0f0" stroke-width="1.5"></svg>'
            '<img class="overlay" id="map" alt="" hidden style="opacity:.75">'
        )
        figures = "".join(
            f'<figure><div class="frame"><img id="picture-{name}" alt="" width="{width}" height="{height}">'
            f"{drawn if name == 'ours' else ''}</div><figcaption>{text}</figcaption></figure>"
            for name, text in captions.items()
        )
        maps = {"none": "no map", "mask": "blending mask", "energy": "correction"}
        radios = "".join(
            f'<label><input type="radio" name="map" value="{name}"{" checked" * (name == "none")}> {text}</label>'
            for name, text in maps.items()
            if name == "none" or name in data
        )
        controls = (
            '<div class="controls"><input type="range" id="frame" min="0" '
            f'max="{len(self.scores.frames) - 1}" value="0" aria-label="frame"><div class="row">'
            '<button id="play">Play</button><button id="back" aria-label="one frame back">&larr;</button>'
            '<button id="next" aria-label="one frame on">&rarr;</button><output id="says"></output></div></div>'
            "<fieldset><legend>On our picture</legend>"
            f'<label><input type="checkbox" id="arrows"> where features come from</label>{radios}</fieldset>'
        )
        masked = " The mask is bright where the block takes the current frame." if "mask" in data else ""
        hint = (
            '<p class="note">Arrow keys step through the frames, the space bar plays. Lines lead from a cross to the '
            "place in the reference that the block takes features from. The correction is bright where motion "
            f"explained little.{masked}</p>"
        )
        return section("Frame by frame", f'<div id="player"><div class="players">{figures}</div>{controls}</div>', hint)

    def _curve(self) -> str:
        frames = self.scores.frames
        series = {title: [s.psnr.get(m) if s.distance else None for s in frames] for m, title in METHODS.items()}
        marks = [(s.number, s.reason) for s in frames if s.reason]
        label = f"PSNR per frame of {', '.join(METHODS.values())}, and the refreshes; the numbers are in the player"
        plots = [curve(series, marks, "PSNR, dB", label, width, self.start) for width in WIDTHS]
        drawn = "".join(
            f'<div class="{name}" data-ends="{left:.4f} {right:.4f}">{svg}'
            f'<div class="cursor" style="top:{top:.1%};bottom:{bottom:.1%}"></div></div>'
            for name, (svg, (left, right), (top, bottom)) in zip(("wide", "narrow"), plots, strict=True)
        )
        reasons = Counter(reason for _, reason in marks)
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        text = f'<p class="note">Refreshes by reason: {html.escape(counts)}. Click the plot to go to a frame.</p>'
        return section("Quality per frame", f'<div class="plot click">{drawn}</div>', text)

    def _worst(self, numbers: Sequence[int]) -> str:
        cells = "".join(
            f'<li><button data-frame="{n}"><img alt="" loading="lazy">frame {self.start + n}: '
            f"{self.scores.frames[n].psnr['ours']:.2f} dB, distance {self.scores.frames[n].distance}</button></li>"
            for n in numbers
        )
        return section("Worst frames", f'<ol class="worst">{cells}</ol>')

    def _metrics(self) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self.scores.remarks())
        caption = "Distance to the teacher's video; an arrow shows the better direction"
        shown = table(caption, self.scores.table(METHODS, self.start))
        return section("Metrics", shown, f'<ul class="note">{lines}</ul>' if lines else "")

    def _speed(self) -> Iterator[str]:
        points = [("this block", self.main, self.scores.speed, _mean(self.runs[self.main], "ours"))]
        points += [
            (run.get("group", "this block"), name, run["speed"], _mean(run, "ours"))
            for name, run in self.runs.items()
            if name != self.main and "psnr" in run["metrics"]
        ]
        refreshes = max(1, len(self.scores.frames) - len(self.scores.at()))
        free = len(self.scores.frames) / refreshes
        points += [
            ("no block", METHODS[m], free, _mean(self.runs[self.main], m)) for m in ("repeat", "blend", "motion")
        ]
        label = "; ".join(f"{name}: {x:.2f} times the teacher's speed, {y:.2f} dB" for _, name, x, y in points)
        plot = both(scatter, points, "times as fast as the teacher", "PSNR, dB", label)
        yield section("Quality and speed", plot)
        if self.parts:
            rows = {row: {part: 1e3 * s for part, s in found.items()} for row, found in self.parts.items()}
            said = "; ".join(
                f"{row}: " + ", ".join(f"{p} {v:.1f} ms" for p, v in found.items()) for row, found in rows.items()
            )
            yield section("Time of a frame", both(bars, rows, "ms", said))

    def _cut(self) -> Iterator[str]:
        yield section("The cut", f"<pre>{html.escape(self.cut)}</pre>")
        if self.stages:
            rows = stage_rows(self.stages)
            yield section("The teacher, stage by stage", table("Stages in the order in which they run", rows))
        if self.inspection is not None:
            rows, words = self.inspection.tried_rows(), html.escape(self.inspection.recommendation())
            shown = table("Without any training; RMSE of features scaled to length 1", rows)
            yield section("Other cuts on this clip", shown, f"<p>{words}</p>")

    def _about(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.about["versions"].items())
        facts = {"versions": versions, **{name: self.about[name] for name in ("device", "teacher", "block", "policy")}}
        items = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items())
        command = f'<pre id="command">{html.escape(self.about["command"])}</pre>'
        return section("How this report was made", f"<dl>{items}</dl>", "<p>The command:</p>", command)


def _mean(run: Mapping[str, Any], method: str) -> float:
    return float(run["metrics"]["psnr"]["methods"][method]["mean"])
