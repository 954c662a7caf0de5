"""Thirty frames go through each example's script: train a few steps, translate, measure. Random narrow weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from examples.vid2vid.maps import pack_labels

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.cli import main
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.measure import Scores, compare

FRAMES = 30
WIDTHS = "{" + ",".join(f"{2**level}: 4" for level in range(2, 9)) + "}"
SETTINGS = {
    "unsup": ["ngf=2", "n_blocks=2"],
    "vid2vid": ["input_nc=12", "ngf=2", "n_blocks=2", "fg=True", "foreground=[1]"],
    "vtoonify": [
        "backbone='dualstylegan'",
        "in_size=64",
        "out_size=256",
        "style_channels=4",
        "num_mlps=7",
        f"generator_channels={WIDTHS}",
    ],
}


def _write_clip(folder: Path, labels: bool) -> Path:
    """Thirty random frames as PNG files."""
    torch.manual_seed(0)
    if labels:
        packed = pack_labels(torch.randint(0, 3, (FRAMES, 16, 24)), torch.randint(0, 4, (FRAMES, 16, 24)))
        frames = (packed * 255).round().byte()
    else:
        frames = torch.randint(0, 256, (FRAMES, 3, 16, 24), dtype=torch.uint8)
    source = folder / "clip"
    source.mkdir()
    from PIL import Image

    for number, frame in enumerate(frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(source / f"{number:04d}.png")
    return source


def _check_measure(name: str, settings: list[str], block: Path, source: Path) -> None:
    adapter = find_adapter(name, settings)
    model = shortcutv2v.load(block, adapter.teacher).eval()
    with video.open(source) as clip:
        frames = [pictures.score for pictures in compare(model, adapter, clip)]
    assert [score.distance for score in frames] == [0, 1, 2] * 10
    scores = Scores(frames)
    assert 0 < scores.psnr("ours") < 100
    assert scores.psnr("reuse") != scores.psnr("ours")  # three steps of training have moved something


@pytest.mark.parametrize("name", SETTINGS)
def test_train_translate_and_measure(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _write_clip(tmp_path, labels=name == "vid2vid")
    preset = ["--device", "cpu", "--set", "random=True"]
    for setting in SETTINGS[name]:
        preset += ["--set", setting]
    block, target = tmp_path / "block", tmp_path / "out"
    small = ["--steps", "3", "--minutes", "5", "--crop", "16", "--batch-size", "2", "--channels", "2"]
    assert main(["train", *preset, *small, "--out", str(block), str(source)], adapter=name) == 0
    assert main(["translate", *preset, "--block", str(block), str(source), str(target)], adapter=name) == 0
    scale = 4 if name == "vtoonify" else 1
    with video.open(target) as clip:
        sizes = {tuple(frame.shape) for frame in clip}
        assert clip.frames == FRAMES
    assert sizes == {(3, 16 * scale, 24 * scale)}
    _check_measure(name, preset[3::2], block, source)
    capsys.readouterr()
    assert main(["measure", *preset, "--block", str(block), "--frames", "0:9", str(source)], adapter=name) == 0
    printed = capsys.readouterr().out
    assert "| clip | ours |" in printed
    assert "teacher frame" in printed


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_are_asked_for(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _write_clip(tmp_path, labels=False)
    assert main(["translate", str(source), str(tmp_path / "out")], adapter=name) == 2
    message = capsys.readouterr().err
    assert "checkpoint=" in message
    assert "random=True" in message
