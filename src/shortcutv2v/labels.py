"""Adapters for teachers that read or write label maps. Label maps are stored and read as pictures.

A video of label maps is a folder of PNG files, or a lossless video: red is the label, green + 256 * blue the instance.
A grey label picture works too, as does a clip of one channel; then the outlines of labels replace those of instances.
Frames are cropped and mirrored, never interpolated: read them at their own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError
from shortcutv2v.graph import flatten

__all__ = ["LabelAdapter", "LabelMaps", "Palette", "distinct_colours", "instance_edges", "pack_labels"]


class LabelAdapter(Adapter):
    """Adapter of a teacher that reads one-hot label maps, writes scores per label, or both.

    Args:
        teacher: the generator.
        enc_layer: default cut, as `wrap()` takes it.
        dec_layer: default cut, as `wrap()` takes it.
        reads: `LabelMaps`, or a number of labels without instances; None: the teacher reads the frame itself.
        writes: `Palette` for scores (B, K, H, W), or their number K for distinct colours. The scores may be an entry of
            a dictionary or a tuple, as torchvision's networks return them. None: the output is a picture itself.
        range: of the values that are no labels, see `Adapter`.

    Examples:
        >>> segment = LabelAdapter(nn.Conv2d(3, 5, 1), writes=5)
        >>> segment.image(segment.teacher(torch.rand(1, 3, 8, 8))).shape
        torch.Size([1, 3, 8, 8])
        >>> paint = LabelAdapter(nn.Conv2d(4, 3, 1), reads=4)
        >>> (maps,), _ = paint.inputs(torch.zeros(1, 3, 8, 8), paint.start())
        >>> maps.shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(
        self,
        teacher: nn.Module,
        enc_layer: str | Sequence[Any] | None = None,
        dec_layer: str | Sequence[Any] | None = None,
        *,
        reads: LabelMaps | int | None = None,
        writes: Palette | int | None = None,
        range: tuple[float, float] | None = None,  # noqa: A002 (the word for it)
    ) -> None:
        super().__init__(teacher, enc_layer, dec_layer, range=range)
        self.reads = LabelMaps(reads, instances=False) if isinstance(reads, int) else reads
        self.writes = Palette(distinct_colours(writes)) if isinstance(writes, int) else writes

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return one-hot maps of the frame, or the frame."""
        return super().inputs(frame, state) if self.reads is None else ((self.reads(frame),), {})

    def image(self, output: Any) -> Tensor:
        """Return the labels in their colours, or the output."""
        return super().image(output) if self.writes is None else self.writes(_scores(output, len(self.writes.colours)))


def _scores(output: Any, labels: int) -> Tensor:
    """Return the first scores per label in an output: the output itself, or an entry of a dictionary or a tuple."""
    tensors: list[Tensor] = flatten(output)[0]
    maps = [tensor for tensor in tensors if tensor.dim() == 4]
    if not maps:
        raise InputError(f"the network's output, a {type(output).__name__}, holds no scores (B, {labels}, H, W)")
    return next((tensor for tensor in maps if tensor.shape[1] == labels), maps[0])


@dataclass(frozen=True)
class LabelMaps:
    """Turn pictures into one-hot labels, followed by the edges of instances (vid2vid's `--use_instance`).

    Args:
        labels: number of labels (Cityscapes: 35).
        instances: add the map of edges.

    >>> frame = pack_labels(torch.tensor([[[0, 0, 2, 2]]]), torch.tensor([[[0, 0, 300, 301]]]))
    >>> LabelMaps(3)(frame)[0, :, 0]
    tensor([[1., 1., 0., 0.],
            [0., 0., 0., 0.],
            [0., 0., 1., 1.],
            [0., 1., 1., 1.]])
    """

    labels: int = 35
    instances: bool = True

    @property
    def channels(self) -> int:
        """Number of channels of a frame's maps."""
        return self.labels + int(self.instances)

    def __call__(self, frame: Tensor) -> Tensor:
        """Turn pictures (B, 3, H, W) or labels (B, 1, H, W), in [0, 1], into maps (B, channels, H, W).

        Raises:
            InputError: the pictures have another dtype or shape, or a label is out of range.
        """
        if not frame.is_floating_point() or frame.dim() != 4 or frame.shape[1] not in (1, 3):
            raise InputError(
                f"the frame is {frame.dtype} {tuple(frame.shape)}, but label maps are float pictures (B, 3, H, W) or "
                "(B, 1, H, W) in [0, 1]: divide label numbers by 255"
            )
        # In float: bfloat16 holds k/255 closely enough, but not the product.
        numbers = (frame.float() * 255).round().long()
        label = numbers[:, 0]
        for extreme in () if torch.compiler.is_compiling() else label.aminmax():  # programs cannot look at values
            if not 0 <= extreme < self.labels:
                raise InputError(f"label {int(extreme)} in a frame, but the generator knows 0 to {self.labels - 1}")
        maps = torch.zeros(label.shape[0], self.labels, *label.shape[1:], dtype=frame.dtype, device=frame.device)
        maps.scatter_(1, label.unsqueeze(1), 1.0)
        if not self.instances:
            return maps
        instance = label if frame.shape[1] == 1 else numbers[:, 1] + 256 * numbers[:, 2]
        return torch.cat((maps, instance_edges(instance).unsqueeze(1).to(frame.dtype)), 1)


@dataclass(frozen=True, eq=False)
class Palette:
    """Turn scores per label into a picture: every pixel gets the colour of its best label.

    Gradients are those of the mean colour under softmax (straight through), so that losses on the picture can train:
    the best label alone has no gradient.

    Args:
        colours: (K, 3) in [0, 1]; or one grey value per label, (K, 1), for pictures that hold the label itself.

    Raises:
        InputError: `colours` is of another shape.

    Examples:
        >>> scores = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
        >>> Palette(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))(scores)[0, :, 0]
        tensor([[1., 0.],
                [0., 0.],
                [0., 1.]])
    """

    colours: Tensor

    def __post_init__(self) -> None:
        if self.colours.dim() != 2 or self.colours.shape[1] not in (1, 3):
            raise InputError(f"colours must be (K, 3) or (K, 1) in [0, 1], got {tuple(self.colours.shape)}")

    @classmethod
    def grey(cls, labels: int) -> Palette:
        """Return the palette that shows label k as the grey value k / 255, which `LabelMaps` reads."""
        return cls(torch.arange(labels).view(-1, 1) / 255)

    def __call__(self, scores: Tensor) -> Tensor:
        """Turn scores (B, K, H, W) into a picture (B, 3, H, W) in [0, 1].

        Raises:
            InputError: the scores have another number of labels.
        """
        if scores.shape[1] != len(self.colours):
            raise InputError(
                f"{len(self.colours)} colours, but the network writes {scores.shape[1]} labels: give as many colours"
            )
        colours = self.colours.to(scores).expand(-1, 3)
        hard = colours[scores.argmax(1)].movedim(-1, 1)
        if not scores.requires_grad:
            return hard
        soft = torch.einsum("bkhw,kc->bchw", scores.softmax(1), colours)
        return hard + (soft - soft.detach())


def distinct_colours(labels: int) -> Tensor:
    """Return colours (K, 3) in [0, 1] for up to 256 labels, those of PASCAL VOC: black first, neighbours far apart.

    Bit 3i + c of the label is bit 7 - i of colour c.

    Examples:
        >>> (distinct_colours(4) * 255).int().tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    number, channel, bit = torch.arange(labels).view(-1, 1, 1), torch.arange(3), torch.arange(3).view(-1, 1)
    return (((number >> (3 * bit + channel)) & 1) << (7 - bit)).sum(1) / 255


def pack_labels(labels: Tensor, instances: Tensor) -> Tensor:
    """Pack label numbers 0 to 255 and instance numbers 0 to 65535, each (B, H, W), into pictures (B, 3, H, W)."""
    return torch.stack((labels, instances % 256, instances // 256), 1).float() / 255


def instance_edges(instances: Tensor) -> Tensor:
    """Mark where an instance number (B, H, W) differs from one beside, above or below it: boolean (B, H, W)."""
    edges = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[..., 1:] != instances[..., :-1]
    down = instances[..., 1:, :] != instances[..., :-1, :]
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges
