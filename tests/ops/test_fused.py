"""The operators of GPUs: the kernel itself in Triton's interpreter, on the CPU; which code runs, without any GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

from shortcutv2v.ops import fused

INTERPRETED = """
import torch
from shortcutv2v.ops import fused, plain

torch.manual_seed(0)
for dtype, border, channels, last in (
    (torch.float32, 0, 5, True),
    (torch.float32, 2, 9, False),
    (torch.float16, 1, 70, True),
    (torch.bfloat16, 0, 3, False),
):
    f = torch.randn(2, channels, 6 + 2 * border, 9 + 2 * border).to(dtype)
    f = f.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    offset = torch.randn(2, 2, 6, 9) * 4
    offset[0, :, 0, 0], offset[1, 1, 2, 3], offset[0, 0, 4, 4] = 1e30, float("nan"), float("inf")
    found, expected = fused.launch(f, offset, border), plain.warp(f.float(), offset, border)
    assert found.dtype == dtype and found.stride() == expected.to(memory_format=(
        torch.channels_last if last else torch.contiguous_format)).stride()
    near = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.float(), expected, rtol=near, atol=near, equal_nan=True)
    assert found.isnan().sum() == 2 * channels
    inner = f[..., border : 6 + border, border : 9 + border]
    assert torch.equal(fused.launch(f, torch.zeros(2, 2, 6, 9), border), inner)
    halves = f.repeat(1, 2, 1, 1).chunk(2, 1)[1]
    assert torch.equal(fused.launch(halves, offset.nan_to_num(), border), fused.launch(f, offset.nan_to_num(), border))
"""


def test_the_kernel_in_tritons_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Which stream of CUDA is current."""
    streams = {"current": "default"}
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: streams["current"])
    monkeypatch.setattr("torch.cuda.default_stream", lambda _: "default")
    return streams


def blended_by(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return which implementation a deformable convolution runs on."""
    called: list[str] = []
    for name in ("plain", "reference"):
        monkeypatch.setattr(f"shortcutv2v.ops.{name}.blend", lambda *_, name=name: called.append(name))
    fused.blend(torch.rand(1, 2, 3, 4), None, torch.zeros(1, 18, 3, 4), None, torch.rand(2, 2, 3, 3))
    (found,) = called
    return found


def test_torchvision_where_nothing_speaks_against_it(current: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert blended_by(monkeypatch) == "reference"


def test_compiled_code_takes_no_kernel_that_a_cuda_graph_cannot_record(
    current: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert blended_by(monkeypatch) == "plain"


def test_no_kernel_on_the_default_stream_while_another_is_current(
    current: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    current["current"] = "side"
    assert blended_by(monkeypatch) == "plain"


def test_deterministic_algorithms_are_deterministic(current: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: True)
    assert blended_by(monkeypatch) == "plain"


@pytest.mark.parametrize(("dtype", "learns"), [(torch.float32, True), (torch.float64, False)])
def test_plain_torch_for_gradients_and_double_precision(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, learns: bool
) -> None:
    monkeypatch.setattr(fused, "_warp", lambda *_: pytest.fail("the kernel has no gradients"))
    f = torch.rand(1, 2, 3, 4, dtype=dtype, requires_grad=learns)
    assert fused.warp(f, torch.zeros(1, 2, 3, 4), 0).requires_grad == learns
