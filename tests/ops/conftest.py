"""The slow definition that every implementation is compared with: nested loops over pixels, in float64."""

import math

import pytest
import torch


def sample(f: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """Bilinear sample of f (C, H, W) at (y, x), zero outside."""
    _, height, width = f.shape
    top, left = math.floor(y), math.floor(x)
    total = torch.zeros_like(f[:, 0, 0])
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < height and 0 <= j < width:
                total = total + f[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def blend(f, a, offset, mask, weight):
    """Equation 7 with loops; a and mask may be None (deformable convolution)."""
    b, _, h, w = f.shape
    k = weight.shape[-1]
    out = torch.zeros(b, weight.shape[0], h, w, dtype=f.dtype)
    for n in range(b):
        for y in range(h):
            for x in range(w):
                for t in range(k * k):
                    py, px = y + t // k - k // 2, x + t % k - k // 2
                    dy, dx = offset[n, 2 * t, y, x].item(), offset[n, 2 * t + 1, y, x].item()
                    value = sample(f[n], py + dy, px + dx)
                    if a is not None:
                        m = mask[n, t, y, x]
                        value = sample(a[n], py, px) * m + value * (1 - m)
                    out[n, :, y, x] += weight[:, :, t // k, t % k] @ value
    return out


def warp(f, offset, border=0):
    """Bilinear warp with loops."""
    b, c, h, w = f.shape
    out = torch.zeros(b, c, h - 2 * border, w - 2 * border, dtype=f.dtype)
    for n in range(b):
        for y in range(out.shape[2]):
            for x in range(out.shape[3]):
                dy, dx = offset[n, 0, y, x].item(), offset[n, 1, y, x].item()
                out[n, :, y, x] = sample(f[n], y + border + dy, x + border + dx)
    return out


class Loops:
    blend = staticmethod(blend)
    warp = staticmethod(warp)


@pytest.fixture
def loops():
    return Loops


def make_inputs(b=2, c=3, c_out=5, h=4, w=7, k=3, spread=3.0, dtype=torch.float64, seed=0):
    """(f, a, offset, mask, weight), sizes all different; spread is the deviation of the offsets in pixels."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    mask = torch.rand(b, k * k, h, w, generator=g, dtype=torch.float64)
    tensors = normal(b, c, h, w), normal(b, c, h, w), spread * normal(b, 2 * k * k, h, w), mask, normal(c_out, c, k, k)
    return tuple(t.to(dtype) for t in tensors)


@pytest.fixture
def inputs():
    return make_inputs
