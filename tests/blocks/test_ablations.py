"""Table 3 (a) to (d): each takes away one thing and leaves the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.blocks.formulas import excite, maps

import shortcutv2v
from shortcutv2v.blocks import ShortcutBlock

ABLATIONS = ["without_reference", "without_current", "single_stage", "without_blending"]
ablations = pytest.mark.parametrize("variant", ABLATIONS)


@ablations
def test_what_it_looked_at_has_the_shapes_of_the_published_block(variant):
    f_ref, a_ref, a_t = maps(3, 5, (7, 9), 2)
    block, paper = (ShortcutBlock(3, 5, 4, variant=v).double() for v in (variant, "paper"))
    got, published = (b.analyse(b.encode_reference(f_ref, a_ref), a_t) for b in (block, paper))
    assert [x.shape for x in got[:4]] == [x.shape for x in published[:4]]
    assert (got.mask is None) == (variant != "single_stage")


def test_without_reference_reads_no_reference():
    block = ShortcutBlock(3, 5, 4, variant="without_reference")
    f_ref, a_ref, a_t = maps(3, 5, (6, 5), dtype=torch.float32)
    assert torch.equal(block(f_ref, a_ref, a_t), block(f_ref + 1, a_ref - 1, a_t))


def test_without_current_is_the_published_block_with_its_mask_at_zero():
    block, paper = (ShortcutBlock(3, 5, 4, variant=v).double() for v in ("without_current", "paper"))
    excite(block)
    head = paper.local_generator.head
    with torch.no_grad():
        state = block.state_dict()
        for name in ("weight", "bias"):
            whole = head.state_dict()[name].clone()
            whole[:18], whole[18:] = state[f"local_generator.head.{name}"], 0.0
            state[f"local_generator.head.{name}"] = whole
        paper.load_state_dict(state)
        head.bias[18:] = -100.0
    given = maps(3, 5, (6, 5))
    torch.testing.assert_close(block(*given), paper(*given))


@ablations
def test_keeps_only_parameters_that_a_training_step_uses(variant, chain):
    frames = torch.rand(1, 2, 3, 12, 10)
    model = shortcutv2v.wrap(chain, "1", "4", example_inputs=(frames[:, 0],), variant=variant)
    _, reference = model.reference(frames[:, 0])
    model.shortcut(reference, frames[:, 1]).square().mean().backward()
    assert all(p.grad is not None for p in model.blocks.parameters())


@ablations
def test_learns(variant):
    torch.manual_seed(0)
    block = ShortcutBlock(4, 4, 4, variant=variant)
    teacher = copy.deepcopy(block)
    excite(teacher, 0.3)
    given = maps(4, 4, (8, 8), 2, torch.float32)
    target = teacher(*given).detach()
    optimiser = torch.optim.Adam(block.parameters(), lr=0.03)
    lost = []
    for _ in range(20):
        loss = (block(*given) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        lost.append(loss.item())
    assert lost[-1] < 0.7 * lost[0]
