"""Exported programs give what the model gives, frame after frame; nothing but torch and numpy is needed here."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import TEACHERS, Chain
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter
from shortcutv2v.cli import main
from shortcutv2v.deploy.writers import halved
from shortcutv2v.errors import ExportError, InputError
from shortcutv2v.player import Player
from shortcutv2v.quality import Quality
from shortcutv2v.refresh import Function
from shortcutv2v.runtime import MANIFEST, Runner, RunnerError
from shortcutv2v.translate import Translator

# torch 2.6 takes the weights for constants of the program and warns of each.
pytestmark = pytest.mark.skipif(torch.__version__ < (2, 7), reason="its torch.export finds no weights")


def wrapped(teacher: str = "chain", variant: str = "flow", **options: Any) -> shortcutv2v.ShortcutV2V:
    kind, enc_layer, dec_layer = TEACHERS[teacher]
    frame = torch.rand(1, 3, 16, 24)
    model = shortcutv2v.wrap(kind().eval(), enc_layer, dec_layer, example_inputs=frame, variant=variant, **options)
    return randomised(model)


def randomised(model: shortcutv2v.ShortcutV2V, std: float = 0.1) -> shortcutv2v.ShortcutV2V:
    for parameter in model.blocks.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("teacher", "variant"),
    [("chain", "paper"), ("chain", "single_stage"), ("chain", "flow"), ("unet", "flow"), ("two_outputs", "flow")],
)
def test_a_stream_of_frames_equals_the_models(teacher: str, variant: str, tmp_path: Path) -> None:
    model = wrapped(teacher, variant, max_interval=4)
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")
    runner, stream, blocks = Runner(tmp_path), model.stream(), set()
    for frame in torch.rand(12, 1, 3, 16, 24):
        found, expected = runner(frame.numpy()), stream(frame)
        if teacher == "two_outputs":
            assert list(found) == ["output_picture", "output_mask"]
            close(found["output_mask"], expected["mask"])
            found, expected = found["output_picture"], expected["picture"]
        close(found, expected)
        blocks.add(runner.distance)
    assert blocks == {0, 1, 2, 3}
    assert runner.refreshes == 3


def test_the_shortcuts_program_holds_no_weight_of_the_middle(tmp_path: Path) -> None:
    model = wrapped("unet")
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")
    held = {name: held_by(tmp_path / f"{name}.pt2") for name in ("reference", "shortcut")}
    for parameter in model.teacher.get_submodule("mid").parameters():
        assert not any(torch.equal(parameter, x) for x in held["shortcut"])
        assert any(torch.equal(parameter, x) for x in held["reference"])


def held_by(path: Path) -> list[Tensor]:
    program = torch.export.load(path)
    return [x for x in (*program.state_dict.values(), *program.constants.values()) if isinstance(x, Tensor)]


def test_modes_of_model_and_teacher_are_left_as_found(tmp_path: Path) -> None:
    model = wrapped().train()
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")
    assert model.training
    assert all(block.training for block in model.blocks)
    assert not model.teacher.training


def test_pixels_go_in_and_out(tmp_path: Path) -> None:
    adapter = Adapter(nn.Sequential(Chain(), nn.Sigmoid()).eval(), "0.1", "0.4")
    model = randomised(adapter.wrap(torch.rand(1, 3, 15, 24)))
    clip = torch.randint(0, 256, (4, 15, 24, 3), dtype=torch.uint8)
    translate = Translator(adapter, model)
    expected = [translate(frame.permute(2, 0, 1)).permute(1, 2, 0).int() for frame in clip]
    for pixels in (False, True):
        folder = tmp_path / str(pixels)
        shortcutv2v.export(model, torch.rand(1, 3, 15, 24), folder, format="torch", adapter=adapter, pixels=pixels)
        runner = Runner(folder)
        for frame, wanted in zip(clip, expected, strict=True):
            picture = runner(frame.numpy())
            assert picture.dtype == np.uint8
            assert picture.shape == (15, 24, 3)
            assert np.abs(picture.astype(int) - wanted.numpy()).max() <= 1


def test_frames_are_padded_to_what_the_teacher_takes(tmp_path: Path) -> None:
    adapter = Adapter(TEACHERS["unet"][0]().eval(), "first", "up")
    adapter.multiple = 4
    with pytest.warns(UserWarning, match="padded"):
        model = randomised(adapter.wrap(torch.rand(1, 3, 14, 21)))
    shortcutv2v.export(model, torch.rand(1, 3, 14, 21), tmp_path, format="torch", adapter=adapter)
    runner, player = Runner(tmp_path), Player(adapter, model.stream())
    for frame in torch.rand(5, 1, 3, 14, 21):
        close(runner(frame.numpy()), player.picture(player(frame).output))


@pytest.mark.parametrize(("variant", "multiple"), [("paper", 1), ("flow", 2)])
def test_one_export_serves_several_sizes(variant: str, multiple: int, tmp_path: Path) -> None:
    model = wrapped("chain", variant, max_interval=2)
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch", dynamic=True)
    runner, stream = Runner(tmp_path), model.stream()
    assert runner.manifest["multiple"] == multiple
    for size in ((16, 24), (22, 40), (22, 40), (22, 40), (12, 14)):
        frame = torch.rand(1, 3, *size)
        close(runner(frame.numpy()), stream(frame))
    assert runner.refreshes == 1, "a new size begins a new video"
    if multiple > 1:
        with pytest.raises(RunnerError, match=r"exported for float32 1x3x\(16\+2n\)x\(24\+2n\)"):
            runner(np.zeros((1, 3, 17, 24), np.float32))


def test_a_teacher_bound_to_one_size_is_not_dynamic(tmp_path: Path) -> None:
    class Positioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.rand(1, 6, 16, 24))

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.nn.functional.interpolate(self.table, (16, 24))

    layers = list(Chain())
    model = shortcutv2v.wrap(
        nn.Sequential(*layers[:2], Positioned(), *layers[2:]).eval(), "1", "5", example_inputs=torch.rand(1, 3, 16, 24)
    )
    with pytest.raises(ExportError, match="the programs hold for one size only"):
        shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch", dynamic=True)


class Feedback(Adapter):
    """The last two pictures come back in; before there are any, the first frame stands for them."""

    full = True

    def start(self) -> Any:
        return {"past": ()}

    def inputs(self, frame: Tensor, state: Any) -> Any:
        past = state["past"] or (frame, frame)
        return (torch.cat((frame, past[0] - past[-1]), 1),), {}

    def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
        past = (*state["past"], output)
        return {"past": (past * 2 if self.full else past)[-2:]}


class Recurrent(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(6, 3, 3, padding=1), *(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.Tanh())


def test_recurrent_state_goes_through_the_programs(tmp_path: Path) -> None:
    adapter = Feedback(Recurrent().eval(), "0", "2")
    model = randomised(adapter.wrap(torch.rand(1, 3, 8, 12)))
    shortcutv2v.export(model, torch.rand(1, 3, 8, 12), tmp_path, format="torch", adapter=adapter)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert [(pair["input"], pair["initial"]) for pair in manifest["recurrent"]] == [
        ("state_past_0", 0),
        ("state_past_1", 0),
        ("begins", 1),
    ]
    runner, stream = Runner(tmp_path), model.stream()
    for _ in range(2):
        player = Player(adapter, stream)
        for frame in torch.rand(6, 1, 3, 8, 12):
            close(runner(frame.numpy()), player(frame).output)
        runner.reset()
        stream.reset()


def test_state_that_grows_is_refused(tmp_path: Path) -> None:
    adapter = Feedback(Recurrent().eval(), "0", "2")
    adapter.full = False
    model = adapter.wrap(torch.rand(1, 3, 8, 12))
    with pytest.raises(ExportError, match="the state of Feedback changes its structure after the first frame"):
        shortcutv2v.export(model, torch.rand(1, 3, 8, 12), tmp_path, format="torch", adapter=adapter)


def test_frames_that_the_adapter_paints_are_refused(tmp_path: Path) -> None:
    class Opening(Feedback):
        def opening(self, frame: Tensor, state: Any) -> Any:
            return frame if not state["past"] else None

    adapter = Opening(Recurrent().eval(), "0", "2")
    model = adapter.wrap(torch.rand(1, 3, 8, 12))
    with pytest.raises(ExportError, match="Opening paints the first frames"):
        shortcutv2v.export(model, torch.rand(1, 3, 8, 12), tmp_path, format="torch", adapter=adapter)


def test_a_leak_and_a_shown_shortcut_go_through_the_programs(tmp_path: Path) -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.mid, self.dec, self.out = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            middle = self.mid(self.enc(x)).relu()
            return self.out(self.dec(middle)) + middle

    frame = torch.rand(1, 3, 8, 12)
    model = shortcutv2v.wrap(Leaky(), "enc", "dec", example_inputs=frame, on_leak="reuse", show_shortcut=True)
    shortcutv2v.export(randomised(model), frame, tmp_path, format="torch")
    assert "reference_leak_0" in json.loads((tmp_path / MANIFEST).read_text())["reference"]
    runner, stream = Runner(tmp_path), model.stream()
    for frame in torch.rand(7, 1, 3, 8, 12):
        close(runner(frame.numpy()), stream(frame))


def test_a_policy_of_the_hosts_sees_the_signals(tmp_path: Path) -> None:
    model = wrapped()
    model.refresh = Function(lambda look: False, interval=9)
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")
    frames = torch.rand(3, 1, 3, 16, 24)
    with torch.no_grad():
        reference = model.reference(frames[0])[1]
        expected = [model.analyse(reference, model.head(frame))[0].unexplained.item() for frame in frames[1:]]
    seen = []

    def due(distance: int, signals: dict[str, float]) -> bool:
        seen.append((distance, signals["unexplained_0"]))
        return distance == 2

    runner = Runner(tmp_path, refresh=due)
    outputs = [runner(frame.numpy()) for frame in frames]
    assert [distance for distance, _ in seen] == [1, 2]
    np.testing.assert_allclose([signal for _, signal in seen], expected, rtol=1e-3)
    close(outputs[2], model.reference(frames[2])[0].detach())
    assert runner.refreshes == 2


def test_a_quality_holds_without_torch(tmp_path: Path) -> None:
    model = wrapped()
    still, moved = torch.rand(2, 1, 3, 16, 24)
    with torch.no_grad():
        reference = model.reference(still)[1]
        size = model.analyse(reference, model.head(moved))[0].unexplained.item()
    target = 40.0
    level = target + Quality(target, level=0.0).margin - Quality(target, level=0.0).estimate(size)
    for shift, refreshes in ((0.5, 1), (-0.5, 2)):
        model.refresh = Quality(target, level=level + shift, interval=9)
        shortcutv2v.export(model, still, tmp_path, format="torch")
        runner = Runner(tmp_path)
        for frame in (still, still, moved):
            runner(frame.numpy())
        assert runner.refreshes == refreshes
    model.refresh = Quality(target)
    shortcutv2v.export(model, still, tmp_path / "uncalibrated", format="torch")
    with pytest.raises(RunnerError, match="once it is calibrated"):
        Runner(tmp_path / "uncalibrated")


def test_a_frame_that_is_not_finite_leaves_no_reference(tmp_path: Path) -> None:
    model = wrapped(max_interval=9)
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")
    runner, frame = Runner(tmp_path), np.random.default_rng(0).random((1, 3, 16, 24), np.float32)
    runner(frame)
    runner(np.full_like(frame, np.nan))
    output = runner(frame)
    assert runner.distance == 0
    close(output, model.reference(torch.from_numpy(frame))[0].detach())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    target = tmp_path_factory.mktemp("programs")
    return shortcutv2v.export(wrapped(), torch.rand(1, 3, 16, 24), target, format="torch")


def frame_of(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([frame_of(1, 3, 16, 25)], "input is float32 1x3x16x25; the programs were exported for float32 1x3x16x24"),
        ([frame_of(1, 3, 16, 24, dtype=np.float64)], "input is float64"),
        ([frame_of(3, 16, 24)], "input is float32 3x16x24"),
        ([], "got 0 inputs; the programs take 1: input"),
        ([frame_of(1, 3, 16, 24)] * 2, "got 2 inputs"),
    ],
)
def test_frames_that_do_not_fit_are_refused(folder: Path, frames: list[Any], message: str) -> None:
    with pytest.raises(RunnerError, match=message):
        Runner(folder)(*frames)


def damaged(folder: Path, tmp_path: Path, **changes: Any) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, **changes}))
    return tmp_path


def test_damaged_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=f"holds no {MANIFEST}"):
        Runner(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(RunnerError, match="is damaged"):
        Runner(tmp_path)
    with pytest.raises(RunnerError, match="has format 99, this runner reads format 1"):
        Runner(damaged(folder, tmp_path, format=99))
    with pytest.raises(RunnerError, match="the refresh policy 'Mine' does not run here"):
        Runner(damaged(folder, tmp_path, refresh={"name": "Mine", "interval": 3}))
    with pytest.raises(RunnerError, match="expected one of onnxruntime, openvino, torch"):
        Runner(damaged(folder, tmp_path), engine="tflite")
    (tmp_path / "shortcut.pt2").unlink()
    with pytest.raises(RunnerError, match=r"holds no shortcut\.pt2"):
        Runner(tmp_path)


def test_programs_of_two_exports_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    damaged(folder, tmp_path)
    (tmp_path / "shortcut.pt2").write_bytes((tmp_path / "reference.pt2").read_bytes())
    with pytest.raises(RunnerError, match=r"shortcut\.pt2 belongs to another export"):
        Runner(tmp_path)


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_bicubic_reduction_is_a_convolution(step: int) -> None:
    x = torch.rand(2, 3, 12 * step, 9 * step)
    expected = torch.nn.functional.interpolate(x, scale_factor=1 / step, mode="bicubic")
    torch.testing.assert_close(halved(x, None, False, [1 / step, 1 / step]), expected)
    torch.testing.assert_close(halved(x, [12, 9], False, None), expected)


def test_other_bicubic_resizes_stay_what_they_are() -> None:
    x = torch.rand(1, 3, 12, 12)
    for given in (([4, 4], False, None), ([24, 24], False, None), ([6, 4], False, None), ([6, 6], True, None)):
        assert halved(x, *given) is NotImplemented


ADAPTER = """
import torch
from tests.conftest import Chain
from shortcutv2v import Adapter

