"""Adapter of vid2vid, for videos of maps: past maps and past outputs are fed back in, frame after frame.

It runs the network as the authors do:

* every frame is normalised with its own statistics (`frame_statistics`), in train and eval mode, also in a batch;
* the flow branch is left out (`use_raw_only`): a shortcut replaces the residual blocks and cannot feed it.
  The generator is cut on its way to `img_raw`, and `img_final` is `img_raw`, at reference frames too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shortcutv2v import Adapter
from shortcutv2v.errors import InputError, ShortcutError

from .._checkpoints import read_tensor, untrained
from .checkpoint import load_teacher
from .first_frames import GlobalGenerator, GlobalWithFeatures
from .layers import frame_statistics
from .maps import LabelMaps, TiledMaps
from .teacher import CompositeGenerator, Generated, build_teacher, published_cut

__all__ = ["Past", "Vid2VidAdapter", "build_adapter"]


class Past(NamedTuple):
    """The maps and pictures of the last frames that the next one needs, oldest first; empty at the start of a sequence.

    Shapes: maps (B, C, H, W) as the generator reads them, pictures (B, 3, H, W) in [-1, 1].
    """

    maps: tuple[Tensor, ...] = ()
    pictures: tuple[Tensor, ...] = ()


class Vid2VidAdapter(Adapter):
    """Adapter of vid2vid's generator of the first scale.

    Args:
        teacher: the generator. Its norms are switched to the frame's own statistics, its flow branch off.
        cut: `low`, `medium` or `high`, the paper's levels of dependence on the teacher; default: `medium`, or `low`
            if the generator is too shallow for that.
        encode: turns pictures into one frame's maps: `LabelMaps`, `TiledMaps` or your own.
        first: paints a picture (B, 3, H, W) in [-1, 1] from one frame's maps, when there are no past outputs: a
            first-frame network, say `lambda maps: net(maps[:, :35])`. Without it the past is black to the
            generator (zeros), as for generators trained with `--no_first_img`.
        foreground: labels that the foreground model paints (Cityscapes: 26, cars).

    Attributes:
        train_mode: True, because frames are normalised with their own statistics in either mode.
        history: how many past frames the generator sees.
        max_interval: 3, the paper's alpha for label-to-city; it takes 6 for edge-to-face.
    """

    train_mode = True

    def __init__(
        self,
        teacher: CompositeGenerator,
        cut: str | None = None,
        *,
        encode: Callable[[Tensor], Tensor] | None = None,
        first: Callable[[Tensor], Tensor] | None = None,
        foreground: Sequence[int] = (26,),
    ) -> None:
        frame_statistics(teacher).use_raw_only = True
        levels = {name: _cut(teacher, name) for name in ("medium", "low", "high")}
        self.cuts = {name: found for name, found in levels.items() if found is not None}
        super().__init__(teacher, *published_cut(teacher.n_downsampling, cut or next(iter(self.cuts))))
        self.encode = LabelMaps() if encode is None else encode
        self.first, self.foreground = first, tuple(foreground)
        if not isinstance(self.encode, TiledMaps):  # whose maps lie below one another in the frame
            self.multiple = 2**teacher.n_downsampling
        self.history = teacher.prev_output_nc // teacher.output_nc
        self.generator = teacher
        self.channels_per_frame = teacher.input_nc // (self.history + 1)
        if teacher.fg and not all(0 <= label < self.channels_per_frame for label in self.foreground):
            raise InputError(
                f"foreground={self.foreground} names a label that the generator does not read: it has 0 to "
                f"{self.channels_per_frame - 1}; give the labels that its foreground model paints"
            )

    def start(self) -> Past:
        """Return an empty past."""
        return Past()

    def inputs(self, frame: Tensor, state: Past) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return maps of the past and current frame, and the past outputs; a missing past is filled with the oldest.

        Raises:
            InputError: the maps have another number of channels than the generator reads, or a size that it cannot
                halve often enough.
        """
        maps = self._maps(frame)
        seen = _filled((*state.maps, maps), self.history + 1)
        pictures = state.pictures or (self.paint(maps),)
        args = (torch.cat(seen, 1), torch.cat(_filled(pictures, self.history), 1))
        if not self.generator.fg:
            return args, {}
        return args, {"mask": maps[:, list(self.foreground)].sum(1, keepdim=True).clamp(0, 1)}

    def paint(self, maps: Tensor) -> Tensor:
        """Return the picture that stands for a past output at the start of a sequence."""
        if self.first is None:
            return maps.new_zeros(maps.shape[0], self.generator.output_nc, *maps.shape[2:])
        if isinstance(self.first, nn.Module):
            self.first.to(maps)  # follows the teacher, which it is no part of
        with torch.no_grad():
            return self.first(maps)

    def image(self, output: Generated | Tensor) -> Tensor:
        """Return the final picture in [0, 1]."""
        picture = output.img_final if isinstance(output, Generated) else output
        return (picture + 1) / 2

    def advance(self, state: Past, frame: Tensor, output: Generated | Tensor) -> Past:
        """Return the past with this frame's maps and picture added, and the oldest dropped."""
        picture = output.img_final if isinstance(output, Generated) else output
        maps, pictures = (*state.maps, self._maps(frame)), (*state.pictures, picture)
        if self.first is None:  # full from the first frame on, so that exported programs have one structure
            maps, pictures = _filled(maps, self.history), _filled(pictures, self.history)
        return Past(maps[-self.history :], pictures[-self.history :])

    def opening(self, frame: Tensor, state: Past) -> Tensor | None:
        """Return the picture of a first frame, which the paper takes from the first-frame network, else None."""
        if self.first is None or len(state.pictures) >= self.history:
            return None
        return self.paint(self._maps(frame))

    def _maps(self, frame: Tensor) -> Tensor:
        maps = self.encode(frame)
        if maps.shape[1] != self.channels_per_frame:
            raise InputError(
                f"the generator reads {self.channels_per_frame} maps per frame ({self.generator.input_nc} channels for "
                f"{self.history + 1} frames), the frame gives {maps.shape[1]}: set encode= accordingly"
            )
        (height, width), unit = maps.shape[-2:], 2**self.generator.n_downsampling
        if height % unit or width % unit:
            raise InputError(
                f"this generator wants multiples of {unit}, the maps are {height}x{width}: crop or pad them"
            )
        return maps


