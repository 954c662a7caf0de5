"""A teacher in bfloat16: cast as asked, or chosen by hardware, time and PSNR on the first frames."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import precision, video
from shortcutv2v.cli import main
from shortcutv2v.errors import InputError
from shortcutv2v.measure import compare

CLIP = torch.randint(0, 256, (6, 3, 16, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Timed(nn.Module):
    """A picture that bfloat16 changes by `noise`; every frame takes a known time in each precision."""

    def __init__(self, full: float = 0.02, low: float = 0.01, noise: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        self.register_buffer("shift", torch.full((1,), 1 / 3))
        self.seconds = {torch.float32: full, torch.bfloat16: low}
        self.noise = noise
        for layer in self.layers:
            layer.weight.data.copy_(torch.eye(3).view(3, 3, 1, 1) + torch.randn(3, 3, 1, 1) * 1e-4)
            layer.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds[x.dtype])
        wrong = self.noise if x.dtype == torch.bfloat16 else 0.0
        return self.layers(x) + self.shift - 1 / 3 + wrong


@pytest.fixture(autouse=True)
def hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "in_hardware", lambda device: True)


def chosen(teacher: nn.Module) -> str:
    """The line; the teacher must have its very weights if float32 is kept."""
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    line = precision.choose(shortcutv2v.Adapter(teacher, "layers.0", "layers.1"), CLIP)
    kept = all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert kept == line.startswith("float32")
    return line


def test_faster_and_close_enough_is_taken() -> None:
    teacher = Timed()
    line = chosen(teacher)
    assert line.startswith("bfloat16: 0.")
    assert "on the first 6 frames" in line
    assert {value.dtype for value in teacher.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("teacher", "why"),
    [
        (Timed(low=0.03), "bfloat16 takes 1."),
        (Timed(noise=0.1), "the teacher has 20."),
        (Timed(noise=float("nan")), "the teacher has nan dB"),
    ],
    ids=["slower", "poor", "not finite"],
)
def test_float32_stays_bit_for_bit_and_the_line_says_why(teacher: nn.Module, why: str) -> None:
    assert why in chosen(teacher)


def test_a_teacher_that_cannot_run_in_bfloat16_stays() -> None:
    class Constant(Timed):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(super().forward(x), torch.eye(3).view(3, 3, 1, 1))

    assert "the teacher does not run in bfloat16 (" in chosen(Constant())


def test_no_hardware_means_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "in_hardware", lambda device: False)
    assert chosen(Timed()) == "float32: this processor has no bfloat16 in hardware"


def test_tied_weights_and_buffers_are_restored() -> None:
    teacher = Timed(low=0.03)
    teacher.layers[1].weight = teacher.layers[0].weight
    teacher.twin = nn.Module()
    teacher.twin.register_buffer("shift", teacher.shift, persistent=False)
    held = [*teacher.parameters(), *teacher.buffers()]
    chosen(teacher)
    assert all(a is b for a, b in zip(held, [*teacher.parameters(), *teacher.buffers()], strict=True))
    assert {tensor.dtype for tensor in held} == {torch.float32}


def test_a_recurrent_adapter_is_tried_with_its_own_outputs() -> None:
    seen: list[torch.dtype] = []

    class Recurrent(shortcutv2v.Adapter):
        def opening(self, frame: Tensor, state: Any) -> Any:
            return frame if state is None else None

        def advance(self, state: Any, frame: Tensor, output: Tensor) -> Tensor:
            seen.append(output.dtype)
            return output

    teacher = Timed()
    assert "on the first 5 frames" in precision.choose(Recurrent(teacher), CLIP)
    assert seen == [torch.float32] * 6 + [torch.bfloat16] * 6


def test_a_teacher_in_half_precision_stays_as_it_is() -> None:
    assert precision.choose(shortcutv2v.Adapter(Timed().bfloat16()), CLIP).startswith("bfloat16: the teacher has no")


def test_names_and_devices_that_are_refused() -> None:
    adapter = shortcutv2v.Adapter(Timed())
    with pytest.raises(InputError, match="float16: expected a GPU"):
        precision.cast(adapter, "float16")
    with pytest.raises(InputError, match=r"'int8': expected one of float32, bfloat16, float16"):
        precision.cast(adapter, "int8")


@pytest.mark.parametrize("quality", [None, 30.0])
def test_a_model_moves_to_bfloat16_as_a_whole(chain: nn.Module, quality: float | None) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(torch.rand(1, 3, 16, 16),))
    frames = [frame[None] / 255 for frame in CLIP]
    wanted = [model(frame) for frame in frames]
    model.to(torch.bfloat16)
    stream = model.stream() if quality is None else model.stream(quality=quality)
    for frame, full in zip(frames, wanted, strict=True):
        made = stream(frame.bfloat16())
        assert made.dtype == torch.bfloat16
        torch.testing.assert_close(made.float(), full, rtol=0.0, atol=0.05)
    assert stream.shortcuts


ADAPTER = """
import torch
from shortcutv2v import Adapter

