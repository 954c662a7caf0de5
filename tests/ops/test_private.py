"""`rows` without the private operators of torch: absent, changed or wrong ones fall back, and nothing fails."""

import pytest
import torch

from shortcutv2v import ops
from shortcutv2v.ops import private

PROBES = (private._has_onednn_product, private._has_bag_dots)


@pytest.fixture
def broken(monkeypatch):
    """Replaces both private operators; what was found out about them is forgotten before and after."""

    def install(stand_in):
        monkeypatch.setattr(private, "_onednn_product", stand_in)
        monkeypatch.setattr(private, "_bag_dots", stand_in)
        for probe in PROBES:
            probe.cache_clear()

    yield install
    for probe in PROBES:
        probe.cache_clear()


def absent(*_):
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def changed(*_):
    raise RuntimeError("expected at most 5 argument(s) but received 6 argument(s)")


def wrong(first, *_):
    return first.sum().view(1)


def results(inputs, dtype):
    args = [t.requires_grad_() for t in inputs(c=4, h=5, w=6, spread=1.0, dtype=dtype)]
    out = ops.adabd(*args, implementation="rows")
    moved = ops.warp(args[0], args[2][:, :2], implementation="rows")
    (out.square().sum() + moved.square().sum()).backward()
    return [out, moved, *(t.grad for t in args)]


@pytest.mark.parametrize("stand_in", [absent, changed, wrong])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_falls_back(stand_in, dtype, inputs, broken):
    want = results(inputs, dtype)
    broken(stand_in)
    for got, expected in zip(results(inputs, dtype), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert not private._has_onednn_product()
    assert not private._has_bag_dots(dtype)


def test_this_build_has_both():
    """If this fails, a release of torch took one away and `rows` has become slower: look for its successor."""
    if torch.backends.mkldnn.is_available():
        assert private._has_onednn_product()
    assert private._has_bag_dots(torch.float32)
    assert private._has_bag_dots(torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_agree(dtype):
    g = torch.Generator().manual_seed(0)
    samples, table = torch.randn(7, 5, generator=g, dtype=dtype), torch.randn(9, 5, generator=g, dtype=dtype)
    row = torch.randint(0, 9, (21,), generator=g, dtype=torch.int32)
    loop = torch.stack([samples[i // 3] @ table[row[i]] for i in range(21)])
    torch.testing.assert_close(private.dots(samples, table, row, 3), loop)
    torch.testing.assert_close(private._plain_dots(samples, table, row, 3), loop)
    assert private._plain_dots(samples[:0], table, row[:0], 3).shape == (0,)
