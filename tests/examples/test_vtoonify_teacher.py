from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from examples.vtoonify.stylegan import Blur, EqualLinear, ModulatedConv2d, PixelNorm, Upsample
from examples.vtoonify.teacher import Fusion, VToonify, build_teacher, published_cut
from official_cases import fixture, relative_error
from torch import Tensor

from shortcutv2v.errors import InputError, ShortcutError

NARROW = {"in_size": 64, "out_size": 128, "style_channels": 8, "num_mlps": 7, "num_res_layers": 6}


def narrow(backbone: str, **config: object) -> VToonify:
    """A network of a few channels per level, no two levels alike where the architecture allows it."""
    channels = {4: 6, 8: 6, 16: 6, 32: 6, 64: 5, 128: 4}
    torch.manual_seed(0)
    return build_teacher({**NARROW, "backbone": backbone, "generator_channels": channels, **config})


def _recorded_layer(name: str, net: VToonify) -> str:
    layer = (
        name.split(" ", maxsplit=1)[0].replace("[-1]", f"[{len(net.encoder) - 1}]").replace("[", ".").replace("]", "")
    )
    prefix = "generator.generator." if net.dual else "generator."
    return prefix + layer if layer.startswith(("convs", "to_rgbs")) else layer


def test_recorded_output_and_features() -> None:
    case = fixture("vtoonify_toonify_w16_in64_out256")
    net = build_teacher(case["config"])
    net.load_state_dict(case["state_dict"])
    seen: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    with torch.no_grad():
        assert relative_error(net(**case["inputs"]), case["outputs"]["y"]) < 1e-5
        wplus = net.zplus2wplus(case["inputs"]["style"])
    assert relative_error(wplus, case["outputs"]["zplus2wplus(style)"]) < 1e-5
    for name, recorded in case["features (d_s=0.5 for dualstylegan)"].items():
        assert relative_error(seen[_recorded_layer(name, net)], recorded) < 1e-5, name


