"""The zoo: third-party networks, built without weights, small enough for two cores.

Each case is a name, the package it comes from, a function that builds the network and one that makes its inputs for a
batch size and a picture size. Imports happen inside the builders: a missing package skips its cases only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One network of the zoo.

    Attributes:
        package: importable name of the package.
        name: the network.
        build: makes it.
        inputs: from batch and picture size to `(args, kwargs)`.
        sizes: two (batch, height, width), for capture and for the second capture.
        layout: einops pattern for nets of tokens.
        train: leave it in training mode.
        cut: `(enc_layer, dec_layer)`; None takes the best of `suggest_cuts`.
    """

    package: str
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int, int], Inputs]
    sizes: tuple[tuple[int, int, int], tuple[int, int, int]] = ((1, 64, 64), (2, 64, 96))
    layout: str | None = None
    train: bool = False
    cut: tuple[str, str] | None = None


def get(path: str) -> Any:
    """`"package.module:Name"` imported."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def picture(channels: int = 3) -> Callable[[int, int, int], Inputs]:
    return lambda b, h, w: ((torch.rand(b, channels, h, w),), {})


def timed(channels: int) -> Callable[[int, int, int], Inputs]:
    return lambda b, h, w: ((torch.rand(b, channels, h, w), torch.full((b,), 7)), {})


def make(path: str, *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: get(path)(*args, **kwargs)


def smp(name: str, encoder: str = "resnet18", **kwargs: Any) -> Case:
    path = f"segmentation_models_pytorch:{name}"
    build = make(path, encoder_name=encoder, encoder_weights=None, **kwargs)
    return Case("segmentation_models_pytorch", f"{name} ({encoder})", build, picture())


def spandrel(module: str, name: str = "", size: int = 32, **kwargs: Any) -> Case:
    path = f"spandrel.architectures.{module}:{name or module}"
    return Case("spandrel", name or module, make(path, **kwargs), picture(), ((1, size, size), (2, size, size + 32)))


def monai(name: str, **kwargs: Any) -> Case:
    return Case("monai", name, make(f"monai.networks.nets:{name}", **kwargs), picture(1))


def diffusers(name: str, inputs: Callable[[int, int, int], Inputs], **kwargs: Any) -> Case:
    return Case("diffusers", name, make(f"diffusers:{name}", **kwargs), inputs, ((1, 32, 32), (2, 32, 48)))


def timm(name: str, layout: str | None = None, **kwargs: Any) -> Case:
    fixed = {"img_size": 64} if layout else {}
    sizes = ((1, 64, 64), (2, 64, 64)) if layout else ((1, 64, 64), (2, 64, 96))
    cut = ("blocks.1", "blocks.9") if layout else None
    build = make("timm:create_model", name, **fixed, **kwargs)
    return Case("timm", name, build, picture(), sizes, layout, cut=cut)


def _segformer() -> nn.Module:
    config = get("transformers:SegformerConfig")(
        hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], decoder_hidden_size=32
    )
    return get("transformers:SegformerForSemanticSegmentation")(config)  # type: ignore[no-any-return]


def _swin2sr() -> nn.Module:
    config = get("transformers:Swin2SRConfig")(
        image_size=32, embed_dim=24, depths=[2, 2], num_heads=[2, 2], window_size=4, upscale=2
    )
    return get("transformers:Swin2SRForImageSuperResolution")(config)  # type: ignore[no-any-return]


def _dpt() -> nn.Module:
    config = get("transformers:DPTConfig")(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 16, 16], fusion_hidden_size=16,
    )  # fmt: skip
    return get("transformers:DPTForDepthEstimation")(config)  # type: ignore[no-any-return]


def _upernet() -> nn.Module:
    backbone = get("transformers:ConvNextConfig")(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = get("transformers:UperNetConfig")(backbone_config=backbone, hidden_size=32, auxiliary_in_channels=24)
    return get("transformers:UperNetForSemanticSegmentation")(config)  # type: ignore[no-any-return]


def _plain_conv_unet() -> nn.Module:
    return get("dynamic_network_architectures.architectures.unet:PlainConvUNet")(  # type: ignore[no-any-return]
        3, 3, (8, 16, 32), nn.Conv2d, 3, (1, 2, 2), (1, 1, 1), 2, (1, 1), conv_bias=True, norm_op=nn.InstanceNorm2d,
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip


def _residual_unet() -> nn.Module:
    return get("dynamic_network_architectures.architectures.unet:ResidualEncoderUNet")(  # type: ignore[no-any-return]
        3, 3, (8, 16, 32), nn.Conv2d, 3, (1, 2, 2), (1, 1, 1), 2, (1, 1), conv_bias=True, norm_op=nn.BatchNorm2d,
        nonlin=nn.ReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip


def _text(b: int, h: int, w: int) -> Inputs:
    return (torch.rand(b, 4, h, w), torch.full((b,), 7)), {"encoder_hidden_states": torch.rand(b, 5, 16)}


def _masked(b: int, h: int, w: int) -> Inputs:
    return (torch.rand(b, 3, h, w), (torch.rand(b, 1, h, w) > 0.5).float()), {}


def _flow(b: int, h: int, w: int) -> Inputs:
    return (torch.rand(b, 3, h, w), torch.rand(b, 3, h, w)), {"num_flow_updates": 2}


BLOCKS = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
CHAIN = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}
RAFT = ((1, 128, 128), (2, 128, 136))
TOKENS = "b (h w) c -> b c h w"

CASES: list[Case] = [
    *(
        smp(name)
        for name in ("Unet", "UnetPlusPlus", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet")
    ),
    smp("MAnet"),
    Case(
        "segmentation_models_pytorch",
        "PAN (resnet18)",
        make("segmentation_models_pytorch:PAN", encoder_name="resnet18", encoder_weights=None),
        picture(),
        ((1, 128, 128), (2, 128, 160)),
    ),
    smp("Segformer", encoder="mit_b0"),
    smp("Unet", encoder="timm-efficientnet-b0", decoder_attention_type="scse"),
    Case(
        "torchvision",
        "fcn_resnet50",
        make("torchvision.models.segmentation:fcn_resnet50", weights=None, weights_backbone=None),
        picture(),
    ),
    Case(
        "torchvision",
        "deeplabv3_mobilenet_v3_large",
        make("torchvision.models.segmentation:deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None),
        picture(),
    ),
    Case(
        "torchvision",
        "lraspp_mobilenet_v3_large",
        make("torchvision.models.segmentation:lraspp_mobilenet_v3_large", weights=None, weights_backbone=None),
        picture(),
    ),
    Case("torchvision", "raft_small", make("torchvision.models.optical_flow:raft_small"), _flow, RAFT),
    Case("torchvision", "densenet121", make("torchvision.models:densenet121"), picture()),
    Case("torchvision", "swin_t", make("torchvision.models:swin_t"), picture()),
    Case("torchvision", "resnet18 (train mode)", make("torchvision.models:resnet18"), picture(), train=True),
    timm("resnet18"),
    timm("convnext_atto"),
    timm("efficientnet_b0"),
    timm("hrnet_w18_small"),
    timm("mobilevit_xxs"),
    timm("vit_tiny_patch16_224", layout=TOKENS, class_token=False, global_pool="avg"),
    Case("timm", "resnet18 (features_only)", make("timm:create_model", "resnet18", features_only=True), picture()),
    monai("UNet", **FLAT, channels=(8, 16, 32), strides=(2, 2), num_res_units=2),
    monai("BasicUNet", spatial_dims=2, in_channels=1, out_channels=2, features=(8, 8, 16, 32, 32, 8)),
    monai("BasicUNetPlusPlus", spatial_dims=2, in_channels=1, out_channels=2, features=(8, 8, 16, 32, 32, 8)),
    monai("AttentionUnet", **FLAT, channels=(8, 16, 32), strides=(2, 2)),
    monai("SegResNet", spatial_dims=2, init_filters=8, in_channels=1, out_channels=2),
    monai(
        "DynUNet", **FLAT, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], deep_supervision=True
    ),
    monai("AutoEncoder", **FLAT, channels=(8, 16, 32), strides=(2, 2, 2)),
    monai("VNet", spatial_dims=2, in_channels=1, out_channels=2),
    monai("HighResNet", **FLAT),
    Case(
        "monai",
        "DiffusionModelUNet",
        make(
            "monai.networks.nets:DiffusionModelUNet",
            **CHAIN,
            channels=(8, 16),
            attention_levels=(False, True),
            norm_num_groups=4,
            num_res_blocks=(1, 1),
            num_head_channels=8,
        ),
        timed(1),
    ),
    monai(
        "AutoencoderKL",
        **CHAIN,
        channels=(8, 16),
        attention_levels=(False, False),
        latent_channels=2,
        norm_num_groups=4,
        num_res_blocks=(1, 1),
    ),
    monai(
        "VQVAE",
        **CHAIN,
        channels=(8, 16),
        num_res_layers=1,
        num_res_channels=(8, 16),
        downsample_parameters=((2, 4, 1, 1),) * 2,
        upsample_parameters=((2, 4, 1, 1, 0),) * 2,
        num_embeddings=8,
        embedding_dim=4,
    ),
    diffusers(
        "UNet2DModel",
        timed(3),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=4,
        layers_per_block=1,
        **BLOCKS,
    ),
    diffusers(
        "UNet2DConditionModel",
        _text,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
        layers_per_block=1,
        **CROSS,
    ),
    diffusers(
        "AutoencoderKL",
        picture(),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ),
    diffusers(
        "VQModel",
        picture(),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        num_vq_embeddings=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ),
    diffusers(
        "AutoencoderTiny",
        picture(),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ),
    spandrel("Compact", num_feat=16, num_conv=4),
    spandrel("ESRGAN", num_filters=16, num_blocks=2),
    spandrel("SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16),
    spandrel("NAFNet", width=8, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    spandrel("DRUNet", in_nc=3, out_nc=3, nc=[8, 16, 16, 32], nb=1),
    spandrel("DnCNN", in_nc=3, out_nc=3, nc=16, nb=5),
    spandrel("FBCNN", nb=1),
    spandrel(
        "SwinIR",
        img_size=32,
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
        upscale=2,
        upsampler="pixelshuffle",
    ),
    spandrel(
        "Swin2SR",
        img_size=32,
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
        upscale=2,
        upsampler="pixelshuffle",
    ),
    spandrel(
        "HAT",
        img_size=32,
        embed_dim=60,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        upscale=2,
        upsampler="pixelshuffle",
    ),
    spandrel("DAT", img_size=32, embed_dim=24, depth=[1, 1], num_heads=[2, 2], split_size=[2, 4], upscale=2),
    spandrel("SCUNet", config=[1] * 7, dim=64, input_resolution=64, size=64),
    Case(
        "spandrel",
        "Uformer",
        make("spandrel.architectures.Uformer:Uformer", img_size=128, embed_dim=8, depths=[1] * 9),
        picture(),
        ((1, 128, 128), (2, 128, 128)),
    ),
    spandrel("RetinexFormer", n_feat=8, stage=1),
    spandrel("PLKSR", dim=16, n_blocks=2),
    spandrel("PLKSR", "RealPLKSR", dim=16, n_blocks=2, dysample=True),
    spandrel("RCAN", n_resgroups=2, n_resblocks=2, n_feats=16),
    spandrel("RealCUGAN", "UpCunet2x"),
    spandrel("MixDehazeNet", size=64),
    spandrel("OmniSR"),
    spandrel("SAFMN", dim=16, n_blocks=2),
    spandrel("MoSR", n_block=2, dim=16),
    spandrel("FFTformer", dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1),
    spandrel("SwiftSRGAN", num_channels=16, num_blocks=2),
    # Its routing takes one picture at a time.
    Case(
        "spandrel",
        "SeemoRe",
        make("spandrel.architectures.SeemoRe:SeemoRe", num_layers=2),
        picture(),
        ((1, 32, 32), (1, 32, 64)),
    ),
    spandrel("DITN", dim=16, ITL_blocks=1, SAL_blocks=1),
    spandrel("CRAFT", embed_dim=24, depths=[1, 1], num_heads=[2, 2]),
    Case("spandrel", "LaMa", make("spandrel.architectures.LaMa:LaMa", in_nc=4), _masked),
    Case("kornia", "DexiNed", make("kornia.models.dexined:DexiNed", pretrained=False), picture()),
    Case(
        "kornia",
        "EfficientViT-B0",
        make("kornia.models.efficient_vit.backbone:efficientvit_backbone_b0"),
        picture(),
    ),
    Case("transformers", "Segformer", _segformer, picture()),
    Case("transformers", "Swin2SR", _swin2sr, picture(), ((1, 32, 32), (2, 32, 40))),
    Case("transformers", "DPT", _dpt, picture(), ((1, 64, 64), (2, 64, 64))),
    Case("transformers", "UperNet (ConvNext)", _upernet, picture()),
    Case(
        "torchsr",
        "EDSR",
        make("torchsr.models.edsr:EDSR", n_resblocks=2, n_feats=16, scale=2, res_scale=1.0, pretrained=False),
        picture(),
        ((1, 24, 24), (2, 24, 32)),
    ),
    Case(
        "torchsr",
        "CARN-M",
        make("torchsr.models:carn_m", scale=2, pretrained=False),
        picture(),
        ((1, 24, 24), (2, 24, 32)),
    ),
    Case(
        "torchsr",
        "NinaSR-B0",
        make("torchsr.models:ninasr_b0", scale=2, pretrained=False),
        picture(),
        ((1, 24, 24), (2, 24, 32)),
    ),
    Case(
        "vit_pytorch",
        "MobileViT",
        lambda: get("vit_pytorch.mobile_vit:MobileViT")(
            image_size=(64, 64), dims=[16, 24, 32], channels=[8, 8, 16, 16, 16, 16, 24, 24, 32, 32, 64], num_classes=10
        ),
        picture(),
        ((1, 64, 64), (2, 64, 64)),
    ),
    Case(
        "denoising_diffusion_pytorch",
        "Unet",
        make(
            "denoising_diffusion_pytorch:Unet", dim=8, dim_mults=(1, 2), flash_attn=False, attn_dim_head=8, attn_heads=2
        ),
        timed(3),
        ((1, 32, 32), (2, 32, 48)),
    ),
    Case("dynamic_network_architectures", "PlainConvUNet", _plain_conv_unet, picture()),
    Case("dynamic_network_architectures", "ResidualEncoderUNet", _residual_unet, picture()),
    Case(
        "unet",
        "UNet",
        make("unet:UNet2D", num_encoding_blocks=3, out_channels_first_layer=8, normalization="batch", padding=1),
        picture(1),
    ),
]
