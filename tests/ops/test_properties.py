"""All implementations agree on drawn sizes and offsets, and the operators keep their algebraic promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shortcutv2v import ops

OTHERS = [name for name in ops.implementations() if name != "reference"]
each = pytest.mark.parametrize("implementation", OTHERS)
size = st.integers(1, 9)
drawn = {
    "b": st.integers(1, 2),
    "c": st.integers(1, 5),
    "h": size,
    "w": size,
    "k": st.sampled_from([1, 3, 5]),
    "spread": st.sampled_from([0.0, 0.3, 2.0, 1e3, 1e12]),
    "seed": st.integers(0, 99),
}
few = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def tensors():
    def make(b, c, h, w, k, spread, seed):
        g = torch.Generator().manual_seed(seed)
        shapes = (b, c, h, w), (b, c, h, w), (b, 2 * k * k, h, w), (b, k * k, h, w), (4, c, k, k)
        f, a, offset, mask, weight = (torch.randn(s, generator=g, dtype=torch.float64) for s in shapes)
        return f, a, spread * offset, mask.sigmoid(), weight

    return make


@each
@few
@given(**drawn)
def test_adabd_agrees_with_the_reference(implementation, tensors, **sizes):
    args = tensors(**sizes)
    want = ops.adabd(*args, implementation="reference")
    torch.testing.assert_close(ops.adabd(*args, implementation=implementation), want)


@each
@few
@given(**drawn)
def test_align_agrees_with_the_reference(implementation, tensors, **sizes):
    f, _, offset, _, weight = tensors(**sizes)
    want = ops.align(f, offset[:, :2], weight, implementation="reference")
    torch.testing.assert_close(ops.align(f, offset[:, :2], weight, implementation=implementation), want)


@each
@few
@given(**drawn)
def test_adabd_is_two_deformable_convolutions_of_masked_weight(implementation, tensors, **sizes):
    """Mask 0 leaves the moved reference, mask 1 the plain convolution of the current feature."""
    f, a, offset, mask, weight = tensors(**sizes)
    moved = ops.adabd(f, a, offset, torch.zeros_like(mask), weight, implementation=implementation)
    torch.testing.assert_close(moved, ops.deform(f, offset, weight, implementation=implementation))
    still = ops.adabd(f, a, offset, torch.ones_like(mask), weight, implementation=implementation)
    torch.testing.assert_close(still, torch.nn.functional.conv2d(a, weight, padding=sizes["k"] // 2))


@each
@few
@given(**drawn)
def test_gradients_agree_with_the_reference(implementation, tensors, **sizes):
    # Whole pixels and saturated positions have one-sided derivatives only: keep away from both.
    sizes["spread"] = min(sizes["spread"], 2.0) or 0.5
    both = []
    for name in ("reference", implementation):
        args = [t.requires_grad_() for t in tensors(**sizes)]
        ops.adabd(*args, implementation=name).square().sum().backward()
        both.append([t.grad for t in args])
    for want, got in zip(*both, strict=True):
        torch.testing.assert_close(got, want)
