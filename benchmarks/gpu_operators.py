"""Checks of `gpu.py`: operators and blocks, forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from benchmarks.gpu_bench import Bench, Errors, apart, check, to
from torch import Tensor

from shortcutv2v import ops
from shortcutv2v.blocks import ShortcutBlock

__all__ = ["shaken"]

OPERATORS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "adabd": (ops.adabd, ("f", "a", "offsets", "mask", "weight")),
    "deform": (ops.deform, ("f", "offsets", "weight")),
    "align": (ops.align, ("f", "offset", "weight")),
    "warp": (ops.warp, ("f", "offset")),
}


def _operators(bench: Bench) -> Iterator[tuple[str, Any, Any]]:
    """Yield output and gradients on the device and on the CPU in float64, by operator and implementation."""
    h, w = bench.size
    given = {"f": torch.randn(2, 8, h, w), "a": torch.randn(2, 8, h, w), "weight": torch.randn(6, 8, 3, 3)}
    given |= {"mask": torch.rand(2, 9, h, w), "offset": _offsets(2, 2, h, w), "offsets": _offsets(2, 18, h, w)}
    for name, (call, names) in OPERATORS.items():
        expected = _graded(call, [given[x].double() for x in names], "plain")
        for implementation in ("reference", "plain", "fused", None):
            found = _graded(call, [given[x].to(bench.device) for x in names], implementation)
            yield f"{name}, {implementation or 'default'}", found, expected


def _offsets(*shape: int) -> Tensor:
    """Offsets of a few pixels that end at least a tenth from a whole one, where the gradient jumps."""
    return (torch.randn(shape) * 3).round() + 0.1 + 0.8 * torch.rand(shape)


def _graded(call: Callable[..., Tensor], given: Sequence[Tensor], implementation: str | None) -> tuple[Tensor, Any]:
    leaves = [x.detach().clone().requires_grad_() for x in given]
    out = call(*leaves, implementation=implementation)
    probe = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out)
    return out, torch.autograd.grad((out * probe).sum(), leaves)


@check("operators, forward", 1e-4, "positions in float32: a pixel has about 2^-16 of its size at column 160")
def operators_forward(bench: Bench) -> Errors:
    """All implementations of all operators."""
    for label, found, expected in _operators(bench):
        yield label, apart(found[0], expected[0])


@check("operators, gradients", 1e-3, "sums over all positions in float32, in any order")
def operators_backward(bench: Bench) -> Errors:
    """Their gradients by every argument."""
    for label, found, expected in _operators(bench):
        yield label, apart(found[1], expected[1])


@check("operators, deterministic", 0.0, "torch.use_deterministic_algorithms promises the same bits")
def operators_deterministic(bench: Bench) -> Errors:
    """Two backward passes of the implementation that is chosen when determinism is asked for."""
    h, w = bench.size
    given = [torch.randn(1, 8, h, w), torch.randn(1, 18, h, w) * 3, torch.randn(6, 8, 3, 3)]
    given = [x.to(bench.device) for x in given]
    torch.use_deterministic_algorithms(True)
    try:
        yield "deform", apart(_graded(ops.deform, given, None), _graded(ops.deform, given, None))
    finally:
        torch.use_deterministic_algorithms(False)


def shaken(block: Any) -> Any:
    """Give weights that start at zero values, so that offsets and corrections are as large as the features."""
    with torch.no_grad():
        for parameter in block.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.05
            parameter.add_(torch.randn_like(parameter) * scale)
    return block


@check("blocks", 1e-3, "offsets come out of ten layers, and the warp turns their rounding into a share of the edges")
def blocks(bench: Bench) -> Errors:
    """All blocks: prediction and intermediate results."""
    for label, found, expected in _blocks(bench):
        yield label, apart(found[0], expected[0])


@check("blocks, gradients", 2e-2, "the slope of a sample jumps where a position crosses a pixel")
def blocks_backward(bench: Bench) -> Errors:
    """All blocks: gradients by all weights."""
    for label, found, expected in _blocks(bench):
        yield label, apart(found[1], expected[1])


def _blocks(bench: Bench) -> Iterator[tuple[str, Any, Any]]:
    """Yield results on the device and on the CPU, by variant and mode."""
    h, w = bench.size
    given = torch.rand(2, 12, h, w), torch.rand(2, 8, h, w), torch.rand(2, 8, h, w)
    for variant in ShortcutBlock.variants:
        block = shaken(ShortcutBlock(8, 12, 8, variant=variant))
        if not list(block.parameters()):  # it reuses features
            continue
        moved = copy.deepcopy(block).to(bench.device)
        for mode in (True, False):
            found = _analysed(moved.train(mode), to(given, bench.device))
            yield f"{variant}, {'train' if mode else 'eval'}", found, _analysed(block.train(mode), given)


def _analysed(block: Any, given: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """Return prediction, its parts, and the gradients."""
    f_ref, a_ref, a_t = given
    state = block.encode_reference(f_ref, a_ref)
    made = block.predict(state, a_t), block.analyse(state, a_t)
    return made, torch.autograd.grad(made[0].square().mean(), list(block.parameters()), allow_unused=True)
