"""Perceptual distances: the right features, frozen, in no checkpoint, and clear words where weights are missing."""

from __future__ import annotations

import copy
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v.distill.perceptual import FeaturePerceptual, LPIPSPerceptual, VGGPerceptual
from shortcutv2v.errors import CheckpointError, InputError


class Layers(nn.Module):
    """Two feature maps; batch norm tells whether it runs in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 5, 3, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.norm(self.first(x)).relu()
        return [first, self.second(first)]


@pytest.fixture(scope="module")
def lpips() -> LPIPSPerceptual:
    return LPIPSPerceptual(weights=None)


@pytest.fixture(params=["features", "vgg", "lpips"])
def distance(request: pytest.FixtureRequest) -> nn.Module:
    if request.param == "lpips":
        return request.getfixturevalue("lpips")
    return FeaturePerceptual(Layers()) if request.param == "features" else VGGPerceptual(None, layers=(3, 8))


def test_a_distance_is_a_scalar_whose_gradient_reaches_the_picture_alone(distance: nn.Module) -> None:
    picture, target = torch.rand(2, 2, 3, 16, 16)
    picture.requires_grad_()
    target.requires_grad_()
    found = distance(picture, target)
    assert found.shape == ()
    assert found > 0
    assert distance(target, target) == 0
    gradient, none = torch.autograd.grad(found, (picture, target), allow_unused=True)
    assert none is None
    assert gradient.abs().sum() > 0
    step = 1e-4 / gradient.norm() * gradient
    assert distance(picture - step, target) < found


def test_the_network_is_frozen_and_in_no_checkpoint(distance: nn.Module) -> None:
    holder = nn.ModuleDict({"distance": distance, "trained": nn.Conv2d(1, 1, 1)}).train()
    assert len(list(holder.parameters())) == 2
    assert all(key.startswith("trained.") for key in holder.state_dict())
    holder.load_state_dict(holder.state_dict())
    assert not any(module.training for module in distance.network.modules())
    assert not any(parameter.requires_grad for parameter in distance.network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_network_moves_along(distance: nn.Module, dtype: torch.dtype) -> None:
    distance = copy.deepcopy(distance)
    picture, target = torch.rand(2, 1, 3, 16, 16)
    expected = distance(picture, target)
    nn.Sequential(distance).to(dtype)
    found = distance(picture.to(dtype), target.to(dtype))
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0)


def test_distances_live_under_autocast(distance: nn.Module) -> None:
    picture, target = torch.rand(2, 1, 3, 16, 16)
    exact = distance(picture, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distance(picture, target)
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0)


def test_lpips_divides_by_no_half_precision_number(lpips: LPIPSPerceptual) -> None:
    picture, target = torch.rand(2, 1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lpips(picture, target)
    assert torch.equal(found, lpips(picture, target))


def test_features_of_a_users_module_which_is_left_as_it_is() -> None:
    module = Layers().train()
    distance = FeaturePerceptual(module)
    picture, target = torch.rand(2, 1, 3, 12, 12)
    found = distance(picture, target)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    module.eval()
    expected = sum((a - b).abs().mean() for a, b in zip(module(picture), module(target), strict=True))
    torch.testing.assert_close(found, expected)


def test_features_must_be_tensors() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    with pytest.raises(InputError, match="Named returned a dict"):
        FeaturePerceptual(Named())(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4))


def vgg_by_hand(state: dict[str, Tensor], picture: Tensor) -> list[Tensor]:
    """relu1_2, relu2_2, relu3_3 and relu4_3 of VGG-16 from a torchvision state."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, found = (picture - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1), []
    for number, block in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21))):
        x = F.max_pool2d(x, 2) if number else x
        for i in block:
            x = F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1).relu()
        found.append(x)
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision's, with random weights, all of `features` and a scrap of the classifier."""
    import torchvision

    with torch.device("meta"):
        shapes = torchvision.models.vgg16().features.state_dict()
    generator = torch.Generator().manual_seed(5)
    state = {
        f"features.{k}": torch.randn(v.shape, generator=generator) / v[0].numel() ** 0.5 for k, v in shapes.items()
    }
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(2)}, path)
    return path


def test_vgg_is_equation_13(weights: Path) -> None:
    picture, target = torch.rand(2, 1, 3, 16, 24)
    state = torch.load(weights, weights_only=True)
    layers = zip(vgg_by_hand(state, picture), vgg_by_hand(state, target), strict=True)
    expected = sum((a - b).abs().mean() for a, b in layers)
    torch.testing.assert_close(VGGPerceptual(weights)(picture, target), expected)


def test_a_tapped_convolution_is_not_overwritten_by_the_relu_behind_it() -> None:
    before, behind = VGGPerceptual(None, layers=(2, 3)).features(torch.rand(1, 3, 16, 16))
    assert (before < 0).any()
    assert torch.equal(before.relu(), behind)


def test_lpips_is_what_the_package_computes(weights: Path) -> None:
    import lpips as package

    distance = LPIPSPerceptual(weights)
    state = torch.load(weights, weights_only=True)
    picture, target = torch.rand(2, 2, 3, 16, 16)
    own = {name: value for name, value in distance.network.state_dict().items() if name.startswith("net.")}
    for name, value in own.items():  # net.slice3.14.weight
        torch.testing.assert_close(value, state[f"features.{name.split('.', 2)[2]}"])
    path = Path(package.__file__).parent / "weights/v0.1/vgg.pth"
    bundled = torch.load(path, map_location="cpu", weights_only=True)
    for name, value in bundled.items():
        torch.testing.assert_close(distance.network.state_dict()[name], value)
    expected = distance.network(2 * picture - 1, 2 * target - 1).mean()
    torch.testing.assert_close(distance(picture, target), expected)


def test_random_weights_are_the_same_in_every_run() -> None:
    picture, target = torch.rand(2, 1, 3, 8, 8)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(VGGPerceptual(None, layers=(3,))(picture, target))
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", [VGGPerceptual, LPIPSPerceptual])
def test_without_a_network_the_error_says_how_to_go_on(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(InputError, match=r"vgg16.*no network.*weights=.*FeaturePerceptual.*perceptual=0"):
        kind()


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*absent\.pth; give weights="):
        VGGPerceptual(tmp_path / "absent.pth")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"damaged\.pth cannot be read"):
        VGGPerceptual(damaged)
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(2, 3, 3, 3)}, other)
    with pytest.raises(CheckpointError, match=r"other\.pth, 0\.bias: expected shape \(64,\), got None"):
        VGGPerceptual(other)
    torch.save([1], other)
    with pytest.raises(CheckpointError, match="holds a list"):
        VGGPerceptual(other)


def test_wrong_layers_and_small_pictures_are_refused(lpips: LPIPSPerceptual) -> None:
    for layers in ((), (31,), (-1,)):
        with pytest.raises(InputError, match="give indices 0 to 30"):
            VGGPerceptual(None, layers=layers)
    small = torch.rand(1, 3, 20, 7)
    for distance in (VGGPerceptual(None), lpips):
        with pytest.raises(InputError, match="20x7 is too small for VGG"):
            distance(small, small)
