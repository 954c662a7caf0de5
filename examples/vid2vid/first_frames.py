"""The image-to-image networks that paint vid2vid's first frames.

The files of the folder `label2city_single` load into `GlobalGenerator`, those of `edge2face_single` into
`GlobalWithFeatures` (`latest_net_G.pth`) and `FeatureEncoder` (`latest_net_E.pth`). All three use instance norm
on the frame's own statistics: see `examples.vid2vid.layers.frame_statistics`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import NORMS, blocks, downs, final, stem, ups, widths_of

__all__ = ["FeatureEncoder", "GlobalGenerator", "GlobalWithFeatures"]

_WIDEST = 1024  # these networks never get wider


class GlobalGenerator(nn.Module):
    """Image-to-image network that paints the first frames of label2city (pix2pixHD's global generator).

    Maps (B, input_nc, H, W) to (B, output_nc, H, W) in [-1, 1]; H and W multiples of 2 ** n_downsampling.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int = 3,
        ngf: int = 64,
        n_downsampling: int = 3,
        n_blocks: int = 9,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        self.input_nc = input_nc
        make, widths = NORMS[norm], widths_of(ngf, n_downsampling, _WIDEST)
        layers = stem(input_nc, ngf, make) + downs(widths, make) + blocks(n_blocks, widths[-1], make)
        self.model = nn.Sequential(*layers, *ups(widths, make), *final(ngf, output_nc, nn.Tanh()))

    def forward(self, input: Tensor, feat: Tensor | None = None) -> Tensor:  # noqa: A002
        """Paint (B, output_nc, H, W); `feat` (B, C, H, W) is joined to the input where the network wants it."""
        out: Tensor = self.model(input if feat is None else torch.cat((input, feat), 1))
        return out


class GlobalWithFeatures(nn.Module):
    """Image-to-image network that paints the first frames of edge2face, guided by a feature map `z`.

    `z` (B, nz, H, W) enters four times: with the input, before and after the residual blocks, and before the last
    convolution. Its small copies are averages over 3x3 pixels, stride 2, that leave the border out of the count.
    """

    def __init__(
        self,
        input_nc: int,
        nz: int,
        output_nc: int = 3,
        ngf: int = 64,
        n_downsampling: int = 3,
        n_blocks: int = 9,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        make, widths = NORMS[norm], widths_of(ngf, n_downsampling, _WIDEST)
        self.input_nc, self.n_downsampling = input_nc, n_downsampling
        self.model_downsample = nn.Sequential(*stem(input_nc + nz, ngf, make), *downs(widths, make))
        self.model_resnet = nn.Sequential(*blocks(n_blocks, widths[-1] + nz, make))
        self.model_upsample = nn.Sequential(*ups(widths, make, extra=2 * nz))
        self.model_upsample_conv = nn.Sequential(*final(ngf + nz, output_nc, nn.Tanh()))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Paint (B, output_nc, H, W) in [-1, 1] from x (B, input_nc, H, W) and z (B, nz, H, W)."""
        small = z
        for _ in range(self.n_downsampling):
            small = F.avg_pool2d(small, 3, stride=2, padding=1, count_include_pad=False)
        inner = self.model_resnet(torch.cat((self.model_downsample(torch.cat((x, z), 1)), small), 1))
        out: Tensor = self.model_upsample_conv(torch.cat((self.model_upsample(torch.cat((inner, small), 1)), z), 1))
        return out


class FeatureEncoder(nn.Module):
    """Network that turns a real picture into edge2face's feature map, averaged over each part of the face."""

    def __init__(
        self, input_nc: int, output_nc: int, ngf: int = 16, n_downsampling: int = 4, norm: str = "instance"
    ) -> None:
        super().__init__()
        make, widths = NORMS[norm], widths_of(ngf, n_downsampling)
        layers = stem(input_nc, ngf, make) + downs(widths, make) + ups(widths, make)
        self.model = nn.Sequential(*layers, *final(ngf, output_nc, nn.Tanh()))

    def forward(self, input: Tensor, inst: Tensor | None = None) -> Tensor:  # noqa: A002
        """Encode (B, input_nc, H, W) to (B, output_nc, H, W).

        Args:
            input: the picture, in [-1, 1].
            inst: (B, 1, H, W) part numbers (cut down to whole numbers); the features of a part are replaced by
                their mean over it. Without it the features stay as they are.
        """
        out: Tensor = self.model(input)
        if inst is None:
            return out
        return torch.stack([_average_parts(one, parts) for one, parts in zip(out, inst, strict=True)])


def _average_parts(features: Tensor, parts: Tensor) -> Tensor:
    """Mean of (C, H, W) features over every set of equal numbers in (1, H, W)."""
    _, which = torch.unique(parts.reshape(-1).long(), return_inverse=True)
    flat = features.flatten(1)
    sums = flat.new_zeros(flat.shape[0], int(which.max()) + 1).index_add_(1, which, flat)
    means: Tensor = (sums / which.bincount()).index_select(1, which)
    return means.view_as(features)
