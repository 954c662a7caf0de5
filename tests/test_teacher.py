"""A teacher that is no module is refused; one that was left in train mode is named, once."""

from __future__ import annotations

import types
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import shortcutv2v
from shortcutv2v import Adapter
from shortcutv2v.cli import main
from shortcutv2v.errors import InputError
from shortcutv2v.teacher import mode_dependent


class OwnDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class HelperReadsTheMode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.mixed(x)

    def mixed(self, x: Tensor) -> Tensor:
        scales = [2.0 if self.training else 1.0 for _ in range(1)]
        return x * scales[0]


class DropPath(nn.Module):
    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return x if not self.training or not self.drop_prob else x * 0


ACTS = {
    "batch norm": nn.BatchNorm2d(3),
    "synchronised batch norm": nn.SyncBatchNorm(3),
    "instance norm with statistics": nn.InstanceNorm2d(3, track_running_stats=True),
    "dropout": nn.Dropout(),
    "dropout of channels": nn.Dropout2d(0.1),
    "random slopes": nn.RReLU(),
    "attention": nn.MultiheadAttention(4, 1, dropout=0.1),
    "transformer": nn.TransformerEncoderLayer(4, 1),
    "recurrent": nn.LSTM(3, 3, 2, dropout=0.1),
    "spectral norm": parametrizations.spectral_norm(nn.Conv2d(3, 3, 1)),
    "own layer": OwnDropout(),
    "own layer's helper": HelperReadsTheMode(),
    "own layer with a rate": DropPath(0.1),
}
ACTS_NOT = {
    "convolution": nn.Conv2d(3, 3, 1),
    "instance norm": nn.InstanceNorm2d(3),
    "layer norm": nn.LayerNorm(3),
    "batch norm without statistics": nn.BatchNorm2d(3, track_running_stats=False),
    "dropout of nothing": nn.Dropout(0.0),
    "attention without dropout": nn.MultiheadAttention(4, 1),
    "transformer without dropout": nn.TransformerEncoderLayer(4, 1, dropout=0.0),
    "recurrent without dropout": nn.LSTM(3, 3),
    "own layer with rate 0": DropPath(0),
}


@pytest.mark.parametrize("layer", ACTS.values(), ids=ACTS)
def test_layers_that_act_by_their_mode_are_named_with_their_place(layer: nn.Module) -> None:
    teacher = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(layer))
    assert all(name.startswith("1.0") for name in mode_dependent(teacher.train()))
    assert list(mode_dependent(teacher.train()))
    assert not list(mode_dependent(teacher.eval()))


@pytest.mark.parametrize("layer", ACTS_NOT.values(), ids=ACTS_NOT)
def test_other_layers_are_not(layer: nn.Module) -> None:
    assert not list(mode_dependent(nn.Sequential(layer).train()))


def teacher_with(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), layer, *(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))


def said(record: list[warnings.WarningMessage]) -> list[str]:
    return [str(w.message) for w in record if "train mode" in str(w.message)]


def test_wrap_warns_once_and_says_where() -> None:
    teacher = teacher_with(nn.BatchNorm2d(3))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for _ in range(2):
            shortcutv2v.wrap(teacher, "0", "3", example_inputs=(torch.rand(1, 3, 8, 8),))
    (message,) = said(record)
    assert "1 (BatchNorm2d)" in message
    assert "teacher.eval()" in message
    assert "train_mode = True" in message


def test_one_layer_in_train_mode_is_enough_and_others_are_counted() -> None:
    teacher = nn.Sequential(*(teacher_with(nn.BatchNorm2d(3)) for _ in range(7))).eval()
    teacher[2][1].train()
    with pytest.warns(UserWarning, match=r"differently: 2\.1 \(BatchNorm2d\)\. Call"):
        shortcutv2v.wrap(teacher, "0", "3", example_inputs=(torch.rand(1, 3, 8, 8),))
    with pytest.warns(UserWarning, match="and 3 more"):
        shortcutv2v.wrap(nn.Sequential(*teacher).train(), "0", "3", example_inputs=(torch.rand(1, 3, 8, 8),))


@pytest.mark.parametrize("case", ["eval", "meant", "meant by the class"])
def test_who_is_silent(case: str) -> None:
    class Pix2Pix(Adapter):
        train_mode = True

    teacher = teacher_with(nn.BatchNorm2d(3))
    adapter = (Pix2Pix if case == "meant by the class" else Adapter)(teacher, "0", "3")
    if case == "eval":
        teacher.eval()
    if case == "meant":
        adapter.train_mode = True
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        adapter.wrap(torch.rand(1, 3, 8, 8))
    assert not said(record)


ADAPTER = """
import torch
from shortcutv2v import Adapter

def build_adapter(train: bool = True) -> Adapter:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)]
    teacher = torch.nn.Sequential(layers[0], torch.nn.BatchNorm2d(3), *layers[1:])
    return Adapter(teacher.train(train), "0", "3")
"""


def test_every_command_says_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shortcutv2v import video

    (tmp_path / "a.py").write_text(ADAPTER)
    with video.create(tmp_path / "clip.mp4", rate=25) as writer:
        for _ in range(8):
            writer.write(torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8))
    clip, block, adapter = str(tmp_path / "clip.mp4"), str(tmp_path / "block"), ["--adapter", str(tmp_path / "a.py")]
    training = ["--out", block, "--steps", "1", "--crop", "16", "--batch-size", "2"]
    commands = {
        "train": [clip, *adapter, *training],
        "translate": [clip, str(tmp_path / "out.mp4"), *adapter],
        "measure": [clip, *adapter, "--block", block],
        "profile": [*adapter, "--size", "24x32"],
        "inspect": [*adapter, "--size", "24x32"],
    }
    for verb, argv in commands.items():
        for train, expected in ((True, 1), (False, 0)):
            if verb == "measure" and not train:
                continue  # the block is that of the teacher in train mode
            with warnings.catch_warnings(record=True) as record:
                warnings.simplefilter("always")
                assert main([verb, *argv, "--set", f"train={train}"]) == 0
            assert len(said(record)) == expected, (verb, train)
            if verb == "train" and train:
                (tmp_path / "block").rename(tmp_path / "kept")
        if verb == "train":
            block = str(tmp_path / "kept")
            commands["measure"][-1] = block


@pytest.mark.parametrize(
    ("teacher", "advice"),
    [
        (types.SimpleNamespace(model=nn.Identity()), "give its .model"),
        (lambda x: x, "put a function into a module"),
        (nn.Identity, "give an instance, such as Identity()"),
        ({"weight": torch.zeros(1)}, "load the weights into the network first"),
        (None, "is a NoneType, but must be a torch.nn.Module"),
        ("generator.pth", "is a str, but must be a torch.nn.Module"),
    ],
)
def test_what_is_no_module(teacher: object, advice: str) -> None:
    for build in (Adapter, lambda net: shortcutv2v.wrap(net, "a", "b", example_inputs=(torch.rand(1, 3, 8, 8),))):
        with pytest.raises(InputError) as caught:
            build(teacher)  # type: ignore[arg-type]
        assert advice in str(caught.value)


def test_exported_programs_are_no_modules() -> None:
    program = torch.export.export(nn.Conv2d(3, 3, 1).eval(), (torch.rand(1, 3, 8, 8),))
    with pytest.raises(InputError, match="give the network that it was exported from"):
        Adapter(program)  # type: ignore[arg-type]
