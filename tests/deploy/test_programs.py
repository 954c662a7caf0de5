"""Exported programs give what the model gives, frame after frame; nothing but torch and numpy is needed here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
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
from shortcutv2v.engines import MANIFEST, RunnerError
from shortcutv2v.errors import ExportError, InputError
from shortcutv2v.player import Player
from shortcutv2v.quality import Speed
from shortcutv2v.refresh import Every, Function, Look
from shortcutv2v.runtime import Runner
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
    assert runner.refreshes == stream.refreshes == {"first": 1, "distance": 2}


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
    assert runner.refreshes == {"first": 1}, "a new size begins a new video"
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


class Opening(Feedback):
    """Paints the first two frames by a network of its own; the state grows meanwhile."""

    full = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.painter = nn.Conv2d(3, 3, 3, padding=1)

    def opening(self, frame: Tensor, state: Any) -> Any:
        return self.painter(frame) if len(state["past"]) < 2 else None


@torch.no_grad()
def test_frames_that_the_adapter_paints_are_programs_of_their_own(tmp_path: Path) -> None:
    adapter = Opening(Recurrent().eval(), "0", "2")
    model = randomised(adapter.wrap(torch.rand(1, 3, 8, 12)))
    shortcutv2v.export(model, torch.rand(1, 3, 8, 12), tmp_path, format="torch", adapter=adapter)
    runner, stream = Runner(tmp_path), model.stream()
    assert list(runner.manifest["programs"]) == ["reference", "shortcut", "opening_0", "opening_1"]
    for _ in range(2):
        player = Player(adapter, stream)
        for frame in torch.rand(7, 1, 3, 8, 12):
            close(runner(frame.numpy()), player(frame).output)
        assert runner.refreshes == stream.refreshes
        runner.reset()
        stream.reset()


def test_an_adapter_that_paints_every_frame_is_refused(tmp_path: Path) -> None:
    adapter = Opening(Recurrent().eval(), "0", "2")
    model = adapter.wrap(torch.rand(1, 3, 8, 12))
    adapter.opening = lambda frame, state: frame
    with pytest.raises(ExportError, match="Opening paints more than 8 frames"):
        shortcutv2v.export(model, torch.rand(1, 3, 8, 12), tmp_path, format="torch", adapter=adapter)
    assert not list(tmp_path.iterdir())


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
    seen: dict[str, list[Any]] = {"model": [], "programs": []}

    def policy(look: Look, who: str) -> bool:
        seen[who].append((look.distance, float(look.predictions[0].unexplained)))
        return look.distance == 2

    runner = Runner(tmp_path, refresh=partial(policy, who="programs"))
    stream = model.stream(refresh=partial(policy, who="model"))
    for frame in torch.rand(6, 1, 3, 16, 24):
        close(runner(frame.numpy()), stream(frame))
    assert runner.refreshes == stream.refreshes == {"first": 1, "policy": 2}
    np.testing.assert_allclose(seen["programs"], seen["model"], rtol=1e-3)
    with pytest.warns(UserWarning, match="refreshes every 9 frames"):
        assert Runner(tmp_path).policy == Every(9)


def moving_clip() -> Tensor:
    """A pan, a scene that stands still, and another scene."""
    one, other = torch.rand(2, 3, 4, 12)
    wide = torch.nn.functional.interpolate(torch.stack((one, other)), size=(16, 60), mode="bicubic").clamp(0, 1)
    left = [0, 1, 2, 3, 5, 7, 9, 12, 15, 15, 15, 15, 15, 16, 17, 18]
    return torch.stack([wide[i : i + 1, ..., x : x + 24] for i in (0, 1) for x in left])


GOALS = {
    "quality 30": {"quality": 30},
    "quality 36, checked": {"quality": "36dB@90%", "guarantee": 3},
    "out of reach": {"quality": 70},
    "lossless": {"quality": "lossless"},
    "interval": {"refresh": 4},
}


@pytest.mark.parametrize("teacher", ["chain", "unet"])
def test_goals_by_name_decide_as_the_models_stream_does(teacher: str, tmp_path: Path) -> None:
    model, clip = wrapped(teacher), moving_clip()
    nn.init.normal_(model.teacher[5].weight if teacher == "chain" else model.teacher.last.weight, std=0.02)
    randomised(model, std=0.02)
    model.calibrate(clip.mul(255).byte().flatten(0, 1))
    shortcutv2v.export(model, clip[0], tmp_path, format="torch")
    for name, goal in GOALS.items():
        runner, stream, shortcuts = Runner(tmp_path, **goal), model.stream(**goal), 0
        for number, frame in enumerate(clip):
            close(runner(frame.numpy()), stream(frame))
            assert runner.refreshes == stream.refreshes, (name, number)
            shortcuts += runner.distance > 0
        assert (shortcuts > 0) == (name not in ("out of reach", "lossless")), (name, stream.refreshes)
        assert stream.refreshes.total() > 1, name


def test_a_speed_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrapped()
    model.refresh = Speed(3.0, interval=50)
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")
    runner, seconds, now = Runner(tmp_path), {"reference": 0.8, "shortcut": 0.1}, [0.0]

    def timed(name: str, program: Any, given: Any) -> Any:
        now[0] += seconds[name]
        return program(given)

    monkeypatch.setattr(runner, "_programs", {name: partial(timed, name, of) for name, of in runner._programs.items()})
    monkeypatch.setattr("shortcutv2v.runtime.time.perf_counter", lambda: now[0])
    for frame in torch.rand(60, 1, 3, 16, 24).numpy():
        runner(frame)
    assert 2.5 < 60 * 0.8 / now[0] < 4
    assert runner.refreshes["budget"] > 5


def test_goals_that_the_programs_cannot_serve_are_refused(tmp_path: Path) -> None:
    model = wrapped()
    shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path, format="torch")
    runner, frame = Runner(tmp_path, quality=40), np.zeros((1, 3, 16, 24), np.float32)
    runner(frame)
    with pytest.raises(RunnerError, match="these programs give no signals for a policy: calibrate the model"):
        runner(frame)
    with pytest.raises(InputError, match="give one of refresh=, quality= and speed="):
        Runner(tmp_path, quality=40, refresh=3)
    with pytest.raises(InputError, match="quality='good'"):
        Runner(tmp_path, quality="good")


@pytest.mark.parametrize("show", [False, True])
def test_a_condition_that_changes_refreshes(tmp_path: Path, show: bool) -> None:
    class Styled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.mid, self.dec, self.out = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))

        def forward(self, x: Tensor, style: Tensor) -> Tensor:
            return self.out(self.dec(self.mid(self.enc(x)) * style[:, :, None, None]))

    given = torch.rand(1, 3, 8, 12), torch.rand(1, 3)
    model = shortcutv2v.wrap(Styled(), "enc", "dec", example_inputs=given, max_interval=4, show_shortcut=show)
    randomised(model)
    shortcutv2v.export(model, given, tmp_path, format="torch")
    runner, stream = Runner(tmp_path), model.stream()
    styles = torch.rand(3, 1, 3)
    for number, frame in enumerate(torch.rand(9, 1, 3, 8, 12)):
        style = styles[number // 3]
        close(runner(frame.numpy(), style.numpy()), stream(frame, style))
    assert runner.refreshes == stream.refreshes == {"first": 1, "condition": 2}


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
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
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
    with pytest.raises(InputError, match="no refresh policy 'Mine'.*import the module that defines it first"):
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


ALONE = """
import sys
sys.modules["torch"] = sys.modules["shortcutv2v" if sys.argv[1] == "runner" else "runner"] = None
sys.path.insert(0, sys.argv[2])
runtime = __import__(sys.argv[1], fromlist=["Runner"])
try:
    runtime.Runner(sys.argv[2], quality=40)
except ModuleNotFoundError as error:
    print(error)
known = ("numpy", "shortcutv2v", "runner", *sys.stdlib_module_names)
modules = ((name.partition(".")[0], module) for name, module in sys.modules.items() if module is not None)
print({name for name, module in modules if name not in known and getattr(module, "__file__", None)})
"""


@pytest.mark.parametrize("module", ["runner", "shortcutv2v.runtime"])
def test_the_runner_imports_numpy_and_the_engine_alone(module: str, folder: Path) -> None:
    run = [sys.executable, "-S", "-c", "import sys; sys.path += sys.argv.pop(1).split(':')\n" + ALONE]
    where = f"{Path(np.__file__).parents[1]}:{Path(shortcutv2v.__file__).parents[1]}"
    done = subprocess.run([*run, where, module, folder], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["import of torch halted; None in sys.modules", "set()"]
    assert len(Path(shortcutv2v.runtime.__file__).read_text().splitlines()) < 200
