from __future__ import annotations

import itertools

import pytest
import torch
from examples.vid2vid.first_frames import FeatureEncoder
from examples.vid2vid.layers import BatchNorm, InstanceNorm, frame_statistics
from examples.vid2vid.teacher import CompositeGenerator, build_teacher, published_cut, resample
from official_cases import fixture, relative_error
from torch import Tensor

from shortcutv2v.errors import InputError, ShortcutError

FEATURES = {"seg": "model_down_seg", "img": "model_down_img", "up": "model_up_img"}


def _layer(recorded: str) -> str | None:
    """The module whose output the authors' slice `seg[:5]` is."""
    if recorded == "res_img":
        return "model_res_img"
    name, _, stop = recorded.partition("[:")
    return f"{FEATURES[name]}.{int(stop[:-1]) - 1}" if stop else None


@pytest.mark.parametrize("mode", ["eval", "train_mode", "per frame"])
def test_recorded_outputs_and_features(mode: str) -> None:
    case = fixture("v2v_ngf8_noflow_nofg_batch")
    net = build_teacher(case["config"])
    net.load_state_dict(case["state_dict"])
    net.train(mode == "train_mode")
    frame_statistics(net, mode == "per frame")
    recorded_mode = "eval" if mode == "eval" else "train_mode"
    seen: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    with torch.no_grad():
        out = net(**case["inputs"])
    checked = 0
    for key, recorded in case["outputs"].items():
        setting, _, entry = key.partition("/")
        if setting.startswith(recorded_mode):
            checked += 1
            assert relative_error(getattr(out, entry), recorded) < 1e-5, key
    assert checked >= 3
    for key, recorded in case[f"features_{recorded_mode}"].items():
        if layer := _layer(key):
            assert relative_error(seen[layer], recorded) < 1e-5, key


def _loop_resample(image: Tensor, flow: Tensor) -> Tensor:
    """Bilinear fetch at p + flow(p), the border repeated, one pixel at a time."""
    out = torch.zeros_like(image)
    _, _, height, width = image.shape
    for y, x in itertools.product(range(height), range(width)):
        at_x = min(max(x + float(flow[0, 0, y, x]), 0.0), width - 1.0)
        at_y = min(max(y + float(flow[0, 1, y, x]), 0.0), height - 1.0)
        left, top = int(at_x), int(at_y)
        right, low = min(left + 1, width - 1), min(top + 1, height - 1)
        across, down = at_x - left, at_y - top
        upper = image[0, :, top, left] * (1 - across) + image[0, :, top, right] * across
        lower = image[0, :, low, left] * (1 - across) + image[0, :, low, right] * across
        out[0, :, y, x] = upper * (1 - down) + lower * down
    return out


def test_resample_fetches_from_where_the_flow_points() -> None:
    torch.manual_seed(0)
    image, flow = torch.randn(1, 3, 5, 8, dtype=torch.float64), 4 * torch.randn(1, 2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(resample(image, flow), _loop_resample(image, flow))
    torch.testing.assert_close(resample(image, torch.zeros_like(flow)), image)


def test_resample_without_aligned_corners_shrinks_towards_the_middle() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 5, 8)
    # -1 and 1 are the outer edges of the outer pixels then: u in [-1, 1] is the pixel ((u + 1) * 8 - 1) / 2.
    expected = ((torch.linspace(-1, 1, 8) + 1) * 8 - 1).div(2).clamp(0, 7)
    got = resample(ramp, torch.zeros(1, 2, 5, 8), align_corners=False)
    torch.testing.assert_close(got[0, 0, 2], expected)


def _narrow(**config: object) -> CompositeGenerator:
    torch.manual_seed(0)
    net = build_teacher({"input_nc": 5, "prev_output_nc": 6, "ngf": 4, "n_blocks": 3, **config})
    assert isinstance(net, CompositeGenerator)
    return net


def _inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(1, 5, 16, 24), torch.randn(1, 6, 16, 24).tanh()


@torch.no_grad()
def test_flow_blends_the_warped_last_picture_in() -> None:
    net, (shown, before) = _narrow(), _inputs()
    out = net(shown, before)
    warped = _loop_resample(before[:, -3:], out.flow)
    torch.testing.assert_close(out.img_final, out.img_raw * out.weight + warped * (1 - out.weight))
    torch.testing.assert_close(out.flow, 20 * net.model_final_flow(out.flow_feat))
    assert 0 < float(out.weight.min()) < float(out.weight.max()) < 1