def _filtered(x: Tensor, pad: tuple[int, int]) -> Tensor:
    """Pad and filter with the 4x4 kernel, one tap at a time (the kernel is symmetric)."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 4
    x = F.pad(x, (*pad, *pad))
    height, width = x.shape[2] - 3, x.shape[3] - 3
    return sum(
        line[i] * line[j] * x[:, :, i : i + height, j : j + width]  # type: ignore[misc]
        for i in range(4)
        for j in range(4)
    )


def test_upsample_is_zeros_between_the_pixels_and_a_filter() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    stuffed = torch.zeros(2, 3, 8, 10, dtype=torch.float64)
    stuffed[:, :, ::2, ::2] = x
    torch.testing.assert_close(Upsample().double()(x), _filtered(stuffed, (2, 1)))


def test_blur_is_the_filter_with_one_pixel_of_padding() -> None:
    x = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(Blur(4).double()(x), _filtered(x, (1, 1)))


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_sample_by_sample(upsample: bool, demodulate: bool) -> None:
    torch.manual_seed(0)
    conv = ModulatedConv2d(3, 4, 3, 5, demodulate=demodulate, upsample=upsample).double()
    x, style = torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    rows = []
    for one, code in zip(x, style, strict=True):
        chosen = conv.modulation.weight @ code / math.sqrt(5) + conv.modulation.bias
        weight = conv.weight[0] * chosen.view(1, 3, 1, 1) / math.sqrt(27)
        if demodulate:
            weight = weight / weight.flatten(1).norm(dim=1).view(4, 1, 1, 1)
        if upsample:
            rows.append(conv.blur(F.conv_transpose2d(one[None], weight.transpose(0, 1), stride=2)))
        else:
            rows.append(F.conv2d(one[None], weight, padding=1))
    torch.testing.assert_close(conv(x, style), torch.cat(rows), rtol=1e-6, atol=1e-6)


def test_equalised_linear_scales_when_it_runs() -> None:
    torch.manual_seed(0)
    layer = EqualLinear(4, 3, rate=0.01, activate=True)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 4)
    sums = x @ (layer.weight * 0.01 / 2).T + layer.bias * 0.01
    torch.testing.assert_close(layer(x), torch.where(sums > 0, sums, 0.2 * sums) * 2**0.5)
    torch.testing.assert_close(PixelNorm()(x).square().mean(1), torch.ones(2), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_fusion_lets_content_in_by_its_mask() -> None:
    torch.manual_seed(0)
    fusion = Fusion(3)
    ours, content = torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 6)
    fusion.conv2.bias.fill_(-100.0)
    out, mask = fusion(ours, content, torch.full((1, 1), 0.5))
    assert not mask.any()
    torch.testing.assert_close(out, fusion.conv(torch.cat((ours, torch.zeros_like(content)), 1)))
    fusion.conv2.bias.fill_(100.0)
    out, mask = fusion(ours, content, torch.full((1, 1), 0.5))
    assert (mask == 1).all()
    torch.testing.assert_close(out, fusion.conv(torch.cat((ours, content), 1)))


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["toonify", "dualstylegan"])
def test_one_code_or_one_per_layer(backbone: str) -> None:
    net = narrow(backbone)
    x, style = torch.randn(2, 22, 16, 24), torch.randn(2, 8)
    out = net(x, style, d_s=0.5)
    assert out.shape == (2, 3, 32, 48)
    torch.testing.assert_close(net(x, style.unsqueeze(1).repeat(1, 12, 1), d_s=0.5), out)
    torch.testing.assert_close(net(x[1:], style[1:], d_s=0.5), out[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_layers_read_their_own_code() -> None:
    net, x, style = narrow("toonify"), torch.randn(1, 22, 16, 16), torch.randn(1, 12, 8)
    out = net(x, style)
    for index in range(12):
        changed = style.clone()
        changed[:, index] += 1
        # Layers 7 to 9 make 64x64, 9 to 11 make 128x128; 0 to 6 belong to the levels that the encoder replaces.
        assert torch.equal(net(x, changed), out) == (index < 7), index


@torch.no_grad()
def test_style_degree_as_number_or_tensor() -> None:
    net, x, style = narrow("dualstylegan"), torch.randn(2, 22, 16, 16), torch.randn(2, 12, 8)
    out = net(x, style, 0.7)
    for degree in (torch.tensor(0.7), torch.full((2,), 0.7), torch.full((2, 1), 0.7)):
        torch.testing.assert_close(net(x, style, degree), out)
    mixed = net(x, style, torch.tensor([0.7, 0.1]))
    torch.testing.assert_close(mixed[0], out[0])
    assert (mixed[1] - out[1]).abs().max() > 1e-3


@torch.no_grad()
def test_degree_zero_leaves_the_modres_blocks_out() -> None:
    net, x, style = narrow("dualstylegan"), torch.randn(1, 22, 16, 16), torch.randn(1, 12, 8)
    out = net(x, style, 0.0)
    for parameter in net.res.parameters():
        parameter.normal_()
    torch.testing.assert_close(net(x, style, 0.0), out)
    assert (net(x, style, 0.5) - out).abs().max() > 1e-3


@torch.no_grad()
def test_modres_blocks_are_dilated_by_their_level() -> None:
    net = narrow("dualstylegan")
    reach = [block.conv[0].dilation for block in net.res]
    assert reach == [1, 4, 4, 2, 2, 1, 1]
    x = torch.zeros(1, 6, 17, 17)
    x[0, 0, 8, 8] = 1
    spread = net.res[1].conv[0](x)[0, 0]
    assert [tuple(index) for index in spread.nonzero().tolist()] == [(y, x) for y in (4, 8, 12) for x in (4, 8, 12)]


@pytest.mark.parametrize("backbone", ["toonify", "dualstylegan"])
@pytest.mark.parametrize("level", ["medium", "high"])
def test_published_cut_joins_equal_sizes(backbone: str, level: str) -> None:
    net = narrow(backbone)
    sizes: dict[str, torch.Size] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(
            lambda _m, _i, out, name=name: sizes.__setitem__(name, out.shape) if isinstance(out, Tensor) else None
        )
    net(torch.zeros(1, 22, 16, 24), torch.zeros(1, 8), 0.5)
    (enc, same), (feature, skip) = published_cut(backbone, 64, level)
    assert enc == same
    assert sizes[enc][2:] == sizes[feature][2:] == sizes[skip][2:]
    assert sizes[skip][1] == 3


def test_what_the_teacher_is_not() -> None:
    with pytest.raises(InputError, match="d_s"):
        narrow("dualstylegan")(torch.zeros(1, 22, 16, 16), torch.zeros(1, 8))
    with pytest.raises(ShortcutError, match="dualstylegan, toonify"):
        build_teacher({"backbone": "stylegan3"})
    with pytest.raises(ShortcutError, match="22 channels"):
        build_teacher({"input_channels": 3})
    with pytest.raises(ShortcutError, match="too short"):
        published_cut("toonify", 64, "low")
    with pytest.raises(ShortcutError, match="high, medium, low"):
        published_cut("toonify", 256, "middle")


@torch.no_grad()
def test_dualstylegan_layers_read_their_own_code() -> None:
    net, x, style = narrow("dualstylegan"), torch.randn(1, 22, 16, 16), torch.randn(1, 12, 8)
    out = net(x, style, 0.5)
    for index in range(12):
        changed = style.clone()
        changed[:, index] += 1
        # Code 0 belongs to 4x4, which nothing runs; 1 to 6 steer the ModRes blocks, the rest the generator's levels.
        assert torch.equal(net(x, changed, 0.5), out) == (index == 0), index
    without = net(x, style, 0.0)
    for index in range(1, 7):
        changed = style.clone()
        changed[:, index] += 1
        assert torch.equal(net(x, changed, 0.0), without), index


@torch.no_grad()
@pytest.mark.parametrize(
    ("part", "runs"),
    [
        (["generator.res.0.", "generator.res.3.", "generator.res.6."], False),  # DualStyleGAN's own ModRes blocks
        (["generator.res.7."], True),
        (["generator.res.11."], True),
        (["res.0."], False),
        (["res.6."], True),
        (["generator.style."], True),  # colour codes of the ModRes blocks
        (["generator.generator.style.", "generator.generator.conv1.", "generator.generator.to_rgb1."], False),
        (["generator.generator.convs.5.", "generator.generator.to_rgbs.2."], False),
        (["generator.generator.convs.6."], True),
        (["generator.generator.to_rgbs.4."], True),
        (["fusion_skip.1."], True),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_which_parts_of_a_file_a_translation_reads(part: list[str], runs: bool) -> None:
    net, x, style = narrow("dualstylegan"), torch.randn(1, 22, 16, 16), torch.randn(1, 12, 8)
    touched = [p for name, p in net.named_parameters() if name.startswith(tuple(part)) and ".noise." not in name]
    assert touched
    for parameter in touched:
        parameter.fill_(torch.nan)
    assert bool(net(x, style, 0.5).isnan().any()) == runs


@torch.no_grad()
def test_noise_is_never_added() -> None:
    net, x, style = narrow("toonify"), torch.randn(1, 22, 16, 16), torch.randn(1, 12, 8)
    out = net(x, style)
    for name, parameter in net.named_parameters():
        if ".noise." in name:
            parameter.fill_(5.0)
    assert torch.equal(net(x, style), out)


@torch.no_grad()
def test_dualstylegan_follows_its_definition() -> None:
    """The whole network once more, written out step by step with the parts tested above."""
    net, x = narrow("dualstylegan"), torch.randn(2, 22, 16, 24)
    style, degree = torch.randn(2, 12, 8), torch.full((1, 1), 0.7)
    stylegan = net.generator.generator
    first = net.encoder[0](x)
    content = [net.encoder[1](first), first]
    feature = content[0]
    for block, modres, code in zip(net.encoder[2], net.res[1:], style.unbind(1)[1:7], strict=True):
        feature = modres(block(feature), net.generator.style(code), degree)
    skip = net.encoder[3](feature)
    codes = [net.generator.res[index](style[:, index]) for index in range(7, 12)]
    for step in range(2):
        feature, mask = net.fusion_out[step](feature, content[step], degree)
        skip = net.fusion_skip[step](torch.cat((skip, content[step] * mask), 1))
        feature = stylegan.convs[6 + 2 * step](feature, codes[2 * step])
        feature = stylegan.convs[7 + 2 * step](feature, codes[2 * step + 1])
        skip = stylegan.to_rgbs[3 + step](feature, codes[2 * step + 2], skip)
    torch.testing.assert_close(net(x, style, 0.7), skip)
