"""`flow`: what half the resolution changes, and what it must not."""

from __future__ import annotations

import pytest
import torch
from tests.blocks.formulas import excite, maps

import shortcutv2v
from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.measure import cost


def flow_block(a: int = 6, f: int = 10, h: int = 5) -> ShortcutBlock:
    torch.manual_seed(0)
    block = ShortcutBlock(a, f, h, variant="flow")
    excite(block)
    return block


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 1), (2, 5)])
def test_offsets_are_those_of_the_halved_maps(size):
    block, (f_ref, a_ref, a_t) = flow_block(), maps(6, 10, size, 2, torch.float32)
    seen = block.analyse(block.encode_reference(f_ref, a_ref), a_t)
    half = tuple((n + 1) // 2 for n in size)
    assert seen.local_offset.shape == (2, 2, *half)
    assert seen.global_offset.shape == (2, 2, *((n + 1) // 2 for n in half))
    assert seen.f_hat.shape == seen.f_star.shape == f_ref.shape


def test_the_warp_moves_whole_pixels_by_twice_the_offset():
    block, (f_ref, a_ref, _) = flow_block(3, 4, 4), maps(3, 4, (8, 8), dtype=torch.float32)
    state = block.encode_reference(f_ref, a_ref)
    right = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    aligned, detail = block._warp(state, right)
    torch.testing.assert_close(aligned[..., :6], f_ref[..., 2:])
    torch.testing.assert_close(detail[..., :6], block.detail(a_ref)[..., 2:])


@pytest.mark.parametrize("training", [True, False])
def test_still_scene_is_exact_under_autocast(training):
    block, (f_ref, a_ref, _) = flow_block().train(training), maps(6, 10, (7, 9), 2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        f_hat = block(f_ref, a_ref, a_ref.clone())
    assert f_hat.dtype == torch.float32
    assert torch.equal(f_hat, f_ref)


def test_adding_in_place_leaves_the_aligned_reference_and_the_gradients_alone():
    block, (f_ref, a_ref, a_t) = flow_block().double(), maps(6, 10, (5, 6))
    seen = block.analyse(block.encode_reference(f_ref, a_ref), a_t)
    assert not torch.equal(seen.f_star, seen.f_hat)
    leaf = a_t.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: block(f_ref, a_ref, a), leaf, eps=1e-7, atol=1e-4, fast_mode=True)


def test_half_the_width_costs_less_than_half():
    f_ref, a_ref, a_t = maps(64, 64, (16, 16), dtype=torch.float32)
    spent = []
    for width in (32, 16):
        block = ShortcutBlock(64, 64, width, variant="flow").eval()
        state = block.encode_reference(f_ref, a_ref)
        spent.append(cost(lambda block=block, state=state: block.predict(state, a_t)).macs)
    assert spent[1] < 0.5 * spent[0]


def test_saved_and_loaded_it_predicts_the_same(tmp_path, chain):
    frames = torch.rand(1, 3, 11, 13), torch.rand(1, 3, 11, 13)
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=frames[:1], variant="flow")
    excite(model.blocks)
    model.save(tmp_path)
    again = shortcutv2v.load(tmp_path, chain)
    pictures = [m.eval().shortcut(m.reference(frames[0])[1], frames[1]) for m in (model, again)]
    assert torch.equal(*pictures)
