"""Values without a colour are an error, never black."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shortcutv2v import Adapter, video
from shortcutv2v.cli import main
from shortcutv2v.errors import NonFiniteError
from shortcutv2v.translate import Translator, to_uint8


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_colour(value: float, dtype: torch.dtype) -> None:
    picture = torch.rand(1, 3, 4, 4).to(dtype)
    assert to_uint8(picture).dtype == torch.uint8
    picture[0, 1, 2, 3] = value
    with pytest.raises(NonFiniteError, match="1 of the picture's 48 values"):
        to_uint8(picture)


class Overflows(nn.Module):
    """Divides by the frame's first value."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x[..., :1, :1]


@pytest.mark.filterwarnings("ignore:.*not finite:UserWarning")
def test_the_frame_is_named() -> None:
    translate = Translator(Adapter(Overflows()))
    translate(torch.ones(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(NonFiniteError, match="frame 1: 48 of the picture's 48 values are infinite or NaN"):
        translate(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_the_command_ends_with_an_error_and_no_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text(
        "import torch\nfrom shortcutv2v import Adapter\n"
        "class Log(torch.nn.Module):\n    def forward(self, x):\n        return x.sub(0.01).log().neg()\n"
        "def build_adapter():\n    return Adapter(Log())\n"
    )
    with video.create(tmp_path / "clip.mp4", rate=25) as writer:
        for level in (200, 200, 0):
            writer.write(torch.full((3, 16, 16), level, dtype=torch.uint8))
    target = tmp_path / "out.mp4"
    assert main(["translate", str(tmp_path / "clip.mp4"), str(target), "--adapter", str(tmp_path / "a.py")]) == 2
    assert "error: frame 2: " in capsys.readouterr().err
    assert not target.exists()
