"""Adapter of the Unsup teacher: frames in [0, 1] to [-1, 1] and back; no memory."""

from __future__ import annotations

from typing import Any

from shortcutv2v import Adapter
from shortcutv2v.errors import InputError

from .._checkpoints import untrained
from .checkpoint import load_teacher
from .teacher import ResnetGenerator, build_teacher, published_cut

__all__ = ["UnsupAdapter", "build_adapter"]


class UnsupAdapter(Adapter):
    """Adapter of the Unsup generator (V2C and V2L at 256x512 and 256x256, L2V at 256x256).

    Args:
        teacher: the generator.
        cut: `low`, `medium` or `high`, the paper's levels of dependence on the teacher; or `last`, from the first
            convolution to the last, which leaves the tail nothing but tanh.

    Attributes:
        show_shortcut: True, as in the paper: reference frames show the block's output too.
        multiple: 4, because the generator halves the frame twice.

    >>> import torch
    >>> adapter = UnsupAdapter(ResnetGenerator(ngf=4))
    >>> adapter.enc_layer, adapter.dec_layer
    ('model.4', 'model.16')
    >>> (picture,), _ = adapter.inputs(torch.ones(1, 3, 16, 16), adapter.start())
    >>> float(picture.min())
    1.0
    """

    show_shortcut = True
    multiple = 4
    range = (-1, 1)

    def __init__(self, teacher: ResnetGenerator, cut: str = "medium") -> None:
        self.cuts = {name: published_cut(teacher.n_blocks, name) for name in ("low", "medium", "high")}
        self.cuts["last"] = ("model.3", f"model.{teacher.n_blocks + 17}")
        super().__init__(teacher, *(self.cuts[cut] if cut in self.cuts else published_cut(teacher.n_blocks, cut)))


def build_adapter(
    checkpoint: str | None = None,
    cut: str = "medium",
    show_shortcut: bool = True,
    random: bool = False,
    **config: Any,
) -> UnsupAdapter:
    """Return the adapter for one of the authors' files.

    Args:
        checkpoint: `<epoch>_net_G_A.pth` or `..._G_B.pth`; see README.md for where to get them.
        cut: `last`, `low`, `medium` or `high`.
        show_shortcut: show the block's output at reference frames too.
        random: an untrained network instead of a checkpoint, to try the commands.
        config: options of the network (`ngf`, `n_blocks`, ...); default: those of the file.

    Raises:
        InputError: neither checkpoint nor `random`.
    """
    if checkpoint is not None:
        teacher = load_teacher(checkpoint, config or None)
    elif random:
        with untrained():
            teacher = build_teacher(config)
    else:
        raise InputError("the Unsup teacher needs weights: checkpoint=latest_net_G_A.pth, or random=True for a trial")
    adapter = UnsupAdapter(teacher, cut)
    adapter.show_shortcut = show_shortcut
    return adapter
