"""One drawn call of an operator, on one implementation and on the reference: forward and gradients must agree."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from shortcutv2v import ops

LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "slice": lambda t: torch.nn.functional.pad(t, (1, 2, 1, 0))[..., 1:, 1:-2],
    "strided": lambda t: torch.stack([t, -t], -1)[..., 0],
    "reversed": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "expanded": lambda t: t[:1].expand_as(t),
    "constant": lambda t: t[..., :1, :1].expand_as(t),
}
SIZES = [(1, 1), (1, 7), (5, 1), (2, 2), (3, 3), (4, 9)]
DTYPES = [torch.float64, torch.float64, torch.float32, torch.float16, torch.bfloat16]


class Drawn:
    """Operator, sizes, dtypes, layouts, autocast and wanted gradients, all from one seed."""

    def __init__(self, seed: int) -> None:
        pick = random.Random(seed)
        self.operator = pick.choice(["adabd", "deform", "align", "warp"])
        self.dtype = pick.choice(DTYPES)
        self.autocast = self.dtype == torch.float32 and pick.random() < 0.4
        self.size = (pick.choice([0, 1, 2]), pick.choice([1, 2, 17, 70]), *pick.choice(SIZES))
        self.kernel, self.outputs = pick.choice([1, 3, 5]), pick.choice([1, 4])
        self.border = pick.choice([0, 1]) if min(self.size[2:]) > 2 else 0
        far = 1e4 if self.dtype == torch.float16 else 1e12
        self.spread = pick.choice([0.0, 0.5, 3.0, far, "whole"])
        self.layouts = [pick.choice(list(LAYOUTS)) for _ in range(5)]
        self.wanted = [pick.random() < 0.6 for _ in range(5)]
        self.seed = seed

    def __repr__(self) -> str:
        return str(vars(self))

    def tensors(self) -> list[Tensor]:
        g = torch.Generator().manual_seed(self.seed)
        (b, c, h, w), k = self.size, self.kernel
        shapes = (b, c, h, w), (b, c, h, w), (b, 2 * k * k, h, w), (b, k * k, h, w), (self.outputs, c, k, k)
        f, a, offset, mask, weight = (torch.randn(s, generator=g, dtype=torch.float64) for s in shapes)
        offset = (3 * offset).round() if self.spread == "whole" else self.spread * offset
        drawn = [f, a, offset, mask.sigmoid(), weight]
        return [LAYOUTS[name](t.to(self.dtype)) for name, t in zip(self.layouts, drawn, strict=True)]

    def run(self, implementation: str) -> tuple[Tensor, list[Tensor | None]]:
        f, a, offset, mask, weight = leaves = [t.detach() for t in self.tensors()]
        for leaf, wanted in zip(leaves, self.wanted, strict=True):
            leaf.requires_grad_(wanted)
        h, w, border = *self.size[2:], self.border
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast), ops.use(implementation):
            if self.operator == "adabd":
                out = ops.adabd(f, a, offset, mask, weight)
            elif self.operator == "deform":
                out = ops.deform(f, offset, weight)
            elif self.operator == "align":
                out = ops.align(f, offset[:, :2], weight)
            else:
                out = ops.warp(f, offset[:, :2, border : h - border, border : w - border], border=border)
        grads: list[Tensor | None] = [None] * 5
        if out.requires_grad:
            slope = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype)
            (out * slope).sum().backward()
            grads = [leaf.grad for leaf in leaves]
        return out.detach(), grads


def check(seed: int, implementation: str) -> None:
    """Fails where the implementation gives another dtype, shape, result, or gradient than the reference."""
    drawn = Drawn(seed)
    (want, wanted), (got, gotten) = drawn.run("reference"), drawn.run(implementation)
    rounding = torch.finfo(torch.bfloat16 if drawn.autocast else drawn.dtype).eps
    _near(got, want, 40 * rounding, f"output of {drawn}")
    if drawn.spread in (0.0, "whole"):
        gotten[2] = wanted[2] = None  # bilinear interpolation has no derivative at whole pixels
    for number, (one, other) in enumerate(zip(gotten, wanted, strict=True)):
        assert (one is None) == (other is None), f"gradient {number} of {drawn}"
        if one is not None and other is not None:
            _near(one, other, 320 * rounding, f"gradient {number} of {drawn}")


def _near(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    if want.numel():
        scale = max(1.0, want.double().abs().max().item())
        assert (got.double() - want.double()).abs().max().item() <= tolerance * scale, what
