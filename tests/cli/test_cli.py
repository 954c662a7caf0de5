"""The command line: what it makes, and the one line that it says when it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.cli.command_line import CHAIN, refused

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.cli import main
from shortcutv2v.cli.adapters import bundled_examples, find_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Scores, compare


@pytest.fixture
def block(adapter: str, clip: Path, tmp_path: Path) -> Path:
    options = ["--steps", "2", "--minutes", "1", "--crop", "16", "--batch-size", "2", "--out", str(tmp_path / "block")]
    assert main(["train", str(clip), "--adapter", adapter, *options]) == 0
    return tmp_path / "block"


def test_train_then_translate(adapter: str, clip: Path, block: Path, tmp_path: Path) -> None:
    assert {path.name for path in block.iterdir()} >= {"block.safetensors", "shortcut.json"}
    target = tmp_path / "out.mp4"
    assert main(["translate", str(clip), str(target), "--adapter", adapter, "--block", str(block)]) == 0
    with video.open(clip) as source, video.open(target) as result:
        assert (result.size, result.rate, len(list(result))) == (source.size, source.rate, 8)


def test_translate_without_a_block_is_the_teacher(adapter: str, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "frames"
    assert main(["translate", str(clip), str(target), "--adapter", adapter]) == 0
    net = find_adapter(adapter).teacher
    with torch.no_grad(), video.open(clip) as source, video.open(target) as result:
        for frame, picture in zip(source, result, strict=True):
            expected = (net(frame[None].float() / 255)[0].clamp(0, 1) * 255).round().byte()
            assert torch.equal(picture, expected)


@pytest.mark.parametrize(("typed", "expected"), [("48", (48, 64)), ("16x40", (16, 40))])
def test_size_is_a_height_or_both(
    adapter: str, clip: Path, tmp_path: Path, typed: str, expected: tuple[int, int]
) -> None:
    target = tmp_path / "frames"
    assert main(["translate", str(clip), str(target), "--adapter", adapter, "--size", typed]) == 0
    with video.open(target) as result:
        assert result.size == expected


def test_interval_one_is_the_teacher_too(adapter: str, clip: Path, block: Path, tmp_path: Path) -> None:
    for target, options in (("a", []), ("b", ["--block", str(block), "--interval", "1"])):
        assert main(["translate", str(clip), str(tmp_path / target), "--adapter", adapter, *options]) == 0
    with video.open(tmp_path / "a") as one, video.open(tmp_path / "b") as other:
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_measure_prints_both_tables(adapter: str, clip: Path, block: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["measure", str(clip), "--adapter", adapter, "--block", str(block), "--frames", "1:7"]) == 0
    out = capsys.readouterr().out
    assert "| clip.mp4 | ours |" in out
    assert "| clip.mp4 | f_ref reused |" in out
    assert "| average video frame |" in out


def test_measure_names_the_worst_frames_with_their_seconds(
    adapter: str, clip: Path, block: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["measure", str(clip), "--adapter", adapter, "--block", str(block), "--frames", "1:8"]) == 0
    found = re.findall(r"(\d+) at ([\d.]+) s \(([\d.]+) dB, distance (\d)\)", capsys.readouterr().out)
    net = find_adapter(adapter)
    model = shortcutv2v.load(block, net.teacher)
    with video.open(clip, start=1) as frames:
        scores = [pictures.score for pictures in compare(model, net, frames)]
    stretches = [min((s for s in scores[first : first + 3] if s.distance), key=lambda s: s.psnr["ours"])
                 for first in (0, 3)]  # fmt: skip
    expected = sorted(stretches, key=lambda s: s.psnr["ours"])
    assert [(int(n), float(t), int(d)) for n, t, _, d in found] == [
        (1 + s.number, (1 + s.number) / 25, s.distance) for s in expected
    ]
    assert [float(p) for _, _, p, _ in found] == pytest.approx([s.psnr["ours"] for s in expected], abs=0.01)


@pytest.mark.filterwarnings("ignore:the block was trained for intervals:UserWarning")
def test_measure_gives_a_row_per_interval(
    adapter: str, clip: Path, block: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    command = ["measure", str(clip), "--adapter", adapter, "--block", str(block)]
    assert main([*command, "--intervals", "4,2,2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split(" | ")[0]: line.split(" | ") for line in lines if line.startswith("| ")}
    assert list(rows) == ["| interval", "| 2", "| 4"]
    net = find_adapter(adapter)
    model = shortcutv2v.load(block, net.teacher)
    for interval in (2, 4):
        with video.open(clip) as frames:
            scores = Scores([p.score for p in compare(model, net, frames, refresh=interval)])
        assert max(s.distance for s in scores.frames) == interval - 1
        assert float(rows[f"| {interval}"][1]) == pytest.approx(scores.psnr("ours"), abs=0.01)
        assert any(line.startswith(f"interval {interval}, worst frames: ") for line in lines)


def test_profile_prints_a_table(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--adapter", adapter, "--size", "24x32"]) == 0
    out = capsys.readouterr().out
    assert "shortcut frame" in out
    assert "teacher frame" in out


class TestRefusals:
    def test_missing_video(self, adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = refused(capsys, "translate", tmp_path / "no  é.mp4", tmp_path / "out.mp4", "--adapter", adapter)
        assert "no  é.mp4" in line
        assert not (tmp_path / "out.mp4").exists()

    def test_truncated_video(
        self, adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = clip.read_bytes()
        clip.write_bytes(whole[: len(whole) // 2])
        line = refused(capsys, "translate", clip, tmp_path / "out.mp4", "--adapter", adapter)
        assert "clip.mp4" in line
        assert [path.name for path in tmp_path.glob("*.mp4")] == ["clip.mp4"]

    @pytest.mark.parametrize(
        "size", ["x", "24x", "x32", "0", "24x0", "24x32x1", "-4", "2.5", "", "99999999", "24x99999999", "²"]
    )
    def test_sizes(
        self, adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
    ) -> None:
        line = refused(capsys, "translate", clip, tmp_path / "out.mp4", "--adapter", adapter, f"--size={size}")
        assert f"--size {size}: expected HEIGHTxWIDTH" in line

    def test_profile_has_no_clip_for_the_ratio(self, adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert "--size 24: expected HEIGHTxWIDTH" in refused(capsys, "profile", "--adapter", adapter, "--size", "24")

    def test_empty_folder(self, adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "empty").mkdir()
        assert "empty" in refused(capsys, "translate", tmp_path / "empty", tmp_path / "out.mp4", "--adapter", adapter)

    def test_unwritable_target(
        self, adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = tmp_path / "missing" / "deep" / "out.mp4"
        assert "missing" in refused(capsys, "translate", clip, target, "--adapter", adapter)

    def test_training_on_one_frame(self, adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with video.create(tmp_path / "one.mp4", rate=25) as writer:
            writer.write(torch.zeros(3, 16, 16, dtype=torch.uint8))
        line = refused(capsys, "train", tmp_path / "one.mp4", "--adapter", adapter, "--out", tmp_path / "block")
        assert "one.mp4" in line
        assert not (tmp_path / "block").exists()

    def test_block_of_another_teacher(
        self, adapter: str, clip: Path, block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["translate", clip, tmp_path / "out.mp4", "--adapter", adapter, "--block", block]
        assert "another teacher" in refused(capsys, *command, "--set", "width=6")
        assert "other weights" in refused(capsys, *command, "--set", "seed=5")

    def test_resume_from_another_cut(
        self, adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = ["--adapter", adapter, "--out", str(tmp_path / "block"), "--crop", "16", "--minutes", "1"]
        assert main(["train", str(clip), *common, "--steps", "1"]) == 0
        last = tmp_path / "block" / "last.ckpt"
        assert last.exists()
        line = refused(capsys, "train", clip, *common, "--cut", "small", "--resume", last, "--steps", "2")
        assert "another cut" in line

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--adapter", "unsupp"], "expected a file.py, a module, or one of unsup"),
            (["--adapter", "gone.py"], "no adapter file"),
            (["--adapter", "./unsup"], "no adapter './unsup': expected a file.py, a module, or one of unsup"),
            (["--adapter", ""], "no adapter '': expected a file.py, a module, or one of demosaicnet, real_esrgan"),
            (["--adapter", "ADAPTER", "--interval", "3"], "--interval needs --block"),
            (["--adapter", "ADAPTER", "--crf", "52"], "expected 0 (best) to 51 (worst)"),
            (["--adapter", "ADAPTER", "--set", "depth=3"], "unexpected keyword argument 'depth'"),
            (["--adapter", "ADAPTER", "--set", "width"], "expected key=value"),
            (["--adapter", "ADAPTER", "--cut", "smal"], "no cut 'smal': expected one of small"),
            (["--adapter", "ADAPTER", "--device", "abacus"], "--device abacus"),
            (["--adapter", "ADAPTER", "--device", "meta"], "--device meta: "),
            (["--adapter", "ADAPTER", "--device", "cuda:99"], "--device cuda:99: "),
            (["--adapter", "ADAPTER", "--block", "nowhere"], "no such folder"),
            (["--adapter", "ADAPTER", "--block", "nowhere", "--frames", "3"], "expected START:STOP"),
            (["--adapter", "ADAPTER", "--block", "nowhere", "--frames", "5:3"], "START below STOP"),
            (["--adapter", "ADAPTER", "--block", "nowhere", "--frames", "²:3"], "expected START:STOP"),
            (["--adapter", "ADAPTER", "--block", "nowhere", "--frames", "0:3", "--intervals", "1,2"], "2 or more"),
            (["--adapter", "ADAPTER", "--block", "nowhere", "--frames", "0:3", "--intervals", "2;3"], "2 or more"),
            (["--adapter", "ADAPTER", "--block", "nowhere", "--frames", "0:3", "--intervals", ""], "2 or more"),
            (["--adapter", "ADAP\0TER"], "holds a NUL character"),
            (["--adapter", "ADAPTER", "--block", "no\0where"], "holds a NUL character"),
        ],
    )
    def test_options(
        self,
        options: list[str],
        message: str,
        adapter: str,
        clip: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        options = [adapter if option == "ADAPTER" else option for option in options]
        command = ["measure", clip] if "--frames" in options else ["translate", clip, tmp_path / "out.mp4"]
        assert message in refused(capsys, *command, *options)

    @pytest.mark.parametrize("interval", [0, -3, 10**7, 10**30])
    def test_intervals(
        self, interval: int, adapter: str, clip: Path, block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["translate", clip, tmp_path / "out.mp4", "--adapter", adapter, "--block", block]
        line = refused(capsys, *command, f"--interval={interval}")
        assert f"--interval {interval}: expected a whole number from 1" in line

    def test_a_file_without_an_adapter(self, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "empty.py").write_text("")
        line = refused(capsys, "translate", clip, tmp_path / "out.mp4", "--adapter", tmp_path / "empty.py")
        assert "defines no build_adapter()" in line

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--minutes", "-1"], "--minutes -1: expected a time above 0"),
            (["--minutes", "0"], "--minutes 0: expected a time above 0"),
            (["--minutes", "nan"], "--minutes nan: expected a time above 0"),
            (["--minutes", "inf"], "--minutes inf: expected a time above 0"),
            (["--variant", "x"], "--variant x: expected one of"),
            (["--cut", "x"], "--cut x: expected one of last, low, medium, high"),
        ],
    )
    def test_the_demo_refuses_before_it_loads_anything(
        self, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert message in refused(capsys, "demo", "--out", tmp_path / "out", *options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("size", ["13x17", "16x1"])
    def test_sizes_that_the_teacher_cannot_take(
        self, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pooled = CHAIN.replace("layers = [", "layers = [torch.nn.Unflatten(3, (-1, 4)), torch.nn.Flatten(3)] + [")
        (tmp_path / "fours.py").write_text(pooled)
        line = refused(capsys, "profile", "--adapter", tmp_path / "fours.py", "--size", size)
        assert "the teacher failed with" in line
        assert "set multiple = 8 on the adapter" in line

    @pytest.mark.parametrize("verb", ["train", "translate", "profile", "inspect"])
    @pytest.mark.parametrize(
        ("method", "words"),
        [
            ("def inputs(self, frame, state): return frame", "return (frame,), {}"),
            ("def image(self, output): return {'picture': output}", "return output['picture']"),
            ("def image(self, output): return output.mean(1)", "expand(-1, 3, -1, -1)"),
            ("def advance(self, state, frame, output): pass", "advance() returned None"),
            ("def inputs(self, frame, state): return (frame, frame), {}", "the teacher failed with TypeError"),
        ],
    )
    def test_adapters_that_return_the_wrong_form(
        self, verb: str, method: str, words: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        own = CHAIN.replace("def build_adapter", f"class Mine(Adapter):\n    {method}\n\ndef build_adapter")
        (tmp_path / "wrong.py").write_text(own.replace("= Adapter(", "= Mine("))
        arguments = {"train": [clip, "--out", tmp_path / "b", "--steps", "1"], "translate": [clip, tmp_path / "o.mp4"]}
        common = ["--adapter", tmp_path / "wrong.py", "--size", "24x32"]
        assert words in refused(capsys, verb, *arguments.get(verb, []), *common)

    def test_memory_that_is_not_there(
        self, adapter: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: object) -> None:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 1 TB")

        monkeypatch.setattr(torch, "rand", full)
        assert "not enough memory: take a smaller --size" in refused(capsys, "profile", "--adapter", adapter)

    def test_a_file_where_the_demo_wants_a_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "taken").write_text("")
        assert "taken" in refused(capsys, "demo", "--out", tmp_path / "taken")


def test_an_adapter_may_hold_dataclasses(tmp_path: Path) -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    (tmp_path / "types.py").write_text(f"{head}{CHAIN}\n@dataclass\nclass Options:\n    width: int = 4\n")
    assert find_adapter(str(tmp_path / "types.py")).enc_layer == "0"


THEIRS = "import examples; assert examples.mine, examples; import examples.unsup; assert examples.unsup.mine"
OURS = """
from shortcutv2v.cli.adapters import find_adapter
for name in ({name!r}, {file!r}):
    try:
        find_adapter(name, ["random=True", "cut=none"])
    except ValueError as error:
        assert "no level 'none'" in str(error), error
