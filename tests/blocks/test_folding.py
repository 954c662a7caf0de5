"""What eval mode folds is exact algebra, changes no state, and mixes with training in any order."""

import pytest
import torch
from torch.nn.utils.prune import l1_unstructured

from shortcutv2v.blocks import HetConv2d, ShortcutBlock
from shortcutv2v.measure import cost

variants = pytest.mark.parametrize("variant", sorted(ShortcutBlock.variants.keys() - {"reuse"}))


def drawn_block(variant):
    block = ShortcutBlock(6, 8, channels=4, variant=variant).double()
    g = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    return block


def drawn_maps(dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return [torch.randn(2, c, 9, 7, generator=g, dtype=dtype) for c in (8, 6, 6)]


@variants
def test_eval_and_training_agree(variant):
    block, (f_ref, a_ref, a_t) = drawn_block(variant), drawn_maps()
    want = block.train()(f_ref, a_ref, a_t)
    torch.testing.assert_close(block.eval()(f_ref, a_ref, a_t), want)


@variants
def test_a_state_serves_both_modes(variant):
    block, (f_ref, a_ref, a_t) = drawn_block(variant), drawn_maps()
    want = block.train()(f_ref, a_ref, a_t)
    for first, second in ((block.train, block.eval), (block.eval, block.train)):
        first()
        state = block.encode_reference(f_ref, a_ref)
        second()
        torch.testing.assert_close(block.predict(state, a_t), want)


@variants
def test_state_dict_is_untouched_and_weights_may_change_in_eval(variant):
    block, maps = drawn_block(variant).eval(), drawn_maps()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    block(*maps)
    after = block.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    block.load_state_dict({name: 0.5 * value for name, value in before.items()})
    changed = block(*maps)
    torch.testing.assert_close(block.train()(*maps), changed)


@variants
def test_gradients_agree(variant):
    block, maps = drawn_block(variant), drawn_maps()
    found = []
    for mode in (block.train, block.eval):
        mode()
        block.zero_grad()
        block(*maps).square().mean().backward()
        found.append([p.grad.clone() for p in block.parameters()])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


@variants
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_tail_gets_the_layout_of_the_head(variant, layout):
    block, maps = drawn_block(variant).eval(), [x.contiguous(memory_format=layout) for x in drawn_maps()]
    assert block(*maps).is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 4), (6, 9), (5, 7)])
def test_hetconv_folds_the_grouped_point_away(inputs, outputs):
    layer, x = HetConv2d(inputs, outputs).double(), torch.rand(2, inputs, 5, 6, dtype=torch.float64)
    want, full = layer.train()(x), cost(layer, x).macs
    torch.testing.assert_close(layer.eval()(x), want)
    assert full - cost(layer, x).macs == 2 * 5 * 6 * inputs * outputs // layer.groups


class Adapted(torch.nn.Conv2d):
    """What an adapter makes of a layer: its weight is only a part of it."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("change", ["hook", "pruned", "adapted"])
@pytest.mark.parametrize("name", ["grouped", "grouped_pointwise"])
def test_hetconv_folds_no_layer_that_does_more_than_its_weight(name, change):
    layer, x = HetConv2d(8, 4).double(), torch.rand(1, 8, 5, 6, dtype=torch.float64)
    part = getattr(layer, name)
    if change == "hook":
        part.register_forward_hook(lambda module, args, out: 2 * out)
    elif change == "pruned":  # a hook makes the weight anew at every call
        l1_unstructured(part, "weight", 0.5)
        with torch.no_grad():
            part.weight_orig.mul_(2)
    else:
        part.__class__ = Adapted
    torch.testing.assert_close(layer.eval()(x), layer.train()(x))


def test_the_coarse_kernel_runs_once_per_refresh():
    block, (f_ref, a_ref, a_t) = drawn_block("paper"), drawn_maps()
    spent = []
    for mode in (block.train, block.eval):
        mode()
        state = block.encode_reference(f_ref, a_ref)
        spent.append(cost(lambda state=state: block.predict(state, a_t)).macs)
    assert spent[0] - spent[1] > 2 * 2 * 5 * 4 * 4 * 4 * 9
