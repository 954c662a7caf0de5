"""`shortcutv2v train`: flags, YAML, what it writes, and how it refuses."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from safetensors.torch import load_file
from tests.cli.command_line import CHAIN, refused

import shortcutv2v
from shortcutv2v.cli import main, setup
from shortcutv2v.distill import Settings, TrainerSettings, fitting
from shortcutv2v.distill.verdict import Deadline
from shortcutv2v.errors import InputError

FRAMES = 6
ADAPTER = CHAIN.replace('adapter.cuts = {"small": ("0", "1")}', "pass")


@pytest.fixture
def common(clip: Path, adapter: str) -> list[str]:
    """The arguments of every run: a clip, an adapter, a short end."""
    short = ["--steps", "2", "--crop", "16", "--batch-size", "2", "--progress", "false"]
    return [str(clip), "--adapter", adapter, *short]


def printed_config(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, argv), "--print_config"])
    assert ended.value.code == 0
    found: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return found


def test_options_saved_by_a_run_repeat_it(common: list[str], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", *common, "--out", str(first), "--set", "width=6", "--weights.feature", "3"]) == 0
    assert main(["train", "--config", str(first / "train.yaml"), "--out", str(second)]) == 0
    one, two = (load_file(folder / "block.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "width=6" in yaml.safe_load((first / "train.yaml").read_text())["set"]


def test_yaml_and_flags_say_the_same(common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {
        "clips": [common[0]],
        "adapter": common[2],
        "out": str(tmp_path / "block"),
        "set": {"width": 5},
        "size": 180,
        "lr": 0.002,
        "weights": {"output": 1.0},
        "perceptual": {"class_path": "VGGPerceptual", "init_args": {"weights": "vgg.pth"}},
        "trainer": {"precision": "bf16-mixed"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    found = printed_config(capsys, "--config", tmp_path / "run.yaml", "--lr", "0.003", "--steps", "7")
    same = ("clips", "adapter", "out", "set", "size")
    assert {name: found[name] for name in same} == {name: settings[name] for name in same}
    assert (found["lr"], found["steps"], found["trainer"]["precision"]) == (0.003, 7, "bf16-mixed")
    assert (found["weights"], found["perceptual"]["init_args"]["weights"]) == ({"output": 1.0}, "vgg.pth")
    assert "max_steps" not in found["trainer"]  # one name for one thing


def test_logs_and_checkpoints_lie_under_out(common: list[str], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "block"
    options = ["--validation", common[0], "--trainer.val_check_interval", "1", "--trainer.log_every_n_steps", "1"]
    assert main(["train", *common, *options, "--out", str(out), "--ema", "0.9"]) == 0
    assert {path.name for path in out.iterdir()} == {
        *("block.safetensors", "shortcut.json", "last.ckpt", "train.yaml", "logs", "training.html")
    }
    logs = EventAccumulator(str(out / "logs"))
    logs.Reload()
    scalars, images = logs.Tags()["scalars"], logs.Tags()["images"]
    assert {"train/loss", "train/feature", "val/psnr", "val/psnr_reuse", "val/psnr_repeat"} <= set(scalars)
    assert {"pictures/frame", "pictures/teacher", "pictures/shortcut", "pictures/error"} <= set(images)


def built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *argv: str
) -> tuple[pl.Trainer, shortcutv2v.distill.Distiller, Any]:
    """What a run is made of, without running it."""
    seen: list[Any] = []

    def made(trainer: Any, distiller: Any, data: Any, resume: Any) -> None:
        seen.append((trainer, distiller, data))
        raise InputError("made")

    monkeypatch.setattr(fitting, "run", made)
    assert main(["train", *argv, "--out", str(tmp_path / "block")]) == 2
    ((trainer, distiller, data),) = seen
    return trainer, distiller, data


def test_options_reach_what_they_name(common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--preset", "l2c", "--weights.perceptual", "0", "--adversary.form", "hinge", "--device", "cpu"]
    more = ["--decay", "0.3", "--interval", "4", "--variant", "paper", "--channels", "2", "--minutes", "1.5"]
    last = ["--trainer.gradient_clip_val", "0.5", "--trainer.accumulate_grad_batches", "2"]
    trainer, distiller, data = built(monkeypatch, tmp_path, *common, *options, *more, *last)
    assert (distiller.lr, distiller.betas, distiller.decay) == (5e-5, (0.5, 0.999), 0.3)
    assert (distiller.weights.gan, distiller.weights.perceptual, distiller.adversary.form) == (1.0, 0.0, "hinge")
    assert (distiller.model.max_interval, distiller.model.blocks[0].variant) == (4, "paper")
    assert (distiller.model.blocks[0].channels, data.settings.kind, data.batch_size) == (2, "sequences", 2)
    assert (trainer.max_steps, trainer.default_root_dir) == (2, str(tmp_path / "block"))
    assert (trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (0.5, 2)
    (timer,) = [each for each in trainer.callbacks if isinstance(each, Deadline)]
    assert timer.time_remaining() == 90


def test_every_option_of_fit_is_one_of_the_command_line(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed_config(capsys, *common, "--out", tmp_path)
    missing = {each.name for each in dataclasses.fields(Settings)} - found.keys()
    assert not missing
    trainers = {each.name for each in dataclasses.fields(TrainerSettings)}
    assert trainers - found["trainer"].keys() == {"accelerator"}  # which is --device


def test_a_numbered_device_is_the_one_trained_on(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def made(settings: Settings, *_: Any, **__: Any) -> None:
        seen.update(vars(settings.trainer))
        raise InputError("made")

    monkeypatch.setattr(setup, "_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(fitting, "make_trainer", made)
    assert main(["train", *common, "--out", str(tmp_path / "block"), "--device", "cuda:1"]) == 2
    assert (seen["accelerator"], seen["devices"]) == ("cuda", [1])


def test_every_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    entries = [f"-{entry}" for entry in out.split("\n  -")[1:]]
    assert len(entries) > 40
    for name in ("--adapter", "--out", "--preset", "--weights", "--perceptual", "--trainer.precision"):
        assert any(entry.startswith(f"{name} ") for entry in entries), name
    for entry in entries:
        _, text = entry.split("\n" if "\n" in entry.split("   ")[0] else "   ", maxsplit=1)
        assert not text.strip().startswith("(type"), f"{entry.split()[0]} is not documented"


class TestRefusals:
    def test_unknown_option(self, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused(capsys, "train", *common, "--out", tmp_path / "block", "--learning", "1")
        assert "--learning" in line
        assert "shortcutv2v train --help" in line
        assert not (tmp_path / "block").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--preset", "v3c"], "v2c"),
            (["--lr", "fast"], "fast"),
            (["--weights.gan", "-1"], "the gan loss must be a number of at least 0, got -1.0"),
            (["--weights.sharpness", "1"], "no loss sharpness: expected some of feature, alignment"),
            (["--perceptual", "VGGPerceptual", "--perceptual.weights", "gone.pth"], "gone.pth"),
            (["--config", "gone.yaml"], "gone.yaml"),
            (["--kind", "triples"], "sequences"),
            (["--trainer.precision", "3"], "precision"),
            (["--minutes", "null", "--steps", "-1"], "would never end"),
            (["--steps", "-5"], "the number of steps must be"),
            (
                ["--trainer.accumulate_grad_batches", "0"],
                "accumulate_grad_batches must be a whole number of at least 1",
            ),
            (["--trainer.val_check_interval", "0"], "val_check_interval must be a whole number of at least 1"),
            (["--trainer.max_epochs", "2"], "unknown option --trainer.max_epochs"),
            (["--patience", "0"], "patience must be a whole number of at least 1"),
            (["--save-every", "0"], "save_every must be a whole number of at least 1"),
            (["--ema", "1"], "ema must be a number above 0 and below 1"),
            (["--frames", "5"], "frames is the length of sequences, but pairs are drawn"),
            (["--adversary.form", "hinge"], "adversary is given, but the weights gan and temporal_gan are 0"),
            (["--interval", "0"], "max_interval must be"),
            (["--seed", "-1"], "seed"),
            (["--cut", "low"], "the adapter has no named cuts"),
            (["--trainer.devices", "0"], "devices"),
            (["--adversary.form", "hing"], "error: unknown form of GAN loss 'hing': expected one of least_squares"),
            (["--batch_size", "2"], "did you mean --batch-size?"),
            (["--crop", "big"], "error: --crop big: expected a whole number or null"),
            (["--betas", "0.9,0.99"], "error: --betas 0.9,0.99: expected a list such as [0.9, 0.99] or null"),
            (["--progress", "maybe"], "error: --progress maybe: expected true or false"),
            (["--config", "number.yaml"], "error: --crop big: expected a whole number or null"),
            (["--config", "unknown.yaml"], "sharpness"),
            (["--config", "clip.mp4"], "expected a YAML file"),
            (["--config", "string.yaml"], "write `clips: [clip.mp4]`"),
        ],
    )
    def test_bad_values(
        self,
        options: list[str],
        message: str,
        common: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("string.yaml").write_text("clips: clip.mp4")
        Path("number.yaml").write_text("crop: big")
        Path("unknown.yaml").write_text("sharpness: 3")
        assert message in refused(capsys, "train", *common, "--out", tmp_path / "block", *options)

    @pytest.mark.parametrize(
        ("option", "value", "limit"),
        [
            ("--seed", "99999999999", "at most 4294967295"),
            ("--seed", "4294967296", "at most 4294967295"),
            ("--trainer.devices", "-5", "trainer.devices must be a whole number of at least 1"),
            ("--trainer.devices", "100000", "trainer.devices must be"),
            ("--size", "99999999", "at most 16384"),
            ("--size", "180x99999999", "at most 16384"),
            ("--batch-size", "100000", "batch_size must be a whole number of at least 1 and at most 1024"),
            ("--workers", "200", "at most 64, got 200"),
            ("--workers", "-1", "at least 0"),
            ("--channels", "100000000", "at most 4096"),
            ("--channels", "0", "at least 1"),
            ("--crop", "99999999", "at most 16384"),
            ("--frames", "99999999", "at most 1024"),
            ("--minutes", "1e13", "minutes must be"),
            ("--minutes", "-1", "minutes must be a number above 0"),
            ("--trainer.limit_val_batches", "-1", "limit_val_batches must be"),
            ("--trainer.precision", "bf16-true", "would round the teacher"),
        ],
    )
    def test_values_out_of_range_are_refused_before_anything_is_loaded(
        self,
        option: str,
        value: str,
        limit: str,
        common: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(setup, "find_adapter", lambda *_: pytest.fail("the adapter was loaded"))
        assert limit in refused(capsys, "train", *common, "--out", tmp_path / "block", option, value)
        assert not (tmp_path / "block").exists()

    @pytest.mark.parametrize(
        "text",
        [
            "perceptual: {class_path: stranger.Module}",
            "perceptual: stranger.Module",
            "perceptual: {class_path: FeaturePerceptual, init_args: {module: stranger.Module}}",
            "perceptual: {class_path: FeaturePerceptual, init_args: {module: {class_path: stranger.Module}}}",
            "adversary: {class_path: stranger.Module}",
            "adversary: {init_args: {spatial: {class_path: stranger.Module}}}",
            "trainer: {callbacks: [{class_path: stranger.Module}]}",
            "trainer: {logger: {class_path: stranger.Module}}",
        ],
    )
    def test_a_config_file_imports_no_module(
        self,
        text: str,
        common: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nModule = dict")
        (tmp_path / "given.yaml").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        refused(capsys, "train", *common, "--out", tmp_path / "block", "--config", tmp_path / "given.yaml")
        assert not (tmp_path / "imported").exists()

    def test_missing_clips(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "clips" in refused(capsys, "train", "--adapter", "unsup", "--out", tmp_path)

    def test_out_is_missing_or_a_file(self, common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert re.search('required: out|"out" is required', refused(capsys, "train", *common))
        assert "cannot be a folder to write to" in refused(capsys, "train", *common, "--out", common[0])


def test_a_second_run_in_a_folder_is_refused_before_it_writes(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "block"
    assert main(["train", *common, "--out", str(out)]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    code = f"import pathlib, time; from shortcutv2v.locks import locked\nwith locked(pathlib.Path({str(out)!r}), ''):"
    holder: Any = subprocess.Popen([sys.executable, "-c", f"{code} print(1, flush=True); time.sleep(60)"], stdout=-1)
    try:
        holder.stdout.readline()
        monkeypatch.setattr(setup, "find_adapter", lambda *_: pytest.fail("the adapter was loaded"))
        assert f"another run is training in {out}" in refused(capsys, "train", *common, "--out", out, "--lr", "0.5")
    finally:
        holder.kill()
        holder.communicate()
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_warnings_are_one_line_without_code(common: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    argv = ["train", str(tmp_path / "bad.mp4"), *common, "--out", str(tmp_path / "block")]
    done = subprocess.run([sys.executable, "-m", "shortcutv2v", *argv], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
    assert line.startswith("shortcutv2v: warning: 1 of 2 clips left out")
    assert "find_clips(" not in done.stderr
