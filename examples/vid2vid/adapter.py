"""How a video of maps goes through vid2vid: past maps and past outputs are fed back in, frame after frame.

Two facts of the authors' way of running it are kept:

* every frame is normalised with its own statistics (`frame_statistics`), in train and eval mode, also in a batch;
* the flow branch is left out (`use_raw_only`): a shortcut that replaces the residual blocks has nothing to feed it
  from. The generator is cut on its way to `img_raw`, and `img_final` is `img_raw`, at reference frames too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from examples.vid2vid.layers import frame_statistics
from examples.vid2vid.maps import LabelMaps
from examples.vid2vid.teacher import CompositeGenerator, Generated, published_cut
from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError, ShortcutError

__all__ = ["Past", "Vid2VidAdapter"]


class Past(NamedTuple):
    """What the next frame needs of the last ones, oldest first; empty when a sequence begins.

    Shapes: maps (B, C, H, W) as the generator reads them, pictures (B, 3, H, W) in [-1, 1].
    """

    maps: tuple[Tensor, ...] = ()
    pictures: tuple[Tensor, ...] = ()


class Vid2VidAdapter(Adapter):
    """Adapter of vid2vid's generator of the first scale.

    Args:
        teacher: the generator. Its norms are switched to the frame's own statistics, its flow branch off.
        level: the paper's cut to use, `low`, `medium` or `high`.
        encode: turns pictures into one frame's maps: `LabelMaps` or `TiledMaps`, or your own.
        first: paints a picture (B, 3, H, W) in [-1, 1] from one frame's maps, when there are no past outputs: a
            first-frame network, say `lambda maps: net(maps[:, :35])`. Without it the past is black to the
            generator (zeros), as for generators trained with `--no_first_img`.
        foreground: labels that the foreground model paints (Cityscapes: 26, cars).

    Attributes:
        history: how many past frames the generator sees.
        max_interval: the paper's alpha for L2C; it takes 6 for E2F.
    """

    max_interval = 3
    show_shortcut = False

    def __init__(
        self,
        teacher: CompositeGenerator,
        level: str = "medium",
        *,
        encode: Callable[[Tensor], Tensor] | None = None,
        first: Callable[[Tensor], Tensor] | None = None,
        foreground: Sequence[int] = (26,),
    ) -> None:
        frame_statistics(teacher).use_raw_only = True
        super().__init__(teacher, *published_cut(teacher.n_downsampling, level))
        self.cuts = {name: cut for name in ("low", "medium", "high") if (cut := _cut(teacher, name))}
        self.encode = LabelMaps() if encode is None else encode
        self.first, self.foreground = first, tuple(foreground)
        self.history = teacher.prev_output_nc // teacher.output_nc
        self.generator = teacher

    def start(self) -> Past:
        """An empty past."""
        return Past()

    def inputs(self, frame: Tensor, state: Past) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Maps of the past and current frame, and the past outputs; where there is no past the oldest is repeated.

        Raises:
            InputError: the maps have another number of channels than the generator reads.
        """
        maps = self._maps(frame)
        seen = _filled((*state.maps, maps), self.history + 1)
        pictures = state.pictures or (self.paint(maps),)
        args = (torch.cat(seen, 1), torch.cat(_filled(pictures, self.history), 1))
        if not self.generator.fg:
            return args, {}
        return args, {"mask": maps[:, list(self.foreground)].sum(1, keepdim=True).clamp(0, 1)}

    def paint(self, maps: Tensor) -> Tensor:
        """The picture that stands for a past output where a sequence begins."""
        if self.first is None:
            return maps.new_zeros(maps.shape[0], self.generator.output_nc, *maps.shape[2:])
        with torch.no_grad():
            return self.first(maps)

    def image(self, output: Generated | Tensor) -> Tensor:
        """The final picture in [0, 1]."""
        picture = output.img_final if isinstance(output, Generated) else output
        return (picture + 1) / 2

    def advance(self, state: Past, frame: Tensor, output: Generated | Tensor) -> Past:
        """The past with this frame's maps and picture added, and the oldest dropped."""
        picture = output.img_final if isinstance(output, Generated) else output
        maps, pictures = (*state.maps, self._maps(frame)), (*state.pictures, picture.detach())
        return Past(maps[-self.history :], pictures[-self.history :])

    def opening(self, frame: Tensor, state: Past) -> Tensor | None:
        """The picture of one of the first frames, which the paper takes from the first-frame network, else None.

        Show it (`image()` takes it) and hand it to `advance()`; neither generator nor block runs on this frame.
        """
        if self.first is None or len(state.pictures) >= self.history:
            return None
        return self.paint(self._maps(frame))

    def _maps(self, frame: Tensor) -> Tensor:
        maps = self.encode(frame)
        expected = self.generator.input_nc // (self.history + 1)
        if maps.shape[1] != expected:
            raise InputError(
                f"the generator reads {expected} maps per frame ({self.generator.input_nc} channels for "
                f"{self.history + 1} frames), the frame gives {maps.shape[1]}: set encode= accordingly"
            )
        return maps


def _filled(entries: tuple[Tensor, ...], length: int) -> tuple[Tensor, ...]:
    return (entries[0],) * (length - len(entries)) + entries


def _cut(teacher: CompositeGenerator, level: str) -> tuple[Any, Any] | None:
    try:
        return published_cut(teacher.n_downsampling, level)
    except ShortcutError:  # too shallow for this level
        return None
