"""The command that shows a teacher stage by stage and lists its cuts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.cli.main import main
from shortcutv2v.measure import inspect, psnr

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


HEADINGS = ["saves", "enc_layer", "dec_layer", "channels", "resolution", "reach", "remarks"]


def test_a_teacher_without_a_cut_is_listed(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--adapter", adapter, "--size", "20x32", "--count", "99"]) == 0
    lines = capsys.readouterr().out.splitlines()
    top = [line.split() for line in lines].index(HEADINGS)
    first = lines[top + 1].split()
    assert first[1:] == ["enc", "mid", "16", "->", "16", "1/1", "6", "px"]
    assert 0 < float(first[0].rstrip("%")) < 100
    leaking = [line for line in lines if "leaks: " in line]
    assert leaking
    assert all("returned as output['features']" in line for line in leaking)
    assert lines.index(leaking[0]) > top + 1
    assert "because the teacher returns output['features']" in "".join(lines)
    assert "recommended: enc_layer='enc', dec_layer='mid': it saves" in "\n".join(lines)
    assert "profile --cuts" in lines[-1]


def test_stages_add_up(adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    assert main(["inspect", "--adapter", adapter, "--size", "16x16", "--json", str(path)]) == 0
    stages = json.loads(path.read_text())["stages"]
    assert sum(stage["share"] for stage in stages) == pytest.approx(1.0)
    assert sum(stage["parameters"] for stage in stages) == 3 * 16 * 9 + 7 * 16 * 16 * 9 + 8 * 3 * 16 + 16 * 3 + 3
    assert all(stage["size"] == [16, 16] and stage["seconds"] > 0 for stage in stages)
    assert stages[0]["first"] == "enc.0"
    assert stages[-1]["last"] == "rgb"
    assert len(stages) > 3  # equal layers are not all one stage
    assert "enc.0" in capsys.readouterr().out.splitlines()[1]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    from shortcutv2v.video import create

    with create(tmp_path / "clip.mkv", rate=25) as writer:
        for number in range(6):
            frame = torch.zeros(3, 16, 32, dtype=torch.uint8)
            frame[:, :, 4 * number : 4 * number + 8] = 200
            writer.write(frame)
    return tmp_path / "clip.mkv"


def test_cuts_are_tried_on_a_clip(adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    assert main(["inspect", str(clip), "--adapter", adapter, "--json", str(path)]) == 0
    out, found = capsys.readouterr().out, json.loads(path.read_text())
    assert "on the clip, without any training:" in out
    assert found["cuts"]
    for cut in found["cuts"]:
        assert 5 < cut["reuse"] < 100
        assert [layer["layer"] for layer in cut["redundancy"]] == [
            cut["suggestion"]["enc_layer"],
            cut["suggestion"]["dec_layer"],
        ]
        assert all(-1 <= layer["correlation"] <= 1 for layer in cut["redundancy"])
    best = max(cut["reuse"] for cut in found["cuts"])
    near = [cut for cut in found["cuts"] if cut["reuse"] >= best - 3]
    assert found["recommended"] == max(near, key=lambda cut: cut["suggestion"]["net"])
    assert f"hold {found['recommended']['reuse']:.1f} dB with" in out


def test_the_reuse_of_a_cut_is_what_it_says(clip: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 16, 3 if i == 3 else 16, 3, padding=1) for i in range(4)]
    net = nn.Sequential(*layers).eval()
    adapter = shortcutv2v.Adapter(net)
    with video.open(clip) as opened:
        frames = list(opened)
    found = inspect(adapter, frames[:2], pairs=1)
    (cut,) = [each for each in found.tried if (each.suggestion.enc_layer, each.suggestion.dec_layer) == ("0", "2")]
    one, other = (frame[None] / 255 for frame in frames[:2])
    with torch.no_grad():
        made, target = (net(x).clamp(0, 1) for x in (one, other))  # nothing beside `f` reaches the output
        a = [net[0](x).flatten() for x in (one, other)]
    assert cut.reuse == pytest.approx(psnr(made, target), rel=1e-4)
    assert cut.redundancy[0].correlation == pytest.approx(float(torch.corrcoef(torch.stack(a))[0, 1]), rel=1e-4)
    difference = a[0] / a[0].norm() - a[1] / a[1].norm()
    assert cut.redundancy[0].rmse == pytest.approx(float(difference.square().mean().sqrt()), rel=1e-4)


def test_the_teacher_is_left_as_found() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    inspect(shortcutv2v.Adapter(net), torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())


def test_the_list_is_short_unless_asked(adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--adapter", adapter, "--size", "16x16", "--count", "2"]) == 0
    (more,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("... and ")]
    count = more.rpartition("--count ")[2].split()[0]
    assert main(["inspect", "--adapter", adapter, "--size", "16x16", "--count", count]) == 0
    assert "more:" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--size", "32"], ["--count", "0"], ["--size", "x"]])
def test_wrong_options_are_refused(adapter: str, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--adapter", adapter, *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err
