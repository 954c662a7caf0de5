"""Perceptual distances between pictures: VGG as the paper writes it, LPIPS as its authors run it, or own features.

All are called (picture, target) with pictures (B, 3, H, W) in [0, 1] and return a scalar. Their networks are frozen:
never trained, always in evaluation mode, in no optimiser and no checkpoint.
"""

from __future__ import annotations

import copy
import importlib.resources
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.blocks.loading import load_exactly
from shortcutv2v.distill.losses import perceptual_loss
from shortcutv2v.errors import CheckpointError, InputError

__all__ = ["FeaturePerceptual", "FrozenDistance", "LPIPSPerceptual", "VGGPerceptual"]

_WAYS_ON = (
    "give weights= the path of torchvision's vgg16 weights, take other features with FeaturePerceptual(module), or "
    "switch the loss off with LossWeights(perceptual=0)"
)


class FrozenDistance(nn.Module):
    """Holds a network without registering it, so that no optimiser, checkpoint or `train()` sees it; `to()` does.

    Args:
        network: for this class itself, a distance (picture, target) -> tensor of any shape, of which the mean is taken.

    Examples:
        >>> distance = FrozenDistance(nn.L1Loss())
        >>> distance(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
        tensor(1.)
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.__dict__["network"] = network.eval().requires_grad_(False)

    def forward(self, picture: Tensor, target: Tensor) -> Tensor:
        """The distance of pictures (B, 3, H, W) in [0, 1], a scalar."""
        distance: Tensor = self.network(picture, target).mean()
        return distance

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenDistance:
        self.network._apply(fn)
        super()._apply(fn, recurse)
        return self


class FeaturePerceptual(FrozenDistance):
    """L1 distance of the features that a module of your own sees: mean within a layer, sum over layers (equation 13).

    A part of the teacher, or of a network trained on pictures like yours, often serves as well as VGG.

    Args:
        module: takes pictures (B, 3, H, W) in [0, 1], returns one tensor or a list or tuple of tensors. It is copied,
            and left as it is.

    Raises:
        InputError: in a call, the module returns something else.

    Examples:
        >>> distance = FeaturePerceptual(nn.Conv2d(3, 8, 3))
        >>> picture = torch.rand(1, 3, 16, 16)
        >>> distance(picture, picture)
        tensor(0.)
        >>> list(distance.parameters()), list(distance.state_dict())
        ([], [])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(copy.deepcopy(module))

    def forward(self, picture: Tensor, target: Tensor) -> Tensor:
        """The distance; gradients flow to `picture` alone."""
        with torch.no_grad():
            expected = self.features(target)
        return perceptual_loss(self.features(picture), expected)

    def features(self, picture: Tensor) -> Sequence[Tensor]:
        """Features to compare, one tensor per layer."""
        found = self.network(picture)
        layers = [found] if isinstance(found, Tensor) else found
        if not isinstance(layers, list | tuple) or not all(isinstance(layer, Tensor) for layer in layers):
            raise InputError(
                f"{type(self.network).__name__} returned a {type(found).__name__}: FeaturePerceptual needs a module "
                "that returns a tensor, or a list or tuple of tensors"
            )
        return layers


class VGGPerceptual(FeaturePerceptual):
    """`L_perc` as the paper writes it: plain L1 between the features of VGG layers j = 1 to 4 (equation 13).

    The paper does not say which layers these are. Here they are the last ReLU before each of the first four poolings
    of VGG-16 (relu1_2, relu2_2, relu3_3, relu4_3), the usual four. The authors' code uses `LPIPSPerceptual` instead.

    Args:
        weights: "download" for torchvision's usual download of ImageNet weights (528 MB, once), the path of that file,
            or None for random weights, which are the same in every run.
        layers: other layers, as indices into torchvision's `vgg16().features`.

    Shape:
        pictures (B, 3, H, W) in [0, 1], at least 8x8 for the default layers.

    Raises:
        InputError: the weights cannot be had, a layer does not exist, or too small a picture in a call.
        CheckpointError: the file holds something else.

    Examples:
        >>> distance = VGGPerceptual(weights=None, layers=(3, 8))
        >>> bool(distance(torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)) > 0)
        True
    """

    def __init__(self, weights: str | Path | None = "download", layers: Sequence[int] = (3, 8, 15, 22)) -> None:
        FrozenDistance.__init__(self, _Taps(weights, layers))