def build_adapter():
    torch.manual_seed(0)
    return Adapter(Chain().eval(), "1", "4")
"""


def test_the_command_writes_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chain.py").write_text(ADAPTER)
    torch.manual_seed(0)
    adapter = Adapter(Chain().eval(), "1", "4")
    model = randomised(adapter.wrap(torch.rand(1, 3, 16, 24)))
    model.save(tmp_path / "block")
    given = ["export", "--adapter", str(tmp_path / "chain.py"), "--block", str(tmp_path / "block"), "--interval", "2"]
    given += ["--out", str(tmp_path / "out"), "--format", "torch"]
    assert main([*given, "--size", "16"]) == 2
    assert "expected HEIGHTxWIDTH" in capsys.readouterr().err
    assert main([*given, "--size", "16x24"]) == 0
    assert "shortcut.pt2" in capsys.readouterr().out
    runner, stream = Runner(tmp_path / "out"), model.stream(refresh=2)
    for frame in torch.rand(3, 1, 3, 16, 24):
        close(runner(frame.numpy()), stream(frame))


def test_a_teacher_captured_by_hooks_is_refused(tmp_path: Path) -> None:
    model = shortcutv2v.wrap(Chain(), "1", "4", example_inputs=torch.rand(1, 3, 16, 24), capture="hooks")
    with pytest.raises(ExportError, match="captured by hooks"):
        shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")


def test_arguments_are_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, frame = wrapped(), torch.rand(1, 3, 16, 24)
    with pytest.raises(ExportError, match="expected one of onnx, openvino, torch, aoti"):
        shortcutv2v.export(model, frame, tmp_path, format="tflite")
    with pytest.raises(InputError, match="pixels=True needs an adapter"):
        shortcutv2v.export(model, frame, tmp_path, pixels=True)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(ExportError, match=r"needs the package onnx_ir: pip install shortcutv2v\[export\]"):
        shortcutv2v.export(model, frame, tmp_path, format="onnx")


def test_the_runner_is_beside_the_programs(folder: Path) -> None:
    source = (folder / "runner.py").read_text()
    assert source == Path(shortcutv2v.runtime.__file__).read_text()
    assert "torch" not in {name.split(".")[0] for name in imported(source)}
    assert len(code_of(source)) < 200


def imported(source: str) -> set[str]:
    """Modules that a file imports on top level."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


def code_of(source: str) -> list[str]:
    """The lines of a file that are neither empty, nor comments, nor part of a docstring."""
    told: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            told |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), 1)
    return [line for number, line in lines if line.strip() and number not in told and not line.strip().startswith("#")]
