"""What the blocks do on GPUs only, computed on the CPU: the same numbers as the layers themselves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shortcutv2v.blocks import flow
from shortcutv2v.blocks.hetconv import HetConv2d


@pytest.mark.parametrize("channels", [(8, 12), (3, 5), (6, 4)])
def test_a_hetconv_as_one_dense_kernel(channels: tuple[int, int]) -> None:
    layer = HetConv2d(*channels).eval()
    x = torch.randn(2, channels[0], 5, 7)
    own, pointwise = layer.grouped, layer.grouped_pointwise
    assert own.bias is not None
    assert pointwise.bias is not None
    assert layer.pointwise.bias is not None
    kernel, bias = own.weight - F.pad(pointwise.weight, (1, 1, 1, 1)), own.bias - pointwise.bias + layer.pointwise.bias
    torch.testing.assert_close(F.conv2d(x, layer._dense(kernel), bias, padding=1), layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_by_cells(bias: bool) -> None:
    layer = nn.ConvTranspose2d(6, 5, 2, stride=2, bias=bias).eval()
    x = torch.randn(2, 6, 3, 4)
    torch.testing.assert_close(flow._by_cells(layer, x), layer(x))


class Counted(nn.ConvTranspose2d):
    """A layer of someone's own kind."""


@pytest.mark.parametrize("kind", ["hooked", "of a subclass", "training"])
def test_modified_layers_are_called(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(flow, "_by_cells", lambda *_: pytest.fail("the layer itself was not called"))
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    layer = (Counted if kind == "of a subclass" else nn.ConvTranspose2d)(6, 5, 2, stride=2).train(kind == "training")
    if kind == "hooked":
        layer.register_forward_hook(lambda *_: None)
    assert flow._doubled(layer, torch.randn(1, 6, 3, 4)).shape == (1, 5, 6, 8)
