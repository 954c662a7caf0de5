from __future__ import annotations

import pytest
import torch
from examples.unsup.teacher import ResnetBlock, ResnetGenerator, build_teacher, published_cut
from official_cases import fixture, relative_error
from torch import Tensor, nn

from shortcutv2v.errors import ShortcutError


def test_recorded_output_and_features() -> None:
    case = fixture("unsup_ngf8_dropoutFalse")
    net = build_teacher(case["config"])
    net.load_state_dict(case["state_dict"])
    x = case["inputs"]["x"]
    with torch.no_grad():
        assert relative_error(net(x), case["outputs"]["y"]) < 1e-5
        for stop, recorded in case["features"].items():
            assert relative_error(net.model[: int(stop)](x), recorded) < 1e-5, stop


def _norm(x: Tensor) -> Tensor:
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()


def _reflect(x: Tensor, by: int) -> Tensor:
    down = torch.cat((x[:, :, 1 : by + 1].flip(2), x, x[:, :, -by - 1 : -1].flip(2)), 2)
    return torch.cat((down[..., 1 : by + 1].flip(3), down, down[..., -by - 1 : -1].flip(3)), 3)


def test_block_is_two_reflected_convolutions_and_the_input() -> None:
    torch.manual_seed(0)
    block, x = ResnetBlock(3).double(), torch.randn(2, 3, 5, 7, dtype=torch.float64)
    state = block.state_dict()
    conv = nn.functional.conv2d
    inner = _norm(conv(_reflect(x, 1), state["conv_block.1.weight"], state["conv_block.1.bias"])).clamp(min=0)
    expected = x + _norm(conv(_reflect(inner, 1), state["conv_block.5.weight"], state["conv_block.5.bias"]))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("blocks", [6, 9])
def test_dropout_moves_the_second_convolution_and_is_off_in_eval(blocks: int) -> None:
    torch.manual_seed(0)
    plain, dropping = (build_teacher({"ngf": 2, "n_blocks": blocks, "use_dropout": d}) for d in (False, True))
    state = {key.replace("conv_block.5.", "conv_block.6."): value for key, value in plain.state_dict().items()}
    dropping.load_state_dict(state)
    x = torch.randn(1, 3, 16, 12)
    torch.testing.assert_close(dropping(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize(("blocks", "level"), [(b, level) for b in (6, 9) for level in ("low", "medium", "high")])
def test_published_cut_joins_equal_sizes_around_the_blocks(blocks: int, level: str) -> None:
    net = build_teacher({"ngf": 2, "n_blocks": blocks})
    sizes: dict[str, torch.Size] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: sizes.__setitem__(name, out.shape))
    net(torch.zeros(1, 3, 16, 24))
    enc, dec = published_cut(blocks, level)
    assert sizes[enc] == sizes[dec]
    scale = {"low": 1, "medium": 2, "high": 4}[level]
    assert sizes[enc] == (1, 2 * scale, 16 // scale, 24 // scale)


def test_what_the_teacher_is_not() -> None:
    with pytest.raises(ShortcutError, match="norm='instance'"):
        build_teacher({"norm": "batch"})
    with pytest.raises(ShortcutError, match="low, medium, high"):
        published_cut(6, "middle")


def test_odd_number_of_channels_in_and_out() -> None:
    assert ResnetGenerator(5, 2, ngf=2, n_blocks=1)(torch.zeros(2, 5, 8, 12)).shape == (2, 2, 8, 12)
