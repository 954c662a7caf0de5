"""A teacher that takes multiples only sees each frame as if it were larger at its border."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter, video
from shortcutv2v.cli import main
from shortcutv2v.measure import compare
from shortcutv2v.translate import Translator, from_uint8, to_uint8

SIZES = [(13, 18), (16, 18), (13, 16), (1, 1), (16, 16)]


class Halves(nn.Module):
    """Halves the frame twice, with skips that refuse other sizes; `scale` times as large in the end."""

    def __init__(self, scale: float = 1) -> None:
        super().__init__()
        self.down = nn.ModuleList((nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 2, 2)))
        self.deep = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
        self.up = nn.ModuleList((nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)))
        self.last = nn.Upsample(scale_factor=scale) if scale >= 1 else nn.AvgPool2d(round(1 / scale))

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        x = x if past is None else (x + past) / 2
        half = self.down[0](x)
        deep = nn.functional.interpolate(self.deep(self.down[1](half)), scale_factor=2)
        full = nn.functional.interpolate(self.up[0](half + deep), scale_factor=2)
        return self.last(self.up[1](full).sigmoid() + 0 * x)


class Fours(Adapter):
    multiple = 4


class Remembers(Fours):
    """The frame in, then its own last picture, too."""

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (frame,), {} if state is None else {"past": state}

    def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
        return output


def frames(height: int, width: int, count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def larger(clip: Tensor, unit: int = 4) -> Tensor:
    rows = torch.arange(-(-clip.shape[-2] // unit) * unit).clamp(max=clip.shape[-2] - 1)
    columns = torch.arange(-(-clip.shape[-1] // unit) * unit).clamp(max=clip.shape[-1] - 1)
    return clip[..., rows, :][..., columns]


pads = pytest.mark.filterwarnings("ignore:frames of .* are padded:UserWarning")


@pads
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "scale"), [(Fours, 1), (Fours, 2), (Fours, 0.5), (Remembers, 1)])
def test_pictures_are_those_of_the_larger_frame(size: tuple[int, int], scale: float, kind: type[Adapter]) -> None:
    clip = frames(*size)
    teacher = Halves(scale).eval()
    adapter, plain = kind(teacher, "down.1", "deep"), kind(teacher, "down.1", "deep")
    plain.multiple = 1
    height, width = (-(-int(side * scale * 2) // 2) for side in size)
    for model in (None, adapter.wrap(from_uint8(clip[0]))):
        ours, whole = Translator(adapter, model), Translator(plain, model)
        for frame, padded in zip(clip, larger(clip), strict=True):
            shown = ours(frame)
            assert torch.equal(shown, whole(padded)[:, : shown.shape[1], : shown.shape[2]])
            assert shown.shape[1:] == (height, width)


@pads
def test_measuring_sees_the_shown_part_alone() -> None:
    clip = frames(13, 18)
    adapter = Fours(Halves().eval(), "down.1", "deep")
    model = adapter.wrap(from_uint8(clip[0]))
    translate = Translator(adapter, model)
    for pictures, frame in zip(compare(model, adapter, clip), clip, strict=True):
        assert pictures.teacher.shape == pictures.ours.shape == pictures.reuse.shape == (3, 13, 18)
        assert torch.equal(to_uint8(pictures.ours[None]), translate(frame))


@pads
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("crop", [None, 8, 10])
@pytest.mark.parametrize("kind", [Fours, Remembers])
def test_training_takes_any_size(cached: bool, crop: int | None, kind: type[Adapter], tmp_path: Path) -> None:
    clip = frames(13, 18, 8)
    adapter = kind(Halves().eval(), "down.1", "deep")
    model = adapter.wrap(from_uint8(clip[0]))
    before = [p.clone() for p in model.parameters()]
    cache = tmp_path if cached else None
    shortcutv2v.fit(model, clip, adapter=adapter, minutes=None, max_steps=2, crop=crop, batch_size=2, cache=cache,
                    progress=False, validation=clip)  # fmt: skip
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_it_is_said_once() -> None:
    adapter = Fours(Halves().eval(), "down.1", "deep")
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model = adapter.wrap(torch.rand(1, 3, 13, 18))
        translate = Translator(adapter, model)
        for frame in frames(13, 18):
            translate(frame)
        list(compare(model, adapter, frames(16, 16)))
    said = [str(w.message) for w in record if "padded" in str(w.message)]
    assert said == [
        "frames of 13x18 are padded to 16x20, because the teacher takes multiples of 4; its pictures are cropped"
    ]


def test_a_teacher_that_fails_over_sizes_is_told_of_it() -> None:
    with pytest.raises(shortcutv2v.ShortcutError, match="set multiple = 8 on the adapter"):
        Adapter(Halves().eval(), "down.1", "deep").wrap(torch.rand(1, 3, 13, 18))


@pytest.mark.parametrize(
    ("size", "scale", "multiple", "rounded"),
    [
        ((16, 16), 1, 1, False),
        ((14, 16), 1, 1, True),
        ((16, 13), 2, 1, True),
        ((14, 13), 1, 4, False),
        ((16, 16), 4, 1, False),
        ((16, 16), 0.5, 1, False),
    ],
)
def test_a_network_that_rounds_sizes_up_is_named(
    size: tuple[int, int], scale: float, multiple: int, rounded: bool
) -> None:
    class RoundsUp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.interpolate(larger(x), scale_factor=scale)

    adapter = Adapter(RoundsUp())
    adapter.multiple = multiple
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        translate = Translator(adapter)
        for frame in frames(*size):
            translate(frame)
    found = [str(w.message) for w in record if "set multiple" in str(w.message)]
    assert len(found) == int(rounded)
    if rounded:
        assert f"from a frame of {size[0]}x{size[1]}" in found[0]


@pads
def test_the_unsup_example_takes_a_height_that_keeps_the_ratio(tmp_path: Path) -> None:
    with video.create(tmp_path / "clip.mp4", rate=25) as writer:
        for frame in frames(36, 64, 3):
            writer.write(frame)
    unsup = ["--adapter", "unsup", "--set", "random=True", "--set", "ngf=2"]
    assert main(["translate", str(tmp_path / "clip.mp4"), str(tmp_path / "out"), *unsup, "--size", "30"]) == 0
    with video.open(tmp_path / "out") as clip:
        assert clip.size == (30, 53)
