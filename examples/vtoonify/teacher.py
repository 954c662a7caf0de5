"""The VToonify teachers: a portrait encoder in front of StyleGAN2 (`toonify`) or DualStyleGAN (`dualstylegan`).

Written from the layer names and shapes of the published files, so that they load by name
(`examples._checkpoints.load_into`; the files keep the weights under `g_ema`). Face parsing (BiSeNet) and style
encoding (pSp) are not part of the network: parsing maps come in as channels 3 to 21 of `x`, the style as a code.

Layers that the files hold but a translation never runs (StyleGAN2 below 64x64, the first ModRes block) are here
too, so that every entry of a file has its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.errors import InputError, ShortcutError

from .dualstylegan import AdaptiveInstanceNorm, DualStyleGAN, ModRes
from .stylegan import Generator, stylegan_channels

__all__ = ["Fusion", "VToonify", "VToonifyResBlock", "build_teacher", "published_cut"]

_PARSING = 19  # parsing maps beside the picture
_BACKBONES = ("dualstylegan", "toonify")


class VToonifyResBlock(nn.Module):
    """Encoder block: two 3x3 convolutions, and the input again, scaled to keep the variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = (self.lrelu(self.conv2(self.lrelu(self.conv(x)))) + x) / math.sqrt(2)
        return out


