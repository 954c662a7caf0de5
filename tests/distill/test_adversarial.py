"""Discriminators and the adversary: shapes, the authors' checkpoints, and who is pushed where."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.discriminators import MultiScale, PatchDiscriminator, TemporalDiscriminator, load_authors
from shortcutv2v.distill.losses import FORMS
from shortcutv2v.errors import CheckpointError, InputError

SPATIAL = {
    "model.0.bias": (8,), "model.0.weight_orig": (8, 3, 4, 4), "model.0.weight_u": (8,), "model.0.weight_v": (48,),
    "model.2.weight_orig": (16, 8, 4, 4), "model.2.weight_u": (16,), "model.2.weight_v": (128,),
    "model.4.weight": (16, 16, 4, 4), "model.4.bias": (16,),
}  # fmt: skip
TEMPORAL = {
    "model.0.bias": (8,), "model.0.weight_orig": (8, 3, 3, 4, 4), "model.0.weight_u": (8,), "model.0.weight_v": (144,),
    "model.2.weight_orig": (16, 8, 3, 4, 4), "model.2.weight_u": (16,), "model.2.weight_v": (384,),
    "model.4.weight": (16, 16, 3, 4, 4), "model.4.bias": (16,),
}  # fmt: skip
"""The entries of a published discriminator, an eighth as wide."""


def authors_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {key: torch.randn(shape) for key, shape in shapes.items()}
    for layer in ("model.0", "model.2"):  # unit vectors that the power iteration has brought near to the singular ones
        weight, u = state[f"{layer}.weight_orig"].flatten(1), state[f"{layer}.weight_u"]
        state[f"{layer}.weight_v"] = F.normalize(weight.T @ u, dim=0)
        state[f"{layer}.weight_u"] = F.normalize(weight @ state[f"{layer}.weight_v"], dim=0)
    return state


def adversary(**options: object) -> Adversary:
    torch.manual_seed(2)
    return Adversary(width=4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n_layers", "size"), [(1, 16), (2, 28), (3, 52)])
def test_a_score_sees_its_patch_and_no_more(n_layers: int, size: int) -> None:
    patch = {1: 16, 2: 34, 3: 70}[n_layers]  # the patch sizes of pix2pix
    discriminator = PatchDiscriminator(1, n_layers, 2, spectral_norm=False)
    picture = torch.zeros(1, 1, 2 * patch, 2 * patch, requires_grad=True)
    scores = discriminator(picture)
    middle = scores.shape[-1] // 2
    (gradient,) = torch.autograd.grad(scores[0, 0, middle, middle], picture)
    seen = gradient[0, 0].abs().sum(0).nonzero()
    assert seen.max() - seen.min() + 1 == patch
    assert discriminator(torch.zeros(1, 1, size, 3 * size)).shape[-2:] == (
        size // 2**n_layers - 2,
        3 * size // 2**n_layers - 2,
    )


def test_widths_double_up_to_eight_times() -> None:
    convolutions = [m for m in PatchDiscriminator(n_layers=4, width=2).modules() if isinstance(m, nn.Conv2d)]
    assert [each.out_channels for each in convolutions] == [2, 4, 8, 16, 16, 1]


def test_temporal_scores_see_both_pictures() -> None:
    clip = torch.rand(1, 3, 2, 16, 16, requires_grad=True)
    scores = TemporalDiscriminator(width=4)(clip)
    for time in range(2):
        (gradient,) = torch.autograd.grad(scores[:, :, time].sum(), clip, retain_graph=True)
        assert (gradient.abs().sum((0, 1, 3, 4)) > 0).all()


@pytest.mark.parametrize(
    ("kind", "shape"), [(PatchDiscriminator, (1, 3, 24, 26)), (TemporalDiscriminator, (1, 3, 2, 24, 26))]
)
def test_scales_see_smaller_pictures(kind: type[PatchDiscriminator], shape: tuple[int, ...]) -> None:
    found = MultiScale(lambda: kind(width=2), 2)(torch.rand(shape))
    assert [tuple(scores.shape[-2:]) for scores in found] == [(10, 11), (4, 4)]
    with pytest.raises(InputError, match="scales must be a whole number of at least 1"):
        MultiScale(kind, 0)


def test_a_coarse_scale_sees_the_means_of_the_fine_one() -> None:
    several = MultiScale(nn.Identity, 2)
    picture, clip = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 2, 8, 8)
    _, halved = several(picture)
    torch.testing.assert_close(halved[..., 1, 1], picture[..., 1:4, 1:4].mean((-1, -2)))
    _, halved = several(clip)
    torch.testing.assert_close(halved, torch.stack([several(each)[1] for each in clip.unbind(2)], 2))


def test_impossible_discriminators_and_small_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="n_layers, .*, must be a whole number of at least 1, got 0"):
        PatchDiscriminator(n_layers=0)
    with pytest.raises(InputError, match="11x40 are too small.*n_layers=2, which needs 12x12"):
        PatchDiscriminator(n_layers=2, width=2)(torch.rand(1, 3, 11, 40))
    PatchDiscriminator(n_layers=2, width=2)(torch.rand(1, 3, 12, 12))


@pytest.mark.parametrize("shapes", [SPATIAL, TEMPORAL])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_discriminators_load(shapes: dict[str, tuple[int, ...]], prefix: str) -> None:
    state = authors_state(shapes)
    discriminator = load_authors({prefix + key: value for key, value in state.items()}).eval()
    pictures = torch.rand(2, 3, *(16,) * (state["model.4.weight"].ndim - 2))

    def normed(number: int) -> Tensor:
        weight, u, v = (state[f"model.{number}.weight_{part}"] for part in ("orig", "u", "v"))
        return weight / (u @ weight.flatten(1) @ v)

    temporal = shapes is TEMPORAL
    conv, stride = (F.conv3d, (1, 2, 2)) if temporal else (F.conv2d, 2)
    x = F.leaky_relu(conv(pictures, normed(0), state["model.0.bias"], stride, 1), 0.2)
    x = F.leaky_relu(conv(x, normed(2), None, 1, 1), 0.2)
    expected = conv(x, state["model.4.weight"], state["model.4.bias"], 1, 1)
    torch.testing.assert_close(discriminator(pictures), expected, rtol=1e-4, atol=1e-4)  # scores are around 10
    assert isinstance(discriminator, TemporalDiscriminator) == temporal


@pytest.mark.parametrize("shapes", [SPATIAL, TEMPORAL])
def test_published_discriminators_come_back_entry_by_entry(shapes: dict[str, tuple[int, ...]]) -> None:
    state = authors_state(shapes)
    own = load_authors(state).state_dict()
    assert len(own) == len(state)
    for key, value in state.items():
        ours = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}.get(key.split(".")[-1])
        name = f"{key.rsplit('.', 1)[0]}.parametrizations.weight.{ours}" if ours else key
        torch.testing.assert_close(own[name], value)


def test_other_checkpoints_are_refused() -> None:
    state = authors_state(SPATIAL)
    with pytest.raises(CheckpointError, match=r"it has no model\.0\.weight_orig"):
        load_authors({"netS.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"it has no model\.4\.weight"):
        load_authors({key: value for key, value in state.items() if key != "model.4.weight"})
    with pytest.raises(CheckpointError, match=r"model\.4\.bias: expected shape \(16,\), got None"):
        load_authors({key: value for key, value in state.items() if key != "model.4.bias"})
    with pytest.raises(CheckpointError, match=r"model\.2\.bias: expected shape None, got \(16,\)"):
        load_authors(state | {"model.2.bias": torch.zeros(16)})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["gan", "temporal_gan"])
@pytest.mark.parametrize("scales", [1, 2])
def test_the_block_is_pushed_towards_real(form: str, name: str, scales: int) -> None:
    judge = adversary(form=form, scales=scales).eval()
    picture, reference = torch.rand(2, 1, 3, 24, 24)

    def score(picture: Tensor) -> float:
        if name == "gan":
            maps = judge.spatial(2 * picture - 1)
        else:
            maps = judge.temporal(2 * torch.stack((reference, picture), 2) - 1)
        return sum(scores.mean().item() for scores in maps)

    picture.requires_grad_()
    (gradient,) = torch.autograd.grad(judge.generator(picture, reference)[name], picture)
    assert score(picture - 1e-2 * gradient / gradient.norm()) > score(picture)


@pytest.mark.parametrize("form", FORMS)
def test_training_the_discriminators_parts_real_from_fake(form: str) -> None:
    judge = adversary(form=form)
    reference, target = torch.rand(2, 2, 3, 16, 16)
    picture = target.flip(-1) * 0.5
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    course = []
    for _ in range(20):
        optimizer.zero_grad()
        found = judge.discriminator(picture, target, reference)
        course.append(torch.stack(list(found.values())))
        course[-1].sum().backward()
        optimizer.step()
    assert (course[-1] < course[0]).all()
    with torch.no_grad():
        assert judge.spatial(2 * target - 1)[0].mean() > judge.spatial(2 * picture - 1)[0].mean()


def test_the_blocks_side_leaves_the_discriminators_alone() -> None:
    judge = adversary().train()
    before = copy.deepcopy(judge.state_dict())
    picture = torch.rand(1, 3, 16, 16, requires_grad=True)
    reference = torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(judge.generator(picture, reference).values()).backward()
    assert picture.grad is not None
    assert reference.grad is None
    assert all(parameter.grad is None for parameter in judge.parameters())
    assert all(parameter.requires_grad for parameter in judge.parameters())
    assert all(module.training for module in judge.modules())
    assert all(torch.equal(value, before[key]) for key, value in judge.state_dict().items())


def test_the_discriminators_side_leaves_the_block_alone_and_reaches_every_parameter() -> None:
    judge = adversary(scales=2)
    pictures = torch.rand(3, 2, 3, 24, 24, requires_grad=True)
    sum(judge.discriminator(*pictures).values()).backward()
    assert pictures.grad is None
    assert all(parameter.grad is not None for parameter in judge.parameters())


def test_real_and_fake_are_not_swapped() -> None:
    class Mean(nn.Module):
        def forward(self, seen: Tensor) -> Tensor:
            return seen.mean((1, 2, 3), keepdim=True) if seen.ndim == 4 else seen[:, :, -1].mean((1, 2, 3))

    judge = Adversary(spatial=Mean(), temporal=Mean())
    white, black = torch.ones(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)  # scores 1 and -1
    found = judge.discriminator(black, white, black)
    assert {name: value.item() for name, value in found.items()} == {
        "discriminator": 1.0,
        "temporal_discriminator": 1.0,
    }
    assert judge.discriminator(white, black, black)["discriminator"].item() == 5.0
    assert judge.generator(white, black)["temporal_gan"].item() == 0.0


def test_kinds_can_be_left_out_but_not_both() -> None:
    pictures = torch.rand(3, 1, 3, 16, 16)
    assert list(adversary(temporal=False).generator(*pictures[:2])) == ["gan"]
    assert list(adversary(spatial=False).discriminator(*pictures)) == ["temporal_discriminator"]
    with pytest.raises(InputError, match="needs a discriminator"):
        adversary(spatial=False, temporal=False)
    with pytest.raises(InputError, match="unknown form of GAN loss 'wgan'"):
        adversary(form="wgan")


def test_published_discriminators_judge() -> None:
    judge = Adversary(spatial=load_authors(authors_state(SPATIAL)), temporal=load_authors(authors_state(TEMPORAL)))
    found = judge.discriminator(*torch.rand(3, 1, 3, 16, 16))
    assert all(value.isfinite() for value in found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_both_sides_in_one_backward_under_autocast(dtype: torch.dtype) -> None:
    judge = adversary()
    exact = copy.deepcopy(judge)
    pictures = torch.rand(3, 2, 3, 16, 16)

    def both(judge: Adversary) -> tuple[Tensor, list[Tensor]]:
        picture = pictures[0].clone().requires_grad_()
        # Again after the discriminators' side: autocast must not hand back weights that it has cast with gradients.
        total = sum(judge.discriminator(picture, *pictures[1:]).values())
        total = total + sum(judge.generator(picture, pictures[2]).values())
        total.backward()
        return picture.grad, [parameter.grad for parameter in judge.parameters()]

    with torch.autocast("cpu", dtype=dtype):
        of_picture, of_weights = both(judge)
    expected_picture, expected_weights = both(exact)
    for found, expected in zip([of_picture, *of_weights], [expected_picture, *expected_weights], strict=True):
        assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


def test_an_adversary_in_bfloat16() -> None:
    judge, pictures = adversary(scales=2).bfloat16(), torch.rand(3, 1, 3, 24, 24, dtype=torch.bfloat16)
    sum((judge.generator(*pictures[:2]) | judge.discriminator(*pictures)).values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in judge.parameters())


def test_gradients_of_temporal_weights_in_bfloat16() -> None:
    exact = TemporalDiscriminator(width=8, spectral_norm=False)
    coarse = copy.deepcopy(exact).bfloat16()
    pictures = torch.rand(4, 3, 2, 24, 24)
    exact(pictures).sum().backward()
    coarse(pictures.bfloat16()).sum().backward()
    for ours, theirs in zip(coarse.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad.float(), theirs.grad, rtol=0.05, atol=0.05 * theirs.grad.abs().max().item()
        )


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_steps_of_several_frames_under_ddp() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.judge, self.block = adversary(), nn.Conv2d(3, 3, 1)

        def forward(self, frames: Tensor) -> Tensor:
            total = frames.new_zeros(())
            for frame in frames[1:]:
                picture = self.block(frame)
                total = total + sum(self.judge.generator(picture, frames[0]).values())
                total = total + sum(self.judge.discriminator(picture, frame, frames[0]).values())
            return total

    plain = Trained()
    parallel = DistributedDataParallel(copy.deepcopy(plain))
    frames = torch.rand(3, 1, 3, 16, 16)
    for _ in range(2):  # a parameter without a gradient would be found by the second step
        plain(frames).backward()
        parallel(frames).backward()
    for ours, theirs in zip(plain.parameters(), parallel.module.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
