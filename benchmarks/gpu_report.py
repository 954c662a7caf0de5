"""Tables of `gpu.py`, and the notes for docs/speed.md, made from its JSON alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import speed_report
from benchmarks.gpu_bench import Outcome
from benchmarks.speed_report import Line

__all__ = ["line", "notes", "render", "table"]


def line(found: Outcome) -> str:
    """Return a check in one line of text."""
    error = "raised" if found.error is None else f"{found.error:.1e} of {found.tolerance:.1e} allowed"
    return f"{'ok    ' if found.passed else 'FAILED'} {found.name}: {error} ({found.note}; {found.seconds:.0f} s)"


def render(path: Path) -> str:
    """Write table and notes beside a JSON file of `gpu.py`; return the table."""
    saved: dict[str, Any] = json.loads(path.read_text())
    checks = [Outcome(**each) for each in saved["checks"]]
    lines = [Line(**each) for each in saved["lines"]]
    text = table(checks, saved["left_out"], lines, saved["about"])
    path.with_suffix(".md").write_text(text)
    path.with_name("notes.md").write_text(notes(checks, saved["left_out"], lines, saved["about"]))
    return text


def table(checks: Sequence[Outcome], left_out: Sequence[str], lines: Sequence[Line], about: dict[str, str]) -> str:
    """Return checks and timings as Markdown."""
    text = ["# Checks on a GPU", "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    text += ["Made by `python benchmarks/gpu.py`. Errors are relative to the largest value expected.", ""]
    text += ["| check | | error | allowed | why not less | where |", "|---|---|---|---|---|---|"]
    for each in checks:
        error = "raised" if each.error is None else f"{each.error:.1e}"
        result = "ok" if each.passed else "**failed**"
        text.append(f"| {each.name} | {result} | {error} | {each.tolerance:.1e} | {each.why} | {each.note} |")
    text += ["", *(f"- left out: {each}" for each in left_out), ""] if left_out else [""]
    return "\n".join(text) + (speed_report.table(lines, {}).replace("speed.py", "gpu.py") if lines else "")


def notes(checks: Sequence[Outcome], left_out: Sequence[str], lines: Sequence[Line], about: dict[str, str]) -> str:
    """Return the section for docs/speed.md."""
    failed = [each.name for each in checks if not each.passed]
    verdict = f"{len(failed)} failed: {', '.join(failed)}" if failed else "all passed"
    text = ["## On a GPU", "", f"{about['device']}, {about['versions']}, commit {about['commit']}, batch 1, untrained"]
    text += [f"blocks. {len(checks)} checks against the CPU: {verdict} (`python benchmarks/gpu.py`).", ""]
    text += ["Each row treats teacher and model alike; the last column is the mean frame of a video.", ""]
    text += ["| network | treatment | block | teacher | shortcut frame | video |", "|---|---|---|---|---|---|"]
    text += [_row(case, lines, video) for case in _cases(lines) for video in speed_report.videos(lines, case)]
    return "\n".join([*text, *(["", f"Left out: {'; '.join(left_out)}."] if left_out else [])]) + "\n"


def _cases(lines: Sequence[Line]) -> list[str]:
    """Return the cases, the treatments of a network together."""
    return sorted(dict.fromkeys(each.case for each in lines), key=lambda case: case.partition(",")[0])


def _row(case: str, lines: Sequence[Line], video: speed_report.Video) -> str:
    name, _, treatment = case.partition(", ")
    own = {each.name: each for each in lines if each.case == case}
    teacher, short = own["teacher frame"].best, own[f"{video.block}: shortcut frame"].best
    cells = [name, treatment, video.block, f"{teacher * 1e3:.2f} ms", f"{short * 1e3:.2f} ms, {teacher / short:.2f}x"]
    return f"| {' | '.join([*cells, f'{video.gain:.2f}x at interval {video.interval}'])} |"
