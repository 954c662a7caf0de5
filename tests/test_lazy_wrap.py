"""wrap() without example inputs: names are checked at once, everything else happens at the first inputs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import shortcutv2v
from shortcutv2v.errors import CutOrderError, InputError, UnknownLayerError


def frame(size: tuple[int, int] = (12, 16)) -> torch.Tensor:
    return torch.rand(1, 3, *size)


def test_names_are_checked_at_once(chain: nn.Module) -> None:
    with pytest.raises(UnknownLayerError, match="nothing"):
        shortcutv2v.wrap(chain, "nothing", "4")
    with pytest.raises(InputError, match="unknown variant 'floww'"):
        shortcutv2v.wrap(chain, "1", "4", variant="floww")
    with pytest.raises(InputError, match="2 entries for 1 branches"):
        shortcutv2v.wrap(chain, "1", "4", channels=[3, 3])


@pytest.mark.parametrize("ask", ["parameters", "named_parameters", "state_dict", "load_state_dict", "blocks", "save"])
def test_what_needs_blocks_says_how_to_get_them(chain: nn.Module, tmp_path: Path, ask: str) -> None:
    model = shortcutv2v.wrap(chain, "1", "4")
    assert not model.materialised
    calls = {
        "save": lambda: model.save(tmp_path / "block"),
        "load_state_dict": lambda: model.load_state_dict({}),
        "blocks": lambda: model.blocks,
    }
    with pytest.raises(InputError, match=r"model\(frame\).*example_inputs"):
        calls.get(ask, lambda: list(getattr(model, ask)()))()
    assert not (tmp_path / "block").exists()


@pytest.mark.parametrize("first", ["model", "stream", "head", "reference", "materialise"])
def test_the_first_inputs_make_the_blocks(chain: nn.Module, first: str) -> None:
    model = shortcutv2v.wrap(chain, "1", "4", channels=2).eval()
    run = {"model": model, "stream": model.stream()}.get(first) or getattr(model, first)
    run(frame())
    eager = shortcutv2v.wrap(chain, "1", "4", channels=2, example_inputs=frame())
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in eager.state_dict().items()}
    assert not any(module.training for module in model.blocks.modules())
    assert str(model.cut) == str(eager.cut)


def test_moves_and_modes_before_the_first_frame_hold(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4").double().train()
    assert model(frame().double()).dtype == torch.float64
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.blocks.training


def test_a_first_frame_in_inference_mode_leaves_weights_that_train(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4")
    with torch.inference_mode():
        model(frame())
    _, reference = model.reference(frame())
    model.shortcut(reference, frame()).sum().backward()
    assert any(p.grad is not None for p in model.parameters())


def test_a_bad_cut_is_found_at_the_first_frame_and_leaves_the_model_as_it_was(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "4", "1")
    for _ in range(2):
        with pytest.raises(CutOrderError):
            model(frame())
        assert not model.materialised


def test_copies_materialise_on_their_own(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4")
    other = copy.deepcopy(model)
    other(frame())
    assert other.materialised
    assert not model.materialised
    assert "made at the first frame" in repr(model)
    assert "made at the first frame" not in repr(other)


def test_compile_before_the_first_frame(chain: nn.Module) -> None:
    model = shortcutv2v.wrap(chain, "1", "4")
    model.compile(backend="eager")
    model(frame())
    assert "predict" in vars(model.blocks[0])


def test_fit_takes_the_first_frame_of_the_clips(chain: nn.Module, tmp_path: Path) -> None:
    model = shortcutv2v.wrap(chain, enc_layer="1", dec_layer="4")
    clip = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    shortcutv2v.fit(model, clip, minutes=None, max_steps=2, progress=False)
    frames = torch.rand(4, 1, 3, 16, 16)
    shown = [model(x) for x in frames]
    model.save(tmp_path / "block")
    model.reset()
    loaded = shortcutv2v.load(tmp_path / "block", chain)
    assert all(torch.equal(loaded(x), y) for x, y in zip(frames, shown, strict=True))
    assert loaded.trained_interval == 3
