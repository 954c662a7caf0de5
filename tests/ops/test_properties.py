"""All implementations agree on drawn sizes and offsets, and the operators keep their algebraic promises."""

import pytest
import torch
from agreement import check
from hypothesis import given, settings
from hypothesis import strategies as st

from shortcutv2v import ops

OTHERS = ["rows", "plain"]
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
def test_every_call_agrees_with_the_reference(implementation):
    """Operators, dtypes, autocast, layouts, sizes from one pixel, empty batches, far offsets, wanted gradients."""
    for seed in range(400):
        check(seed, implementation)


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
