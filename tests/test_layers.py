"""The arrows of the architecture, and the public surface."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shortcutv2v

SOURCE = Path(shortcutv2v.__file__).parent
RANKS = [
    {"errors", "py"},
    {"bar", "decibels", "devices", "engines", "examples", "locks", "memory", "teacher", "types", "wheels"},
    {"fingerprint", "pair"},
    {"ops", "video"},
    {"graph"},
    {"blocks"},
    {"lazy", "look", "rows", "summary"},
    {"refresh"},
    {"passes", "quality"},
    {"goals"},
    {"runtime", "step"},
    {"stream"},
    {"rolling"},
    {"lookahead", "streams", "windows"},
    {"model"},
    {"adapter_check"},
    {"wrap", "checkpoint", "cuts"},
    {"adapter"},
    {"player"},
    {"translate", "labels"},
    {"calibrate", "precision"},
    {"show"},
    {"batch", "deploy", "distill", "live", "measure"},
    {"report"},
    {"search"},
    {"cli"},
    {"__main__"},
]
FENCES = {
    "torch.fx": {"graph"},
    "torch.export": {"deploy", "graph"},
    "onnx": {"deploy"},
    "onnx_ir": {"deploy"},
    "onnxscript": {"deploy"},
    "onnxruntime": {"engines"},
    "openvino": {"deploy", "engines"},
    "torchvision": {"ops", "blocks"},
    "torchvision.models": {"distill", "measure"},
    "lpips": {"distill", "measure"},
    "torchmetrics": {"measure"},
    "pycvvdp": {"measure"},
    "flip_evaluator": {"measure"},
    "pytorch_lightning": {"distill"},
    "av": {"video"},
    "matplotlib": {"show"},
    "PIL": {"show"},
    "ray": {"batch"},
    "cv2": {"video", "measure"},
}


def rank(part: str) -> int:
    return next(i for i, parts in enumerate(RANKS) if part in parts)


def imports(path: Path) -> list[str]:
    """Absolute names of everything a file imports when it runs, imports for type checkers left out."""
    found = []
    for node in ast.walk(_without_type_checking(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["shortcutv2v", *path.relative_to(SOURCE).parts[:-1]]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING")
    ]
    return tree


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(p for p in SOURCE.rglob("*.py") if p.parent != SOURCE or p.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    for name in imports(path):
        if name.startswith("shortcutv2v."):
            other = name.split(".")[1]
            if other != part and (SOURCE / other).exists() | (SOURCE / f"{other}.py").exists():
                lower = rank(other) < rank(part) or (part, other) in {("model", "checkpoint"), ("model", "calibrate")}
                assert lower, f"{path} imports {name}"
        fenced = [fence for fence in FENCES if name == fence or name.startswith(f"{fence}.")]
        assert not fenced or part in FENCES[max(fenced, key=len)], f"{path} imports {name}"


def test_public_names_are_what_they_say() -> None:
    assert sorted(shortcutv2v.__all__) == shortcutv2v.__all__
    assert all(hasattr(shortcutv2v, name) for name in shortcutv2v.__all__)
    assert len(shortcutv2v.__all__) <= 15


HEAVY = ("torchvision", "torch._dynamo", "torch._inductor", "sympy", "PIL", "pytorch_lightning", "lpips", "kornia")


def loaded_by(code: str, *names: str) -> set[str]:
    """Those of `names` that are imported in a fresh process that has run `code`."""
    report = f"\nimport sys\nprint('loaded:', *(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + report], check=True, stdout=subprocess.PIPE, text=True
    )
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("module", ["", ".ops", ".ops.flops", ".blocks", ".graph", ".labels", ".memory", ".cli.main"])
def test_import_leaves_slow_packages_alone(module: str) -> None:
    """torchvision alone takes a second, and brings Dynamo and sympy."""
    assert loaded_by(f"import shortcutv2v{module}", *HEAVY) == set()


USE = """
import shortcutv2v, torch
layers = [torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)]
model = shortcutv2v.wrap(torch.nn.Sequential(*layers), "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
for _ in range(2):
    model(torch.rand(1, 3, 8, 8))
"""


def test_torchvision_is_not_needed_to_run_on_a_cpu() -> None:
    assert loaded_by(USE, "torchvision", "PIL", "lpips", "kornia") == set()


COMMANDS = {
    "help": "--help",
    "help of a command": "translate --help",
    "no command": "",
    "an unknown command": "fly",
    "no such clip": "translate --adapter real_esrgan no.mp4 out.mp4",
    "no such adapter": "profile --adapter nowhere",
    "no such setting": "profile --adapter real_esrgan --set nothing=9",
    "no such file": "measure --adapter no.py no.mp4 --block no",
    "a number is none": "demo --minutes soon",
    "a number is out of range": "demo --minutes -1",
    "no such file to look at": "inspect --adapter no.py",
    "help of train": "train --help",
    "no such clip to train on": "train no.mp4 --adapter no.py --out block",
    "an option of train is out of range": "train . --adapter no.py --out block --batch-size 0",
    "no such option of train": "train . --adapter no.py --out block --learning-rate 0",
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_help_and_refusals_leave_slow_packages_alone(arguments: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "from shortcutv2v.cli import main\n"
        f"try: code = main({arguments.split()!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        f"assert code == {0 if 'help' in arguments else 2}, code\n"
    )
    assert loaded_by(code, *HEAVY) == set()


COUNT = """
import torch
from torch.utils.flop_counter import FlopCounterMode
{imports}
f, weight, offset = torch.zeros(1, 2, 4, 5), torch.zeros(3, 2, 3, 3), torch.zeros(1, 18, 4, 5)
with FlopCounterMode(display=False) as counter:
    {call}
counted, expected = counter.get_total_flops(), 2 * 4 * 5 * 3 * 2 * 9
assert counted - expected in (0, 4), counted  # torch 2.6 counts 4 for the sums of something else
"""
OURS = "ops.deform(f, offset, weight, implementation={!r})"
THEIRS = "torchvision.ops.deform_conv2d(f, offset, weight, padding=1)"


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from shortcutv2v import ops", OURS.format("reference")),
        ("from shortcutv2v import ops", OURS.format("rows")),
        ("import torchvision, shortcutv2v", THEIRS),
        ("import shortcutv2v, torchvision; shortcutv2v.ops.flops.register()", THEIRS),
    ],
)
def test_deformable_convolutions_are_counted_in_any_order_of_imports(imports: str, call: str) -> None:
    loaded_by(COUNT.format(imports=imports, call=call))


@pytest.mark.parametrize(
    "counted",
    [
        "shortcutv2v.measure.cost(layer, f, offset).macs",
        "(counter.__enter__(), layer(f, offset), counter.__exit__(None, None, None), counter.total)[-1]",
    ],
)
def test_deformable_convolutions_of_a_teacher_are_counted(counted: str) -> None:
    code = (
        "import shortcutv2v, torch\n"
        "from shortcutv2v.graph import MacCounter\n"
        "import torchvision\n"  # after us, as a teacher's own file does
        "layer = torchvision.ops.DeformConv2d(2, 3, 3, padding=1)\n"
        "f, offset, counter = torch.zeros(1, 2, 4, 5), torch.zeros(1, 18, 4, 5), MacCounter()\n"
        f"found = {counted}\n"
        "assert found == 4 * 5 * 3 * 2 * 9, found"
    )
    loaded_by(code)


def test_import_needs_no_extra() -> None:
    code = (
        "import sys, torchvision\n"  # its older releases import PyAV where they find it
        "theirs = set(sys.modules)\n"
        "import shortcutv2v\n"
        "heavy = {'pytorch_lightning', 'kornia', 'lpips', 'av', 'matplotlib', 'onnx', 'onnxruntime', 'openvino'}\n"
        "heavy &= set(sys.modules) - theirs\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_used_in_the_docs_need_no_import_of_their_own() -> None:
    pages = [*SOURCE.parents[1].glob("docs/**/*.md"), SOURCE.parents[1] / "README.md"]
    used = {name for page in pages for name in re.findall(r"\bshortcutv2v\.([a-z]\w+)[.(]", page.read_text())}
    assert {"wrap", "fit", "measure"} <= used
    code = f"import shortcutv2v\nfor name in {sorted(used)}: getattr(shortcutv2v, name)\nshortcutv2v.__version__"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_says_what_it_offers(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    names = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    assert "__all__" in names or path.name == "__main__.py"


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by file name: two of one name cannot be collected in one run."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}
