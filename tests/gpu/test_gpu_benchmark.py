"""The command that checks a GPU, on the CPU: what a check is, what fails, and what is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks import gpu, gpu_bench, gpu_report
from benchmarks.gpu_bench import CHECKS, CPU, Bench, Check, apart, outcome
from benchmarks.speed_cases import Setting
from benchmarks.speed_report import Line

SMALL = Bench(CPU, small=True)


def test_errors_are_relative_and_what_is_not_comparable_is_infinite() -> None:
    one = torch.tensor([0.0, 4.0])
    assert apart((one + 1, {"x": one}), (one, {"x": one})) == 0.25
    assert apart(one.bfloat16(), one) == 0
    assert apart(torch.tensor([float("nan"), 4.0]), one) == float("inf")
    assert apart(torch.zeros(3), one) == float("inf")
    assert apart((), ()) == float("inf")
    with pytest.raises(ValueError, match="zip"):
        apart((one, one), (one,))


def found(*errors: float) -> Iterator[tuple[str, float]]:
    yield from ((f"part {i}", error) for i, error in enumerate(errors))


def test_a_check_passes_fails_or_raises() -> None:
    assert outcome(Check("a", 0.1, "why", lambda _: found(0.0, 0.1, 0.05)), SMALL).note == "part 1"
    results = [outcome(Check("a", 0.1, "why", lambda _, e=e: found(*e)), SMALL) for e in ((0.1,), (0.0, 0.2), ())]
    assert [(each.passed, each.error) for each in results] == [(True, 0.1), (False, 0.2), (False, float("inf"))]

    def broken(bench: Bench) -> Iterator[tuple[str, float]]:
        yield "fine", 0.0
        raise RuntimeError("no kernel\nfor this")

    raised = outcome(Check("a", 0.1, "why", broken), SMALL)
    assert (raised.passed, raised.error, raised.note) == (False, None, "RuntimeError: no kernel")


def test_a_failure_is_reported_the_rest_goes_on_and_the_status_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check("bad", 0.1, "because", lambda _: found(0.3)), Check("good", 0.1, "because", lambda _: found(0.0))]
    for module in (gpu, gpu_bench):
        monkeypatch.setattr(module, "CHECKS", checks)
    given = ["--device", "cpu", "--small", "--out", str(tmp_path)]
    assert gpu.main([*given, "--only", "bad", "good"]) == 1
    said = capsys.readouterr().out
    assert "FAILED bad: 3.0e-01 of 1.0e-01 allowed (part 0" in said
    assert "ok     good" in said
    saved = json.loads((tmp_path / "gpu.json").read_text())
    assert [(each["name"], each["passed"]) for each in saved["checks"]] == [("bad", False), ("good", True)]
    assert "| bad | **failed** | 3.0e-01 | 1.0e-01 | because | part 0 |" in (tmp_path / "gpu.md").read_text()
    assert "2 checks against the CPU: 1 failed: bad" in (tmp_path / "notes.md").read_text()
    assert gpu.main([*given, "--only", "good"]) == 0


def test_without_a_gpu_the_command_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main([]) == 2
    assert "--device cpu --small" in capsys.readouterr().err


def test_treatments_without_time_are_left_out_by_name() -> None:
    lines, left_out = gpu.timings(Setting(CPU), 0.0, time.monotonic() - 1)
    assert lines == []
    assert len(left_out) == len(gpu.LEVELS) * 4
    assert left_out[0] == "unsup, eager: no time left"


def test_notes_compare_within_a_treatment() -> None:
    def line(case: str, name: str, best: float) -> Line:
        return Line(case, name, 10, best, best, 0.0, 0.010)

    names = ("teacher frame", "low, flow: shortcut frame", "low, flow: reference frame")
    lines = [line("vid2vid, eager", name, best) for name, best in zip(names, (0.010, 0.002, 0.010), strict=True)]
    about = {"device": "an abacus", "versions": "torch 0", "commit": "abc"}
    text = gpu_report.notes([], ["unsup, eager: no time left"], lines, about)
    # At interval 6: (10 + 5 * 2) / 6 = 3.33 ms per frame.
    row = "| vid2vid | eager | low, flow | 10.00 ms | 2.00 ms, 5.00x | 3.00x at interval 6 |"
    assert row in text
    assert "an abacus, torch 0, commit abc" in text
    assert "Left out: unsup, eager: no time left." in text


@pytest.mark.parametrize("name", ["operators, forward", "blocks", "streams", "training step"])
def test_checks_pass_where_both_sides_are_the_cpu(name: str) -> None:
    (check,) = (each for each in CHECKS if each.name == name)
    result = outcome(check, SMALL)
    assert result.passed, result


@pytest.mark.parametrize("name", ["streams", "training step"])
def test_checks_find_another_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_models

    made, build = [], gpu_models._model

    def wrong(*args: object) -> object:
        model, adapter = build(*args)
        if len(made) % 2 == 0:  # as if the device computed something else
            for parameter in model.parameters():
                parameter.data.mul_(1.02)
        made.append(model)
        return model, adapter

    monkeypatch.setattr(gpu_models, "_model", wrong)
    (check,) = (each for each in CHECKS if each.name == name)
    result = outcome(check, SMALL)
    assert not result.passed
    assert result.error is not None


@pytest.mark.slow
def test_everything_runs_at_tiny_sizes(tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--small", "--out", str(tmp_path)]) == 0
    saved = json.loads((tmp_path / "gpu.json").read_text())
    assert all(each["passed"] for each in saved["checks"])
    assert saved["left_out"] == []
    assert len({line["case"] for line in saved["lines"]}) == len(gpu.LEVELS) * 4
    assert (tmp_path / "notes.md").read_text().count("| vid2vid |") >= 4
