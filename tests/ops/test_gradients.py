"""Gradients: against finite differences in float64, and one implementation against the other."""

import pytest
import torch

from shortcutv2v import ops
from shortcutv2v.errors import InputError

each = pytest.mark.parametrize("implementation", ops.implementations())
OTHERS = [name for name in ops.implementations() if name != "reference"]


def leaves(tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def away_from_kinks(offset):
    """Bilinear interpolation has no derivative at whole pixels: keep the fractions inside [0.2, 0.8]."""
    whole = offset.floor()
    return whole + 0.2 + 0.6 * (offset - whole)


@each
@pytest.mark.parametrize("spread", [0.7, 5.0])
def test_adabd_gradcheck(implementation, spread, inputs):
    f, a, offset, mask, weight = inputs(b=2, c=2, c_out=3, h=3, w=4, spread=spread)
    args = leaves([f, a, away_from_kinks(offset), mask, weight])
    assert torch.autograd.gradcheck(lambda *x: ops.adabd(*x, implementation=implementation), args)


@each
def test_deform_gradcheck(implementation, inputs):
    f, _, offset, _, weight = inputs(b=1, c=2, c_out=3, h=4, w=3, spread=1.5)
    args = leaves([f, away_from_kinks(offset), weight])
    assert torch.autograd.gradcheck(lambda *x: ops.deform(*x, implementation=implementation), args)


@each
def test_align_gradcheck(implementation, inputs):
    f, _, offset, _, weight = inputs(b=2, c=2, c_out=3, h=4, w=3, spread=1.5)
    args = leaves([f, away_from_kinks(offset[:, :2]), weight])
    assert torch.autograd.gradcheck(lambda *x: ops.align(*x, implementation=implementation), args)


@each
@pytest.mark.parametrize("border", [0, 1])
def test_warp_gradcheck(implementation, border, inputs):
    f, _, offset, _, _ = inputs(b=2, c=2, h=4, w=5, spread=2.0)
    offset = offset[:, :2, border : 4 - border, border : 5 - border]
    args = leaves([f, away_from_kinks(offset)])
    assert torch.autograd.gradcheck(lambda *x: ops.warp(*x, border=border, implementation=implementation), args)


@pytest.mark.parametrize("implementation", OTHERS)
def test_gradients_equal_the_reference_over_many_chunks(implementation, inputs):
    """64 channels and 1800 positions: several chunks of the `rows` implementation, float32, not contiguous."""
    tensors = inputs(b=1, c=64, c_out=5, h=30, w=60, spread=2.0, dtype=torch.float32)
    grads = []
    for name in ("reference", implementation):
        args = leaves(tensors)
        out = ops.adabd(args[0].transpose(2, 3).contiguous().transpose(2, 3), *args[1:], implementation=name)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        grads.append([t.grad for t in args])
    for want, got in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3 * want.abs().max().item())


def test_plain_has_second_derivatives(inputs):
    f, a, offset, mask, weight = inputs(b=1, c=2, c_out=2, h=2, w=3, spread=1.0)
    args = leaves([f, a, away_from_kinks(offset), mask, weight])
    assert torch.autograd.gradgradcheck(lambda *x: ops.adabd(*x, implementation="plain"), args)


@pytest.mark.parametrize("function", ["adabd", "warp"])
def test_rows_refuses_second_derivatives(function, inputs):
    f, a, offset, mask, weight = inputs()
    f.requires_grad_()
    args = (f, a, offset, mask, weight) if function == "adabd" else (f, offset[:, :2])
    out = getattr(ops, function)(*args, implementation="rows").square().sum()
    (grad,) = torch.autograd.grad(out, f, create_graph=True)
    with pytest.raises(InputError, match="gradient of a gradient.*ops.use"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is:FutureWarning")  # torch's own derivatives are written in it
@each
@pytest.mark.parametrize("number", range(5))
def test_forward_mode_is_not_silently_zero(implementation, number, inputs):
    args = list(inputs(spread=1.0))
    args[2] = away_from_kinks(args[2])

    def call(x):
        return ops.adabd(*args[:number], x, *args[number + 1 :], implementation=implementation)

    tangent, step = torch.ones_like(args[number]), 1e-6
    _, got = torch.func.jvp(call, (args[number],), (tangent,))
    want = (call(args[number] + step * tangent) - call(args[number] - step * tangent)) / (2 * step)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@each
def test_gradients_per_sample(implementation, inputs):
    f, _, offset, _, _ = inputs(spread=1.0)

    def loss(f, at):
        return ops.warp(f[None], at[None], implementation=implementation).square().sum()

    got = torch.func.vmap(torch.func.grad(loss))(f, offset[:, :2])
    f.requires_grad_()
    ops.warp(f, offset[:, :2]).square().sum().backward()
    torch.testing.assert_close(got, f.grad)