@torch.no_grad()
def test_raw_only_leaves_the_flow_branch_out() -> None:
    net, inputs = _narrow(), _inputs()
    expected = net(*inputs)
    net.use_raw_only = True
    net.model_res_flow.register_forward_hook(lambda *_: pytest.fail("the flow branch ran"))
    out = net(*inputs)
    assert out.flow is None
    assert out.weight is None
    torch.testing.assert_close(out.img_final, expected.img_raw, rtol=0, atol=0)
    torch.testing.assert_close(out.img_raw, expected.img_raw, rtol=0, atol=0)


@torch.no_grad()
def test_foreground_paints_over_both_pictures_where_the_mask_is() -> None:
    net, inputs = _narrow(fg=True), _inputs()
    mask = torch.zeros(1, 1, 16, 24)
    plain = net(*inputs, mask=mask)
    mask[..., :10] = 1
    out = net(*inputs, mask=mask)
    painted = net.indv_final(out.img_fg_feat)
    for got, background in ((out.img_final, plain.img_final), (out.img_raw, plain.img_raw)):
        torch.testing.assert_close(got[..., :10], painted[..., :10])
        torch.testing.assert_close(got[..., 10:], background[..., 10:])
    assert out.img_fg_feat.shape[1] == 2  # half the width


def test_foreground_needs_a_mask() -> None:
    with pytest.raises(InputError, match="mask"):
        _narrow(fg=True)(*_inputs())


@torch.no_grad()
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_frame_statistics_do_not_mix_frames_nor_touch_averages(norm: str) -> None:
    net = _narrow(norm=norm).double().train()
    frames = [[part.double() for part in _inputs()] for _ in range(2)]
    state = {key: value.clone() for key, value in net.state_dict().items()}
    frame_statistics(net)
    together = net(*(torch.cat(parts) for parts in zip(*frames, strict=True))).img_final
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    frame_statistics(net, on=False)
    alone = torch.cat([net(*frame).img_final for frame in frames])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("training", [True, False])
def test_norms_are_torchs_own_unless_told_otherwise(training: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5)
    for ours, theirs in (
        (BatchNorm(3), torch.nn.BatchNorm2d(3)),
        (InstanceNorm(3), torch.nn.InstanceNorm2d(3, track_running_stats=True)),
    ):
        assert ours.running_mean is not None
        ours.running_mean.fill_(0.3)
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))


@torch.no_grad()
def test_feature_encoder_averages_every_part_of_the_face() -> None:
    torch.manual_seed(0)
    net = FeatureEncoder(3, 2, ngf=2, n_downsampling=1)
    picture = torch.randn(2, 3, 8, 8)
    parts = torch.randint(0, 3, (2, 1, 8, 8))
    parts[1] += 4  # numbers need not start at 0, nor be the same in both pictures
    plain, averaged = net(picture), net(picture, parts)
    for b, part in itertools.product(range(2), range(7)):
        where = parts[b, 0] == part
        if where.any():
            expected = plain[b][:, where].mean(1, keepdim=True).expand(-1, int(where.sum()))
            torch.testing.assert_close(averaged[b][:, where], expected)


@torch.no_grad()
def test_first_frame_network_with_features_reads_small_copies_of_them() -> None:
    torch.manual_seed(0)
    net = build_teacher({"input_nc": 3, "nz": 2, "ngf": 4, "n_downsampling": 2, "n_blocks": 1})
    seen: list[Tensor] = []
    net.model_resnet.register_forward_pre_hook(lambda _m, args: seen.append(args[0][:, -2:]))
    z = torch.ones(1, 2, 16, 16)
    net(torch.randn(1, 3, 16, 16), z)
    torch.testing.assert_close(seen[0], torch.ones(1, 2, 4, 4))  # an average that leaves the border out stays 1


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_published_cut_joins_equal_sizes(level: str) -> None:
    net = _narrow()
    sizes: dict[str, torch.Size] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(
            lambda _m, _i, out, name=name: sizes.__setitem__(name, out.shape) if isinstance(out, Tensor) else None
        )
    net(*_inputs())
    (seg, img), dec = published_cut(3, level)
    scale = {"low": 2, "medium": 4, "high": 8}[level]
    assert sizes[seg] == sizes[img] == sizes[dec] == (1, 4 * scale, 16 // scale, 24 // scale)


def test_what_the_teacher_is_not() -> None:
    with pytest.raises(ShortcutError, match="batch, instance"):
        build_teacher({"input_nc": 3, "norm": "layer"})
    with pytest.raises(ShortcutError, match="reflection"):
        build_teacher({"input_nc": 3, "padding_type": "zero"})
    with pytest.raises(ShortcutError, match="low, medium, high"):
        published_cut(3, "middle")
    with pytest.raises(ShortcutError, match="n_downsampling"):
        published_cut(1, "medium")
