"""Tiny teachers, each with one trait of the real ones; an adapter file and a clip for the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tests.cli.command_line import CHAIN
from torch import Tensor, nn

from shortcutv2v import video

# A run repeats what the one before did; for a search, `--hypothesis-profile=default --hypothesis-seed=random`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Tiny tensors: a second thread costs more than it brings, above all on a busy machine.
torch.set_num_threads(1)

# pytest would import these for doctests. One is for mypy alone, the other would register its policies twice.
collect_ignore = ["typing_user.py", "policies.py"]


def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, alone and among others."""
    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of the tests below."""
    config.addinivalue_line("markers", "forks: forks processes that train; runs first, or in a process of its own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that fork, when no gradients have left threads yet."""
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that forks in a fresh process, if gradients have left threads in this one that no fork has."""
    if pyfuncitem.get_closest_marker("forks") is None or "FRESH_PROCESS" in os.environ or _gradients_survive_a_fork():
        return None
    command = [sys.executable, "-m", "pytest", "-m", "", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    environment = {**os.environ, "FRESH_PROCESS": "1"}
    root = pyfuncitem.config.rootpath
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    return True


def _gradients_survive_a_fork() -> bool:
    child = os.fork()
    if not child:
        try:
            torch.ones(1, requires_grad=True).sum().backward()
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


class Chain(nn.Sequential):
    """Plain layers in a row, like Real-ESRGAN."""

    def __init__(self) -> None:
        super().__init__(*(nn.Conv2d(3 if i == 0 else 6, 3 if i == 5 else 6, 3, padding=1) for i in range(6)))


class UNet(nn.Module):
    """Skips across the cut, and batch norm that runs on batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 8, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.mid = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.last = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x)
        deep = self.mid(torch.relu(self.norm(self.down(skip.relu()))))
        return self.last(torch.cat((self.up(deep), skip), 1)).tanh()


class TwoOutputs(nn.Module):
    """A dictionary out, a keyword in."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 6, 3, padding=1)
        self.dec = nn.Conv2d(6, 6, 3, padding=1)
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> dict[str, Tensor]:
        f = self.dec(self.body(self.enc(x)).relu())
        return {"picture": self.out(f) * gain, "mask": f.mean(1, keepdim=True).sigmoid()}


TEACHERS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "chain": (Chain, "1", "4"),
    "unet": (UNet, "first", "up"),
    "two_outputs": (TwoOutputs, "enc", "dec"),
}
"""name -> (class, enc_layer, dec_layer)"""


@pytest.fixture(params=TEACHERS)
def cut_teacher(request: pytest.FixtureRequest) -> tuple[nn.Module, str, str]:
    """A tiny teacher and where to cut it."""
    torch.manual_seed(0)
    build, enc_layer, dec_layer = TEACHERS[request.param]
    return build(), enc_layer, dec_layer


@pytest.fixture
def chain() -> nn.Module:
    torch.manual_seed(0)
    return Chain()


@pytest.fixture
def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet()


@pytest.fixture
def adapter(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An adapter file; the test module may give its text as `ADAPTER`."""
    path = tmp_path / "tiny.py"
    path.write_text(getattr(request.module, "ADAPTER", CHAIN))
    return str(path)


@pytest.fixture
def clip(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A clip of noise; the test module may give its length as `FRAMES`."""
    torch.manual_seed(0)
    with video.create(tmp_path / "clip.mp4", rate=Fraction(25)) as writer:
        for _ in range(getattr(request.module, "FRAMES", 8)):
            writer.write(torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8))
    return tmp_path / "clip.mp4"
