"""The Python of README and docs, run exactly as it stands."""

from __future__ import annotations

import functools
import importlib
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from page_blocks import PAGES, ROOT, MyGenerator, blocks, make_world

import shortcutv2v
from shortcutv2v import distill

WITH_PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and runs of two steps where a page says minutes or epochs; all else is as it stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    fit = functools.partial(_two_steps, distill.fit)
    for module in (shortcutv2v, distill):
        monkeypatch.setattr(module, "fit", fit, raising=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "max_steps": 2}
    monkeypatch.setattr(pl, "Trainer", functools.partial(pl.Trainer, **quiet))


def _two_steps(fit: Any, model: Any, source: Any, *, minutes: float, **options: Any) -> Any:
    assert minutes > 0
    return fit(model, source, minutes=None, max_steps=2, **{**options, "progress": False})


@pytest.mark.usefixtures("short")
@pytest.mark.filterwarnings("ignore")  # of Lightning, about tiny runs
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_runs(page: str) -> None:
    names = make_world(page)
    for block in blocks(page):
        if block.language == "python" and block.mark != "slow":
            for module in block.mark.removeprefix("needs ").split(", ") if block.mark else ():
                pytest.importorskip(module)
            code = compile("\n" * block.line + block.code, page, "exec")
            exec(code, names)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_example(page: str) -> None:
    names, code = make_world(page), next(block.code for block in blocks(page) if block.language == "python")
    names["teacher"] = teacher = MyGenerator()  # in train mode, as a network is when it has been made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, names)
    assert not teacher.training
    assert names["output"].shape == names["frame"].shape
    model, frames = names["model"], names["frames"]
    model.reset()
    assert torch.equal(model(frames[0]), teacher(frames[0]))
    assert not torch.equal(model(frames[1]), teacher(frames[1]))


@pytest.mark.usefixtures("short")
def test_the_adapter_file() -> None:
    (block,) = (block for block in blocks("README.md") if "def build_adapter" in block.code)
    torch.save(MyGenerator().state_dict(), "my.pth")
    names: dict[str, Any] = {"MyGenerator": MyGenerator}
    exec(block.code, names)
    adapter = names["build_adapter"]("my.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adapter.wrap(torch.rand(1, 3, 32, 48)).cut.short == "down1 -> up1"


@pytest.mark.parametrize("page", PAGES)
def test_whoever_loads_a_teacher_puts_it_into_eval_mode(page: str) -> None:
    for block in blocks(page):
        if re.search(r"\bload_state_dict\(", block.code):
            assert ".eval()" in block.code, block


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_names_exist(page: str) -> None:
    """Paths and dotted names between backticks that begin like ours lead somewhere."""
    text = (ROOT / page).read_text()
    for path in re.findall(r"`((?:src|tests|examples|benchmarks/(?!results))[\w./*-]+)`", text):
        assert any(ROOT.glob(path.rstrip("/"))), f"{page}: {path}"
    for name in re.findall(r"`(shortcutv2v(?:\.\w+)+)(?:\(\))?`", text):
        if name.endswith(".json"):
            continue
        module, _, attribute = name.rpartition(".")
        assert hasattr(_module(module), attribute), f"{page}: {name}"


def _module(name: str) -> Any:
    """The module or class of a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def test_the_method_card_names_the_right_file() -> None:
    rows = re.findall(r"\| ([^|]+) \| `(src/[^`]+)` \|\n", (ROOT / "docs" / "method.md").read_text())
    assert len(rows) > 10
    for names, file in rows:
        first = re.match(r"`(?:\w+\.)?(\w+)`", names)
        assert first is None or re.search(rf"(class|def) {first[1]}\b", (ROOT / file).read_text()), (names, file)