class LPIPSPerceptual(FrozenDistance):
    """LPIPS on VGG-16, which the authors train with: learned weights on squared differences of normalised features.

    The mean over the batch, computed in float32 at any precision of the rest: normalising divides by small numbers.

    Args:
        weights: of VGG-16, as `VGGPerceptual` takes them; LPIPS's own come with the package `lpips`.

    Shape:
        pictures (B, 3, H, W) in [0, 1], at least 16x16.

    Raises:
        InputError: the weights cannot be had, or too small a picture in a call.
        CheckpointError: the file holds something else.

    Examples:
        >>> distance = LPIPSPerceptual(weights=None)
        >>> bool(distance(torch.zeros(1, 3, 16, 16), torch.rand(1, 3, 16, 16)) > 0)
        True
    """

    def __init__(self, weights: str | Path | None = "download") -> None:
        import lpips

        # On "meta", because the package would first fill all of VGG, classifier included, with random numbers.
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore", UserWarning)  # the package asks torchvision in a deprecated way
            network = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
        own = importlib.resources.files(lpips) / "weights" / "v0.1" / "vgg.pth"
        network.load_state_dict(_read(Path(str(own))), strict=False, assign=True)
        layers = _vgg(weights, last=29)
        for part in network.net.children():
            for name, _ in part.named_children():
                part.add_module(name, layers[int(name)])
        super().__init__(network)

    def forward(self, picture: Tensor, target: Tensor) -> Tensor:
        """The distance; gradients flow to `picture` alone."""
        _check_size(picture, 16)
        with torch.autocast(picture.device.type, enabled=False):
            distances: Tensor = self.network(picture.float(), target.detach().float(), normalize=True)
        return distances.mean()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LPIPSPerceptual:
        super()._apply(fn, recurse)
        self.network.float()
        return self


class _Taps(nn.Module):
    """VGG-16 up to the last of some layers; returns what each of them gives."""

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path | None, layers: Sequence[int]) -> None:
        super().__init__()
        self.taps = frozenset(layers)
        if not self.taps or not self.taps <= set(range(31)):
            raise InputError(f"layers {tuple(layers)} are not in torchvision's vgg16().features: give indices 0 to 30")
        self.layers = _vgg(weights, max(layers))
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # would overwrite a convolution's output that is asked for
        self.smallest = 2 ** sum(isinstance(layer, nn.MaxPool2d) for layer in self.layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, picture: Tensor) -> list[Tensor]:
        _check_size(picture, self.smallest)
        x, found = (picture - self.mean) / self.std, []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self.taps:
                found.append(x)
        return found


def _check_size(picture: Tensor, smallest: int) -> None:
    height, width = picture.shape[-2:]
    if min(height, width) < smallest:
        raise InputError(
            f"a picture of {height}x{width} is too small for VGG, which needs {smallest}x{smallest}: "
            "train on larger crops, or compare shallower layers"
        )


def _vgg(weights: str | Path | None, last: int) -> nn.Sequential:
    """Layers 0 to `last` of torchvision's VGG-16."""
    from torchvision.models import vgg16  # takes seconds, and most runs need none of it

    with torch.device("meta"):  # costs nothing, where the whole network would take seconds and half a gigabyte
        layers: nn.Sequential = vgg16().features[: last + 1]
    layers.to_empty(device="cpu")
    if weights is None:
        _randomise(layers)
    else:
        prefix = "features."
        state = {key[len(prefix) :]: value for key, value in _state(weights).items() if key.startswith(prefix)}
        wanted = {key: value for key, value in state.items() if int(key.split(".")[0]) <= last}
        load_exactly(layers, wanted, weights, ": expected torchvision's vgg16 weights")
    return layers


def _randomise(layers: nn.Sequential) -> None:
    # From a seed of its own: the network is in no checkpoint, and a resumed run must compare with the same one.
    generator = torch.Generator().manual_seed(0)
    for parameter in layers.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            nn.init.zeros_(parameter)


def _state(weights: str | Path) -> Mapping[str, Tensor]:
    if weights != "download":
        return _read(Path(weights))
    from torchvision.models import VGG16_Weights

    try:
        state: Mapping[str, Tensor] = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, no place, or a damaged file
        url = VGG16_Weights.IMAGENET1K_V1.url
        raise InputError(f"the perceptual loss has no VGG weights: {url} gave {error!r}; {_WAYS_ON}") from None
    return state


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"the perceptual loss has no VGG weights: there is no file {path}; {_WAYS_ON}")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): expected torchvision's vgg16 weights"
        ) from None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds a {type(state).__name__}: expected torchvision's vgg16 weights")
    return state
