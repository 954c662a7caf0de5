"""The vid2vid teacher: the generator of the first scale.

First frames come from other networks: `examples.vid2vid.first_frames`.
Written from the layer names and shapes of the published files, so that `<epoch>_net_G0.pth` loads by name
(`examples._checkpoints.load_into`). The authors run it on each frame's own statistics, never in eval mode:
`examples.vid2vid.layers.frame_statistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shortcutv2v.errors import InputError, ShortcutError

from .first_frames import FeatureEncoder, GlobalGenerator, GlobalWithFeatures
from .layers import NORMS, Norm, blocks, downs, final, frame_statistics, stem, ups, widths_of

__all__ = [
    "CompositeGenerator",
    "Generated",
    "build_teacher",
    "frame_statistics",
    "published_cut",
    "resample",
]


def resample(image: Tensor, flow: Tensor, align_corners: bool = True) -> Tensor:
    """Fetch every pixel of `image` from where `flow` points; bilinear, the border repeated outside.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W), in pixels, order (dx, dy).
        align_corners: what `grid_sample` takes -1 and 1 to be. True (pixel centres) is what the published weights
            were trained with, and makes a flow of zero the identity; False is what the authors' code does on
            today's PyTorch.
    """
    height, width = image.shape[-2], image.shape[-1]
    across = torch.linspace(-1.0, 1.0, width, device=flow.device, dtype=flow.dtype)
    down = torch.linspace(-1.0, 1.0, height, device=flow.device, dtype=flow.dtype).unsqueeze(-1)
    grid = torch.stack((across + flow[:, 0] / ((width - 1.0) / 2.0), down + flow[:, 1] / ((height - 1.0) / 2.0)), -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=align_corners)


class Generated(NamedTuple):
    """What the first-scale generator returns, in the authors' order; absent parts are None.

    Shapes: pictures (B, 3, H, W) in [-1, 1]; `flow` (B, 2, H, W) in pixels; `weight` (B, 1, H, W) in [0, 1];
    features (B, ngf, H, W), of the foreground model half as many channels.
    """

    img_final: Tensor
    flow: Tensor | None
    weight: Tensor | None
    img_raw: Tensor
    img_feat: Tensor
    flow_feat: Tensor | None
    img_fg_feat: Tensor | None


class CompositeGenerator(nn.Module):
    """vid2vid's generator of the first scale: what is to be shown, and the last pictures, to the next picture.

    `img_raw` is synthesised; `img_final` blends it with the last picture warped by a predicted flow, weighted by
    `weight`; a foreground model paints over both where `mask` is 1.

    Attributes:
        use_raw_only: leave the flow branch out; `img_final` is `img_raw` then. The paper runs vid2vid this way,
            for a shortcut that replaces the residual blocks cannot feed the flow branch behind them.
        align_corners: see `resample`.

    Args:
        input_nc: channels of all input frames together (label, edge and instance maps of `n_frames_G` frames).
        prev_output_nc: channels of the previous outputs together, 3 * (n_frames_G - 1).
        output_nc: channels of the picture.
        ngf: width of the first convolution.
        n_downsampling: number of convolutions of stride 2.
        n_blocks: residual blocks; the larger half belongs to each encoder, the smaller to each decoder.
        fg: whether there is a foreground model (of half the width when n_downsampling > 2).
        no_flow: whether the flow branch is missing.
        norm: `batch` or `instance`.
        flow_multiplier: pixels per unit of the flow layer's output.
        align_corners: sets the attribute.
        use_raw_only: sets the attribute.
    """

    model_down_seg: nn.Module
    model_down_img: nn.Module
    model_res_img: nn.Module
    model_up_img: nn.Module
    model_res_flow: nn.Module
    model_up_flow: nn.Module

    def __init__(
        self,
        input_nc: int,
        prev_output_nc: int = 6,
        output_nc: int = 3,
        ngf: int = 128,
        n_downsampling: int = 3,
        n_blocks: int = 9,
        fg: bool = False,
        no_flow: bool = False,
        norm: str = "batch",
        flow_multiplier: float = 20,
        align_corners: bool = True,
        use_raw_only: bool = False,
    ) -> None:
        super().__init__()
        self.input_nc, self.prev_output_nc, self.output_nc = input_nc, prev_output_nc, output_nc
        self.fg, self.no_flow, self.n_downsampling = fg, no_flow, n_downsampling
        self.flow_multiplier, self.align_corners, self.use_raw_only = flow_multiplier, align_corners, use_raw_only
        make = NORMS[norm]
        if fg:
            narrow = ngf // 2 if n_downsampling > 2 else ngf
            self._add_foreground(input_nc, output_nc, widths_of(narrow, n_downsampling), n_blocks, make)
        widths = widths_of(ngf, n_downsampling)
        ahead, behind = n_blocks - n_blocks // 2, n_blocks // 2
        for name, channels in (("seg", input_nc), ("img", prev_output_nc)):
            layers = stem(channels, ngf, make) + downs(widths, make) + blocks(ahead, widths[-1], make)
            self.add_module(f"model_down_{name}", nn.Sequential(*layers))
        self._add_decoder("img", widths, behind, make)
        self.model_final_img = nn.Sequential(*final(ngf, output_nc, nn.Tanh()))
        if not no_flow:
            self._add_decoder("flow", widths, behind, make)
            self.model_final_flow = nn.Sequential(*final(ngf, 2))
            self.model_final_w = nn.Sequential(*final(ngf, 1, nn.Sigmoid()))

    def _add_foreground(self, channels: int, output_nc: int, widths: list[int], n_blocks: int, norm: Norm) -> None:
        self.indv_down = nn.Sequential(*stem(channels, widths[0], norm), *downs(widths, norm))
        self.indv_res = nn.Sequential(*blocks(n_blocks, widths[-1], norm))
        self.indv_up = nn.Sequential(*ups(widths, norm))
        self.indv_final = nn.Sequential(*final(widths[0], output_nc, nn.Tanh()))

    def _add_decoder(self, name: str, widths: list[int], n_blocks: int, norm: Norm) -> None:
        self.add_module(f"model_res_{name}", nn.Sequential(*blocks(n_blocks, widths[-1], norm)))
        self.add_module(f"model_up_{name}", nn.Sequential(*ups(widths, norm)))

    def forward(self, input: Tensor, img_prev: Tensor, mask: Tensor | None = None) -> Generated:  # noqa: A002
        """Generate one frame.

        Args:
            input: (B, input_nc, H, W), H and W multiples of 2 ** n_downsampling.
            img_prev: (B, prev_output_nc, H, W) in [-1, 1], the latest picture last.
            mask: (B, 1, H, W) in [0, 1], 1 on the foreground; only with a foreground model.

        Raises:
            InputError: a foreground model without a mask.
        """
        downsample = self.model_down_seg(input) + self.model_down_img(img_prev)
        img_feat = self.model_up_img(self.model_res_img(downsample))
        img_final = img_raw = self.model_final_img(img_feat)
        flow = weight = flow_feat = img_fg_feat = None
        if not (self.no_flow or self.use_raw_only):
            flow_feat = self.model_up_flow(self.model_res_flow(downsample))
            flow = self.model_final_flow(flow_feat) * self.flow_multiplier
            weight = self.model_final_w(flow_feat)
            warped = resample(img_prev[:, -3:], flow, self.align_corners)
            img_final = img_raw * weight + warped * (1 - weight)
        if self.fg:
            if mask is None:
                raise InputError("this generator has a foreground model: pass mask=(B, 1, H, W), 1 on the foreground")
            img_fg_feat = self.indv_up(self.indv_res(self.indv_down(input)))
            img_fg = self.indv_final(img_fg_feat)
            img_final = img_fg * mask + img_final * (1 - mask)
            img_raw = img_fg * mask + img_raw * (1 - mask)
        return Generated(img_final, flow, weight, img_raw, img_feat, flow_feat, img_fg_feat)


def build_teacher(config: Mapping[str, Any]) -> nn.Module:
    """The network that a configuration describes, with fresh weights and in eval mode.

    Args:
        config: the entries tell which network it is: `prev_output_nc` makes a `CompositeGenerator`, `nz` a
            `GlobalWithFeatures`, a configuration without `n_blocks` a `FeatureEncoder`, any other a
            `GlobalGenerator`. The names are those of the classes' arguments; `use_fg_model` may stand for `fg`.
            Other entries are ignored, unless they contradict what the published networks are.

    Raises:
        ShortcutError: an unknown norm or padding.

    >>> net = build_teacher({"input_nc": 4, "prev_output_nc": 6, "ngf": 4, "n_blocks": 2, "no_flow": True})
    >>> net(torch.zeros(1, 4, 16, 16), torch.zeros(1, 6, 16, 16)).img_final.shape
    torch.Size([1, 3, 16, 16])
    """
    if config.get("padding_type", "reflect") != "reflect":
        raise ShortcutError(f"vid2vid pads by reflection, the configuration says {config['padding_type']!r}")
    if config.get("norm", "batch") not in NORMS:
        raise ShortcutError(f"norm is one of {', '.join(NORMS)}, the configuration says {config['norm']!r}")
    options = {("fg" if key == "use_fg_model" else key): value for key, value in config.items()}
    common = ("input_nc", "output_nc", "ngf", "n_downsampling", "norm")
    kind: Callable[..., nn.Module]
    more: tuple[str, ...]
    if "prev_output_nc" in options:
        kind, more = CompositeGenerator, _COMPOSITE
    elif "nz" in options:
        kind, more = GlobalWithFeatures, ("nz", "n_blocks")
    elif "n_blocks" in options:
        kind, more = GlobalGenerator, ("n_blocks",)
    else:
        kind, more = FeatureEncoder, ()
    return kind(**{key: options[key] for key in (*common, *more) if key in options}).eval()


_COMPOSITE = ("prev_output_nc", "n_blocks", "fg", "no_flow", "flow_multiplier", "align_corners", "use_raw_only")


def published_cut(n_downsampling: int = 3, level: str = "medium") -> tuple[tuple[str, str], str]:
    """The paper's cut (Table 4, found by counting): both encoders' outputs joined, and where `f` is taken.

    Args:
        n_downsampling: of the generator.
        level: `low` (first downsampling to the upsampling that matches it), `medium` (one further in; the paper's
            default) or `high` (only the residual blocks are replaced).

    Returns:
        `enc_layer` (a tuple: the two outputs are joined along C) and `dec_layer`.

    Raises:
        ShortcutError: no such level, or the generator is too shallow for it.

    >>> published_cut(3, "medium")
    (('model_down_seg.7', 'model_down_img.7'), 'model_up_img.0')
    """
    deepest = 3 * n_downsampling
    cuts = {
        "low": (4, f"model_up_img.{deepest - 6}"),
        "medium": (7, f"model_up_img.{deepest - 9}"),
        "high": (3 + deepest, "model_res_img"),
    }
    if level not in cuts:
        raise ShortcutError(f"no level {level!r}; the paper has {', '.join(cuts)}")
    if n_downsampling < {"low": 2, "medium": 3, "high": 1}[level]:
        raise ShortcutError(f"a generator of n_downsampling={n_downsampling} is too shallow for level {level!r}")
    at, dec = cuts[level]
    return (f"model_down_seg.{at}", f"model_down_img.{at}"), dec