"""


@pytest.mark.parametrize("order", ["theirs, ours, theirs", "ours, theirs"])
@pytest.mark.parametrize("place", ["first on the path", "last on the path", "beside an adapter"])
def test_a_package_called_examples_and_ours_never_meet(tmp_path: Path, order: str, place: str) -> None:
    for package in ("examples", "examples/unsup"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("mine = True\n")
    (tmp_path / "own.py").write_text(f"import examples.unsup\nassert examples.unsup.mine\n{CHAIN}")
    reach = {
        "first on the path": f"sys.path.insert(0, {str(tmp_path)!r})",
        "last on the path": f"sys.path.append({str(tmp_path)!r})",
        "beside an adapter": "from shortcutv2v.cli.adapters import find_adapter\n"
        f"find_adapter({str(tmp_path / 'own.py')!r})",
    }[place]
    ours = OURS.format(name="unsup", file=str(bundled_examples()["unsup"] / "adapter.py"))
    code = [f"import sys\n{reach}", *({"theirs": THEIRS, "ours": ours}[part] for part in order.split(", "))]
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(code)], check=True, cwd=tmp_path)


def test_a_wheel_holds_its_examples_inside_the_package(tmp_path: Path) -> None:
    package = Path(shortcutv2v.__file__).parent
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "site/shortcutv2v", ignore=leave)
    shutil.copytree(package.parents[1] / "examples", tmp_path / "site/shortcutv2v/_bundled/examples", ignore=leave)
    ours = OURS.format(name="unsup", file=str(tmp_path / "site/shortcutv2v/_bundled/examples/unsup/adapter.py"))
    code = f"import sys\nsys.path.insert(0, {str(tmp_path / 'site')!r})\nimport shortcutv2v.examples\n{ours}"
    check = f"assert shortcutv2v.examples.unsup.adapter.__file__.startswith({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"{code}\n{check}"], check=True, cwd=tmp_path)


def test_looking_for_an_example_leaves_the_path_alone() -> None:
    before = list(sys.path)
    find_adapter("unsup", ["random=True", "ngf=2", "n_blocks=1"])
    assert sys.path == before
    assert not any(name == "examples" and "shortcutv2v" in str(module) for name, module in sys.modules.items())


BROKEN = {
    "syntax error": ("def build_adapter(:\n", "broken.py, line 1: invalid syntax"),
    "indentation": ("def build_adapter():\nreturn 1\n", "broken.py, line 2: expected an indented block"),
    "nul byte": ("x = 1\0\n", "null byte"),
    "name error": ("import os\nwidth = undefined\n", "broken.py, line 2: NameError: name 'undefined'"),
    "missing package": (
        "import no_such_package\n",
        "broken.py, line 1: ModuleNotFoundError: No module named 'no_such_",
    ),
    "exit": ("raise SystemExit(3)\n", "broken.py, line 1: SystemExit: 3"),
    "error in build_adapter": ("def build_adapter():\n    return {}['key']\n", "broken.py, line 2: KeyError: 'key'"),
    "import in build_adapter": ("def build_adapter():\n    import no_such_package\n", "line 2: ModuleNotFoundError"),
    "weights": (
        "import torch\ndef build_adapter():\n    torch.nn.Linear(1, 1).load_state_dict({})\n",
        "RuntimeError: Error(s) in loading state_dict for Linear",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_an_adapter_whose_code_fails_is_one_line(
    text: str, message: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(text)
    line = refused(capsys, "translate", clip, tmp_path / "out.mp4", "--adapter", tmp_path / "broken.py")
    assert message in line
    assert "broken.py" in line


def test_an_adapter_that_is_not_utf8(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_bytes(b"name = '\xe9'\n")
    assert "broken.py" in refused(capsys, "translate", clip, tmp_path / "o.mp4", "--adapter", tmp_path / "broken.py")


@pytest.mark.parametrize(
    "spec", ["a\0b.py", "a\0b", "a/b\0.py", "", ".", ".py", "..", "nowhere.b.c", "no-such", "x.py/y.py"]
)
def test_names_of_adapters_that_are_none(spec: str) -> None:
    with pytest.raises(InputError, match="no adapter"):
        find_adapter(spec)


def test_two_folders_may_each_hold_an_adapter_of_the_same_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        text = f"{CHAIN}\nclass Own(Adapter):\n    name = {folder!r}\n"
        (tmp_path / folder / "adapter.py").write_text(text)
        find_adapter(str(tmp_path / folder / "adapter.py"))
    adapters = [module for name, module in sys.modules.items() if name.endswith("_adapter")]
    names = {module.Own.name for module in adapters if hasattr(module, "Own")}
    assert {"one", "two"} <= names


def test_bundled_examples_are_found() -> None:
    assert set(bundled_examples()) == {"demosaicnet", "real_esrgan", "spandrel", "unsup", "vid2vid", "vtoonify"}


def test_settings_are_typed(adapter: str) -> None:
    assert find_adapter(adapter, ["width=7"]).teacher[0].out_channels == 7
    assert find_adapter("unsup", ["random=true", "ngf=4", "show_shortcut=false"]).show_shortcut is False
    with pytest.raises(InputError):
        find_adapter(adapter, ["=7"])