def _filled(entries: tuple[Tensor, ...], length: int) -> tuple[Tensor, ...]:
    return (entries[0],) * (length - len(entries)) + entries


def _cut(teacher: CompositeGenerator, level: str) -> tuple[Any, Any] | None:
    try:
        return published_cut(teacher.n_downsampling, level)
    except ShortcutError:  # too shallow for this level
        return None


def build_adapter(
    checkpoint: str | None = None,
    cut: str | None = None,
    maps: str = "labels",
    instances: bool = True,
    first: str | None = None,
    features: str | None = None,
    foreground: Sequence[int] = (26,),
    interval: int = 3,
    random: bool = False,
    **config: Any,
) -> Vid2VidAdapter:
    """Return the adapter for one of the authors' files.

    Args:
        checkpoint: `<epoch>_net_G0.pth`; see README.md for where to get them.
        cut: `low`, `medium` or `high`; default: `medium`, or `low` where the generator is too shallow for it.
        maps: `labels` (label pictures, see `LabelMaps`) or `tiles` (see `TiledMaps`).
        instances: the last map of a frame holds the edges of instances (`--use_instance`).
        first: a first-frame network's file, `latest_net_G_512.pth` or `latest_net_G.pth`.
        features: for edge-to-face's first-frame network: a file with its feature map (nz, H, W).
        foreground: labels that the foreground model paints.
        interval: frames from one refresh to the next; the paper takes 3 for label-to-city, 6 for edge-to-face.
        random: an untrained network instead of a checkpoint, to try the commands.
        config: options of the network (`input_nc`, `ngf`, ...); default: those of the file.

    Raises:
        InputError: neither checkpoint nor `random`, a file that holds another network, or unknown `maps`.
    """
    if checkpoint is not None:
        teacher = load_teacher(checkpoint, config or None)
    elif random:
        with untrained():
            teacher = build_teacher({"input_nc": 108, "prev_output_nc": 6, **config})
    else:
        raise InputError("the vid2vid teacher needs weights: checkpoint=latest_net_G0.pth, or random=True for a trial")
    if not isinstance(teacher, CompositeGenerator):
        raise InputError(
            f"{checkpoint} holds a {type(teacher).__name__}: give it as first=, and as checkpoint a net_G0"
        )
    channels = teacher.input_nc // (teacher.prev_output_nc // teacher.output_nc + 1)
    if maps not in ("labels", "tiles"):
        raise InputError(f"maps is 'labels' or 'tiles', not {maps!r}")
    adapter = Vid2VidAdapter(
        teacher,
        cut,
        encode=LabelMaps(channels - int(instances), instances) if maps == "labels" else TiledMaps(channels),
        first=None if first is None else _painter(first, features),
        foreground=foreground,
    )
    adapter.max_interval = interval
    return adapter


class _Painter(nn.Module):
    """A first-frame network as a function of one frame's maps."""

    features: Tensor | None

    def __init__(self, net: GlobalGenerator | GlobalWithFeatures, features: Tensor | None) -> None:
        super().__init__()
        self.net = frame_statistics(net)
        self.register_buffer("features", features)

    def forward(self, maps: Tensor) -> Tensor:
        """Paint (B, 3, H, W) in [-1, 1] from maps (B, C, H, W); maps that the network does not read are left out."""
        maps = maps[:, : self.net.input_nc]
        guide = () if self.features is None else (self.features.expand(len(maps), *self.features.shape),)
        picture: Tensor = self.net(maps, *guide)
        return picture


def _painter(path: str, features: str | None) -> _Painter:
    net = load_teacher(path)
    if isinstance(net, GlobalWithFeatures):
        if features is None:
            raise InputError(f"{path} paints by a feature map as well: give features=FILE, one array of (nz, H, W)")
        return _Painter(net, read_tensor(features).float())
    if not isinstance(net, GlobalGenerator):
        raise InputError(f"{path} holds a {type(net).__name__}, which paints no pictures")
    return _Painter(net, None)
