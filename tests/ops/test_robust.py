"""Dtypes, autocast, memory formats, empty batches, partial gradients, torch.compile and FLOP counting."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shortcutv2v import ops

each = pytest.mark.parametrize("implementation", ops.implementations())


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_stays_near_float64(implementation, dtype, inputs):
    tensors = inputs(b=1, c=8, h=6, w=9, spread=1.0)
    want = ops.adabd(*tensors, implementation="reference")
    out = ops.adabd(
        *(t.to(dtype) for t in tensors[:2]), *tensors[2:4], tensors[4].to(dtype), implementation=implementation
    )
    assert out.dtype == dtype
    rounding = torch.finfo(dtype).eps * 4
    torch.testing.assert_close(out.double(), want, rtol=rounding, atol=rounding * want.abs().max().item())


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_trains(implementation, dtype, inputs):
    args = [t.to(dtype).requires_grad_() for t in inputs(b=1, h=5, w=6, spread=0.5)]
    ops.adabd(*args, implementation=implementation).sum().backward()
    assert all(t.grad.dtype == dtype and t.grad.isfinite().all() and t.grad.any() for t in args)


@each
def test_autocast_acts_as_on_a_convolution(implementation, inputs):
    f, a, offset, mask, weight = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ops.adabd(f, a, offset, mask, weight, implementation=implementation)
        assert ops.align(f, offset[:, :2], weight, implementation=implementation).dtype == torch.bfloat16
        assert ops.warp(f, offset[:, :2], implementation=implementation).dtype == torch.float32
    assert out.dtype == torch.bfloat16
    want = ops.adabd(f, a, offset, mask, weight)
    torch.testing.assert_close(out.float(), want, rtol=0.05, atol=0.02 * want.abs().max().item())


@each
def test_any_memory_format_gives_the_same(implementation, inputs):
    tensors = inputs(c=4, h=5, w=6)
    want = ops.adabd(*tensors, implementation=implementation)
    last = [t.contiguous(memory_format=torch.channels_last) for t in tensors]
    torch.testing.assert_close(ops.adabd(*last, implementation=implementation), want)
    strided = [torch.stack([t, -t], -1)[..., 0] for t in tensors]
    torch.testing.assert_close(ops.adabd(*strided, implementation=implementation), want)


def test_rows_keeps_the_memory_format(inputs):
    f, a, offset, mask, weight = inputs(c=4)
    assert ops.adabd(f, a, offset, mask, weight, implementation="rows").is_contiguous()
    last = f.contiguous(memory_format=torch.channels_last)
    for out in (
        ops.adabd(last, a, offset, mask, weight, implementation="rows"),
        ops.warp(last, offset[:, :2], implementation="rows"),
    ):
        assert out.is_contiguous(memory_format=torch.channels_last)


@each
def test_shapes_alone_on_meta(implementation, inputs):
    f, a, offset, mask, weight = (t.to("meta") for t in inputs())
    assert ops.adabd(f, a, offset, mask, weight, implementation=implementation).shape == (2, 5, 4, 7)
    assert ops.warp(f, offset[:, :2], implementation=implementation).shape == f.shape


@each
def test_empty_batch(implementation, inputs):
    f, a, offset, mask, weight = (t.requires_grad_() for t in inputs())
    out = ops.adabd(f[:0], a[:0], offset[:0], mask[:0], weight, implementation=implementation)
    assert out.shape == (0, 5, 4, 7)
    out.sum().backward()
    assert not weight.grad.any()
    assert ops.warp(f[:0], offset[:0, :2], implementation=implementation).shape == (0, 3, 4, 7)


@each
@pytest.mark.parametrize("wanted", range(5))
def test_one_gradient_alone(implementation, wanted, inputs):
    args = list(inputs())
    args[wanted] = args[wanted].requires_grad_()
    ops.adabd(*args, implementation=implementation).sum().backward()
    assert [t.grad is not None for t in args] == [i == wanted for i in range(5)]


@each
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_offset_that_is_not_finite_gives_nan_there_alone(implementation, value, inputs):
    f, a, offset, mask, weight = inputs(b=1, spread=0.5)
    offset[0, 3, 1, 2] = value
    blended = ops.adabd(f, a, offset, mask, weight, implementation=implementation)
    warped = ops.warp(f, offset[:, 2:4], implementation=implementation)
    for out in (blended, warped):
        assert out[0, :, 1, 2].isnan().all()
        assert out.isfinite().sum() == out.numel() - out.shape[1]


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("function", ["adabd", "align", "warp"])
def test_compiles_in_one_graph_with_gradients(function, dynamic, inputs):
    f, a, offset, mask, weight = inputs(b=1, h=4, w=5, spread=1.0, dtype=torch.float32)
    args = {"adabd": (f, a, offset, mask, weight), "align": (f, offset[:, :2], weight), "warp": (f, offset[:, :2])}
    compiled = torch.compile(getattr(ops, function), backend="aot_eager", fullgraph=True, dynamic=dynamic)
    both = []
    for call in (getattr(ops, function), compiled):
        leaves = [t.clone().requires_grad_() for t in args[function]]
        out = call(*leaves)
        out.square().sum().backward()
        both.append([out, *(t.grad for t in leaves)])
    for want, got in zip(*both, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own checker looks at it
@pytest.mark.parametrize("last", [False, True])
def test_custom_operators_are_registered_right(last, inputs):
    f, a, offset, mask, weight = inputs(b=2, c=4, h=3, w=5, spread=1.0)
    if last:
        f = f.contiguous(memory_format=torch.channels_last)
    args = tuple(t.requires_grad_() for t in (f, a, offset, mask, weight))
    torch.library.opcheck(torch.ops.shortcutv2v.rows_blend, args)
    torch.library.opcheck(torch.ops.shortcutv2v.rows_blend, (args[0], None, args[2], None, args[4]))
    torch.library.opcheck(torch.ops.shortcutv2v.rows_warp, (args[0], offset[:, :2].detach(), 0))


@each
def test_flops_are_those_of_the_matrix_products(implementation, inputs):
    """AdaBD: one product in `rows` and `plain`, two in the definition; the backward doubles what the forward takes."""
    args = [t.requires_grad_() for t in inputs()]
    product = 2 * 2 * 4 * 7 * 9 * 3 * 5
    calls = 2 if implementation == "reference" else 1
    with FlopCounterMode(display=False) as forward:
        out = ops.adabd(*args, implementation=implementation)
    assert forward.get_total_flops() == calls * product
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 2 * calls * product
