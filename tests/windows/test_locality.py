"""The probe finds stride and halo of local teachers, and refuses the others with one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shortcutv2v.errors import InputError
from shortcutv2v.windows.locality import Call, Locality, probe


def conv(a: int, b: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(a, b, 3, stride, padding=1)


class Attention(nn.Module):
    """Plain attention over all places of a map."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mT.reshape(x.shape)


class Squeeze(nn.Module):
    """Global pooling that scales the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.abs().mean((2, 3), keepdim=True) + 0.01)


def probed(teacher: nn.Module, size: tuple[int, int] = (97, 130), frame: Tensor | None = None) -> Locality:
    given = torch.rand(1, 3, *size) if frame is None else frame
    return probe(teacher, Call((given,), {}), lambda output: output, 24)


@pytest.mark.parametrize(
    ("build", "align", "exact"),
    [
        (lambda: nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 3)), 1, 2),
        (lambda: nn.Sequential(conv(3, 8, 2), nn.ReLU(), conv(8, 8), nn.ConvTranspose2d(8, 3, 4, 2, 1)), 2, 5),
        (lambda: nn.Sequential(conv(3, 8, 2), conv(8, 8, 2), nn.Upsample(scale_factor=4), conv(8, 3)), 4, 7),
        (lambda: nn.Sequential(conv(3, 12), nn.PixelShuffle(2)), 1, 1),
        (lambda: nn.Sequential(conv(3, 6), nn.BatchNorm2d(6), conv(6, 3)).eval(), 1, 2),
    ],
)
def test_stride_and_halo_are_found(build: Callable[[], nn.Module], align: int, exact: int) -> None:
    found = probed(build(), (96, 128))
    assert found.align == align
    assert found.price(exact) <= 1e-10
    assert found.price(0) > 1e-8
    assert found.halo(1e-2) <= found.halo(1e-9) <= exact
    assert f"stride {align}" in str(found)


@pytest.mark.parametrize(
    "layer", [nn.InstanceNorm2d(8), nn.Dropout(0.5), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), Attention(), Squeeze()]
)
@pytest.mark.parametrize("black", [False, True])
def test_what_is_not_local_is_refused(layer: nn.Module, black: bool) -> None:
    teacher = nn.Sequential(conv(3, 8), layer, conv(8, 3))
    with pytest.raises(InputError, match="windows need a local teacher"):
        probed(teacher, frame=torch.zeros(1, 3, 97, 130) if black else None)


def test_the_probe_leaves_the_teacher_as_it_was() -> None:
    teacher = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(8, 3))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    with pytest.raises(InputError):
        probed(teacher)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_teacher_of_one_size_is_refused() -> None:
    with pytest.raises(InputError, match="runs on crops"):
        probed(nn.Sequential(nn.Flatten(), nn.Linear(3 * 97 * 130, 3), nn.Unflatten(1, (3, 1, 1))))


def test_small_frames_have_no_windows() -> None:
    with pytest.raises(InputError, match="frames of 20x22 have no room"):
        probed(conv(3, 3), (20, 22))


@pytest.mark.parametrize("given", [(torch.rand(2, 3, 8, 8),), (torch.rand(4),), ()])
def test_one_picture_at_a_time(given: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match="windows take one picture"):
        Call(given, {})


def test_only_maps_of_the_pictures_size_are_cut() -> None:
    picture, mask, style, table = torch.rand(1, 3, 8, 9), torch.rand(1, 1, 8, 9), torch.rand(1, 5), torch.rand(6, 2)
    call = Call((picture, style), {"mask": mask, "table": table})
    args, kwargs = call.with_pictures(lambda x: x[..., :4, :4].repeat(3, 1, 1, 1))
    assert [x.shape for x in (*args, *kwargs.values())] == [(3, 3, 4, 4), (3, 5), (3, 1, 4, 4), (6, 2)]
    assert [t is o for t, o in zip((style, table), call.others, strict=True)] == [True, True]
