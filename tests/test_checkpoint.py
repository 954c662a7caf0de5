"""What is saved, what is refused."""

from __future__ import annotations

import functools
import json
import pickle
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import shortcutv2v
from shortcutv2v import Every
from shortcutv2v.blocks import FlowBlock, ShortcutBlock
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


class Deep(FlowBlock):
    """A variant of one's own, with an argument of its own."""

    variant = "test_deep"

    def __init__(self, a_channels, f_channels, channels, depth=2, names=("one",)):
        super().__init__(a_channels, f_channels, channels)
        self.deep = nn.Sequential(*(nn.Conv2d(channels, channels, 1) for _ in range(depth)))
        self.names = names


class Unnamed(FlowBlock):
    """Changes what `flow` does, and calls itself `flow`."""

    def predict(self, state, a_t):
        return super().predict(state, a_t) + 1


def with_block(block: ShortcutBlock) -> shortcutv2v.ShortcutV2V:
    model = shortcutv2v.wrap(teacher(), "0", "2", example_inputs=(torch.rand(1, 3, 9, 9),))
    model.blocks[0] = block
    return model


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_block_of_ones_own_comes_back_with_its_arguments(tmp_path: Path, depth: int) -> None:
    model = with_block(Deep(6, 6, 3, depth=depth, names=["one", "two"]))
    torch.nn.init.normal_(model.blocks[0].deep[0].weight)
    model.save(tmp_path)
    (block,) = shortcutv2v.load(tmp_path, teacher()).blocks
    assert type(block) is Deep
    assert len(block.deep) == depth
    assert list(block.names) == ["one", "two"]
    assert torch.equal(block.deep[0].weight, model.blocks[0].deep[0].weight)


def test_a_block_whose_module_is_not_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_block(Deep(6, 6, 3)).save(tmp_path)
    monkeypatch.delitem(ShortcutBlock.variants, "test_deep")
    with pytest.raises(CheckpointError, match=r"unknown variant 'test_deep'.*import the module"):
        shortcutv2v.load(tmp_path, teacher())


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: Unnamed(6, 6, 3), "Unnamed.*'flow'.*a `variant` of its own"),
        (lambda: Deep(6, 6, 3, names=len), "names=.*is no JSON value"),
        (lambda: Deep(6, 6, 3, names={1, 2}), "names=.*is no JSON value"),
    ],
)
def test_a_block_that_could_not_come_back_is_not_saved(tmp_path: Path, block, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        with_block(block()).save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@torch.no_grad()
def changed(change, dtype: torch.dtype = torch.float32) -> nn.Module:
    net = teacher()
    torch.manual_seed(7)
    for parameter in net.parameters():
        change(parameter)
    return net.to(dtype)


def swap_rows(p: torch.Tensor) -> None:
    p[:2] = p[:2].flip(0).clone()


def shuffle(p: torch.Tensor) -> None:
    p.copy_(p.flatten()[torch.randperm(p.numel())].view_as(p))


CHANGES = {
    "flipped signs": torch.neg_,
    "one flipped tensor": lambda p: p.neg_() if p.dim() == 1 else p,
    "permuted rows": lambda p: p.copy_(p.flip(0)),
    "permuted columns": lambda p: p.copy_(p.flip(-1)) if p.shape[-1] > 1 else p.neg_(),
    "two rows swapped": swap_rows,
    "shuffled": shuffle,
    "noise of 1 %": lambda p: p.add_(0.01 * p.std() * torch.randn_like(p)),
    "noise of 3 %": lambda p: p.add_(0.03 * p.std() * torch.randn_like(p)),
    "scaled by 1 %": lambda p: p.mul_(1.01),
    "zero": torch.zero_,
    "not a number": lambda p: p.fill_(float("nan")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_changed_teacher_is_refused(saved, change, dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match="other weights"):
        shortcutv2v.load(saved[1], changed(change, dtype))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1e-5, 1.0, 100.0])
def test_casts_and_layouts_are_borne(tmp_path: Path, seed: int, scale: float) -> None:
    def net() -> nn.Module:
        made = teacher(seed, 6 + 7 * (seed % 4))
        with torch.no_grad():
            made[2].weight.mul_(scale)
            made[2].bias.normal_(1.0, 0.05)  # as the weights of a norm
        return made

    shortcutv2v.wrap(net(), "0", "2", example_inputs=(torch.rand(1, 3, 9, 9),), channels=2).save(tmp_path)
    for same in (net().half(), net().bfloat16(), net().double(), net().half().bfloat16().float()):
        shortcutv2v.load(tmp_path, same)
    shortcutv2v.load(tmp_path, net().to(memory_format=torch.channels_last))


def test_use_does_not_change_the_teacher(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 3, 1)).eval()
    shortcutv2v.wrap(net, "0", "2", example_inputs=(torch.rand(1, 3, 9, 9),)).save(tmp_path)
    net.train()(torch.rand(4, 3, 9, 9))
    shortcutv2v.load(tmp_path, net.eval())


