"""Label maps in and out: exact on the way in, trainable on the way out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from shortcutv2v.errors import InputError
from shortcutv2v.labels import LabelAdapter, LabelMaps, Palette, distinct_colours, pack_labels
from shortcutv2v.translate import Translator, to_uint8


def drawn(labels: int = 7, seed: int = 0) -> Tensor:
    return torch.randint(0, labels, (2, 6, 9), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_label_survives_the_way_through_pictures(dtype: torch.dtype) -> None:
    labels = torch.arange(256).view(1, 16, 16)
    frame = (labels.byte().float() / 255).to(dtype)
    maps = LabelMaps(256, instances=False)(frame.unsqueeze(1))
    assert maps.dtype == dtype
    assert torch.equal(maps.argmax(1), labels)
    assert torch.equal(maps.sum(1), torch.ones(1, 16, 16, dtype=dtype))


def test_one_channel_reads_like_a_grey_picture() -> None:
    grey = drawn().unsqueeze(1) / 255
    assert torch.equal(LabelMaps(7)(grey), LabelMaps(7)(grey.expand(-1, 3, -1, -1)))
    assert LabelMaps(7)(grey).shape == (2, LabelMaps(7).channels, 6, 9)


def test_instances_of_one_label_are_told_apart() -> None:
    labels = torch.zeros(1, 1, 4, dtype=torch.long)
    frame = pack_labels(labels, torch.tensor([[[5, 5, 261, 261]]]))  # differ by 256
    assert LabelMaps(1)(frame)[0, 1, 0].tolist() == [0, 1, 1, 0]


def test_unknown_labels_are_named() -> None:
    with pytest.raises(InputError, match="label 6 in a frame, but the generator knows 0 to 4"):
        LabelMaps(5)(torch.full((1, 3, 2, 2), 6 / 255))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (torch.ones(1, 3, 2, 2, dtype=torch.uint8), "divide label numbers by 255"),
        (torch.zeros(1, 2, 2, 2), "divide label numbers by 255"),
        (torch.full((1, 3, 2, 2), -1 / 255), "label -1 in a frame"),
    ],
)
def test_what_is_no_label_picture(frame: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        LabelMaps(5)(frame)


def test_the_picture_shows_the_best_label_exactly() -> None:
    scores = torch.randn(2, 7, 6, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    colours = distinct_colours(7)
    picture = Palette(colours)(scores)
    best = scores.argmax(1)
    assert torch.equal(picture, torch.stack([colours[best][..., c] for c in range(3)], 1))
    assert torch.equal(LabelMaps(7, instances=False)(Palette.grey(7)(scores)).argmax(1), best)


def test_the_picture_trains_towards_the_wanted_label() -> None:
    palette = Palette(distinct_colours(5))
    wanted = torch.randint(0, 5, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    target = palette(nn.functional.one_hot(wanted, 5).movedim(-1, 1).float())
    torch.manual_seed(0)
    scores = torch.randn(1, 5, 4, 4, requires_grad=True)
    for _ in range(200):
        (gradient,) = torch.autograd.grad((palette(scores) - target).pow(2).sum(), scores)
        scores = (scores - gradient).detach().requires_grad_()
    assert torch.equal(scores.argmax(1), wanted)
    (gradient,) = torch.autograd.grad((palette(scores) - target).pow(2).sum(), scores)
    assert not gradient.any()  # where the picture is right, nothing pulls


def test_colours_are_distinct() -> None:
    assert len({tuple(colour.tolist()) for colour in distinct_colours(256)}) == 256
    assert (distinct_colours(21)[[1, 15, 20]] * 255).tolist() == [[128, 0, 0], [192, 128, 128], [0, 64, 128]]


def test_wrong_palettes_are_refused() -> None:
    with pytest.raises(InputError, match="got \\(3, 4\\)"):
        Palette(torch.zeros(3, 4))
    with pytest.raises(InputError, match="4 colours, but the network writes 5 labels"):
        Palette(distinct_colours(4))(torch.zeros(1, 5, 2, 2))


def test_an_adapter_wraps_a_teacher_from_labels_to_labels() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(*(nn.Conv2d(4 if i == 0 else 6, 3 if i == 4 else 6, 3, padding=1) for i in range(5)))
    adapter = LabelAdapter(teacher, "1", "3", reads=4, writes=3)
    frame = drawn(4).unsqueeze(1) / 255
    model = adapter.wrap(frame)
    args, kwargs = adapter.inputs(frame, adapter.start())
    output = model(*args, **kwargs)
    assert torch.equal(output, teacher(*args))
    colours = {tuple(c) for c in adapter.image(output).movedim(1, -1).reshape(-1, 3).tolist()}
    assert colours <= {tuple(c) for c in distinct_colours(3).tolist()}


@pytest.mark.parametrize(
    "pack",
    [
        lambda scores, other: OrderedDict(out=scores, aux=other),
        lambda scores, other: {"edges": other, "out": scores},
        lambda scores, other: (scores, other),
        lambda scores, other: [other, {"deep": [scores]}],
        lambda scores, other: SimpleNamespace(logits=scores),
        lambda scores, other: scores,
    ],
)
def test_scores_are_found_in_an_output(pack: Callable[[Tensor, Tensor], Any]) -> None:
    scores = torch.randn(1, 5, 4, 4)
    adapter = LabelAdapter(nn.Identity(), writes=5)
    assert torch.equal(adapter.image(pack(scores, torch.randn(1, 2, 4, 4))), Palette(distinct_colours(5))(scores))


def test_outputs_without_scores_are_named() -> None:
    with pytest.raises(InputError, match="a dict, holds no scores \\(B, 5, H, W\\)"):
        LabelAdapter(nn.Identity(), writes=5).image({"boxes": torch.zeros(3, 4)})
    with pytest.raises(InputError, match="5 colours, but the network writes 2 labels"):
        LabelAdapter(nn.Identity(), writes=5).image({"out": torch.zeros(1, 2, 4, 4)})


def test_torchvisions_segmentation_networks_run_as_they_are() -> None:
    build = torchvision.models.segmentation.lraspp_mobilenet_v3_large
    teacher = build(weights=None, weights_backbone=None, num_classes=21).eval()
    adapter = LabelAdapter(teacher, "backbone.4", "backbone.12", writes=21)
    frame = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    expected = Palette(distinct_colours(21))(teacher(frame[None] / 255)["out"])
    assert torch.equal(Translator(adapter)(frame), to_uint8(expected))
