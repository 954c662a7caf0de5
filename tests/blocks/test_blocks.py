"""The block against the loops, its guarantees, and the authors' checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import loops
from tests.blocks import formulas
from tests.blocks.formulas import excite, maps
from torch.utils._python_dispatch import TorchDispatchMode

from shortcutv2v.blocks import HetConv2d, ShortcutBlock
from shortcutv2v.blocks.alignment import enlarge_offset
from shortcutv2v.blocks.flow import stay_inside
from shortcutv2v.errors import CheckpointError, InputError

SHARED = Path(__file__).resolve().parents[3] / "shared"
VARIANTS = sorted(ShortcutBlock.variants.keys() - {"reuse"})  # which only some tests load


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(5, 4), (4, 7)])
def test_equals_the_loops(variant: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = ShortcutBlock(3, 5, 4, variant=variant).double()
    excite(block)
    f_ref, a_ref, a_t = maps(3, 5, size)
    with torch.no_grad():
        expected = formulas.f_hat(block, f_ref, a_ref, a_t)
    torch.testing.assert_close(block(f_ref, a_ref, a_t), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", list(formulas.FORMULAS))
@pytest.mark.parametrize("size", [(5, 4), (4, 7)])
@pytest.mark.parametrize("training", [True, False])
def test_the_aligned_reference_equals_the_loops(variant: str, size: tuple[int, int], training: bool) -> None:
    block = ShortcutBlock(3, 5, 4, variant=variant).double().train(training)
    excite(block)
    f_ref, a_ref, a_t = maps(3, 5, size)
    with torch.no_grad():
        f_hat, f_star = formulas.FORMULAS[variant](block, f_ref, a_ref, a_t)
        seen = block.analyse(block.encode_reference(f_ref, a_ref), a_t)
    torch.testing.assert_close(seen.f_star, f_star, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen.f_hat, f_hat, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(VARIANTS),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_any_size_width_and_batch(variant: str, size: tuple[int, int], a: int, f: int, h: int, batch: int) -> None:
    block = ShortcutBlock(a, f, h, variant=variant).double()  # such weights amplify roundings
    excite(block)
    f_ref, a_ref, a_t = maps(a, f, size, batch)
    state = block.encode_reference(f_ref, a_ref)
    f_hat = block.predict(state, a_t)
    assert f_hat.shape == f_ref.shape
    torch.testing.assert_close(block.analyse(state, a_t).f_hat, f_hat)
    for i in range(batch):
        alone = block(f_ref[i : i + 1], a_ref[i : i + 1], a_t[i : i + 1])
        torch.testing.assert_close(f_hat[i : i + 1], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_untrained_is_plain_reuse_bit_for_bit(training: bool) -> None:
    f_ref, a_ref, a_t = maps(6, 10, (7, 9), 2, torch.float32)
    assert torch.equal(ShortcutBlock(6, 10, 5, variant="flow").train(training)(f_ref, a_ref, a_t), f_ref)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inference_folds_and_changes_nothing_else(variant: str) -> None:
    block = ShortcutBlock(6, 10, 8, variant=variant).double()
    excite(block)
    f_ref, a_ref, a_t = maps(6, 10, (7, 9), 2)
    before = {key: value.clone() for key, value in block.state_dict().items()}
    trained = block(f_ref, a_ref, a_t)
    torch.testing.assert_close(block.eval()(f_ref, a_ref, a_t), trained, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(before[key], value) for key, value in block.state_dict().items())
    assert torch.equal(block.train()(f_ref, a_ref, a_t), trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_still_scene_is_exact_for_any_weights(dtype: torch.dtype, training: bool) -> None:
    block = ShortcutBlock(6, 10, 5, variant="flow").to(dtype).train(training)
    excite(block, 2.0)
    for size in ((7, 9), (8, 6), (1, 1)):
        f_ref, a_ref, _ = maps(6, 10, size, 2, dtype)
        assert torch.equal(block(f_ref, a_ref, a_ref.clone()), f_ref)


def test_a_change_reaches_no_further_than_it_must() -> None:
    block = ShortcutBlock(3, 4, 4, variant="flow")
    excite(block)
    f_ref, a_ref, _ = maps(3, 4, (48, 48), 1, torch.float32)
    a_t = a_ref.clone()
    a_t[..., :4, :4] += 1
    changed = (block(f_ref, a_ref, a_t) != f_ref).any(1)[0]
    assert changed[:4, :4].any()
    assert not changed[24:, 24:].any()


def test_paper_starts_as_published() -> None:
    block = ShortcutBlock(6, 10, 5, variant="paper")
    f_ref, a_ref, a_t = maps(6, 10, (8, 6), 1, torch.float32)
    seen = block.analyse(block.encode_reference(f_ref, a_ref), a_t)
    assert not seen.global_offset.any()
    assert not seen.local_offset.any()
    assert seen.mask is not None
    assert (seen.mask == 0.5).all()


def test_zero_offsets_and_mask_one_are_a_plain_convolution_of_the_current_frame() -> None:
    block = ShortcutBlock(6, 10, 5, variant="paper")
    f_ref, a_t = torch.randn(2, 1, 5, 8, 6)
    blended = block.blend(f_ref, a_t, torch.zeros(1, 18, 8, 6), torch.ones(1, 9, 8, 6))
    torch.testing.assert_close(blended, F.conv2d(a_t, block.blend.weight, padding=1))


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(8, 8, 4), (6, 10, 2), (9, 6, 3), (5, 7, 1)])
def test_hetconv_equals_the_loops(inputs: int, outputs: int, groups: int) -> None:
    layer = HetConv2d(inputs, outputs).double()
    assert layer.groups == groups
    x = torch.randn(2, inputs, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), loops.hetconv(layer, x))


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="unknown variant 'dleta': expected one of"):
        ShortcutBlock(3, 3, 3, variant="dleta")
    with pytest.raises(InputError, match="at least one channel"):
        ShortcutBlock(3, 3, 0)


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the recorded outputs of the authors' block are not beside the checkout"
)
def test_authors_checkpoint_gives_the_authors_numbers() -> None:
    recorded = torch.load(SHARED / "fixtures/shortcut_block_official_h8.pt", weights_only=True)
    block = ShortcutBlock.from_authors({f"module.{k}": v for k, v in recorded["state_dict"].items()})
    inputs, outputs = recorded["inputs"], recorded["outputs"]
    seen = block.analyse(block.encode_reference(inputs["f_ref"], inputs["a_ref"]), inputs["a_t"])
    torch.testing.assert_close(seen.f_hat, outputs["isTrain=False/f_hat"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.mask, outputs["isTrain=True/mask"], rtol=1e-5, atol=1e-5)
    (f_star,) = (v for k, v in outputs.items() if "f_ref_star" in k)
    torch.testing.assert_close(seen.f_star, f_star, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the list of the authors' parameters is not beside the checkout")
def test_authors_full_size_checkpoint_loads_by_name() -> None:
    listed = json.loads((SHARED / "official/shortcut_block.json").read_text())["entries"]
    block = ShortcutBlock.from_authors({key: torch.zeros(shape) for key, shape, *_ in listed})
    assert (block.a_channels, block.f_channels, block.channels) == (128, 128, 64)


def test_other_checkpoints_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="unexpected entry 'model.0.weight'"):
        ShortcutBlock.from_authors({"model.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no cr1"):
        ShortcutBlock.from_authors({})
    with pytest.raises(CheckpointError, match="blend.weight: expected shape"):
        ShortcutBlock.from_authors({"cr1.0.weight": torch.zeros(4, 8, 1, 1), "cr2.0.weight": torch.zeros(4, 8, 1, 1)})


class NoCopiesFromTheHost(TorchDispatchMode):
    """Refuses tensors made from Python numbers: on a GPU each is a copy that no CUDA graph can record."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten.lift_fresh.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_copied_from_the_host(variant: str) -> None:
    block = ShortcutBlock(6, 10, 5, variant=variant).eval()
    with NoCopiesFromTheHost():
        block(*maps(6, 10, (7, 9), 1, torch.float32))


def test_offsets_of_bfloat16_still_know_every_pixel() -> None:
    far = torch.full((1, 2, 3, 600), 1e4).bfloat16()
    column, row = torch.arange(600.0).expand(3, 600), torch.arange(3.0).view(3, 1).expand(3, 600)
    assert torch.equal(stay_inside(far)[0], torch.stack((2 - row, 599 - column)))
    assert torch.equal(stay_inside(-far)[0], torch.stack((-row, -column)))
    assert enlarge_offset(far, (5, 601)).dtype == torch.float32
