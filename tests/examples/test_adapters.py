"""Frames to inputs, outputs to frames, and what is remembered in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples.unsup.adapter import UnsupAdapter
from examples.unsup.teacher import build_teacher as build_unsup
from examples.vid2vid.adapter import Vid2VidAdapter
from examples.vid2vid.maps import LabelMaps, TiledMaps, instance_edges, pack_labels, tile_maps
from examples.vid2vid.teacher import CompositeGenerator, Generated
from examples.vid2vid.teacher import build_teacher as build_vid2vid
from examples.vtoonify.adapter import VToonifyAdapter, read_style
from examples.vtoonify.teacher import VToonify
from examples.vtoonify.teacher import build_teacher as build_vtoonify
from torch import Tensor

from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.translate import Translator


def test_unsup_values_and_sizes() -> None:
    adapter = UnsupAdapter(build_unsup({"ngf": 2}))
    (x,), kwargs = adapter.inputs(torch.full((1, 3, 8, 8), 0.25), adapter.start())
    assert kwargs == {}
    torch.testing.assert_close(x, torch.full((1, 3, 8, 8), -0.5))
    torch.testing.assert_close(adapter.image(x), torch.full((1, 3, 8, 8), 0.25))
    with pytest.warns(UserWarning, match="frames of 8x10 are padded to 8x12.*multiples of 4"):
        assert Translator(adapter)(torch.zeros(3, 8, 10, dtype=torch.uint8)).shape == (3, 8, 10)
    assert adapter.cuts["high"] == ("model.9", "model.15")


def test_edges_lie_on_both_sides_of_every_border() -> None:
    instances = torch.tensor([[[1, 1, 1, 1], [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1]]])
    expected = torch.tensor([[[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]]], dtype=torch.bool)
    assert torch.equal(instance_edges(instances), expected)


def test_labels_and_instances_survive_packing() -> None:
    labels = torch.randint(0, 35, (2, 6, 5))
    instances = torch.randint(0, 33_018, (2, 6, 5))
    frame = (pack_labels(labels, instances) * 255).round().to(torch.uint8)  # as a picture file holds it
    maps = LabelMaps()(frame.float() / 255)
    assert maps.shape == (2, 36, 6, 5)
    assert torch.equal(maps[:, :35].argmax(1), labels)
    assert torch.equal(maps[:, :35].sum(1), torch.ones(2, 6, 5))
    assert torch.equal(maps[:, 35].bool(), instance_edges(instances))
    assert LabelMaps(35, instances=False)(frame.float() / 255).shape[1] == LabelMaps(35, instances=False).channels


def test_a_grey_label_picture_gives_the_labels_outlines() -> None:
    labels = torch.randint(0, 3, (1, 5, 7))
    maps = LabelMaps(3)((labels.float() / 255).unsqueeze(1).expand(-1, 3, -1, -1))
    assert torch.equal(maps[:, 3].bool(), instance_edges(labels))


def test_unknown_labels_and_odd_tiles_are_refused() -> None:
    with pytest.raises(InputError, match="label 7 in a frame, but the generator knows 0 to 2"):
        LabelMaps(3)(torch.full((1, 3, 2, 2), 7 / 255))
    with pytest.raises(InputError, match="15 maps lie in 5 tiles"):
        TiledMaps()(torch.zeros(1, 3, 12, 4))


def test_tiles_come_back() -> None:
    maps = torch.rand(2, 15, 4, 6)
    assert tile_maps(maps).shape == (2, 3, 20, 6)
    torch.testing.assert_close(TiledMaps()(tile_maps(maps)), maps)
    torch.testing.assert_close(TiledMaps()(tile_maps(maps).flip(-1)), maps.flip(-1))  # flipped in training


def _vid2vid(**options: Any) -> Vid2VidAdapter:
    torch.manual_seed(0)
    fg = options.pop("fg", False)
    net = build_vid2vid({"input_nc": 12, "prev_output_nc": 6, "ngf": 2, "n_blocks": 2, "fg": fg})
    assert isinstance(net, CompositeGenerator)
    return Vid2VidAdapter(net, encode=LabelMaps(3), **options)


def _label_frames(count: int) -> list[Tensor]:
    torch.manual_seed(1)
    return [pack_labels(torch.randint(0, 3, (1, 16, 16)), torch.randint(0, 9, (1, 16, 16))) for _ in range(count)]


def test_vid2vid_feeds_past_maps_and_past_pictures_back() -> None:
    adapter, frames = _vid2vid(), _label_frames(4)
    maps = [adapter.encode(frame) for frame in frames]
    state, pictures = adapter.start(), []
    for number, frame in enumerate(frames):
        (shown, before), kwargs = adapter.inputs(frame, state)
        assert kwargs == {}
        assert torch.equal(shown, torch.cat([maps[max(0, number - back)] for back in (2, 1, 0)], 1))
        if number == 0:
            assert not before.any()  # no past, no first-frame network
        elif number > 1:
            assert torch.equal(before, torch.cat(pictures[-2:], 1))
        output = adapter.teacher(shown, before)
        pictures.append(output.img_final.detach())
        state = adapter.advance(state, frame, output)
    assert len(state.maps) == len(state.pictures) == adapter.history == 2
    assert state.pictures[0].requires_grad  # training through time decides where gradients stop
    assert adapter.start() == ((), ())  # a new sequence begins without a past
    torch.testing.assert_close(adapter.image(output), (output.img_final + 1) / 2)


def test_vid2vid_first_frames_come_from_the_first_frame_network() -> None:
    painted = torch.rand(1, 3, 16, 16)
    adapter, frames = _vid2vid(first=lambda maps: painted * maps[:, :1]), _label_frames(3)
    state = adapter.start()
    expected = painted * adapter.encode(frames[0])[:, :1]
    (_, before), _ = adapter.inputs(frames[0], state)
    assert torch.equal(before, torch.cat((expected, expected), 1))
    for frame in frames[:2]:
        opening = adapter.opening(frame, state)
        assert opening is not None
        torch.testing.assert_close(adapter.image(opening), (opening + 1) / 2)
        state = adapter.advance(state, frame, opening)
    assert adapter.opening(frames[2], state) is None
    (_, before), _ = adapter.inputs(frames[2], state)
    assert torch.equal(before[:, :3], expected)
    assert _vid2vid().opening(frames[0], ((), ())) is None  # type: ignore[arg-type]


def test_vid2vid_first_frames_are_shown_as_painted_and_the_generator_starts_behind_them() -> None:
    adapter, frames = _vid2vid(first=lambda maps: maps[:, :1].expand(-1, 3, -1, -1)), _label_frames(4)
    calls: list[Any] = []
    adapter.teacher.register_forward_hook(lambda *_: calls.append(None))
    translate = Translator(adapter)
    raw = [(frame[0] * 255).round().byte() for frame in frames]
    shown = [translate(frame) for frame in raw]
    assert len(calls) == 2
    for frame, picture in zip(raw[:2], shown, strict=False):
        label = (frame[:1] == 0).expand(3, -1, -1)  # painted 1 where the label is 0, else 0: shown as 1 and one half
        assert torch.equal(picture, torch.where(label, 255, 128).byte())


def test_vid2vid_foreground_mask_is_the_sum_of_its_labels() -> None:
    adapter, (frame,) = _vid2vid(fg=True, foreground=(0, 2)), _label_frames(1)
    _, kwargs = adapter.inputs(frame, adapter.start())
    labels = (frame[:, :1] * 255).round()
    assert torch.equal(kwargs["mask"], (labels != 1).float())


def test_vid2vid_runs_on_frame_statistics_and_without_flow() -> None:
    adapter, frames = _vid2vid(), _label_frames(2)
    adapter.teacher.double()
    args = [adapter.inputs(frame.double(), adapter.start())[0] for frame in frames]
    outputs = [adapter.teacher.train(training)(*one) for one, training in zip(args, (True, False), strict=True)]
    together = adapter.teacher(*(torch.cat(parts) for parts in zip(*args, strict=True)))
    assert isinstance(together, Generated)
    assert together.flow is None
    for one, row in zip(outputs, together.img_final, strict=True):
        torch.testing.assert_close(one.img_final[0], row)


def test_vid2vid_generators_of_two_halvings_get_the_low_cut() -> None:
    net = build_vid2vid({"input_nc": 12, "prev_output_nc": 6, "ngf": 2, "n_blocks": 2, "n_downsampling": 2})
    adapter = Vid2VidAdapter(net)
    assert adapter.dec_layer == adapter.cuts["low"][1] == "model_up_img.0"
    assert sorted(adapter.cuts) == ["high", "low"]


def test_vid2vid_frames_that_cannot_be_halved_are_padded_but_not_tiles() -> None:
    adapter = _vid2vid()
    with pytest.warns(UserWarning, match="frames of 16x20 are padded to 16x24"):
        assert Translator(adapter)(torch.zeros(3, 16, 20, dtype=torch.uint8)).shape == (3, 16, 20)
    assert Vid2VidAdapter(adapter.teacher, encode=TiledMaps(4)).multiple == 1
    with pytest.raises(InputError, match="multiples of 8, the maps are 16x20"):
        adapter.inputs(pack_labels(*torch.zeros(2, 1, 16, 20, dtype=torch.long)), adapter.start())


@torch.no_grad()
def test_adapters_follow_the_teacher_to_half_precision() -> None:
    adapter = _vid2vid(first=torch.nn.Conv2d(4, 3, 1))
    adapter.teacher.to(torch.bfloat16)
    frame = pack_labels(torch.randint(0, 3, (1, 16, 16)), torch.randint(0, 700, (1, 16, 16))).to(torch.float16)
    args, _ = adapter.inputs(frame.to(torch.bfloat16), adapter.start())
    assert adapter.teacher(*args).img_final.dtype == torch.bfloat16
    assert torch.equal(adapter.encode(frame).float(), adapter.encode((frame.float() * 255).round() / 255))
    cartoon = VToonifyAdapter(_vtoonify("toonify"), torch.randn(8), parse=torch.nn.Conv2d(3, 19, 1))
    (x, style), _ = cartoon.inputs(torch.rand(1, 3, 8, 8, dtype=torch.bfloat16), None)
    assert x.dtype == style.dtype == torch.bfloat16


def test_vid2vid_maps_of_another_kind_are_refused() -> None:
    adapter = _vid2vid()
    adapter.encode = LabelMaps(5)
    with pytest.raises(InputError, match="reads 4 maps per frame"):
        adapter.inputs(_label_frames(1)[0], adapter.start())


def _vtoonify(backbone: str) -> VToonify:
    torch.manual_seed(0)
    channels = {4: 6, 8: 6, 16: 6, 32: 6, 64: 5, 128: 4}
    config = {"in_size": 64, "out_size": 128, "style_channels": 8, "num_mlps": 7, "backbone": backbone}
    return build_vtoonify({**config, "generator_channels": channels})


def test_vtoonify_takes_maps_with_the_frame_or_makes_them() -> None:
    net, style = _vtoonify("dualstylegan"), torch.randn(12, 8)
    frame = torch.rand(2, 22, 16, 8)
    (x, styles), kwargs = VToonifyAdapter(net, style, 0.7).inputs(frame, None)
    assert kwargs == {"d_s": 0.7}
    torch.testing.assert_close(x[:, :3], frame[:, :3] * 2 - 1)
    torch.testing.assert_close(x[:, 3:], frame[:, 3:] / 16)
    torch.testing.assert_close(styles, torch.stack((style, style)))
    (x, _), _ = VToonifyAdapter(net, style, parse=lambda p: p.mean(1, keepdim=True).expand(-1, 19, -1, -1)).inputs(
        frame[:, :3], None
    )
    torch.testing.assert_close(x[:, 3:4], (frame[:, :3] * 2 - 1).mean(1, keepdim=True) / 16)
    (x, styles), kwargs = VToonifyAdapter(_vtoonify("toonify"), style[0]).inputs(frame[:, :3], None)
    assert not x[:, 3:].any()
    assert styles.shape == (2, 8)
    assert kwargs == {}


def test_vtoonify_refuses_what_does_not_fit() -> None:
    net = _vtoonify("toonify")
    with pytest.raises(InputError, match=r"style code is \(4, 8\); this network reads \(8,\) or \(12, 8\)"):
        VToonifyAdapter(net, torch.zeros(4, 8))
    adapter = VToonifyAdapter(net, torch.zeros(8))
    with pytest.raises(InputError, match="this one has 4"):
        adapter.inputs(torch.zeros(1, 4, 8, 8), None)
    with pytest.warns(UserWarning, match="frames of 8x12 are padded to 8x16"):
        assert adapter.pad(torch.zeros(1, 3, 8, 12)).shape == (1, 3, 8, 16)
    assert sorted(adapter.cuts) == ["high", "medium"]  # too short for "low"
    assert adapter.channels == 3


def test_style_codes_are_read_from_files(tmp_path: Path) -> None:
    style = torch.randn(1, 12, 8)
    np.save(tmp_path / "style.npy", style.numpy())
    torch.save({"style": style}, tmp_path / "style.pt")
    for name in ("style.npy", "style.pt"):
        torch.testing.assert_close(read_style(tmp_path / name), style[0])
    np.save(tmp_path / "many.npy", np.array({"a": style.numpy()}, dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="pickled and is not opened"):
        read_style(tmp_path / "many.npy")
    torch.save({"a": style, "b": style}, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match="one array is expected"):
        read_style(tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match="no file"):
        read_style(tmp_path / "absent.npy")
