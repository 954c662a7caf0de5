"""What is saved, what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import shortcutv2v
from shortcutv2v import Every
from shortcutv2v.errors import CheckpointError


def teacher(seed: int = 0, width: int = 6) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 1), nn.Conv2d(width, 3, 1))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[shortcutv2v.ShortcutV2V, Path]:
    model = shortcutv2v.wrap(teacher(), "0", "2", example_inputs=(torch.rand(1, 3, 9, 9),), max_interval=4, channels=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save(tmp_path / "block")
    return model, tmp_path / "block"


def test_round_trip(saved: tuple[shortcutv2v.ShortcutV2V, Path]) -> None:
    model, folder = saved
    loaded = shortcutv2v.load(folder, teacher())
    assert loaded.max_interval == 4
    assert not loaded.training
    model.eval()
    for frame in torch.rand(5, 1, 3, 9, 9):
        assert torch.equal(loaded(frame), model(frame))
    assert sorted(path.name for path in folder.iterdir()) == ["block.safetensors", "shortcut.json"]


def test_holds_the_block_and_not_the_teacher(saved: tuple[shortcutv2v.ShortcutV2V, Path]) -> None:
    model, folder = saved
    numbers = sum(p.numel() for p in model.parameters())
    assert (folder / "block.safetensors").stat().st_size < numbers * 4 + 10_000


def test_several_branches_and_concatenated_encoders(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)
            self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 3, 1)
            self.out = nn.Conv2d(7, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            both = torch.cat((self.one(x), self.two(x)), 1).relu()
            return self.out(torch.cat((self.left(both), self.right(both)), 1))

    net, x = Two(), torch.rand(1, 3, 5, 5)
    cut = ([("one", "two"), ("one", "two")], ["left", "right"])
    model = shortcutv2v.wrap(net, *cut, example_inputs=(x,), channels=[2, 3])
    model.save(tmp_path)
    loaded = shortcutv2v.load(tmp_path, net)
    assert loaded.cut.branches == model.cut.branches
    assert [block.a_channels for block in loaded.blocks] == [6, 6]
    assert torch.equal(loaded(x), net(x))


def test_half_precision_teacher_is_the_same_teacher(saved: tuple[shortcutv2v.ShortcutV2V, Path]) -> None:
    shortcutv2v.load(saved[1], teacher().bfloat16())


def test_values_that_half_precision_rounds_to_nothing(tmp_path: Path) -> None:
    net = teacher()
    nn.init.constant_(net[2].bias, 1e-8)
    shortcutv2v.wrap(net, "0", "2", example_inputs=(torch.rand(1, 3, 9, 9),)).save(tmp_path)
    shortcutv2v.load(tmp_path, net.half())


@pytest.mark.parametrize(
    ("other", "message"), [(lambda: teacher(width=8), "another teacher"), (lambda: teacher(seed=1), "other weights")]
)
def test_another_teacher_is_refused(saved, other, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        shortcutv2v.load(saved[1], other())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        shortcutv2v.load(tmp_path / "nowhere", teacher())


def test_missing_weights(saved: tuple[shortcutv2v.ShortcutV2V, Path]) -> None:
    (saved[1] / "block.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no block.safetensors"):
        shortcutv2v.load(saved[1], teacher())


def test_a_pickle_is_not_read(saved: tuple[shortcutv2v.ShortcutV2V, Path]) -> None:
    (saved[1] / "block.safetensors").write_bytes(pickle.dumps({"blocks": 1}))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        shortcutv2v.load(saved[1], teacher())


def test_damaged_recipe(saved: tuple[shortcutv2v.ShortcutV2V, Path]) -> None:
    path = saved[1] / "shortcut.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(CheckpointError, match="damaged"):
        shortcutv2v.load(saved[1], teacher())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layout": 3, "refresh": "4"}, "layout, refresh"),
        ({"blocks": [{"variant": "flow"}]}, "a_channels, f_channels, channels"),
        ({"blocks": ["flow"]}, "variant, a_channels, f_channels, channels"),
        ({"teacher": {}}, "class, parameters, structure, values"),
    ],
)
def test_a_recipe_of_other_kinds(saved: tuple[shortcutv2v.ShortcutV2V, Path], change: dict, named: str) -> None:
    path = saved[1] / "shortcut.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=f"damaged: {named} missing or of another kind"):
        shortcutv2v.load(saved[1], teacher())


@pytest.mark.parametrize("weights", [{}, {"0.change.weight": torch.zeros(3, dtype=torch.int64)}])
def test_weights_that_are_none(saved: tuple[shortcutv2v.ShortcutV2V, Path], weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, saved[1] / "block.safetensors")
    with pytest.raises(CheckpointError, match="expected shape"):
        shortcutv2v.load(saved[1], teacher())


def test_a_newer_format(saved: tuple[shortcutv2v.ShortcutV2V, Path]) -> None:
    path = saved[1] / "shortcut.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        shortcutv2v.load(saved[1], teacher())


def test_weights_of_another_cut(saved: tuple[shortcutv2v.ShortcutV2V, Path], tmp_path: Path) -> None:
    other = shortcutv2v.wrap(teacher(), "0", "2", example_inputs=(torch.rand(1, 3, 9, 9),), channels=5)
    other.save(tmp_path / "other")
    (saved[1] / "block.safetensors").write_bytes((tmp_path / "other/block.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="another cut"):
        shortcutv2v.load(saved[1], teacher())


def test_a_policy_that_is_no_json_is_not_saved(saved: tuple[shortcutv2v.ShortcutV2V, Path], tmp_path: Path) -> None:
    saved[0].refresh = Every(4)
    saved[0].refresh.interval = torch.tensor(4)  # checked when it was set, changed afterwards
    with pytest.raises(CheckpointError, match="refresh policy"):
        saved[0].save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    before = (saved[1] / "block.safetensors").read_bytes()
    saved[0].blocks[0].change.weight.data.zero_()
    with pytest.raises(CheckpointError, match="refresh policy"):
        saved[0].save(saved[1])
    assert (saved[1] / "block.safetensors").read_bytes() == before


def test_unwritable_folder(saved: tuple[shortcutv2v.ShortcutV2V, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        saved[0].save(tmp_path / "file")