class OwnMode(nn.Module):
    """Reads its mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if self.training else x


@pytest.mark.parametrize("layer", [lambda: nn.BatchNorm2d(6), lambda: nn.Dropout(0.5), OwnMode])
@pytest.mark.parametrize("train", [True, False])
def test_another_mode_of_the_teacher_is_told(tmp_path: Path, layer, train: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), layer(), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shortcutv2v.wrap(net.train(train), "0", "2", example_inputs=(torch.rand(2, 3, 9, 9),)).save(tmp_path)
    with pytest.warns(UserWarning, match=f"in {'eval' if train else 'train'} mode"):
        shortcutv2v.load(tmp_path, net.train(not train))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shortcutv2v.load(tmp_path, net.train(train))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, value: float) -> None:
    model, folder = saved
    with torch.no_grad():
        model.blocks[0].change.weight[0, 0, 1, 1] = value
    model.save(folder)
    with pytest.raises(CheckpointError, match=r"0\.change\.weight: some values are infinite or not a number"):
        shortcutv2v.load(folder, teacher())


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_weights_that_are_no_numbers_with_a_point_are_refused(saved, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in saved[0].blocks.state_dict().items()}
    save_file(weights, saved[1] / "block.safetensors")
    with pytest.raises(CheckpointError, match="expected torch.float32, got"):
        shortcutv2v.load(saved[1], teacher())


def test_every_flipped_bit_is_found(saved) -> None:
    path = saved[1] / "block.safetensors"
    whole = path.read_bytes()
    pick = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[pick.randrange(len(whole))] ^= 1 << pick.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            shortcutv2v.load(saved[1], teacher())
    for cut in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            shortcutv2v.load(saved[1], teacher())
    path.write_bytes(whole)
    shortcutv2v.load(saved[1], teacher())


def test_weights_of_another_model_of_the_same_shape_are_refused(saved, tmp_path: Path) -> None:
    model, folder = saved
    with torch.no_grad():
        model.blocks[0].change.weight.zero_()
    model.save(tmp_path / "other")
    for name in ("block.safetensors", "shortcut.json"):
        model.save(tmp_path / "mixed")
        (tmp_path / "mixed" / name).write_bytes((folder / name).read_bytes())
        with pytest.raises(CheckpointError, match="hash is not the one"):
            shortcutv2v.load(tmp_path / "mixed", teacher())


ODD = [None, [], {}, "x", -1, 0, 1.5, True, 10**9, [None], [[]], [["0"], 1], {"name": "Every"}, "\0", ["0", "0", "0"]]


def test_recipes_with_missing_or_odd_entries(saved) -> None:
    """Any entry, at any depth, missing or replaced: a sentence, or a model that works; never another error."""
    path = saved[1] / "shortcut.json"
    whole = json.loads(path.read_text())

    def places(at, prefix=()):
        keys = at.keys() if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            yield (*prefix, key)
            yield from places(at[key], (*prefix, key))

    refused = 0
    for place in places(whole):
        for odd in [..., *ODD]:
            recipe = json.loads(json.dumps(whole))
            parent = functools.reduce(lambda at, key: at[key], place[:-1], recipe)
            if odd is ...:
                del parent[place[-1]]
            else:
                parent[place[-1]] = odd
            path.write_text(json.dumps(recipe))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    shortcutv2v.load(saved[1], teacher())(torch.rand(1, 3, 9, 9))
                except shortcutv2v.ShortcutError:
                    refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '"x"', "null", "{", "[" * 100_000, '{"format": null}', "\ufeff{}", "NaN"]
)
def test_recipes_that_are_none(saved, text: str) -> None:
    (saved[1] / "shortcut.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError):
        shortcutv2v.load(saved[1], teacher())


def test_a_recipe_that_is_not_text(saved) -> None:
    (saved[1] / "shortcut.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(CheckpointError, match="damaged"):
        shortcutv2v.load(saved[1], teacher())


def test_an_older_format_is_told_apart_from_a_newer_one(saved) -> None:
    path = saved[1] / "shortcut.json"
    for version, advice in ((1, "save the blocks again"), (99, "upgrade shortcutv2v")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": version}))
        with pytest.raises(CheckpointError, match=advice):
            shortcutv2v.load(saved[1], teacher())


@pytest.mark.parametrize("folder", ["a\0b", "\0", "x/\0/y"])
def test_paths_with_a_nul(saved, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        saved[0].save(folder)
    with pytest.raises(CheckpointError):
        shortcutv2v.load(folder, teacher())


FULL = """
import resource, signal, torch, shortcutv2v
from tests.test_checkpoint import teacher
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = shortcutv2v.wrap(teacher(), "0", "2", example_inputs=(torch.rand(1, 3, 9, 9),), channels=2)
model.save({folder!r})
before = model.blocks[0].change.weight.clone()
torch.nn.init.normal_(model.blocks[0].change.weight)
for room in (0, 1, 100, 1000, 4000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        model.save({folder!r})
    except shortcutv2v.errors.CheckpointError as error:
        assert "cannot write to" in str(error), error
    else:
        raise AssertionError(room)
loaded = shortcutv2v.load({folder!r}, teacher())
assert torch.equal(loaded.blocks[0].change.weight, before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the file size")
def test_a_full_disk_is_told_and_leaves_the_model_before(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FULL.format(folder=str(tmp_path / "block"))], check=True)
    assert sorted(path.name for path in (tmp_path / "block").iterdir()) == ["block.safetensors", "shortcut.json"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("variant", ["flow", "paper", "without_blending"])
def test_blocks_in_another_precision_than_the_teacher(tmp_path: Path, dtype: torch.dtype, variant: str) -> None:
    frames = torch.rand(3, 1, 3, 9, 9)
    model = shortcutv2v.wrap(teacher(), "0", "2", example_inputs=(frames[0],), channels=2, variant=variant).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    wanted = [model(frame) for frame in frames]
    model.blocks.to(dtype)
    model.save(tmp_path)
    loaded = shortcutv2v.load(tmp_path, teacher())
    assert next(loaded.parameters()).dtype == dtype
    for frame, want in zip(frames, wanted, strict=True):
        shown = loaded(frame)
        assert shown.dtype == torch.float32
        torch.testing.assert_close(shown, want, rtol=0.1, atol=0.1)
