"""Predictions from two references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shortcutv2v.blocks import ShortcutBlock

SIZE = (37, 51)


def block(variant: str) -> ShortcutBlock:
    torch.manual_seed(0)
    made = ShortcutBlock(6, 8, 4, variant=variant).eval()
    for parameter in made.parameters():
        parameter.data.normal_(std=0.1)
    return made


def maps(seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.rand(1, 8, *SIZE), torch.rand(1, 6, *SIZE)


@pytest.mark.parametrize("variant", ["flow", "paper", "single_stage"])
@torch.no_grad()
def test_the_order_of_the_references_does_not_matter(variant: str) -> None:
    net, (_, a_t) = block(variant), maps(0)
    first, second = (net.encode_reference(*maps(seed)) for seed in (1, 2))
    made, turned = (net.analyse_both(*pair, a_t).f_hat for pair in ((first, second), (second, first)))
    torch.testing.assert_close(made, turned)
    assert not torch.allclose(made, net.predict(first, a_t), atol=1e-3)
    assert not torch.allclose(made, net.predict(second, a_t), atol=1e-3)


@pytest.mark.parametrize("variant", ["flow", "paper", "single_stage"])
@torch.no_grad()
def test_the_same_reference_twice_is_that_reference(variant: str) -> None:
    net, (_, a_t) = block(variant), maps(0)
    state = net.encode_reference(*maps(1))
    torch.testing.assert_close(net.analyse_both(state, state, a_t).f_hat, net.predict(state, a_t))


@torch.no_grad()
def test_where_one_reference_is_right_it_counts_alone() -> None:
    """The left half is still since the first reference, the right half since the second; between, both count."""
    net, (f, a), (f_other, a_other) = block("flow"), maps(1), maps(2)
    left = torch.arange(96) < 48
    f, a, f_other, a_other = (torch.nn.functional.interpolate(x, size=(64, 96)) for x in (f, a, f_other, a_other))
    first = net.encode_reference(torch.where(left, f, f_other), torch.where(left, a, a_other))
    second = net.encode_reference(torch.where(left, f_other, f), torch.where(left, a_other, a))
    made = net.analyse_both(first, second, a).f_hat
    outside = (torch.arange(96) < 16) | (torch.arange(96) >= 80)
    torch.testing.assert_close(made[..., outside], f[..., outside], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(net.predict(first, a)[..., outside], f[..., outside], atol=0.1)


def test_its_gradient_reaches_every_weight() -> None:
    net, (f, a_t) = block("flow").train(), maps(0)
    made = net.analyse_both(*(net.encode_reference(*maps(seed)) for seed in (1, 2)), a_t).f_hat
    (made - f).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