class Fusion(nn.Module):
    """Joins encoder features to the generator's where a mask, predicted for the style degree, lets them in.

    Args:
        channels: channels of both inputs and of the output.
        hidden: features of the first layer of the degree's code.
        code: features of the degree's code.
    """

    def __init__(self, channels: int, hidden: int = 64, code: int = 128) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.norm = AdaptiveInstanceNorm(2 * channels, code)
        self.conv2 = nn.Conv2d(2 * channels, 1, 3, padding=1)
        self.linear = nn.Sequential(nn.Linear(1, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, code), nn.LeakyReLU(0.2))

    def forward(self, out: Tensor, content: Tensor, degree: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse (B, C, H, W) of generator and encoder; `degree` (B or 1, 1). Also returns the mask (B, 1, H, W)."""
        label = self.linear(degree)
        difference = torch.cat((out, (out - content).abs()), 1)
        mask = self.conv2(self.norm(difference, label)).relu().tanh()
        return self.conv(torch.cat((out, content * mask), 1)), mask


def _conv_block(inputs: int, middle: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 3, stride=stride, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(middle, outputs, 3, padding=1),
        nn.LeakyReLU(0.2),
    )


class VToonify(nn.Module):
    """Portrait video to cartoon, enlarged four times: `net(x, style, d_s=None)` returns the picture.

    Args:
        in_size: size of the aligned faces it was trained on; sets the number of encoder stages, not the input's size.
        out_size: size of the backbone's pictures; out_size / in_size is the enlargement.
        img_channels: channels of the picture.
        style_channels: features of the style code.
        num_mlps: layers of StyleGAN2's style network.
        channel_multiplier: 2 in the published files; ignored when `channels` is given.
        num_res_layers: residual blocks of the encoder.
        backbone: `dualstylegan` or `toonify`.
        channels: channels per picture size, for narrow copies.
    """

    def __init__(
        self,
        in_size: int = 256,
        out_size: int = 1024,
        img_channels: int = 3,
        style_channels: int = 512,
        num_mlps: int = 8,
        channel_multiplier: int = 2,
        num_res_layers: int = 6,
        backbone: str = "dualstylegan",
        channels: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__()
        widths = dict(channels or stylegan_channels(channel_multiplier))
        self.backbone, self.in_size, self.style_channels = backbone, in_size, style_channels
        generator = DualStyleGAN if self.dual else Generator
        self.generator = generator(out_size, style_channels, num_mlps, widths)
        sizes = [2**level for level in range(int(math.log2(in_size)), 5, -1)]
        stages: list[nn.Module] = [_conv_block(img_channels + _PARSING, 32, widths[in_size], 1)]
        stages += [_conv_block(widths[size], widths[size // 2], widths[size // 2], 2) for size in sizes]
        stages.append(nn.Sequential(*[VToonifyResBlock(widths[32]) for _ in range(num_res_layers)]))
        self.encoder = nn.ModuleList([*stages, nn.Conv2d(widths[32], img_channels, 1)])
        fused = [widths[size] for size in (32, *reversed(sizes))]
        self.fusion_out = nn.ModuleList(
            Fusion(width) if self.dual else nn.Conv2d(2 * width, width, 3, padding=1) for width in fused
        )
        self.channels = fused[0]  # of the encoder's last feature, and of the generator's first levels
        self.fusion_skip = nn.ModuleList(nn.Conv2d(width + 3, 3, 3, padding=1) for width in fused)
        if self.dual:
            # One block beyond those of 4x4 that nothing runs, then two each of 8x8, 16x16 and 32x32, run at 32x32.
            dilations = [(4, 1), (8, 4), (8, 4), (16, 2), (16, 2), (32, 1), (32, 1)]
            self.res = nn.ModuleList(ModRes(widths[size], style_channels, dilation) for size, dilation in dilations)

    @property
    def dual(self) -> bool:
        """Whether the backbone is DualStyleGAN."""
        return self.backbone == "dualstylegan"

    def stylegan(self) -> Generator:
        """The StyleGAN2 inside the backbone."""
        return self.generator.generator if isinstance(self.generator, DualStyleGAN) else self.generator

    def zplus2wplus(self, zplus: Tensor) -> Tensor:
        """Map codes of Z+ to W+ by StyleGAN2's style network; (B, n_latent, style_channels) both."""
        out: Tensor = self.stylegan().style(zplus.flatten(0, 1)).view_as(zplus)
        return out

    def encode(self, x: Tensor, style: Tensor, degree: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The encoder: its last features and RGB, at 1/8 of the size, and the stages' features, smallest first.

        Args:
            x: (B, 22, H, W).
            style: (B, n_latent, style_channels).
            degree: (B or 1, 1) with DualStyleGAN, else None.
        """
        feature, stages = x, []
        for stage in list(self.encoder)[:-2]:
            feature = stage(feature)
            stages.append(feature)
        for index, block in enumerate(self.encoder[len(self.encoder) - 2].children(), start=1):
            feature = block(feature)
            if degree is not None and isinstance(self.generator, DualStyleGAN):
                feature = self.res[index](feature, self.generator.style(style[:, index]), degree)
        return feature, self.encoder[len(self.encoder) - 1](feature), stages[::-1]

    def forward(self, x: Tensor, style: Tensor, d_s: float | Tensor | None = None) -> Tensor:
        """Translate a batch of frames.

        Args:
            x: (B, 22, H, W): the picture in [-1, 1], then 19 parsing maps divided by 16. H and W multiples of 8
                (of in_size / 32 in general).
            style: (B, style_channels), or (B, n_latent, style_channels) in W+.
            d_s: style degree, 0 (photo) to 1 (cartoon): a number, or a tensor of shape (), (B,) or (B, 1).
                DualStyleGAN needs it, toonify ignores it.

        Returns:
            (B, 3, 4H, 4W), about [-1, 1]; clamp before showing it.

        Raises:
            InputError: DualStyleGAN without a degree.
        """
        stylegan = self.stylegan()
        degree = self._degree(x, d_s)
        style = style.reshape(style.shape[0], -1, self.style_channels).expand(-1, stylegan.n_latent, -1)
        out, skip, stages = self.encode(x, style, degree)
        for level in range(3, len(stylegan.to_rgbs)):
            if level - 3 < len(stages):
                out, skip = self._fuse(level - 3, out, skip, stages[level - 3], degree)
            first = 2 * level + 1
            codes = [self._ada(index, style[:, index]) for index in range(first, first + 3)]
            out = stylegan.convs[2 * level](out, codes[0])
            out = stylegan.convs[2 * level + 1](out, codes[1])
            skip = stylegan.to_rgbs[level](out, codes[2], skip)
        return skip

    def _degree(self, x: Tensor, d_s: float | Tensor | None) -> Tensor | None:
        if not self.dual:
            return None
        if d_s is None:
            raise InputError("a dualstylegan VToonify needs the style degree: pass d_s, from 0 (photo) to 1 (cartoon)")
        return (x.new_zeros(1) + d_s).view(-1, 1)

    def _ada(self, index: int, style: Tensor) -> Tensor:
        """The code of one StyleGAN2 layer: DualStyleGAN passes it through a linear layer first."""
        if not isinstance(self.generator, DualStyleGAN):
            return style
        out: Tensor = self.generator.res[index](style)
        return out

    def _fuse(
        self, index: int, out: Tensor, skip: Tensor, content: Tensor, degree: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if degree is None:
            out = self.fusion_out[index](torch.cat((out, content), 1))
        else:
            out, mask = self.fusion_out[index](out, content, degree)
            content = content * mask
        return out, self.fusion_skip[index](torch.cat((skip, content), 1))


def build_teacher(config: Mapping[str, Any]) -> VToonify:
    """The network that a configuration describes, with fresh weights and in eval mode.

    Args:
        config: the arguments of `VToonify`, each optional; `generator_channels` may give the channels per picture
            size (keys as text or numbers). Other entries are ignored, unless they contradict what VToonify is.

    Raises:
        ShortcutError: an unknown backbone, or other input channels than the picture and 19 parsing maps.

    >>> channels = {str(4 * 2**i): 4 for i in range(9)}
    >>> config = {"backbone": "toonify", "in_size": 32, "out_size": 64, "style_channels": 8}
    >>> net = build_teacher(config | {"generator_channels": channels})
    >>> net(torch.zeros(1, 22, 8, 8), torch.zeros(1, 8)).shape
    torch.Size([1, 3, 16, 16])
    """
    if config.get("backbone", "dualstylegan") not in _BACKBONES:
        raise ShortcutError(
            f"backbone is one of {', '.join(_BACKBONES)}, the configuration says {config['backbone']!r}"
        )
    expected = config.get("img_channels", 3) + _PARSING
    if config.get("input_channels", expected) != expected:
        raise ShortcutError(
            f"VToonify reads {expected} channels (the picture and {_PARSING} parsing maps), "
            f"the configuration says {config['input_channels']}"
        )
    known = ("in_size", "out_size", "img_channels", "style_channels", "num_mlps", "channel_multiplier")
    options = {key: config[key] for key in (*known, "num_res_layers", "backbone") if key in config}
    if "generator_channels" in config:
        options["channels"] = {int(size): width for size, width in config["generator_channels"].items()}
    return VToonify(**options).eval()


def published_cut(backbone: str, in_size: int = 256, level: str = "medium") -> tuple[list[str], list[str]]:
    """The cut that gives the paper's parameter count (Table 6), and one further in and out.

    Two branches share one `a`, the output of an encoder stage: the generator's features, and the RGB skip.

    Args:
        backbone: `dualstylegan` or `toonify`.
        in_size: of the network (its residual blocks taken to be the usual six).
        level: `high` replaces only the residual blocks and the RGB head (`a` the encoder's last stage); `medium`
            (the paper's) the last stage of the encoder to the generator's first level; `low` the last two stages
            to the second level.

    Returns:
        `enc_layer` and `dec_layer`, two names each, in the order features, RGB skip.

    Raises:
        ShortcutError: no such level, or the encoder is too short for it.

    >>> published_cut("toonify")
    (['encoder.2', 'encoder.2'], ['generator.convs.7', 'generator.to_rgbs.3'])
    """
    steps = {"high": 0, "medium": 1, "low": 2}
    if level not in steps:
        raise ShortcutError(f"no level {level!r}; there are {', '.join(steps)}")
    last = int(math.log2(in_size)) - 5
    step = steps[level]
    if step > last:
        raise ShortcutError(f"the encoder of in_size={in_size} is too short for level {level!r}; take a higher one")
    if step == 0:
        block = "res.6" if backbone == "dualstylegan" else f"encoder.{last + 1}.5"
        return [f"encoder.{last}"] * 2, [block, f"encoder.{last + 2}"]
    prefix = "generator.generator" if backbone == "dualstylegan" else "generator"
    return [f"encoder.{last - step}"] * 2, [f"{prefix}.convs.{5 + 2 * step}", f"{prefix}.to_rgbs.{2 + step}"]
