"""The speed benchmark: arithmetic and pictures of its report, and every callable of its cases once, on tiny nets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks import speed, speed_cases, speed_report
from benchmarks.speed_report import Line
from torch import nn

RESULTS = Path(speed_report.__file__).parent / "results"


def line(name: str, macs: int | None, best: float, baseline: float = 10.0, case: str = "unsup") -> Line:
    return Line(case, name, macs, best, best * 1.1, 0.05, baseline)


LINES = [
    line("teacher frame", 100, 10.0),
    line("low, paper: shortcut frame", 10, 2.5),
    line("low, paper: reference frame", 130, 13.0),
    line("low, published: shortcut frame", 20, 12.0),
    line("low, paper, compiled: shortcut frame", 10, 1.0, baseline=4.0),
    line("low, paper, compiled: reference frame", 130, 4.0, baseline=4.0),
    line("low: head", None, 1.0),
]


def test_a_video_is_one_reference_and_then_shortcuts() -> None:
    found = {video.block: video for video in speed_report.videos(LINES, "unsup")}
    assert set(found) == {"low, paper", "low, paper, compiled"}
    plain, compiled = found["low, paper"], found["low, paper, compiled"]
    assert (plain.seconds, plain.gain, plain.bound) == pytest.approx((6.0, 10 / 6, 2.0))
    assert (compiled.seconds, compiled.gain, compiled.bound) == pytest.approx((2.0, 2.0, 2.0))


def test_points_are_relative_to_the_teacher_treated_alike() -> None:
    assert speed_report.points(LINES, "unsup") == [
        ("low, paper", 0.1, 0.25),
        ("low, paper, compiled", 0.1, 0.25),
        ("low, published", 0.2, 1.2),
    ]


def test_report_is_made_from_json_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    speed_report.save(path, {"device": "an abacus"}, LINES)
    assert speed_report.load(path) == ({"device": "an abacus"}, LINES)
    text = speed_report.render(path)
    assert "- device: an abacus" in text
    assert "| unsup | low: head |  | 1000.0 | 5% | 10.00 |" in text
    assert "| unsup | low, paper | 3 | 6000 | 1.67 | 2.00 |" in text
    assert path.with_suffix(".md").read_text() == text
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.md")), ids=lambda p: p.stem)
def test_committed_tables_are_those_of_the_json(path: Path) -> None:
    if path.with_suffix(".json").exists() and "benchmarks/speed.py" in path.read_text():
        about, found = speed_report.load(path.with_suffix(".json"))
        assert path.read_text() == speed_report.table(found, about)


def test_every_point_has_a_mark_of_its_own_inside_the_axes() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    shown = [(f"block {i}", 0.1 + 0.01 * i, 0.5 + 0.001 * i) for i in range(14)]
    speed_report._panel(axes, "case", shown)
    drawn = [mark for mark in axes.lines if mark.get_label() in dict.fromkeys(name for name, *_ in shown)]
    assert len({(mark.get_marker(), mark.get_color()) for mark in drawn}) == len(shown)
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert all(low < x < high and bottom < y < top for _, x, y in shown)
    assert high / low < 4
    assert len(axes.get_xticks()) >= 2


@pytest.fixture
def tiny() -> speed_cases.Case:
    torch.manual_seed(0)
    widths = ((3, 8), (8, 8), (8, 8), (8, 8), (8, 3))
    teacher = nn.Sequential(*(nn.Conv2d(i, o, 3, padding=1) for i, o in widths))
    return speed_cases.Case(teacher, {"medium": ("0", "2"), "low": ("0", "3")}, (torch.rand(1, 3, 8, 9),))


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "setting",
    [
        speed_cases.Setting(CPU),
        speed_cases.Setting(CPU, torch.bfloat16, channels_last=True),
    ],
    ids=str,
)
def test_teacher_and_blocks_are_treated_alike(tiny: speed_cases.Case, setting: speed_cases.Setting) -> None:
    work = speed_cases.case_work(tiny, setting)
    found = {x.name: x for x in speed.measure("tiny", work, 0.0)}
    assert next(iter(found)) == "teacher frame"
    wanted = ("low, paper", "medium, flow", "medium, paper, width 1/4", "medium, paper, plain", "medium, published")
    assert all(f"{key}: shortcut frame" in found for key in wanted)
    assert {x.baseline for x in found.values()} == {found["teacher frame"].best}
    parts = ("medium: head", "medium, paper: block", "medium: tail")
    assert found["medium, paper: shortcut frame"].macs == sum(found[part].macs for part in parts)
    weight = tiny.teacher[0].weight
    assert weight.dtype == setting.dtype
    assert weight.is_contiguous(memory_format=setting.memory_format)


def test_compiled_lines_are_compared_with_the_compiled_teacher(
    tiny: speed_cases.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = torch.compile
    modes = []

    def eager(target: object, mode: str | None = None, **options: object) -> object:
        modes.append(mode)
        return compile_(target, backend="eager", **options)

    steps = []
    monkeypatch.setattr("torch.compile", eager)
    monkeypatch.setattr("torch.compiler.cudagraph_mark_step_begin", lambda: steps.append(1))
    work = speed_cases.case_work(tiny, speed_cases.Setting(CPU, compiled="reduce-overhead"))
    kept = {name: call for name, call in work.items() if name == "teacher frame" or "compiled" in name}
    found = {x.name: x for x in speed.measure("tiny", kept, 0.0)}
    teacher = found["teacher frame, compiled"]
    assert (teacher.macs, teacher.baseline) == (found["teacher frame"].macs, teacher.best)
    assert found["medium, flow, compiled: shortcut frame"].baseline == teacher.best
    assert found["medium, flow, compiled: shortcut frame"].macs < teacher.macs
    assert set(modes) == {"reduce-overhead"}
    assert steps


def test_options() -> None:
    options = speed.options_of(["--only", "unsup", "--compile", "--dtype", "float16", "--device", "cpu"])
    assert (options.compile, options.dtype, options.device) == ("default", "float16", CPU)
    assert speed.options_of(["--compile", "reduce-overhead"]).compile == "reduce-overhead"
    assert str(speed_cases.Setting(CPU, torch.float16, True, "default")) == (
        "float16, batch 1, channels_last, compiled lines: mode default"
    )
    assert speed_cases.Setting(torch.device("cuda")).implementations == ("reference", "plain", "fused")
