"""Training that fits the teacher: the work of a step, held-out clips, the minutes, the verdict."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v.distill import Distiller, LossWeights, fit, pace
from shortcutv2v.distill.clips import hold_out
from shortcutv2v.distill.pace import StepCost, choose_plan, validation_pace
from shortcutv2v.distill.plan import Plan, WithoutPictures, Work
from shortcutv2v.distill.verdict import Deadline, Verdict
from shortcutv2v.errors import InputError

SHORT: dict[str, Any] = {"batch_size": 2, "crop": 8, "progress": False}


def clip(frames: int = 9, size: tuple[int, int] = (12, 16)) -> Tensor:
    return torch.randint(0, 256, (frames, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model_of(chain: nn.Module) -> shortcutv2v.ShortcutV2V:
    torch.manual_seed(1)
    return shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 12, 16),), channels=4)


class Watched(Distiller):
    """Notes the batches it gets."""

    seen: list[tuple[bool, tuple[int, ...]]]

    def objective(self, batch: Any) -> Any:
        total, found = super().objective(batch)
        frames = batch.batch if isinstance(batch, WithoutPictures) else batch
        shape = tuple(frames.shape) if isinstance(frames, Tensor) else tuple(frames[0].f[0].shape)
        assert ("output" in found) is not isinstance(batch, WithoutPictures)
        self.__dict__.setdefault("seen", []).append((isinstance(batch, WithoutPictures), shape))
        return total, found


def slow(monkeypatch: pytest.MonkeyPatch, features: float, pictures: float) -> None:
    """Let the teacher seem to take so many seconds per pixel."""
    monkeypatch.setattr(pace, "_measure", lambda *_: StepCost(features, pictures))


class Samples:
    croppable = True

    def add_crop(self, crop: tuple[int, int]) -> None:
        if crop[0] % 32:
            raise InputError("a multiple of 32")


class Module(nn.Module):
    """What `choose_plan` asks of a `Distiller`."""

    def __init__(self, **weights: float) -> None:
        super().__init__()
        self.weights, self.model = LossWeights.plain(**weights), nn.Module()
        self.model.teacher = nn.Module()


@pytest.mark.parametrize(
    ("features", "pictures", "expected"),
    [
        (1e-6, 1e-5, Plan(8, (90, 96))),  # 0.7 s: the usual work
        (1e-6, 5e-4, Plan(8, (90, 96), 4, 7, (32, 32))),  # 35 s with pictures
        (1e-6, 5e-5, Plan(8, (90, 96), 4, 8, (90, 96))),  # 3.5 s with pictures: in every fourth step
        (1e-4, 5e-4, Plan(7, (32, 32), 4, 3, (32, 32))),  # features take long, too
        (1.0, 2.0, Plan(1, (32, 32), 4, 1, (32, 32))),  # nothing helps: the least
    ],
)
def test_a_step_takes_about_a_second(
    features: float, pictures: float, expected: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, features, pictures)
    monkeypatch.setattr(pace, "_step", lambda *_: None)
    plan, seconds = choose_plan(Module(), Samples(), Plan(8, (90, 96)), fixed=False)
    assert plan == expected
    if pictures < 1:
        assert 0.3 < seconds < 1.3
    assert choose_plan(Module(), Samples(), Plan(8, (90, 96)), fixed=True)[0] == Plan(8, (90, 96))


def test_without_losses_of_features_every_step_has_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch, 5e-4, 5e-4)
    monkeypatch.setattr(pace, "_step", lambda *_: None)
    plan, seconds = choose_plan(Module(feature=0, alignment=0), Samples(), Plan(8, (96, 96)), fixed=False)
    assert (plan, plan.every) == (Plan(1, (32, 32)), 1)
    assert seconds < 1


@pytest.mark.parametrize("cache", [None, "auto"])
def test_a_heavy_teacher_draws_pictures_in_every_fourth_step(
    cache: str | None, chain: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, 1e-5, 2e-3)
    model = model_of(chain)
    made: Any = fit(model, clip(size=(40, 40)), minutes=5, steps=9, progress=False, distiller=Watched, cache=cache)
    plan = made.trainer.datamodule.plan
    assert (plan.every, plan.picture_crop, plan.crop) == (4, (32, 32), (40, 40))
    steps = made.seen[-9:]
    assert [without for without, _ in steps] == [False, True, True, True, False, True, True, True, False]
    assert {shape[0] for without, shape in steps if without} == {plan.batch_size}
    assert {shape[0] for without, shape in steps if not without} == {plan.picture_batch}
    assert {shape[-1] for without, shape in steps if not without} == {32}


def test_measuring_changes_nothing(chain: nn.Module) -> None:
    """A run whose work was measured, and kept, ends as one that was not measured."""
    found = []
    for minutes in (None, 5.0):
        torch.manual_seed(3)
        teacher = nn.Sequential(*[*chain][:3], nn.BatchNorm2d(6), nn.Dropout(0.2), *[*chain][3:]).train()
        model = shortcutv2v.wrap(teacher, "1", "6", example_inputs=(torch.rand(1, 3, 12, 16),), channels=4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the teacher is in train mode
            fit(model, clip(), minutes=minutes, steps=3, cache=None, weights=LossWeights.plain(gan=1), lr=0.01, **SHORT)
        found.append([*model.blocks.parameters(), *teacher.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("cache", [None, "auto"])
def test_a_resumed_run_repeats_what_was_chosen(
    cache: str | None, chain: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed run ends as the whole one, bit for bit, although this machine seems faster now."""
    ends: dict[str, Any] = {"minutes": 5, "progress": False, "schedule": 8, "cache": cache}

    def trained(folder: Path, steps: int, **more: Any) -> list[Tensor]:
        model = model_of(chain)
        fit(model, clip(40, (40, 40)), steps=steps, folder=folder, **ends, **more)
        return [*model.blocks.parameters()]

    slow(monkeypatch, 1e-5, 2e-3)
    whole = trained(tmp_path / "whole", 8)
    trained(tmp_path / "parts", 3)
    slow(monkeypatch, 1e-9, 1e-9)
    resumed = trained(tmp_path / "parts", 8, resume=tmp_path / "parts" / "last.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    other = trained(tmp_path / "other", 8)
    assert not all(torch.equal(a, b) for a, b in zip(whole, other, strict=True))


def test_a_run_that_ends_by_steps_measures_nothing(chain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_measure", lambda *_: pytest.fail("measured"))
    fit(model_of(chain), clip(), minutes=None, steps=1, progress=False)


def test_a_busy_machine_makes_no_teacher_heavy() -> None:
    """Time spent waiting for other processes is not the teacher's."""
    seconds, result = pace.timed(lambda: time.sleep(0.5) or "done")
    assert result == "done"
    assert seconds < 0.3 or torch.cuda.is_available()


class TestHoldOut:
    @pytest.mark.parametrize(
        ("lengths", "trained", "held"),
        [
            ([23], [23], None),  # less than eight windows of three
            ([24], [21], [3]),
            ([100, 5], [91, 5], [9]),
            ([300, 24], [270, 21], [30, 3]),
        ],
    )
    def test_ends_of_long_clips(self, lengths: list[int], trained: list[int], held: list[int] | None) -> None:
        train, rest = hold_out([clip(length, (2, 2)) for length in lengths], 3)
        assert [len(each) for each in train] == trained
        assert (None if rest is None else [len(each) for each in rest]) == held

    def test_fit_holds_out_what_it_validates_on(self, chain: nn.Module) -> None:
        made = fit(model_of(chain), clip(30), minutes=None, steps=2, **SHORT)
        assert [len(each) for each in made.trainer.datamodule.clips] == [27]
        assert "dB over reuse" in made.verdict or "no better than reuse" in made.verdict
        for none in (fit(model_of(chain), clip(30), minutes=None, steps=2, validation=None, **SHORT),):
            assert [len(each) for each in none.trainer.datamodule.clips] == [30]
            assert none.verdict == ""


class TestVerdict:
    @pytest.mark.parametrize(
        ("points", "expected"),
        [
            ([(100, 40.0)], r"PSNR 40 dB to the teacher \(reuse 34\.5, repeat 30\): \+5\.5 dB over reuse$"),
            ([(50, 39.0), (100, 40.0)], r"\+5\.5 dB over reuse; still rising, more minutes will help"),
            ([(50, 39.9), (100, 40.0)], "levelled off, more minutes will help little"),
            ([(50, 30.0), (100, 33.0)], r"-1\.5 dB, no better than reuse; still rising, more minutes will help"),
            ([(50, 33.0), (100, 33.0)], "no better than reuse, and not rising: .*another cut"),
        ],
    )
    def test_says_what_was_reached(self, points: list[tuple[int, float]], expected: str) -> None:
        verdict = Verdict()
        verdict.load_state_dict({"points": [[step, psnr, 34.5, 30.0] for step, psnr in points]})
        assert re.search(expected, verdict.sentence())

    def test_the_last_validation_is_not_repeated(self, chain: nn.Module) -> None:
        class Counted(Distiller):
            validated = 0

            def on_validation_start(self) -> None:
                Counted.validated += 1

        options: dict[str, Any] = {"validation": clip(), "distiller": Counted, "val_check_interval": 2, **SHORT}
        fit(model_of(chain), clip(), minutes=None, steps=4, **options)
        assert Counted.validated == 2
        fit(model_of(chain), clip(), minutes=None, steps=3, **options)
        assert Counted.validated == 2 + 2


class TestMinutes:
    def test_the_last_validation_is_part_of_them(self, chain: nn.Module) -> None:
        class Slow(Distiller):
            def validation_step(self, batch: Any, batch_idx: int) -> None:
                time.sleep(0.8)
                super().validation_step(batch, batch_idx)

        options: dict[str, Any] = {"validation": clip(), "distiller": Slow, "val_check_interval": 5, **SHORT}
        begun: list[float] = []
        Slow.on_train_start = lambda self: begun.append(time.monotonic())  # type: ignore[method-assign]
        fit(model_of(chain), clip(), minutes=0.1, limit_val_batches=2, cache=None, **options)
        assert time.monotonic() - begun[0] < 6 + 2

    def test_they_begin_with_the_first_step(self, chain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pace, "_measure", lambda *_: time.sleep(3) or StepCost(1e-9, 1e-9))
        made = fit(model_of(chain), clip(), minutes=0.05, **SHORT)
        assert made.trainer.global_step > 3

    def test_a_reserve_is_at_most_a_third(self) -> None:
        deadline = Deadline(1.0)
        deadline.reserve = 1000.0
        assert deadline.time_remaining() == pytest.approx(40, abs=1e-6)

    def test_used_up_minutes_are_said(self, chain: nn.Module, tmp_path: Path) -> None:
        fit(model_of(chain), clip(), minutes=0.02, folder=tmp_path, **SHORT)
        with pytest.warns(UserWarning, match=r"has used .* of the run's 0\.02 minutes: nothing is left to train"):
            fit(model_of(chain), clip(), minutes=0.02, resume=tmp_path / "last.ckpt", **SHORT)

    def test_validation_takes_at_most_a_tenth(self) -> None:
        cost = pace.FrameCost(3.0, 1.0, None)  # type: ignore[arg-type]
        every, windows, seconds = validation_pace(cost, 3, minutes=4, step=1.0)
        assert (every, windows) == (240, 1)  # only at the end
        assert seconds == 16


def test_two_runs_in_one_folder_are_refused(chain: nn.Module, tmp_path: Path) -> None:
    code = f"""
import torch, shortcutv2v
teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
class Source:
    def __len__(self): return 6
    def __getitem__(self, i): return torch.zeros(3, 16, 16, dtype=torch.uint8)
shortcutv2v.fit(model, Source(), minutes=2, cache=None, crop=8, batch_size=1, save_every=1, workers=2,
                folder={str(tmp_path)!r}, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 90
        while not (tmp_path / "last.ckpt").exists() and time.monotonic() < end:
            time.sleep(0.1)
        with pytest.raises(InputError, match=f"another run is training in {tmp_path}"):
            fit(model_of(chain), clip(), minutes=None, steps=1, folder=tmp_path, **SHORT)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with pytest.warns(UserWarning, match="of an earlier run will be replaced"):
        fit(model_of(chain), clip(), minutes=None, steps=1, folder=tmp_path, **SHORT)


def test_logs_hold_options_rate_and_speed(chain: nn.Module, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options: dict[str, Any] = {"log_every_n_steps": 1, **SHORT}
    fit(model_of(chain), clip(), minutes=None, steps=4, folder=tmp_path, lr=0.01, **options)
    logs = EventAccumulator(str(tmp_path / "logs"))
    logs.Reload()
    assert {"run/lr", "run/steps_per_second"} <= set(logs.Tags()["scalars"])
    assert logs.Scalars("run/lr")[0].value == pytest.approx(0.01)
    assert logs.Scalars("run/lr")[-1].value < 0.01
    text = (tmp_path / "logs" / "hparams.yaml").read_text()
    assert "lr: 0.01" in text
    assert "batch_size: 2" in text


@pytest.mark.parametrize("broken", ["closed", "full", "gone"])
def test_a_broken_stderr_ends_no_run(broken: str, tmp_path: Path) -> None:
    code = """
import torch, shortcutv2v
teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
clip = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8)
made = shortcutv2v.fit(model, clip, minutes=9, steps=3, crop=8, batch_size=1)
open("done", "w").write(str(made.trainer.global_step))
"""
    where = {"closed": "2>&-", "full": "2>/dev/full >/dev/full", "gone": "2>&1 | true"}[broken]
    (tmp_path / "run.py").write_text(code)
    subprocess.run(["bash", "-c", f"{sys.executable} run.py {where}"], cwd=tmp_path, check=False, timeout=120)
    end = time.monotonic() + 60
    while not (tmp_path / "done").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert (tmp_path / "done").read_text() == "3"


def test_bars_show_caching_and_validation(chain: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {**SHORT, "progress": True, "log_every_n_steps": 1}
    fit(model_of(chain), clip(30), minutes=9.0, steps=3, **options)
    shown = capsys.readouterr()
    assert "caching features: 100%" in shown.err
    assert "validating: 100%" in shown.err
    assert "PSNR" in shown.out


def test_long_caching_is_announced(
    chain: nn.Module, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shortcutv2v.distill import fitting

    monkeypatch.setattr(fitting, "caching_seconds", lambda *_: 123.0)
    fit(model_of(chain), clip(9), minutes=9.0, steps=1, batch_size=2, crop=8)
    assert "caching the features of 9 frames takes about 2 minutes, then training begins" in capsys.readouterr().out


def test_the_shown_loss_is_smooth(chain: nn.Module) -> None:
    from shortcutv2v.distill.progress import Progress

    progress, trainer = Progress(), type("Trainer", (), {"global_step": 1, "callback_metrics": {}})()
    progress._bar = type("Bar", (), dict.fromkeys(("set_postfix", "update"), lambda *_, **__: None))()
    done = type("Module", (), {"done": lambda self: 0.5})()
    for loss in (1.0, 3.0):
        trainer.callback_metrics["train/loss"] = torch.tensor(loss)
        progress.on_train_batch_end(trainer, done)
    assert progress._values(trainer)["loss"] == "1.1"


def test_work_is_a_function_of_the_step() -> None:
    plan = Plan(8, (96, 96), every=4, picture_batch=1, picture_crop=(48, 48))
    assert [plan.work(step).pictures for step in range(6)] == [True, False, False, False, True, False]
    assert plan.work(7) == Work(8, (96, 96), pictures=False)
