"""Every implementation equals the nested loops, on sizes that are all different and offsets far outside."""

import pytest
import torch
from torch.nn.functional import conv2d

from shortcutv2v import ops
from shortcutv2v.errors import InputError

IMPLEMENTATIONS = ops.implementations()
each = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@each
@pytest.mark.parametrize("k", [1, 3, 5])
def test_adabd_equals_loops(implementation, k, inputs, loops):
    f, a, offset, mask, weight = inputs(k=k)
    out = ops.adabd(f, a, offset, mask, weight, implementation=implementation)
    torch.testing.assert_close(out, loops.blend(f, a, offset, mask, weight))


@each
def test_offsets_far_outside(implementation, inputs, loops):
    f, a, offset, mask, weight = inputs(spread=1000.0)
    out = ops.adabd(f, a, offset, mask, weight, implementation=implementation)
    torch.testing.assert_close(out, loops.blend(f, a, offset, mask, weight))


@each
@pytest.mark.parametrize("spread", [0.6, 30.0])
def test_deform_equals_loops(implementation, spread, inputs, loops):
    f, _, offset, _, weight = inputs(spread=spread)
    out = ops.deform(f, offset, weight, implementation=implementation)
    torch.testing.assert_close(out, loops.blend(f, None, offset, None, weight))


@each
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("spread", [0.6, 4.0])
def test_align_equals_deform_with_one_offset(implementation, k, spread, inputs, loops):
    f, _, offset, _, weight = inputs(k=k, spread=spread)
    offset = offset[:, :2]
    out = ops.align(f, offset, weight, implementation=implementation)
    torch.testing.assert_close(out, loops.blend(f, None, offset.repeat(1, k * k, 1, 1), None, weight))


@each
@pytest.mark.parametrize("border", [0, 1, 2])
def test_warp_equals_loops(implementation, border, inputs, loops):
    f, _, offset, _, _ = inputs(h=5, w=8)
    offset = offset[:, :2, border : 5 - border, border : 8 - border]
    out = ops.warp(f, offset, border=border, implementation=implementation)
    torch.testing.assert_close(out, loops.warp(f, offset, border))


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_zero_offset_changes_no_bit(implementation, dtype, inputs):
    f = inputs(c=9, h=11, w=13, dtype=dtype)[0]
    out = ops.warp(f, torch.zeros(2, 2, 11, 13), implementation=implementation)
    assert out.dtype == dtype
    assert torch.equal(out, f)


@each
def test_whole_pixels_shift_exactly(implementation, inputs):
    f = inputs(h=6, w=9, dtype=torch.float32)[0]
    offset = torch.stack([torch.full((2, 6, 9), 2.0), torch.full((2, 6, 9), -3.0)], 1)
    out = ops.warp(f, offset, implementation=implementation)
    assert torch.equal(out[:, :, :4, 3:], f[:, :, 2:, :-3])
    assert not out[:, :, 4:].any()
    assert not out[:, :, :, :3].any()


@each
def test_zero_offset_is_a_convolution_of_the_blend(implementation, inputs):
    f, a, offset, mask, weight = inputs()
    out = ops.adabd(f, a, 0 * offset, torch.full_like(mask, 0.25), weight, implementation=implementation)
    torch.testing.assert_close(out, conv2d(0.25 * a + 0.75 * f, weight, padding=1))


def test_shapes_are_named_in_errors(inputs):
    f, a, offset, mask, weight = inputs()
    with pytest.raises(InputError, match=r"`a_t` has shape \(2, 3, 4, 6\).*\(2, 3, 4, 7\)"):
        ops.adabd(f, a[..., :-1], offset, mask, weight)
    with pytest.raises(InputError, match=r"`mask`.*\(2, 9, 4, 7\)"):
        ops.adabd(f, a, offset, mask[:, :1], weight)
    with pytest.raises(InputError, match=r"`offset`.*\(2, 18, 4, 7\)"):
        ops.deform(f, offset[:, :2], weight)
    with pytest.raises(InputError, match=r"k odd"):
        ops.align(f, offset[:, :2], weight[..., :2, :2])
    with pytest.raises(InputError, match=r"`f` must be"):
        ops.warp(f.long(), offset[:, :2])
    for empty in (f[:, :0], f[:, :, :0]):  # without channels torchvision's kernel ends the process
        with pytest.raises(InputError, match=r"at least 1"):
            ops.warp(empty, offset[:, :2], implementation="reference")
    for border in (-1, 2):
        with pytest.raises(InputError, match=rf"`border` is {border}.* 4x7"):
            ops.warp(f, offset[:, :2], border=border)
