"""The Unsup teacher: the ResNet generator of CycleGAN and Recycle-GAN, as the Unsup_Recycle_GAN files hold it.

Written from the layer names and shapes of the published files. A file `<epoch>_net_G_A.pth` loads by name
(`examples._checkpoints.load_into`). The network is one `nn.Sequential` called `model`: a 7x7 convolution, two
convolutions of stride 2, residual blocks, two transposed convolutions, a 7x7 convolution and a tanh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from shortcutv2v.errors import ShortcutError

__all__ = ["ResnetBlock", "ResnetGenerator", "build_teacher", "published_cut"]

_LEVELS = ("low", "medium", "high")
# What the published files were made with. A configuration may repeat these facts, but not change them.
_FIXED = {
    "norm": "instance",
    "norm_affine": False,
    "norm_track_running_stats": False,
    "padding_type": "reflect",
    "conv_bias": True,
}


def _norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=False, track_running_stats=False)


class ResnetBlock(nn.Module):
    """`x + conv_block(x)`: two 3x3 convolutions with reflection padding and instance norm.

    Args:
        channels: channels in and out.
        use_dropout: a dropout of one half after the first activation. It has no weights, but moves the second
            convolution from `conv_block.5` to `conv_block.6`.
    """

    def __init__(self, channels: int, use_dropout: bool = False) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), _norm(channels), nn.ReLU()]
        if use_dropout:
            layers.append(nn.Dropout(0.5))
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), _norm(channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; H and W at least 2."""
        out: Tensor = x + self.conv_block(x)
        return out


class ResnetGenerator(nn.Module):
    """Image to image, (B, input_nc, H, W) to (B, output_nc, H, W), both in [-1, 1]; H and W multiples of 4.

    Args:
        input_nc: channels of the input.
        output_nc: channels of the output.
        ngf: width of the first convolution; the residual blocks have 4 * ngf channels.
        n_blocks: number of residual blocks (6 in the published files, 9 in the larger variant).
        use_dropout: whether the blocks hold a dropout layer (published files: no). Call `.eval()` then.

    >>> import torch
    >>> ResnetGenerator(ngf=4, n_blocks=1)(torch.zeros(1, 3, 16, 24)).shape
    torch.Size([1, 3, 16, 24])
    """

    def __init__(
        self, input_nc: int = 3, output_nc: int = 3, ngf: int = 64, n_blocks: int = 6, use_dropout: bool = False
    ) -> None:
        super().__init__()
        self.n_blocks = n_blocks
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, ngf, 7), _norm(ngf), nn.ReLU()]
        for wide in (2 * ngf, 4 * ngf):
            layers += [nn.Conv2d(wide // 2, wide, 3, stride=2, padding=1), _norm(wide), nn.ReLU()]
        layers += [ResnetBlock(4 * ngf, use_dropout) for _ in range(n_blocks)]
        for wide in (4 * ngf, 2 * ngf):
            up = nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)
            layers += [up, _norm(wide // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a batch of frames; (B, input_nc, H, W) in [-1, 1]."""
        out: Tensor = self.model(x)
        return out


def build_teacher(config: Mapping[str, Any]) -> ResnetGenerator:
    """The generator that a configuration describes, with fresh weights and in eval mode.

    Args:
        config: `input_nc`, `output_nc`, `ngf`, `n_blocks`, `use_dropout`, each optional. Other entries are
            ignored, unless they contradict what the published networks are (instance norm without weights,
            reflection padding, biases everywhere).

    Raises:
        ShortcutError: the configuration asks for another kind of network.

    >>> sorted(build_teacher({"ngf": 4, "n_blocks": 1}).state_dict())[:2]
    ['model.1.bias', 'model.1.weight']
    """
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise ShortcutError(f"the Unsup generator has {key}={value!r}, the configuration says {config[key]!r}")
    known = ("input_nc", "output_nc", "ngf", "n_blocks", "use_dropout")
    return ResnetGenerator(**{key: config[key] for key in known if key in config}).eval()


def published_cut(n_blocks: int = 6, level: str = "medium") -> tuple[str, str]:
    """The paper's cut: names of `enc_layer` and `dec_layer` for a level of dependence on the teacher (Table 4).

    Args:
        n_blocks: residual blocks of the generator.
        level: `low` (first convolution to last upsampling), `medium` (first downsampling to the matching
            upsampling; the paper's default) or `high` (only the residual blocks are replaced).

    Raises:
        ShortcutError: no such level.

    >>> published_cut(6, "medium")
    ('model.4', 'model.16')
    """
    last = 9 + n_blocks
    cuts = {"low": ("1", f"{last + 4}"), "medium": ("4", f"{last + 1}"), "high": ("9", f"{last}")}
    if level not in cuts:
        raise ShortcutError(f"no level {level!r}; the paper has {', '.join(_LEVELS)}")
    enc, dec = cuts[level]
    return f"model.{enc}", f"model.{dec}"
