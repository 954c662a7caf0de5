"""The command that lists the cuts of a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from shortcutv2v.cli.main import main

ADAPTER = """
import torch
from torch import nn
from shortcutv2v import Adapter

def conv(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec, self.rgb = conv(3, 16), conv(16, 16), nn.Conv2d(16, 3, 1)
        self.mid = nn.Sequential(*[conv(16, 16) for _ in range(6)])
    def forward(self, x):
        assert x.shape[2] % 4 == x.shape[3] % 4 == 0
        deep = self.mid(self.enc(x))
        return {"rgb": self.rgb(self.dec(deep)), "features": deep}

class Picture(Adapter):
    multiple = 4
    def image(self, output):
        return output["rgb"]

def build_adapter():
    return Picture(Net().eval())
"""


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(ADAPTER)
    return str(path)


def test_a_teacher_without_a_cut_is_listed(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cuts", "--adapter", adapter, "--size", "20x32", "--count", "99"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["saves", "enc_layer", "dec_layer", "channels", "resolution", "reach", "remarks"]
    first = lines[1].split()
    assert first[1:] == ["enc", "mid", "16", "->", "16", "1/1", "6", "px"]
    assert 0 < float(first[0].rstrip("%")) < 100
    leaking = [line for line in lines if "leaks" in line]
    assert leaking
    assert all("returned as output['features']" in line for line in leaking)
    assert lines.index(leaking[0]) > lines.index(lines[1])
    assert "because the teacher returns output['features']" in "".join(lines)
    assert "profile --cuts" in lines[-1]


def test_the_list_is_short_unless_asked(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cuts", "--adapter", adapter, "--size", "16x16", "--count", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("... and ")
    count = lines[3].rpartition("--count ")[2].split()[0]
    assert main(["cuts", "--adapter", adapter, "--size", "16x16", "--count", count]) == 0
    assert "more:" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--size", "32"], ["--count", "0"], ["--size", "x"]])
def test_wrong_options_are_refused(adapter: str, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cuts", "--adapter", adapter, *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err