def build_adapter() -> Adapter:
    torch.manual_seed(0)
    return Adapter(torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))).eval(), "0", "2")
"""


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """The arguments that commands share: the clip, and the adapter."""
    (tmp_path / "tiny.py").write_text(ADAPTER)
    with video.create(tmp_path / "clip.mp4", rate=Fraction(25)) as writer:
        for frame in CLIP:
            writer.write(frame)
    return [str(tmp_path / "clip.mp4"), "--adapter", str(tmp_path / "tiny.py")]


def test_translate_runs_in_the_precision_that_is_asked_for(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[torch.dtype] = []
    monkeypatch.setattr("shortcutv2v.translate.to_uint8", lambda x: taken.append(x.dtype) or (x[0] * 255).byte())
    assert main(["translate", *given, str(tmp_path / "out.mp4"), "--dtype", "bfloat16"]) == 0
    assert set(taken) == {torch.bfloat16}
    monkeypatch.setattr(precision, "choose", lambda adapter, frames: f"float32: {len(list(frames))} frames")
    assert main(["translate", *given, str(tmp_path / "out2.mp4"), "--dtype", "auto"]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "float32: 6 frames"
    assert taken[-1] == torch.float32


@pytest.mark.parametrize("lookahead", [[], ["--lookahead"]], ids=["causal", "lookahead"])
def test_measure_compares_with_the_teacher_in_float32(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], lookahead: list[str]
) -> None:
    found: dict[str, Any] = {}
    exec(ADAPTER, found)
    found["build_adapter"]().wrap(CLIP[:1] / 255, max_interval=1).save(tmp_path / "block")
    options = ["--block", str(tmp_path / "block"), "--metrics", "psnr", *lookahead]
    decibels = []
    for dtype in ("float32", "bfloat16"):
        assert main(["measure", *given, *options, "--dtype", dtype, "--intervals", "2"]) == 0
        out = capsys.readouterr().out
        assert f"teacher in {dtype} beside float32: " in out
        decibels.append(float(out.split(" beside float32: ")[1].split(" dB")[0]))
    assert decibels[0] == 100 > decibels[1] > 40
    assert main(["measure", *given, *options, "--intervals", "2"]) == 0
    assert "beside" not in capsys.readouterr().out


def test_the_target_of_a_comparison_is_another_teacher() -> None:
    teacher, other = Timed(0.0, 0.0), Timed(0.0, 0.0)
    other.layers[2].bias.data.fill_(0.1)
    adapter = shortcutv2v.Adapter(teacher, "layers.0", "layers.1")
    model = adapter.wrap(CLIP[:1] / 255)
    for target, least, most in ((None, 60.0, 100.0), (shortcutv2v.Adapter(other), 19.0, 21.0)):
        scores = [pictures.score for pictures in compare(model, adapter, [CLIP[0]] * 3, refresh=3, target=target)]
        assert all(least < score.psnr["ours"] <= most for score in scores if score.distance)
        assert any(score.distance for score in scores)


def test_translate_refuses_float16_on_the_cpu(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--dtype", "float16"]
    assert main(["translate", *given, str(tmp_path / "out.mp4"), *options]) == 2
    assert "float16: expected a GPU" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
