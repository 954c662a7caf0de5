"""The README's code, run exactly as it stands."""

from __future__ import annotations

import functools
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import video

ROOT = Path(__file__).parents[1]


class MyGenerator(nn.Module):
    """An encoder and a decoder with batch norm and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
        self.up1 = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.ConvTranspose2d(16, 3, 4, 2, 1)

    def forward(self, frame: Tensor) -> Tensor:
        skip = self.down1(frame)
        return self.last(torch.cat((self.up1(self.middle(skip)), skip), 1)).sigmoid()


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_example(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with video.create("clip.mp4", rate=25) as writer:
        for _ in range(8):
            writer.write(torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8))
    teacher, frames = MyGenerator(), list(torch.rand(4, 1, 3, 32, 48))
    # The example's minutes are shortened to two steps; all else is as it stands.
    short = functools.partial(_two_steps, shortcutv2v.fit)
    monkeypatch.setattr(shortcutv2v, "fit", short, raising=False)
    names: dict[str, Any] = {"teacher": teacher, "video": frames, "frame": frames[0]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(blocks(page)[0], names)
    assert not teacher.training
    assert names["output"].shape == (1, 3, 32, 48)
    if "load(" in blocks(page)[0]:
        assert {path.name for path in Path("block").iterdir()} >= {"shortcut.json"}
    model = names["model"]
    model.reset()
    assert torch.equal(model(frames[0]), teacher(frames[0]))
    assert not torch.equal(model(frames[1]), teacher(frames[1]))


def _two_steps(fit: Any, model: Any, source: Any, *, minutes: float, **options: Any) -> Any:
    assert minutes > 0
    return fit(model, source, minutes=None, max_steps=2, progress=False, **options)


def test_the_adapter_file(tmp_path: Path) -> None:
    (code,) = (block for block in blocks("README.md") if "def build_adapter" in block)
    torch.save(MyGenerator().state_dict(), tmp_path / "my.pth")
    names: dict[str, Any] = {"MyGenerator": MyGenerator}
    exec(code, names)
    adapter = names["build_adapter"](str(tmp_path / "my.pth"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adapter.wrap(torch.rand(1, 3, 32, 48)).cut.short == "down1 -> up1"


@pytest.mark.parametrize(
    "page", ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").glob("**/*.md")))]
)
def test_whoever_loads_a_teacher_puts_it_into_eval_mode(page: str) -> None:
    for block in blocks(page):
        if re.search(r"\bload_state_dict\(", block):
            assert ".eval()" in block, block
